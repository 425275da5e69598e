"""Whole state planes while their owners change in the midst of everything, and a witness.

A schedule is decided by its seed. In its first part devices come and go at any moment, also within
a tenth of a second and inside unfinished hand-offs; some are admitted and run late, or never;
processes crash, the power fails and takes with it what the disk had not synced; links are cut,
stall, and bring old frames once more; the issuer is away. Then comes peace. The witness hears of
every commit, so that it knows which write was meant to replace which, and demands:

* a quorum read sees every write that was acknowledged, and every version that a quorum read
  returned, before it began, or what replaced them; and nothing that was replaced by then;
* what was acknowledged can be read whenever most of its owners are up and reach each other;
* in peace each partition comes to its owners, all of them agree, every acknowledged write is there
  or was replaced, nothing is back that an acknowledged write or delete replaced, every request
  ends, and nobody is left with keys that are not its own;
* who runs in peace is present, and who never runs, or ended before it owned anything, keeps nobody
  waiting. Nobody who owns something is absent, ever.
* in each eighth schedule devices have homes: a device that is cut off from all reads what it wrote
  in its own by itself, and in peace that is there too, unless its disk or the device was lost. Who
  is there owns its home, and the keys of who was removed are where they were.
* in each eighth schedule owners that are off for long are missing, and others get their share: only
  those whom the issuer itself did not hear for that time, whatever is rumoured of anybody, and in
  peace who runs is missing no more;
* in each eighth schedule nodes drain as well, and are taken back: in peace nothing lies at who
  drains, and to remove one with nothing left costs no write;
* in one of eight disks are nearly full, until there is peace: reads are answered all the same.

What is not promised is not asked for: the power fails on one device at a time, and nobody is
removed before the one on which it failed has compared its copy again.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from gossip.core.ids import NodeId
from gossip.core.machine import Durability, Persist
from gossip.kv.dots import Dot
from gossip.kv.limits import (
    CONTACT_FLAPS_MAX,
    CONTACT_LOOKS,
    CONTACT_RETURN_LOOKS,
    PRESENCE_CHECK_S,
    PRESENCE_CHECKS_MAX,
)
from gossip.kv.messages import CODEC, Forward
from gossip.kv.records import KeyState, decode_context
from gossip.kv.requests import Delete, Get, GetResult, OwnersReady, Put, PutResult
from gossip.registry.node_change import NobodyLeft, NodeChange, arrange
from gossip.registry.places import home_number, home_prefix
from gossip.registry.registry import Registry, WouldLose, admit, placeable, remove
from gossip.sim.disk import Disk, others_have_all_of
from tests.support.kv_net import FIRST, Net, housed_registry_of, node, registry_of

Named = tuple[str, Dot]

KEYS = [f"key-{n}" for n in range(4)]
PARTITIONS = 3
NODES_MAX = 6
STEPS = 60
PAUSES_S = [0.0005, 0.003, 0.02, 0.05, 0.1, 0.3, 1.0, 4.0]
CALM_S = 20.0
AGAIN_S = [0.05, 0.5, 3.0, 9.0]
PEACE_S = 180.0
DRAINS_EVERY, DRAINS_AT = 8, 3
"""One schedule of so many drains nodes, that with this remainder; the others are as they were."""
HOMES_EVERY, HOMES_AT = 8, 5
"""One schedule of so many is about homes, that with this remainder."""
MISSES_EVERY, MISSES_AT = 8, 6
"""One schedule of so many has owners missing after ``MISSING_S``; in the others nobody ever is."""
MISSING_S = 100.0
RETURN_S = MISSING_S / CONTACT_LOOKS * ((CONTACT_RETURN_LOOKS << CONTACT_FLAPS_MAX) + 2)
"""Within this time who runs in peace has been heard for long enough, however often it flapped."""
CROWDED_EVERY, CROWDED_AT = 8, 1
"""In one schedule of so many disks are nearly full, that with this remainder."""
LONG_S = PRESENCE_CHECK_S * (PRESENCE_CHECKS_MAX + 3)
"""Until the issuer has given up who was to own its first partitions, and others got them."""
LOOK_S = 3.0

MUST_HAPPEN = (
    "handoffs/taken", "handoffs/let_go", "reads/diverged",
    "writes/indeterminate", "reads/unavailable", "requests/refused", "requests/forwarded",
    "repairs/keys", "schedule/joined within a hand-off", "schedule/removed within a hand-off",
    "schedule/removal refused", "schedule/loss accepted", "schedule/batches lost",
    "schedule/frames again", "schedule/issuer away within a hand-off", "schedule/read in calm",
    "schedule/writes acknowledged", "schedule/ran late", "schedule/newcomer given up",
    "schedule/never ran", "schedule/ended before it owned anything", "schedule/drained",
    "schedule/drained within a hand-off", "schedule/drained while it is off", "schedule/taken back",
    "schedule/removed after it drained", "schedule/written alone", "schedule/read alone",
    "schedule/written in a home of others", "schedule/removed with a home",
    "schedule/removed after it drained", "schedule/missing", "schedule/found again",
    "schedule/rumoured to be gone", "schedule/missing within a hand-off",
    "schedule/disk nearly full", "schedule/room again", "puts_refused/disk",
    "puts_refused/disks_of_others", "repairs/no_room",
)  # fmt: skip


class Violation(AssertionError):
    """The witness has noticed something."""


def home_key(device: NodeId) -> str:
    """Return a key that lies in a device's home."""
    return f"{home_prefix(device)}key"


class Request:
    """What the witness remembers of a request that is under way."""

    def __init__(
        self, key: str, expected: set[Named], killed: set[Named], *, deletes: bool
    ) -> None:
        self.key, self.expected, self.killed, self.deletes = key, expected, killed, deletes
        self.alone: set[Named] = set()
        """What its device had written by itself before it asked itself."""
        self.is_forgiven = False
        """Whether it may have gone to somebody whose removal was accepted as a loss."""


class Trouble(Net):
    """A net in which everything goes wrong, and which knows what was meant."""

    def __init__(self, seed: int) -> None:
        self.replicas = (3, 3, 3, 2, 1)[seed % 5]
        self.homes = seed % HOMES_EVERY == HOMES_AT
        self.drains = seed % DRAINS_EVERY == DRAINS_AT
        self.misses = seed % MISSES_EVERY == MISSES_AT
        self.unheard_since: dict[NodeId, float] = {}
        """Since when the issuer cannot have heard those whom it does not hear now."""
        self.back_at: dict[NodeId, tuple[float, float]] = {}
        """When these were to be heard again, and for how long they were not."""
        self.is_crowded = seed % CROWDED_EVERY == CROWDED_AT
        self.counts: Counter[str] = Counter()
        self.meant: set[Named] = set()
        self.meant_by: dict[Named, set[Named]] = {}
        self.acked: set[Named] = set()
        self.read: set[Named] = set()
        self.killed: set[Named] = set()
        self.lost_at: dict[str, int] = {}
        """The epoch from which a key counts again that an operator has given up."""
        self.open: dict[tuple[NodeId, int], Request] = {}
        self.alone: dict[Named, tuple[NodeId, set[Named]]] = {}
        """What devices wrote in their own homes by themselves: who, and what it replaced."""
        self.disks: dict[NodeId, Disk] = {}
        self.down: set[NodeId] = set()
        self.trouble_rng = random.Random(f"trouble {seed}")
        count = self.trouble_rng.choice([1, 1, 3, 4])
        self.asked_keys = [KEYS[0], *map(home_key, range(1, count + 1))] if self.homes else KEYS
        self.contexts: dict[str, list[bytes]] = {key: [] for key in self.asked_keys}
        self.noise = self.trouble_rng.choice([0.0, 0.02, 0.1])
        self.newest = count
        super().__init__(self.first_registry(count), seed)

    def first_registry(self, count: int) -> Registry:
        """Return what all follow in the beginning."""
        made = housed_registry_of if self.homes else registry_of
        return made(range(1, count + 1), PARTITIONS, self.replicas)

    # What the net does otherwise

    def start(self, number: NodeId, registry: Any = None) -> Any:
        self.storages[number] = self.disks.setdefault(number, Disk()).storage
        plane = super().start(number, registry)
        plane.progress.judge_after(MISSING_S if self.misses else 0.0, self.now)
        self.settle(number)
        write = plane.replica.write

        def listen(
            partition: int, key: str, value: bytes | None, gone: Iterable[Dot] | None, now: float
        ) -> tuple[KeyState, Dot | None]:
            state, dot = write(partition, key, value, gone, now)
            dead = {(key, d) for d in state.covered if d not in state.dots()}
            self.meant |= dead
            if dot is not None:
                self.meant_by[key, dot] = dead
            return state, dot

        plane.replica.write = listen  # type: ignore[method-assign, assignment]
        return plane

    def crash(self, number: NodeId) -> None:
        self.counts += self.planes[number].counts
        super().crash(number)
        self.open = {name: o for name, o in self.open.items() if name[0] != number}

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        """Send a frame, and now and then once more, much later. A write is never sent twice."""
        super().send(sender, to, data)
        rng = self.trouble_rng
        if rng.random() < self.noise and not isinstance(CODEC.decode(data), Forward):
            self.counts["schedule/frames again"] += 1
            self.at(self.now + rng.choice(AGAIN_S), lambda: self.again(sender, to, data))

    def again(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        if to in self.planes and self.reaches(sender, to):
            self.receive(to, data, sender)

    # Disks

    def commit(self, number: NodeId, batch: Persist) -> None:
        if batch.durability is Durability.FLUSH:
            self.disks[number].commit(batch, self.now)
        else:
            self.keep(number, batch)

    def fail_power(self, number: NodeId) -> None:
        """Take from a disk what was not synced, but for some first batches, and say so."""
        self.crash(number)
        self.forget_alone(number)
        self.counts["schedule/batches lost"] += self.disks[number].lose_power(
            self.trouble_rng, self.registry.partitions, self.now
        )
        self.storages[number] = self.disks[number].storage

    # Trouble

    def trouble(self, steps: int = STEPS) -> None:
        actions = self.actions()
        for _ in range(steps):
            self.trouble_rng.choice(actions)()
            self.note_unheard()
            self.run(self.trouble_rng.choice(PAUSES_S))
            self.note_unheard()
            self.judge()

    def actions(self) -> list[Callable[[], object]]:
        """Return what may happen, each as often as it is in there."""
        drains = [*[self.drain] * 3, self.undrain, self.shrink_drained] if self.drains else []
        homes = [self.put_alone] * 6 if self.homes else []
        misses = [self.rumour, self.wait_missing] if self.misses else []
        crowded = [self.crowd, self.crowd, self.make_room] if self.is_crowded else []
        return [
            *[self.put] * 7, *[self.get] * 4, self.delete, self.cut_one, self.cut_one, self.mend,
            self.mend, self.end, self.end, self.begin, self.begin, self.begin, self.blackout,
            self.power, self.slow_disk, self.stall, *[self.grow] * 3, *[self.shrink] * 2, self.calm,
            *[self.part] * 4, self.wait_long, *drains, *homes, *misses,
            *crowded,
        ]  # fmt: skip

    def rumour(self) -> None:
        """Have everybody believe that a node is dead, or that nobody is."""
        self.counts["schedule/rumoured to be gone"] += 1
        self.gone = set() if self.gone else {self.trouble_rng.choice(sorted(self.storages))}

    def wait_missing(self) -> None:
        """Let so much time pass that who is off may be missing."""
        self.note_unheard()
        self.run(self.trouble_rng.choice([0.5, 1.2, 2.0]) * MISSING_S)

    def note_unheard(self) -> None:
        """Note since when the issuer hears whom not; at each change of who runs and is reached."""
        for number in self.registry.ids():
            if FIRST in self.planes and number in self.planes and self.reaches(FIRST, number):
                if (since := self.unheard_since.pop(number, None)) is not None:
                    self.back_at[number] = self.now, self.now - since
            else:
                self.unheard_since.setdefault(number, self.now)

    def anybody(self) -> NodeId | None:
        up = sorted(self.planes)
        return self.trouble_rng.choice(up) if up else None

    def ask_about(self, request: Put | Get | Delete, who: NodeId | None = None) -> None:
        who = who or self.anybody()
        if who is None:
            return
        key = request.key
        expected = {name for name in self.acked | self.read if name[0] == key}
        killed = {name for name in self.killed if name[0] == key}
        number = self.submit(who, request)
        about = Request(key, expected, killed, deletes=isinstance(request, Delete))
        about.alone = {name for name, (by, _) in self.alone.items() if (name[0], by) == (key, who)}
        about.is_forgiven = self.planes[who].registry.epoch < self.lost_at.get(key, 0)
        self.open[who, number] = about

    def put_alone(self) -> None:
        """A device that is cut off from all writes in its home, and reads what it wrote."""
        able = [who for who in sorted(self.planes) if home_key(who) in self.asked_keys]
        if not able:
            return
        who = self.trouble_rng.choice(able)
        self.cut |= {frozenset((who, other)) for other in self.storages if other != who}
        self.ask_about(Put(home_key(who), self.trouble_rng.randbytes(6)), who)
        self.run(0.1)
        self.judge()
        self.ask_about(Get(home_key(who)), who)

    def forget_alone(self, who: NodeId) -> None:
        """Ask no more for what was on one disk that is gone, or doubted."""
        self.alone = {name: kept for name, kept in self.alone.items() if kept[0] != who}
        for request in self.open.values():
            request.alone.clear()

    def put(self) -> None:
        key = self.trouble_rng.choice(self.asked_keys)
        context = None
        if self.contexts[key] and self.trouble_rng.random() < 0.6:
            context = self.trouble_rng.choice(self.contexts[key][-3:])
        self.ask_about(Put(key, self.trouble_rng.randbytes(6), context=context))

    def delete(self) -> None:
        self.ask_about(Delete(self.trouble_rng.choice(self.asked_keys)))

    def get(self) -> None:
        self.ask_about(Get(self.trouble_rng.choice(self.asked_keys)))

    def cut_one(self) -> None:
        numbers = sorted(self.storages)
        if len(numbers) > 1:
            self.cut.add(frozenset(self.trouble_rng.sample(numbers, 2)))

    def part(self) -> None:
        """Keep one that is to own a partition from what others write to it just then."""
        moving = [each for _, each in self.registry.ownerships if each.pending_since]
        if not moving:
            return
        ownership = self.trouble_rng.choice(moving)
        one = self.trouble_rng.choice(ownership.newcomers or ownership.pending)
        others = [node for node in ownership.holders if node != one]
        for other in self.trouble_rng.sample(others, self.trouble_rng.randint(0, len(others))):
            self.cut.add(frozenset((one, other)))
        for key in self.asked_keys:
            if self.registry.ownership_of(key) == ownership and self.planes:
                self.ask_about(Put(key, self.trouble_rng.randbytes(6)))

    def mend(self) -> None:
        self.heal()

    def end(self) -> None:
        """A process ends; what was committed stays."""
        who = self.anybody()
        if who is None or len(self.planes) < 2:
            return
        if who == FIRST and not self.registry.is_settled:
            self.counts["schedule/issuer away within a hand-off"] += 1
        self.crash(who)
        self.down.add(who)

    def begin(self) -> None:
        """One that was off comes back, with the registry that it had."""
        if self.down:
            who = self.trouble_rng.choice(sorted(self.down))
            self.down.discard(who)
            self.counts["schedule/ran late"] += self.lives[who] == 0
            self.start(who, self.kept[who])

    def blackout(self) -> None:
        """All processes end at once, and come back."""
        numbers = sorted(self.planes)
        for number in numbers:
            self.crash(number)
        for number in numbers:
            self.start(number, self.kept[number])

    def is_one_damaged(self) -> bool:
        """Whether some disk has lost something that is not made up for yet."""
        return any(disk.is_doubtful for disk in self.disks.values())

    def power(self) -> None:
        """The power of one device fails. Another one must not have what this one loses."""
        who = self.anybody()
        if who is None or not others_have_all_of(who, self.registry, self.disks.values()):
            return
        self.fail_power(who)
        if self.trouble_rng.random() < 0.7:
            self.start(who, self.kept[who])
        else:
            self.down.add(who)

    def slow_disk(self) -> None:
        slow, delay_s = self.anybody(), self.trouble_rng.choice([0.002, 0.05, 0.4])
        self.save_s = lambda who: delay_s if who == slow else 0.002

    def crowd(self) -> None:
        """The disk of one is nearly full from now on: it takes no puts, and all else."""
        if (who := self.anybody()) is not None:
            self.counts["schedule/disk nearly full"] += 1
            self.planes[who].limit_puts(limited=True)

    def make_room(self) -> None:
        """The disks of all have room again."""
        for plane in self.planes.values():
            self.counts["schedule/room again"] += not plane.replica.takes_puts
            plane.limit_puts(limited=False)

    def stall(self) -> None:
        """What one node sends to another takes long from now on, in the same order."""
        numbers = sorted(self.storages)
        if len(numbers) > 1:
            slow, delay_s = self.trouble_rng.sample(numbers, 2), self.trouble_rng.choice([0.2, 2.0])
            self.delay_s = lambda a, b: delay_s if [a, b] == slow else 0.001

    def tell_some(self, registry: Any) -> None:
        """Let the issuer follow a new registry, and of the others some; the rest hear of it."""
        others = [n for n in sorted(self.planes) if n != FIRST and self.trouble_rng.random() < 0.5]
        self.adopt(registry, FIRST, *others)

    def grow(self) -> None:
        """One device joins, or some within a tenth of a second."""
        for _ in range(self.trouble_rng.choice([1, 1, 2, 3])):
            if len(self.registry.nodes) >= NODES_MAX or FIRST not in self.planes:
                return
            self.counts["schedule/joined within a hand-off"] += not self.registry.is_settled
            self.newest += 1
            registry = admit(self.registry, node(self.newest, absent=True))
            if self.trouble_rng.random() < 0.8:
                self.start(self.newest, registry)
            else:  # it was admitted, and does not run yet
                self.kept[self.newest] = registry
                self.disks[self.newest] = Disk()
                self.storages[self.newest] = self.disks[self.newest].storage
                self.down.add(self.newest)
            self.tell_some(registry)
            self.run(self.trouble_rng.choice([0.0, 0.02, 0.1]))

    def drain(self) -> None:
        """Have a node own nothing, wherever the covey stands; also one that is off."""
        one = self.trouble_rng.choice(sorted(self.registry.ids()))
        if FIRST not in self.planes:
            return
        try:
            registry = arrange(self.registry, one, NodeChange(drains=True))
        except NobodyLeft:
            self.counts["schedule/last one that drains refused"] += 1
            return
        self.counts["schedule/drained"] += 1
        self.counts["schedule/drained within a hand-off"] += not self.registry.is_settled
        self.counts["schedule/drained while it is off"] += one not in self.planes
        if registry is not self.registry:
            self.tell_some(registry)

    def undrain(self) -> None:
        """Take one back that drains, whether it has let go of all or not."""
        draining = self.registry.draining
        if not draining or FIRST not in self.planes:
            return
        one = self.trouble_rng.choice(draining)
        self.counts["schedule/taken back"] += 1
        self.tell_some(arrange(self.registry, one.id, NodeChange(drains=False)))

    def shrink_drained(self) -> None:
        """Remove one that has drained."""
        drained = [each.id for each in self.registry.draining if not self.registry.left_at(each.id)]
        if drained:
            self.counts["schedule/removed after it drained"] += 1
            self.take_out(self.trouble_rng.choice(drained))

    def shrink(self) -> None:
        """Remove a device for good, and whatever it has with it."""
        self.take_out(self.trouble_rng.choice(sorted(self.registry.ids())))

    def take_out(self, gone: NodeId) -> None:
        if gone == FIRST or FIRST not in self.planes or self.is_one_damaged():
            return
        try:
            registry = remove(self.registry, gone)
        except WouldLose as loss:
            if not self.registry.left_at(gone):
                raise Violation(f"nothing lies at {gone}, and to remove it would lose") from None
            self.counts["schedule/removal refused"] += 1
            if self.trouble_rng.random() < 0.7:
                return
            registry = remove(self.registry, gone, accept_loss=True)
            self.forgive(loss.partitions, registry.epoch)
        self.counts["schedule/removed within a hand-off"] += not self.registry.is_settled
        if gone in self.planes:
            self.crash(gone)
        self.down.discard(gone)
        self.forget_alone(gone)
        self.counts["schedule/removed with a home"] += self.registry.has(home_number(gone))
        del self.storages[gone], self.disks[gone]
        self.tell_some(registry)

    def forgive(self, partitions: Iterable[int], epoch: int) -> None:
        """Ask no more for what an operator has accepted as lost, nor whether it is back.

        So it is with requests that are under way, or begin where an epoch before that is followed:
        who is removed may answer them, and take the answer along.
        """
        self.counts["schedule/loss accepted"] += 1
        lost = {
            key for key in self.asked_keys if self.registry.partition_of(key) in set(partitions)
        }

        def keep(names: set[Named]) -> set[Named]:
            return {name for name in names if name[0] not in lost}

        self.alone = {name: kept for name, kept in self.alone.items() if name[0] not in lost}
        self.acked, self.read, self.killed = keep(self.acked), keep(self.read), keep(self.killed)
        for request in self.open.values():
            request.expected, request.killed = keep(request.expected), keep(request.killed)
            request.is_forgiven |= request.key in lost
        self.lost_at |= dict.fromkeys(lost, epoch)
        self.meant_by = {name: by for name, by in self.meant_by.items() if name[0] not in lost}

    def wait_long(self) -> None:
        """Let so much time pass that the issuer gives up newcomers that are off."""
        if self.trouble_rng.random() < 0.2:
            self.run(LONG_S)

    def advance(self, number: NodeId, ready: OwnersReady) -> None:
        self.counts["schedule/newcomer given up"] += len(ready.away)
        self.counts["schedule/missing"] += len(ready.missing)
        within = len(ready.missing) * (not self.registry.is_settled)
        self.counts["schedule/missing within a hand-off"] += within
        self.counts["schedule/found again"] += len(ready.found)
        for each in ready.missing:
            back_at, was_silent_s = self.back_at.get(each, (0.0, 0.0))
            silent_s = self.now - self.unheard_since.get(each, self.now)
            if self.now - back_at < MISSING_S / CONTACT_LOOKS:  # it may not have been heard yet
                silent_s = max(silent_s, was_silent_s)
            if silent_s < MISSING_S * (1 - 1.5 / CONTACT_LOOKS):
                raise Violation(f"{each} is missing, and was silent for {silent_s:.1f} s")
        super().advance(number, ready)

    def calm(self) -> None:
        """Whenever most of the owners are up and reach each other, there is an answer."""
        self.heal()
        self.delay_s, self.save_s = (lambda _a, _b: 0.001), (lambda _who: 0.002)
        up, members = set(self.planes), set(self.registry.ids())
        if FIRST not in up or self.is_one_damaged():
            return
        for _, each in self.registry.ownerships:
            for nodes in (each.readers, each.owners, each.target):  # it may get there meanwhile
                if len(up.intersection(nodes, members)) <= len(nodes) // 2:
                    return
        self.adopt(self.registry)
        self.run(CALM_S)
        asked = [(FIRST, self.submit(FIRST, Get(key))) for key in self.asked_keys]
        self.run(6.0)
        for name in asked:
            result = self.results[name]
            if not isinstance(result, GetResult) or result.outcome != "ok":
                raise Violation(f"most owners are up, and there is no answer: {result}")
            self.counts["schedule/read in calm"] += 1

    # Judging

    def judge(self) -> None:
        if owning := self.owning().intersection(each.id for each in self.registry.absent):
            raise Violation(f"{owning} own something and are absent")
        for name in [n for n in self.open if n in self.results]:
            request, result = self.open.pop(name), self.results[name]
            if self.judge_alone(name[0], request, result):
                continue
            if isinstance(result, GetResult) and result.outcome == "ok":
                self.judge_read(name[0], request, result)
            elif isinstance(result, PutResult) and result.outcome == "ok":
                self.counts["schedule/writes acknowledged"] += 1
                if request.is_forgiven:
                    continue
                for dot in decode_context(request.key, result.context) if result.context else ():
                    self.acked.add((request.key, dot))
                    self.killed |= self.meant_by.get((request.key, dot), set())
                if request.deletes:
                    self.killed |= request.expected

    def judge_alone(self, asker: NodeId, request: Request, result: object) -> bool:
        """Judge what a device asked itself alone; tell whether it did."""
        if request.key != home_key(asker) or not isinstance(result, GetResult | PutResult):
            if request.key != KEYS[0] and isinstance(result, PutResult):
                self.counts["schedule/written in a home of others"] += result.outcome == "ok"
            return False
        if result.outcome != "ok" or result.needed != 1:
            return False
        if isinstance(result, PutResult):
            for dot in decode_context(request.key, result.context) if result.context else ():
                self.counts["schedule/written alone"] += 1
                name = (request.key, dot)
                self.alone[name] = asker, self.meant_by.get(name, set())
            return True
        seen = {(request.key, value.dot) for value in result.live}
        self.counts["schedule/read alone"] += 1
        if missed := request.alone - seen - self.meant:
            raise Violation(f"{asker} misses what it wrote itself: {missed}")
        return True

    def judge_read(self, reader: NodeId, request: Request, result: GetResult) -> None:
        seen = {(request.key, version.dot) for version in result.live}
        self.contexts.setdefault(request.key, []).append(result.context)
        if request.is_forgiven:
            return
        if missed := request.expected - seen - self.meant:
            raise Violation(f"a quorum read of {request.key} at {reader} misses {missed}")
        if back := seen & request.killed:
            raise Violation(f"a quorum read of {request.key} at {reader} returns {back} again")
        self.read |= seen

    # Peace

    def peace(self) -> None:
        self.heal()
        self.gone.clear()
        self.make_room()
        self.delay_s, self.save_s = (lambda _a, _b: 0.001), (lambda _who: 0.002)
        for number in sorted(self.down - self.never_back()):
            self.start(number, self.kept[number])
            self.down.discard(number)
        self.adopt(self.registry)
        for number in self.planes:
            for other in self.planes:
                self.planes[number].peer_alive(other, self.now)
            self.settle(number)
        self.run(AGAIN_S[-1])  # the last old frame has come
        until = self.now + PEACE_S + (LONG_S if self.down else 0.0)
        if self.misses:
            self.run(RETURN_S)
            until = self.now + PEACE_S + LONG_S
        while self.now < until and not self.is_at_rest():
            self.run(LOOK_S)
            self.bring_back_owners()
        self.run(LOOK_S)
        self.judge()
        self.judge_peace()

    def judge_peace(self) -> None:
        """Demand what holds when all is done."""
        for number, plane in self.planes.items():
            self.counts += plane.counts
            if plane.handoff.unfinished():
                raise Violation(f"node {number} has unfinished hand-offs")
            if self.under_way(plane):
                raise Violation(f"node {number} has requests under way in peace")
        if missed := [each.id for each in self.registry.missing if each.id in self.planes]:
            raise Violation(f"{missed} run in peace, and are missing")
        if ignored := [each.id for each in self.registry.absent if each.id in self.planes]:
            raise Violation(f"{ignored} run in peace, and get nothing")
        placed = {each.id for each in placeable(self.registry.nodes)}
        for each in self.registry.draining:
            if each.id not in placed and (left := self.registry.left_at(each.id)):
                raise Violation(f"{each.id} drains, and {left} partitions lie there in peace")
        for place in self.registry.places:
            if place.device in placed and place.device not in place.ownership.owners:
                raise Violation(f"{place.device} is there, and does not own its home")
        for key in self.asked_keys:
            self.agree(key)

    def never_back(self) -> set[NodeId]:
        """Choose some of those that own nothing, to stay off for ever; the issuer is needed."""
        able = self.down - self.owning() - {FIRST}
        gone = {each for each in sorted(able) if self.trouble_rng.random() < 0.5}
        never = {each for each in gone if self.lives[each] == 0}
        self.counts["schedule/never ran"] += len(never)
        self.counts["schedule/ended before it owned anything"] += len(
            [each for each in gone & self.registry.idle if self.lives[each]]
        )
        return gone

    def owning(self) -> set[NodeId]:
        """Return who owns something, or answers for it."""
        return {n for _, each in self.registry.ownerships for n in (*each.owners, *each.readers)}

    def bring_back_owners(self) -> None:
        """Start those that were complete when they ended, and own something only now."""
        for number in sorted(self.down & self.owning()):
            self.down.discard(number)
            self.start(number, self.kept[number])

    def is_at_rest(self) -> bool:
        return all(
            not p.handoff.unfinished() and not self.under_way(p) for p in self.planes.values()
        ) and all(len(set(self.held_by_owners(key).values())) == 1 for key in self.asked_keys)

    def under_way(self, plane: Any) -> int:
        """Return how many requests have yet to end."""
        return int(plane.pending())

    def held_by_owners(self, key: str) -> dict[NodeId, frozenset[Dot]]:
        partition = self.registry.partition_of(key)
        owners = self.registry.ownership(partition).owners
        loaded = {n: self.storages[n].load(partition, key) for n in owners}
        return {n: record.dots() if record else frozenset() for n, record in loaded.items()}

    def agree(self, key: str) -> None:
        held = self.held_by_owners(key)
        if len(set(held.values())) != 1:
            raise Violation(f"owners of {key} differ: {held}")
        partition = self.registry.partition_of(key)
        for number, storage in self.storages.items():
            record = storage.load(partition, key)
            if record and record.live and number not in held and number not in self.down:
                raise Violation(f"{number} keeps {key} without owning it")
        live = {(key, dot) for dot in next(iter(held.values()))}
        alone = {name: replaced for name, (_, replaced) in self.alone.items() if name[0] == key}
        acked = {name for name in self.acked if name[0] == key} | alone.keys()
        if lost := acked - self.meant - live:
            raise Violation(f"lost: {lost}")
        if back := live & self.killed.union(*alone.values()):
            raise Violation(f"came back: {back}")


def run(seed: int) -> Trouble:
    """Run one schedule. Raises Violation, with the seed."""
    trouble = Trouble(seed)
    try:
        trouble.trouble()
        trouble.peace()
    except AssertionError as error:
        raise Violation(f"SEED {seed}: {type(error).__name__}: {error}") from error
    return trouble
