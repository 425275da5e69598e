"""Deletes have dots of their own, and an owner remembers to which keys the latest of them belong.

A deleted key leaves no row, and no tombstone. So that a clock tells nevertheless that there was a
delete, each takes a dot, of an actor that is its coordinator's but for the highest bit: whoever
finds such a dot in one clock and not in another knows that a delete has not been told, also where
nobody can say any more of which key. Puts that were replaced need no such care, since what took
their place has a dot that is told.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable

from gossip.kv.dots import Actor, Coverage, Dot, PartitionClock
from gossip.kv.limits import DELETIONS_REMEMBERED_MAX

DELETING = 1 << 63
"""The bit by which an actor's deletes are told from its puts."""


def putting(actor: Actor) -> Actor:
    """Return the actor of the puts."""
    return actor & ~DELETING


def is_deletion(dot: Dot) -> bool:
    """Tell whether this names a delete; puts of versions before these dots may look like one."""
    return bool(dot[0] & DELETING)


def deletions_of(coverage: Coverage) -> Coverage:
    """Return that part of a coverage that consists of deletes."""
    return tuple((actor, intervals) for actor, intervals in coverage if actor & DELETING)


class DeletionMemory:
    """The keys of the latest deletes that were merged here, in memory alone."""

    def __init__(self) -> None:
        self._order: OrderedDict[tuple[int, Dot], None] = OrderedDict()
        self._keys: defaultdict[int, dict[Dot, str]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._order)

    def record(self, partition: int, key: str, dots: Iterable[Dot]) -> None:
        """Remember of which key those of the dots are that name deletes."""
        for dot in dots:
            if is_deletion(dot):
                self._order[partition, dot] = None
                self._keys[partition][dot] = key
        while len(self._order) > DELETIONS_REMEMBERED_MAX:
            (of, oldest), _ = self._order.popitem(last=False)
            del self._keys[of][oldest]
        assert len(self._order) <= DELETIONS_REMEMBERED_MAX, "the oldest make room"

    def among(self, partition: int, missing: Coverage) -> dict[str, list[Dot]]:
        """Return the remembered deletes among these dots, by key."""
        deletions = deletions_of(missing)
        found: dict[str, list[Dot]] = {}
        if deletions:
            wanted = PartitionClock(deletions)
            for dot, key in self._keys[partition].items():
                if dot in wanted:
                    found.setdefault(key, []).append(dot)
        return found
