"""Digests of parts of what two replicas hold, by which one differing key is found for little.

A tree of three floors, each of which is asked for only below what differs: one hash over all
partitions that two nodes share (``repair.py``), one for each *group* of these, and of a partition
that differs one for each of its *leaves*. A leaf has the keys whose checksum it is, whatever lies
under them: a key stays in its leaf, so a write that comes while two compare moves nothing out of
sight. What a leaf or a group is told by is the exclusive or of hashes over keys and dots
(``records.record_mark``); values, and how records are written down, are not in it. So a later
version with another encoding holds the same as this one, and rewrites a record when it is touched.
"""

from collections.abc import Iterable, Mapping
from zlib import crc32

LEAVES = 64
"""Of a partition: of 400 keys in one, some six are then named for one that differs."""
LEAVES_ASKED_MAX = LEAVES // 2
"""Where more differ, the whole partition is paged through: it is cheaper to name its keys once."""
GROUPS = 16
"""Of partitions, so that of 256 those of one group are named for one that differs."""

Leaf = int


def leaf_of(key: str) -> Leaf:
    """Return the leaf of a key: the same on every machine, for ever."""
    return crc32(key.encode()) % LEAVES


def leaves_of(marks: Mapping[str, int]) -> tuple[int, ...]:
    """Return the digest of each leaf, of keys with the marks of what lies under them."""
    assert all(marks.values()), "0 stands for a key without a value, which is in no leaf"
    digests = [0] * LEAVES
    for key, mark in marks.items():
        digests[leaf_of(key)] ^= mark
    return tuple(digests)


def differing(ours: Iterable[int], theirs: Iterable[int]) -> frozenset[Leaf]:
    """Return which leaves, or groups, differ."""
    both = zip(ours, theirs, strict=True)
    return frozenset(number for number, (our, their) in enumerate(both) if our != their)
