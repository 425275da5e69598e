"""Whole nodes whose voters are lost, so that an operator goes on with one copy of the log.

In each eighth schedule most of those that vote are off, and on the newest copy that is left the
next generation begins (``gossip/control/recovery.py``). Its log may end before what was agreed on:
then an issuer builds on the registry that nodes follow. The former voters come back one after the
other, hear of it, and begin anew as other stores.

What is not promised is not asked for (docs/adr/0043-going-on-after-a-lost-majority.md): somebody
that is left follows the newest registry, and somebody has the authority's key; of the former voters
no majority comes back before it has heard of the later generation.
"""

from gossip.consensus.configuration import StoreId, Voter
from gossip.consensus.storage import StoredState
from gossip.control.plane import FRAME_TAGS
from gossip.control.recovery import recover, state_at_end
from gossip.control.requests import GenerationForked, GenerationSuperseded
from gossip.core.ids import NodeId
from gossip.core.wire import tag_of
from gossip.registry.registry import amend
from tests.sim.issuing import TOKEN, Issuing
from tests.sim.owners import Violation
from tests.sim.whole_nodes import decoded

RECOVERS_EVERY, RECOVERS_AT = 8, 5
"""One schedule of so many has recoveries, that with this remainder."""
TOLD_AFTER_S = 0.5
"""Until others notice that somebody is there."""
WITHIN_S = 240.0
LOOK_S = 2.0


class Recovering(Issuing):
    """Nodes of whose voters most may be lost."""

    def __init__(self, seed: int) -> None:
        self.recovers = seed % RECOVERS_EVERY == RECOVERS_AT
        self.former: set[NodeId] = set()
        """Those that voted in a generation that is over, and are off since."""
        self.unaware: dict[NodeId, StoreId] = {}
        """Those of them that run again, with the log of before."""
        self.deaf: set[NodeId] = set()
        """Who hears nothing of the log."""
        super().__init__(seed)

    def scrap(self, number: NodeId) -> None:
        super().scrap(number)
        self.former.discard(number)
        self.unaware.pop(number, None)

    def lose_majority(self) -> None:
        """Most voters are off at once; an operator goes on with the newest copy, if that is well.

        It is where nothing that was agreed on is known to the lost ones alone.
        """
        voters = [each.node for each in self.voters()]
        if len(voters) < 3 or not set(voters) <= set(self.planes) or self.former or self.unaware:
            return
        gone = self.trouble_rng.sample(voters, len(voters) // 2 + 1)
        if self.trouble_rng.random() < 0.5:
            self._leave_copies_behind(gone)
        if not set(gone) <= set(self.planes):
            return  # one of them has gone by itself meanwhile
        for number in gone:
            self.crash(number)
        self.former |= set(gone)
        self.run(LOOK_S)
        survivor = self._survivor()
        if survivor is None:
            self.counts["schedule/majority lost, and is back"] += 1
            self.down |= self.former
            self.former.clear()
        else:
            self._go_on(survivor)

    def _leave_copies_behind(self, gone: list[NodeId]) -> None:
        """Have something agreed on of which the others hear by the registry alone."""
        issuers = [number for number in self.issuers() if number in gone]
        if issuers:
            self.heal()
            self.deaf = set(self.planes).difference(gone)
            self.begin_issue(issuers[0], lambda base: amend(base, base.nodes[0]))
            self.run(LOOK_S)
            self.deaf.clear()

    def receive(self, to: NodeId, data: bytes, sender: NodeId) -> None:
        if to in self.deaf and tag_of(data) in FRAME_TAGS:
            if sender in self.planes:
                self.unreachable(sender, to)
        else:
            super().receive(to, data, sender)

    def _survivor(self) -> NodeId | None:
        """Return who has the newest copy that is left; None if something is known to no one."""
        copies = {
            number: control.standing().newness
            for number, control in self.controls.items()
            if number in self.registry.ids() and control.standing().generation
        }
        follow = [number for number in self.planes if self.kept[number] == self.registry]
        able = set(self.issuers()).intersection(self.registry.ids())
        if not copies or not follow or not able:
            return None
        newest = max(copies, key=lambda number: (copies[number], number))
        stored = self.controls[newest].part.survivor()
        agreed = state_at_end(stored).registry.agreed
        if agreed is None or decoded(agreed.signed).node(newest) is None:
            return None  # it would not be followed, and is told so
        is_known = agreed.mark in self.marks
        is_next = agreed.mark not in self.marks and self._is_next(stored)
        return newest if is_known or is_next else None

    def _is_next(self, stored: StoredState) -> bool:
        """Whether a log is that which was agreed on, with something more behind it."""
        agreed = self.witness.chosen.entries
        same = [entry for entry in stored.entries if entry.index in agreed]
        return bool(same) and all(agreed[each.index] == each for each in same)

    def _go_on(self, survivor: NodeId) -> None:
        stored = self.controls[survivor].part.survivor()
        for entry in stored.entries:
            if entry.index == self.agreed.index + 1 and self._is_next(stored):
                self.chosen(entry)  # what it has counts as agreed on
        self.crash(survivor)
        self.begin_another_log(survivor)
        alone = recover(stored, Voter(self.stores[survivor], survivor), 0.0)
        self.logs[survivor].replace(alone)
        self.agreed = state_at_end(alone)
        assert alone.snapshot is not None, "a recovered log begins with one"
        self.configuration, self.generation = alone.snapshot.configuration, alone.hard.generation
        token = self.agreed.registry.token(TOKEN)
        self.admissions = int.from_bytes(token.value) if token else 0
        for issue in self.issues.values():
            issue.floor = 0
        self.counts["schedule/recovered"] += 1
        self.counts["schedule/recovered, behind"] += self.agreed_epoch() < self.registry.epoch
        self.start(survivor, self.kept[survivor])
        self._bring_up(survivor)

    def agreed_epoch(self) -> int:
        """Return which epoch the log has."""
        agreed = self.agreed.registry.agreed
        return decoded(agreed.signed).epoch if agreed else 0

    def _bring_up(self, survivor: NodeId) -> None:
        """See that the log has the newest registry again, before anything else is asked for."""
        self.heal()
        self.delay_s, self.save_s = (lambda _a, _b: 0.001), (lambda _who: 0.002)
        until = self.now + WITHIN_S
        while self.now < until and not self._is_brought_up(survivor):
            self.meet(survivor)
            self.say_whom_to_follow()
            self.tell_each_other()
            for number in sorted(self.planes):
                self.look_after_key(number)
            if survivor in self.keys and not any(name[0] == survivor for name in self.issues):
                self.begin_issue(survivor, lambda _base: None)
            self.run(LOOK_S)
        if not self._is_brought_up(survivor):
            raise Violation(f"{survivor} goes on, and its log has no newest registry")

    def _is_brought_up(self, survivor: NodeId) -> bool:
        return self.agreed_epoch() == self.registry.epoch and survivor in self.issuers()

    def meet(self, number: NodeId) -> None:
        """Others notice that somebody is there, and it notices them."""
        for other in sorted(self.controls):
            if other != number and number in self.controls and self.reach_each_other(number, other):
                self.controls[other].peer_alive(number, self.now)
                self.controls[number].peer_alive(other, self.now)
                self.settle_control(other)
        if number in self.controls:
            self.settle_control(number)

    def say_whom_to_follow(self) -> None:
        """Say so, as the operator does who knows where it goes on, where somebody is doubted."""
        for number, control in sorted(self.controls.items()):
            for peer, later in tuple(control.standings.doubted.items()):
                other = self.controls.get(peer)
                if other is not None and other.part.generation == later == self.generation:
                    self.counts["schedule/trusted"] += 1
                    control.trust(peer, self.now)
                    self.settle_control(number)

    def bring_one_back(self) -> None:
        """Start one of the former voters, if all that were started before have given way."""
        for number in list(self.unaware):
            control = self.controls.get(number)
            follows = control is not None and control.part.generation == self.generation
            if follows or self.stores[number] != self.unaware[number]:
                del self.unaware[number]
        for number in sorted(self.unaware):
            self.meet(number)
        self.say_whom_to_follow()
        if self.former and not self.unaware:
            who = self.trouble_rng.choice(sorted(self.former))
            self.former.discard(who)
            self.unaware[who] = self.stores[who]
            self.counts["schedule/came back"] += 1
            self.start(who, self.kept[who])
            self.at(self.now + TOLD_AFTER_S, lambda: self.meet(who))

    def hear(self, number: NodeId, event: object) -> None:
        match event:
            case GenerationSuperseded():
                self.at(self.now, lambda: self.give_way(number))
            case GenerationForked():
                raise Violation(f"{number} finds two recoveries of one generation")
            case _:
                super().hear(number, event)

    def give_way(self, number: NodeId) -> None:
        """Begin as another store: an operator has let another node go on without this one."""
        control = self.controls.get(number)
        if control is not None and control.part.generation < self.generation:
            self.counts["schedule/gave way"] += 1
            self.crash(number)
            self.begin_another_log(number)
            self.start(number, self.kept[number])
