"""Whole nodes whose registry changes through the log alone, in the midst of everything.

Each node has both planes, wired as in ``gossip/node.py`` but for the membership, whose place a
liar takes. The witness of ``owners.py`` watches reads and writes, Raft's checkers watch the log,
and this watches what is between them. Several nodes issue registries, each as an agent does: it
reads what is agreed on, makes the next one, and has it agreed on; if somebody else was first, it
begins anew (``issuing.py``). A schedule is decided by its seed. In it nodes join, and are removed
within hand-offs, the founder and whoever leads among them; leaders change while something is
proposed; the authority's key goes to who votes; processes and disks fail, and whole disks are set
back to a backup; most voters are lost, and an operator goes on (``recovering.py``); frames come
late and twice. Demanded is, beside what the others demand:

* whatever registry anybody follows or shows was agreed on before, and there is one of each epoch;
* of successive registries, who must have a write by one and who must answer a read by the other
  have somebody in common who is still there, unless somebody has accepted that loss;
* a token counts each admission once;
* in peace all follow the newest, who votes has the key and nobody else, and who belongs can be
  changed again, whoever is gone for good.

What is not promised is not asked for: a log is lost, or of an earlier moment, on one of three at a
time, and nobody is removed while that is not made up for, or a disk is in doubt.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

from gossip.consensus.configuration import StoreId
from gossip.consensus.storage import MemoryLog
from gossip.core.ids import NodeId
from gossip.kv.requests import Get, GetResult, OwnersReady, Put
from gossip.kv.storage import MemoryStorage
from gossip.registry.registry import (
    Registry,
    WouldLose,
    admit,
    advance,
    amend,
    remove,
)
from gossip.sim.consensus_checkers import last_index
from gossip.sim.disk import others_have_all_of
from tests.sim.issuing import TOKEN, Make
from tests.sim.owners import AGAIN_S, CALM_S, KEYS, NODES_MAX, Violation
from tests.sim.recovering import Recovering
from tests.sim.whole_nodes import TUNING
from tests.support.kv_net import FIRST, node

STEPS = 36
PEACE_S = 240.0
LOOK_S = 2.0

MUST_HAPPEN = (
    "schedule/agreed", "schedule/conflict", "schedule/nobody answered", "schedule/moved over",
    "schedule/joined within a hand-off", "schedule/removed within a hand-off",
    "schedule/removed itself", "schedule/founder removed", "schedule/removed, and runs on",
    "schedule/leader removed", "schedule/leader crashed", "schedule/leader changed in a proposal",
    "schedule/log lost", "schedule/set back", "schedule/voter set back", "schedule/log set back",
    "schedule/set back to former owners", "schedule/key handed over", "schedule/key refused",
    "schedule/key wiped",
    "schedule/role given", "schedule/role taken", "schedule/loss accepted", "schedule/batches lost",
    "schedule/frames again", "schedule/read in calm", "schedule/writes acknowledged",
    "schedule/one way cut", "schedule/several in one", "control_asks/no_vote",
    "control_asks/would_stall",
    "control_voters/grown", "control_voters/replaced_removed", "control_voters/removed",
    "schedule/recovered", "schedule/recovered, behind", "schedule/came back", "schedule/gave way",
    "schedule/trusted",    "schedule/registry brought up", "frames_dropped/stranger",
    "handoffs/taken", "handoffs/let_go", "requests/refused",
)  # fmt: skip


class Backup(NamedTuple):
    """What is on a disk at some moment."""

    image: MemoryStorage
    registry: Registry
    has_key: bool
    store: StoreId
    log: MemoryLog
    votes_beside_others: bool


class Changing(Recovering):
    """The world of one seed."""

    def __init__(self, seed: int) -> None:
        self.backups: dict[NodeId, Backup] = {}
        self.untold: set[NodeId] = set()
        """Who runs with a log of an earlier moment, and has heard nobody yet."""
        super().__init__(seed)

    def crash(self, number: NodeId) -> None:
        super().crash(number)
        if number in self.untold:
            self.untold.discard(number)
            self.begin_another_log(number)

    # Who belongs changes

    def advance(self, number: NodeId, ready: OwnersReady) -> None:
        if number not in self.controls or any(name[0] == number for name in self.issues):
            return

        def make(base: Registry) -> Registry:
            heard = ready.here, ready.away, ready.missing, ready.found
            return advance(base, ready.done, ready.epoch, *heard)

        self.begin_issue(number, make)

    def grow(self) -> None:
        """One device joins, or some within a tenth of a second, by way of several issuers."""
        for _ in range(self.trouble_rng.choice([1, 1, 2])):
            who = self.an_issuer()
            if who is None:
                return
            self.newest += 1
            self.begin_issue(who, self._admitting(self.newest))
            self.run(self.trouble_rng.choice([0.0, 0.02, 0.1]))

    def _admitting(self, number: NodeId) -> Make:
        def make(base: Registry) -> Registry | None:
            if len(base.nodes) >= NODES_MAX or base.node(number) is not None:
                return None
            return admit(base, node(number, absent=True))

        return make

    def shrink(self) -> None:
        """Remove any device for good, the founder, a voter or the one that says so among them."""
        who = self.an_issuer()
        if who is None:
            return
        gone = self.trouble_rng.choice(sorted(self.registry.ids()))
        if gone != who and gone in self.planes and self.trouble_rng.random() < 0.5:
            self.crash(gone)
            self.down.add(gone)
        accepts = self.trouble_rng.random() < 0.3

        def make(base: Registry) -> Registry | None:
            issuing = {each.id for each in base.nodes if each.is_issuer}
            if self.is_one_damaged() or self.is_a_log_lost() or base.node(gone) is None:
                return None
            if issuing == {gone} or not (self.keys - {gone}).intersection(base.ids()):
                return None
            try:
                after = remove(base, gone)
            except WouldLose as loss:
                if not accepts:
                    self.counts["schedule/removal refused"] += 1
                    return None
                self.accepted |= {(gone, partition) for partition in loss.partitions}
                after = remove(base, gone, accept_loss=True)
            self.counts["schedule/removed itself"] += gone == who
            return after

        if len(self.registry.nodes) > 1:
            self.removing.add(make)
            self.begin_issue(who, make)

    def look(self) -> None:
        """Somebody, or everybody, looks whether the authority's key is where it belongs."""
        running = sorted(self.planes)
        if running and self.trouble_rng.random() < 0.5:
            running = [self.trouble_rng.choice(running)]
        for number in running:
            self.look_after_key(number)

    # Trouble

    def actions(self) -> list[Callable[[], object]]:
        recoveries: list[Callable[[], object]] = []
        if self.recovers:
            recoveries = [*[self.lose_majority] * 2, *[self.bring_one_back] * 4]
        return [
            *[self.put] * 6, *[self.get] * 3, self.delete, self.cut_one, self.cut_way, self.mend,
            *[self.end] * 2, *[self.begin] * 4, self.power, self.slow_disk, self.stall,
            *[self.grow] * 3, *[self.shrink] * 3, *[self.part] * 2, *[self.look] * 4,
            *[self.depose] * 2, self.lie, self.lose_log, *[self.tell_each_other] * 3, self.calm,
            self.blackout, *[self.back_up] * 2, *[self.set_back] * 2, *recoveries,
        ]  # fmt: skip

    def trouble(self, steps: int = STEPS) -> None:
        self.run(self.trouble_rng.choice([0.5, 4.0]))
        if self.moves_over:
            self.move_over()
        super().trouble(steps)

    def move_over(self) -> None:
        if FIRST in self.controls:
            self.begin_issue(FIRST, lambda _base: None)
            self.run(4.0)

    def depose(self) -> None:
        """Whoever leads crashes, is cut off in one direction or both, or hands over."""
        leading = self.leading()
        if not leading or len(self.planes) < 2:
            return
        who, others = leading[-1], [n for n in sorted(self.planes) if n != leading[-1]]
        if any(name[0] == who for name in self.issues):
            self.counts["schedule/leader deposed amid a proposal"] += 1
        match self.trouble_rng.randrange(4):
            case 0:
                self.counts["schedule/leader crashed"] += 1
                self.crash(who)
                self.down.add(who)
            case 1:
                self.ways |= {(other, who) for other in others}
            case 2:
                self.ways |= {(who, other) for other in others}
            case _:
                self.controls[who].hand_over(self.now)
                self.settle_control(who)

    def cut_way(self) -> None:
        numbers = sorted(self.storages)
        if len(numbers) > 1:
            one, other = self.trouble_rng.sample(numbers, 2)
            self.ways.add((one, other))
            self.counts["schedule/one way cut"] += 1

    def lie(self) -> None:
        """The failure detector believes anything of anybody."""
        for number in sorted(self.controls):
            about = self.trouble_rng.choice(sorted(self.storages))
            self.gone ^= {about}
            self.controls[number].peer_gone(about, self.now)
            self.controls[number].peer_alive(about, self.now)
            self.settle_control(number)

    def lose_log(self) -> None:
        """One of three voters loses its log, while the others have theirs, and are there."""
        if not self.may_lose_a_log():
            return
        who = self.trouble_rng.choice([each.node for each in self.voters()])
        self.counts["schedule/log lost"] += 1
        self.crash(who)
        self.begin_another_log(who)
        self.start(who, self.kept[who])

    def may_lose_a_log(self) -> bool:
        """Whether a log may be lost: of three, whose others have all of it, and are there.

        What it says of it may be under way still, and counts when it comes.
        """
        nodes = self.voting_anywhere()
        return (
            len(self.voters()) >= 3
            and nodes.issubset(self.planes)
            and nodes.issubset(self.registry.ids())
            and len({last_index(self.logs[number]) for number in nodes}) == 1
            and not (self.is_a_log_lost() or self.cut or self.ways or self.may_remove_yet())
        )

    def back_up(self) -> None:
        """Copy a whole disk."""
        who = self.anybody()
        if who is not None:
            image, log = self.disks[who].image(), deepcopy(self.logs[who])
            has_key = who in self.keys
            voters = self.witness.shadows[str(who)].configuration[1].voters
            self.backups[who] = Backup(
                image, self.kept[who], has_key, self.stores[who], log, len(voters) > 1
            )

    def set_back(self) -> None:
        """A device gets a disk of an earlier moment, with or without its log.

        It was alone with nothing: the others have what it had acknowledged, the log, and the key.
        A log is heeded for less than the shortest election wait: then somebody tells its node. Not
        one by which it votes alone: it would decide at once (docs/install.md says to leave it out);
        nor is there a registry by which it owns something alone, and has nobody to compare with.
        """
        able = [
            number
            for number in sorted(self.backups.keys() & self.registry.ids() & self.storages.keys())
            if number not in self.former and number not in self.unaware
            if all(len(each.readers) > 1 for each in self.backups[number].registry.table)
        ]
        if not able or self.may_remove_yet():
            return
        who = self.trouble_rng.choice(able)
        if self.trouble_rng.random() < 0.5:
            self.leave_one_behind(who)
        votes = who in self.voting_anywhere()
        if not others_have_all_of(who, self.registry, self.disks.values()):
            return
        if (votes and not self.may_lose_a_log()) or self.keys <= {who}:
            return
        self.counts["schedule/set back"] += 1
        self.counts["schedule/voter set back"] += votes
        backup = self.backups[who]
        self.counts["schedule/set back to former owners"] += backup.registry != self.kept[who]
        if who in self.planes:
            self.crash(who)
        self.disks[who].set_back(backup.image, self.registry.partitions)
        self.kept[who] = backup.registry
        self.keys = (self.keys - {who}) | ({who} if backup.has_key else set())
        self.begin_another_log(who)
        if votes and backup.votes_beside_others and self.trouble_rng.random() < 0.5:
            self.stores[who], self.logs[who] = backup.store, deepcopy(backup.log)
            self.untold.add(who)
            told_at = self.now + self.trouble_rng.random() * TUNING.election_min_s
            self.at(told_at, lambda: self.tell_of_later_life(who))
            self.counts["schedule/log set back"] += 1
        self.down.discard(who)
        self.start(who, backup.registry)
        for key in KEYS:
            self.ask_about(Get(key))

    def leave_one_behind(self, who: NodeId) -> None:
        """Write what one node does not hear of, so that this one is needed to know it."""
        others = [each for each in sorted(self.planes) if each != who]
        if not others:
            return
        behind = self.trouble_rng.choice(others)
        self.isolate(behind)
        for key in KEYS:
            self.ask_about(Put(key, self.trouble_rng.randbytes(6)))
        self.run(self.trouble_rng.choice([0.05, 0.3]))
        self.judge()
        self.heal()

    def tell_of_later_life(self, who: NodeId) -> None:
        if who in self.untold:
            self.crash(who)
            self.start(who, self.kept[who])

    def is_a_log_lost(self) -> bool:
        """Whether a voter has lost its log, and nobody has taken its place yet."""
        return bool(self.untold) or any(
            self.stores.get(each.node) != each.store for each in self.voters()
        )

    def can_agree(self) -> bool:
        """Whether a majority of the voters is there, with their logs, and belongs."""
        members = set(self.registry.ids())
        voters = self.voters()
        there = [
            each for each in voters
            if each.node in self.planes and self.stores[each.node] == each.store
            and each.node in members
        ]  # fmt: skip
        return 2 * len(there) > len(voters)

    def power(self) -> None:
        if not self.may_remove_yet():
            super().power()

    def end(self) -> None:
        """A process ends; what was committed stays."""
        who = self.anybody()
        if who is not None and len(self.planes) > 1:
            self.crash(who)
            self.down.add(who)

    def calm(self) -> None:
        """Whenever most of the owners are up and reach each other, there is an answer."""
        self.heal()
        self.delay_s, self.save_s = (lambda _a, _b: 0.001), (lambda _who: 0.002)
        up, members = set(self.planes), set(self.registry.ids())
        if self.is_one_damaged() or self.may_remove_yet() or not self.can_agree():
            return
        for each in self.registry.table:
            for nodes in (each.readers, each.owners, each.target):  # it may get there meanwhile
                if len(up.intersection(nodes, members)) <= len(nodes) // 2:
                    return
        for _ in range(5):
            self.tell_each_other()
            self.run(CALM_S / 5)
        reader = self.trouble_rng.choice(sorted(up & members & set(self.registry.ids())))
        asked = [(reader, self.submit(reader, Get(key))) for key in KEYS]
        self.run(6.0)
        for name in asked:
            result = self.results[name]
            if not isinstance(result, GetResult) or result.outcome != "ok":
                raise Violation(f"most owners are up, and there is no answer: {result}")
            self.counts["schedule/read in calm"] += 1

    # Peace

    def peace(self) -> None:
        self.heal()
        self.delay_s, self.save_s = (lambda _a, _b: 0.001), (lambda _who: 0.002)
        self._begin_peace()
        self.run(AGAIN_S[-1])  # the last old frame has come
        until = self.now + PEACE_S
        while self.now < until and not self.stays_at_rest():
            self.tell_each_other()
            self.run(LOOK_S)
            self._begin_peace()
        if not self.is_at_rest():
            raise Violation(f"no rest in peace: {self.story()}")
        self.judge()
        self.judge_peace()
        self._change_once_more()
        for control in self.controls.values():
            self.counts += control.counts
        token = self.agreed.registry.token(TOKEN)
        if (int.from_bytes(token.value) if token else 0) != self.admissions:
            raise Violation(f"a token counts {token}, and {self.admissions} were let in by it")

    def _begin_peace(self) -> None:
        """Switch on who belongs, and off who does not; some never run."""
        members = set(self.registry.ids())
        for number in sorted(set(self.storages) - members):
            self.scrap(number)
        self.bring_one_back()
        if self.moves_over and self.agreed.registry.agreed is None:
            self.move_over()
        for number in sorted(self.down):
            if self.lives[number] or not self._is_idle(number):
                self.down.discard(number)
                self.start(number, self.kept[number])
        for number in sorted(self.planes):
            for other in self.planes:
                self.planes[number].peer_alive(other, self.now)
            self.settle(number)
        self._look_all()

    def _look_all(self) -> None:
        for number in sorted(self.planes):
            self.look_after_key(number)

    def _is_idle(self, number: NodeId) -> bool:
        entry = self.registry.node(number)
        return entry is not None and entry.absent

    def is_at_rest(self) -> bool:
        return (
            all(plane.registry == self.registry for plane in self.planes.values())
            and self.registry.is_settled
            and not (self.issues or self.former or self.unaware)
            and set(self.planes) <= set(self.registry.ids())
            and not any(each.id in self.planes for each in self.registry.absent)
            and self.has_key_where_it_belongs()
            and super().is_at_rest()
        )

    def has_key_where_it_belongs(self) -> bool:
        """Whether who votes has the authority's key and says so, and nobody else that runs."""
        voting = {each.node for each in self.voters()}.intersection(self.registry.ids())
        issuing = {each.id for each in self.registry.nodes if each.is_issuer}
        return issuing == voting and self.keys.intersection(self.planes) == voting

    def stays_at_rest(self) -> bool:
        """Whether nothing comes late, and what was let go of is off the disks."""
        if self.is_at_rest():
            self.run(LOOK_S)
        return self.is_at_rest()

    def story(self) -> str:
        follows = {number: plane.registry.epoch for number, plane in sorted(self.planes.items())}
        return (
            f"agreed {self.registry.epoch}, follow {follows}, voters {self.voters()}, lead"
            f" {self.leading()}, issuers {self.issuers()}, issues {list(self.issues)},"
            f" {self.registry.table}"
        )

    def _change_once_more(self) -> None:
        """Whoever is gone for good: who belongs can be changed."""
        self.newest = 99
        before, until = self.registry.epoch, self.now + PEACE_S
        while self.now < until and self.registry.epoch == before:
            if self._able() and not self.issues:
                self.begin_issue(self._able()[0], self._once_more)
            self._look_all()
            self.run(LOOK_S)
        if self.registry.epoch == before:
            raise Violation(f"who belongs cannot be changed any more: {self.story()}")
        self.tell_each_other()
        self.run(LOOK_S)

    def _able(self) -> list[NodeId]:
        """Return the issuers that vote."""
        voting = {each.node for each in self.voters()}
        return [number for number in self.issuers() if number in voting]

    def _once_more(self, base: Registry) -> Registry:
        return amend(base, base.nodes[0])


def run(seed: int) -> Changing:
    """Run one schedule. Raises Violation, with the seed."""
    changing = Changing(seed)
    try:
        changing.trouble()
        changing.peace()
    except AssertionError as error:
        raise Violation(f"SEED {seed}: {type(error).__name__}: {error}") from error
    return changing
