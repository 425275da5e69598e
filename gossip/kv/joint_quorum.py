"""How many nodes it takes for a write, or for a read, of each set of owners whose word counts.

There is one such set, or two while a partition is on its way to other owners (``ownership.py``):
then it takes a quorum of each, and a node of both counts for both (Raft's joint consensus).
"""

from collections.abc import Collection, Iterable
from itertools import chain

from gossip.core.ids import NodeId
from gossip.kv.requests import quorum
from gossip.registry.ownership import Ownership, majority

Part = tuple[Collection[NodeId], int]
"""(a set of owners, how many of them it takes)"""


class JointQuorum:
    """Counts of one or two sets of owners how many are enough; of none before anybody is asked."""

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self._parts = tuple(parts)

    @classmethod
    def of_write(cls, ownership: Ownership, w: int | None) -> "JointQuorum":
        """Return who must have a write on disk; of a set of fewer than ``w``, all."""
        return cls(
            (nodes, quorum(min(w, len(nodes)) if w else None, len(nodes), "w"))
            for nodes in ownership.writers
        )

    @classmethod
    def of_read(cls, ownership: Ownership, r: int | None) -> "JointQuorum":
        """Return who must answer a read, and agree. Raises InvalidRequest if ``r`` is too large.

        Fewer than a majority of the readers promise nothing of the next read, so they ask nobody
        else.
        """
        readers, *others = ownership.read_sets
        needed = quorum(r, len(readers), "r")
        if needed < majority(readers):
            return cls([(readers, needed)])
        return cls([(readers, needed), *((nodes, majority(nodes)) for nodes in others)])

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """All that count, each once."""
        if len(self._parts) == 1:
            return tuple(self._parts[0][0])
        return tuple(dict.fromkeys(chain.from_iterable(part for part, _ in self._parts)))

    def is_met(self, nodes: Collection[NodeId]) -> bool:
        """Tell whether these are enough."""
        assert self._parts, "it takes somebody"
        return all(_count(part, nodes) >= needed for part, needed in self._parts)

    def _lacking(self, nodes: Collection[NodeId]) -> list[Collection[NodeId]]:
        return [part for part, needed in self._parts if _count(part, nodes) < needed]

    def progress(self, nodes: Collection[NodeId]) -> tuple[int, int]:
        """Return how many of these count, and how many it takes, in the set furthest behind."""
        counted = [(_count(part, nodes), needed) for part, needed in self._parts]
        return min(counted, key=lambda pair: pair[0] - pair[1])

    def chosen(self, candidates: Iterable[NodeId], have: Collection[NodeId]) -> list[NodeId]:
        """Return the first candidates that make a quorum with those that there are already.

        Who belongs to no set that lacks somebody is passed over.
        """
        if len(self._parts) == 1:
            return self._chosen_of_one(candidates, have)
        chosen: list[NodeId] = []
        for node in candidates:
            if any(node in part for part in self._lacking({*have, *chosen})):
                chosen.append(node)
        return chosen

    def _chosen_of_one(
        self, candidates: Iterable[NodeId], have: Collection[NodeId]
    ) -> list[NodeId]:
        """Return the same where there is one set, as there is nearly always."""
        [(part, needed)] = self._parts
        there = set(part).intersection(have)
        chosen: list[NodeId] = []
        for node in candidates:
            if len(there) >= needed:
                break
            if node in part:
                chosen.append(node)
                there.add(node)
        return chosen


def _count(part: Collection[NodeId], nodes: Collection[NodeId]) -> int:
    return len([node for node in part if node in nodes])
