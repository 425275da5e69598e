"""Sums and differences of coverages: what one clock has and another lacks, what most of some have.

A coverage is a set of dots as sorted intervals for each actor (``dots.py``). Counting its dots one
by one would cost what the intervals save, so all of this works on whole intervals.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from gossip.kv.dots import Actor, Coverage, Interval, PartitionClock


def sound(coverage: Coverage) -> Coverage:
    """Return what somebody else says is covered as one that can be reckoned with.

    >>> sound(((2, ((5, 6), (9, 3), (1, 5))), (1, ((2, 2),))))
    ((1, ((2, 2),)), (2, ((1, 6),)))
    """
    return union((coverage,))


def difference(coverage: Coverage, known: PartitionClock) -> Coverage:
    """Return what is covered and not known.

    >>> difference(((1, ((1, 9),)),), PartitionClock(((1, ((3, 4),)),)))
    ((1, ((1, 2), (5, 9))),)
    """
    left = ((actor, _without(intervals, known.intervals(actor))) for actor, intervals in coverage)
    return tuple((actor, intervals) for actor, intervals in left if intervals)


def _without(intervals: Sequence[Interval], known: Sequence[Interval]) -> tuple[Interval, ...]:
    """Return what of sorted, disjoint intervals lies outside of others of that kind."""
    left: list[Interval] = []
    at = 0
    for first, last in intervals:
        while at < len(known) and known[at][1] < first:
            at += 1
        here = at
        while first <= last and here < len(known) and known[here][0] <= last:
            if first < known[here][0]:
                left.append((first, known[here][0] - 1))
            first = max(first, known[here][1] + 1)
            here += 1
        if first <= last:
            left.append((first, last))
    return tuple(left)


def union(coverages: Iterable[Coverage]) -> Coverage:
    """Return what any of them covers."""
    clock = PartitionClock()
    for coverage in coverages:
        clock.absorb(coverage)
    return clock.coverage()


def in_at_least(count: int, coverages: Iterable[Coverage]) -> Coverage:
    """Return what so many of them cover.

    >>> in_at_least(2, [((1, ((1, 5),)),), ((1, ((4, 9),)),), ()])
    ((1, ((4, 5),)),)
    """
    steps: defaultdict[Actor, list[tuple[int, int]]] = defaultdict(list)
    for coverage in coverages:
        for actor, intervals in coverage:
            steps[actor] += [(first, 1) for first, _ in intervals]
            steps[actor] += [(last + 1, -1) for _, last in intervals]
    found = ((actor, _deep_enough(count, sorted(changes))) for actor, changes in steps.items())
    return tuple(sorted((actor, intervals) for actor, intervals in found if intervals))


def _deep_enough(count: int, changes: list[tuple[int, int]]) -> tuple[Interval, ...]:
    """Return where at least so many intervals lie over each other."""
    clock = PartitionClock()
    depth, since = 0, 0
    for at, change in changes:
        if depth >= count and at > since:
            clock.absorb(((0, ((since, at - 1),)),))
        depth += change
        assert depth >= 0, "no interval ends that has not begun"
        since = at
    return clock.intervals(0)


def size_of(coverage: Coverage) -> int:
    """Return how many dots are covered."""
    return sum(last - first + 1 for _, intervals in coverage for first, last in intervals)
