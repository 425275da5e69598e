"""The schedules of ``owners.py`` with counters and sets in them, and an exact witness for both.

Each increment of a counter is a power of four of its own. So a value tells which increments are in
it, and whether one of them is in it twice: then one of its digits is above 1. The witness demands

* of each value that is read, wherever and whenever: no increment is in it twice, and none that was
  rejected, or never asked for;
* of a quorum read: each increment is in it that was acknowledged, or read, before it began;
* in peace: that all owners hold the same.

A member of a set is added once, and may be removed later. It is there from its acknowledgement on
until somebody asks to remove it, and not any more once that was acknowledged.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from gossip.core.ids import NodeId
from gossip.kv.changes import Change, CounterUpdate, SetUpdate
from gossip.kv.messages import CODEC, Increment
from gossip.kv.requests import Get, GetResult, PutResult, Rejected, Update
from gossip.sim.disk import others_have_all_of
from tests.sim import owners
from tests.sim.owners import Trouble, Violation

COUNTERS = [f"counter-{n}" for n in range(3)]
SETS = ["set-0"]
DIGITS_MAX = 31
BASE = 4

MUST_HAPPEN = (
    *owners.MUST_HAPPEN,
    "counting/acknowledged", "counting/indeterminate", "counting/rejected", "counting/forwarded",
    "counting/read", "counting/around power", "counting/lives of one node",
    "counting/versions at once", "counting/removed",
)  # fmt: skip


class Asked:
    """What the witness remembers of an update, or of a read, that is under way."""

    def __init__(self, key: str, number: int, must: frozenset[int], never: frozenset[int]) -> None:
        self.key, self.number, self.must, self.never = key, number, must, never


class Trial(Trouble):
    """A net in which everything goes wrong, with updates of typed values as well."""

    def __init__(self, seed: int) -> None:
        self.issued: defaultdict[str, int] = defaultdict(int)
        self.present: defaultdict[str, set[int]] = defaultdict(set)
        """By key: what was acknowledged, or read; of a set, unless a removal was asked for."""
        self.absent: defaultdict[str, set[int]] = defaultdict(set)
        """What was rejected; of a set, what was removed as well."""
        self.lost: set[str] = set()
        self.open_updates: dict[tuple[NodeId, int], Asked] = {}
        self.member_removals: dict[tuple[NodeId, int], Asked] = {}
        self.reading: dict[tuple[NodeId, int], Asked] = {}
        super().__init__(seed)

    def actions(self) -> list[Callable[[], object]]:
        typed = [*[self.count] * 9, *[self.look] * 5, *[self.add] * 2, self.remove_member]
        typed += [self.count_around_power] * 2
        return [*super().actions(), *typed]

    def crash(self, number: NodeId) -> None:
        super().crash(number)
        for open_ in (self.open_updates, self.member_removals, self.reading):
            for name in [name for name in open_ if name[0] == number]:
                del open_[name]

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        if isinstance(CODEC.decode(data), Increment):  # like a Forward, it is never sent twice
            self.counts["counting/forwarded"] += 1
            noise, self.noise = self.noise, 0.0
            super().send(sender, to, data)
            self.noise = noise
        else:
            super().send(sender, to, data)

    def forgive(self, partitions: Iterable[int], epoch: int) -> None:
        gone = set(partitions)
        super().forgive(gone, epoch)
        self.lost |= {k for k in (*COUNTERS, *SETS) if self.registry.partition_of(k) in gone}

    # What is asked

    def ask_for(
        self, key: str, change: Change, number: int, who: NodeId | None = None
    ) -> tuple[tuple[NodeId, int], Asked]:
        who = who or self.trouble_rng.choice(sorted(self.planes))
        asked = Asked(key, number, frozenset(), frozenset())
        return (who, self.submit(who, Update(key, change))), asked

    def count(self) -> None:
        if self.planes:
            self.count_at(self.trouble_rng.choice(sorted(self.planes)))

    def count_at(self, who: NodeId) -> None:
        key = self.trouble_rng.choice(COUNTERS)
        if self.issued[key] < DIGITS_MAX:
            digit, self.issued[key] = self.issued[key], self.issued[key] + 1
            name, asked = self.ask_for(key, CounterUpdate(BASE**digit), digit, who)
            self.open_updates[name] = asked

    def count_around_power(self) -> None:
        """One counts, loses its power and some of that, and counts again as soon as it is back.

        One of the others cannot tell it what there is.
        """
        who = self.anybody()
        if who is None:
            return
        for _ in range(3):
            self.count_at(who)
        self.run(0.05)
        self.judge()
        if not others_have_all_of(who, self.registry, self.disks.values()):
            return
        other = self.trouble_rng.choice(sorted(self.storages))
        self.cut.add(frozenset((who, other)))
        self.fail_power(who)
        self.start(who, self.kept[who])
        for _ in range(2):
            self.count_at(who)
        self.run(0.05)
        self.counts["counting/around power"] += 1

    def add(self) -> None:
        if self.planes:
            number, self.issued[SETS[0]] = self.issued[SETS[0]], self.issued[SETS[0]] + 1
            name, asked = self.ask_for(SETS[0], SetUpdate(str(number)), number)
            self.open_updates[name] = asked

    def remove_member(self) -> None:
        present = sorted(self.present[SETS[0]])
        if self.planes and present:
            number = self.trouble_rng.choice(present)
            self.present[SETS[0]].discard(number)
            for read in self.reading.values():
                read.must -= {number}
            change = SetUpdate(str(number), removes=True)
            name, asked = self.ask_for(SETS[0], change, number)
            self.member_removals[name] = asked

    def look(self) -> None:
        if self.planes:
            key = self.trouble_rng.choice((*COUNTERS, *SETS))
            self.look_at(self.trouble_rng.choice(sorted(self.planes)), key)

    def look_at(self, who: NodeId, key: str) -> None:
        must, never = frozenset(self.present[key]), frozenset(self.absent[key])
        self.reading[who, self.submit(who, Get(key))] = Asked(key, -1, must, never)

    # Judging

    def judge(self) -> None:
        super().judge()
        for _, asked, result in self._ended(self.open_updates):
            self._judge_update(asked, result)
        for _, asked, result in self._ended(self.member_removals):
            if isinstance(result, PutResult) and result.outcome == "ok":
                self.counts["counting/removed"] += 1
                self.absent[asked.key].add(asked.number)
        for name, asked, result in self._ended(self.reading):
            if isinstance(result, GetResult) and result.outcome == "ok":
                self._judge_value(name[0], asked, result)

    def _ended(
        self, open_: dict[tuple[NodeId, int], Asked]
    ) -> list[tuple[tuple[NodeId, int], Asked, Any]]:
        ended = [(name, open_[name], self.results[name]) for name in open_ if name in self.results]
        for name, _, _ in ended:
            del open_[name]
        return ended

    def _judge_update(self, asked: Asked, result: Any) -> None:
        if isinstance(result, Rejected):
            self.counts["counting/rejected"] += 1
            if result.mismatch:
                raise Violation(f"{asked.key} is said to be of another type: {result}")
            self.absent[asked.key].add(asked.number)
        elif result.outcome == "ok":
            self.counts["counting/acknowledged"] += 1
            self.present[asked.key].add(asked.number)
        else:
            self.counts["counting/indeterminate"] += 1

    def _judge_value(self, reader: NodeId, asked: Asked, result: GetResult) -> None:
        self.counts["counting/read"] += 1
        self.counts["counting/versions at once"] += asked.key in COUNTERS and len(result.live) > 1
        if len(result.values) > 1:
            raise Violation(f"{asked.key} has two values: {result.values}")
        data = result.values[0].data if result.values else None
        there = members(data) if asked.key in SETS else digits(asked.key, data)
        if asked.key in self.lost:
            return
        if missed := asked.must - there:
            raise Violation(f"a quorum read of {asked.key} at {reader} misses {sorted(missed)}")
        if wrong := there & asked.never or there - set(range(self.issued[asked.key])):
            raise Violation(f"a quorum read of {asked.key} at {reader} has {sorted(wrong)}")
        if asked.key in COUNTERS:
            self.present[asked.key] |= there

    def judge_peace(self) -> None:
        super().judge_peace()
        for key in (*COUNTERS, *SETS):
            if len(set(self.held_by_owners(key).values())) != 1:
                raise Violation(f"owners of {key} differ in peace")
            for who in sorted(self.planes):
                self.look_at(who, key)
        self.run(8.0)
        self.judge()
        if self.reading:
            raise Violation("reads do not end in peace")
        self.counts["counting/lives of one node"] += max(self.lives.values()) > 2


def members(data: bytes | None) -> frozenset[int]:
    return frozenset(map(int, msgspec.json.decode(data))) if data else frozenset()


def digits(key: str, data: bytes | None) -> frozenset[int]:
    """Return which increments a value has. Raises Violation if it has one twice."""
    value, found, digit = int(data or b"0"), set(), 0
    while value:
        value, times = divmod(value, BASE)
        if times > 1:
            raise Violation(f"{key} has increment {digit} {times} times")
        if times:
            found.add(digit)
        digit += 1
    return frozenset(found)


def run(seed: int) -> Trial:
    """Run one schedule. Raises Violation, with the seed."""
    trial = Trial(seed)
    try:
        trial.trouble()
        trial.peace()
    except AssertionError as error:
        raise Violation(f"SEED {seed}: {type(error).__name__}: {error}") from error
    return trial
