"""Dots and coverage clocks: which writes have I seen, in a few bytes.

A **dot** names one write: (actor, n), the n-th write that this actor coordinated in this
partition. An actor is a process, not a node: the id is drawn at random at each start and never
stored. So a node that comes back from a crash, a restored backup or a cloned card cannot issue
a dot twice, and needs no durable counter for it.

A partition's **clock** is the set of dots whose effect a replica has processed, whether the
value still lives or was replaced or deleted long ago. This set is the only memory of a delete:
there are no tombstones, and nothing here ever shrinks. It stays small because counters are
consecutive: the set is kept as intervals, in the usual case one per actor.

Sources: dotted version vectors (Preguiça and others, 2010); DottedDB (Gonçalves and others,
SRDS 2017), whose node clock this is, kept per partition.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from hashlib import blake2b
from operator import itemgetter
from typing import Annotated

import msgspec

Actor = Annotated[int, msgspec.Meta(ge=0)]
Counter = Annotated[int, msgspec.Meta(ge=1)]
Dot = tuple[Actor, Counter]

Interval = tuple[Counter, Counter]
"""First and last counter, both included."""

Coverage = tuple[tuple[Actor, tuple[Interval, ...]], ...]
"""A clock as it is stored and sent: sorted by actor."""

MARK_BYTES = 8


def join_intervals(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the same counters as few, sorted, disjoint, non-touching intervals.

    >>> join_intervals([(5, 6), (1, 2), (3, 4), (9, 9)])
    ((1, 6), (9, 9))
    """
    joined: list[Interval] = []
    for first, last in sorted(intervals):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)


class PartitionClock:
    """The dots that one replica has processed in one partition. Only ever grows."""

    def __init__(self, coverage: Coverage = ()) -> None:
        self._intervals: dict[int, tuple[Interval, ...]] = {
            actor: join_intervals(_sound(intervals)) for actor, intervals in coverage
        }

    def __contains__(self, dot: Dot) -> bool:
        actor, n = dot
        intervals = self._intervals.get(actor, ())
        at = bisect_right(intervals, n, key=itemgetter(0)) - 1
        return at >= 0 and n <= intervals[at][1]

    def gap_free(self, actor: Actor) -> int:
        """Return the largest n such that all of 1..n of this actor are here; 0 if none."""
        intervals = self._intervals.get(actor, ())
        return intervals[0][1] if intervals and intervals[0][0] == 1 else 0

    def add(self, dots: Iterable[Dot]) -> set[Actor]:
        """Take in dots; return the actors whose intervals changed by it.

        All dots of an actor at once: a frame may name 200,000 of them, and joining the intervals
        anew for each would take hours.
        """
        fresh: defaultdict[Actor, list[Interval]] = defaultdict(list)
        for actor, n in dots:
            if (actor, n) not in self:
                fresh[actor].append((n, n))
        for actor, intervals in fresh.items():
            self._extend(actor, intervals)
        return set(fresh)

    def absorb(self, coverage: Coverage) -> set[Actor]:
        """Take in another clock; return the actors whose intervals changed by it."""
        told: defaultdict[Actor, list[Interval]] = defaultdict(list)
        for actor, intervals in coverage:
            told[actor] += _sound(intervals)
        changed: set[Actor] = set()
        for actor, sound in told.items():
            before = self.intervals(actor)
            if sound:
                self._extend(actor, sound)
            if self.intervals(actor) != before:
                changed.add(actor)
        return changed

    def _extend(self, actor: Actor, intervals: Iterable[Interval]) -> None:
        known = self._intervals.get(actor, ())
        self._intervals[actor] = join_intervals((*known, *intervals))

    def intervals(self, actor: Actor) -> tuple[Interval, ...]:
        """Return what is covered of one actor."""
        return self._intervals.get(actor, ())

    def coverage(self) -> Coverage:
        """Return the whole clock in its stored form."""
        return tuple(sorted(self._intervals.items()))

    def mark(self) -> int:
        """Return a 64-bit hash by which two replicas tell that their clocks are equal."""
        data = msgspec.msgpack.encode(self.coverage())
        return int.from_bytes(blake2b(data, digest_size=MARK_BYTES).digest())


def _sound(intervals: Iterable[Interval]) -> Iterable[Interval]:
    """Leave out intervals that end before they begin: they cover nothing."""
    return ((first, last) for first, last in intervals if first <= last)
