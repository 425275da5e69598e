"""Ranges of positions, both ends included."""

from collections.abc import Iterable

Range = tuple[int, int]


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return the same positions as few, sorted, disjoint ranges.

    >>> joined([(5, 6), (1, 2), (3, 3)])
    [(1, 3), (5, 6)]
    """
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def without(whole: Range, taken: Iterable[Range]) -> list[Range]:
    """Return what is left of a range.

    >>> without((1, 9), [(3, 4), (9, 12)])
    [(1, 2), (5, 8)]
    """
    left: list[Range] = []
    at, end = whole
    for first, last in joined(taken):
        if first > end:
            break
        if at < first:
            left.append((at, first - 1))
        at = max(at, last + 1)
    return [*left, (at, end)] if at <= end else left


def size(ranges: Iterable[Range]) -> int:
    """Return how many positions there are."""
    return sum(last - first + 1 for first, last in ranges)


def format_ranges(ranges: Iterable[Range]) -> str:
    """Return the ranges for people.

    >>> described([(1, 1), (4, 6)])
    '1, 4 to 6'
    """
    return ", ".join(
        str(first) if first == last else f"{first} to {last}" for first, last in ranges
    )
