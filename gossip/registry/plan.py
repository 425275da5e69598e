"""What would move if a node were set otherwise, drained, removed or added; nothing is changed.

A plan compares two placements: the one towards which the covey is on its way now, and the one that
would follow. It is computed by the function that the issuer uses (``placement.assign``), from the
same values, so what it says is what happens, as long as nobody else comes or goes meanwhile.
"""

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from gossip.core.ids import NodeId
from gossip.registry.node import RegisteredNode
from gossip.registry.placement import Owners, assign, owners_in_zone_max, zone_of
from gossip.registry.registry import Registry, placeable


class Cause(enum.Enum):
    """Why a partition gets another owner."""

    LEAVES = "leaves"
    """One of its owners is to own nothing."""
    ZONES = "zones"
    """Too many of its owners lie in one zone."""
    SHARE = "share"
    """A node is to own more or less than it does."""
    COPIES = "copies"
    """It gets one owner more, or one fewer."""


class PlannedMove(NamedTuple):
    """One partition comes to one node, from another, or goes from one."""

    partition: int
    giver: NodeId | None
    taker: NodeId | None
    cause: Cause


class Plan(NamedTuple):
    """Who is to own what before and after a change."""

    nodes_before: tuple[RegisteredNode, ...]
    nodes_after: tuple[RegisteredNode, ...]
    before: Sequence[Owners]
    after: Sequence[Owners]
    moves: tuple[PlannedMove, ...]

    @property
    def copied(self) -> int:
        """How many copies of a partition some node has to make."""
        return sum(move.taker is not None for move in self.moves)

    @property
    def copies(self) -> int:
        """How many owners a partition has at least, afterwards."""
        return min(map(len, self.after))

    def causes(self) -> dict[str, int]:
        """Return how many moves each cause has, by its word; those without any are left out."""
        found = Counter(move.cause for move in self.moves)
        return {cause.value: found[cause] for cause in Cause if found[cause]}

    def crowded(self) -> tuple[int, int]:
        """Return in how many partitions afterwards some owners share a zone, and in how many all.

        All of one owner are no crowd.
        """
        zones = {node.id: zone_of(node) for node in self.nodes_after}
        in_zones = [len({zones[owner] for owner in owners}) for owners in self.after]
        sizes = list(zip(map(len, self.after), in_zones, strict=True))
        return sum(z < n for n, z in sizes), sum(z == 1 < n for n, z in sizes)


def plan(registry: Registry, nodes: Iterable[RegisteredNode]) -> Plan:
    """Return what would move if these were the nodes."""
    after_nodes = tuple(nodes)
    before = [ownership.target for ownership in registry.table]
    placed = placeable(after_nodes)
    after = assign(before, placed, registry.partitions, registry.replicas)
    zones = {node.id: zone_of(node) for node in placed}
    sizes = list(Counter(zones.values()).values())
    in_zone_max = owners_in_zone_max(sizes, min(registry.replicas, len(placed)))

    def cause(owners: Owners, giver: NodeId | None, taker: NodeId | None) -> Cause:
        if giver is not None and giver not in zones:
            return Cause.LEAVES
        if giver is None or taker is None:
            return Cause.COPIES
        sharing = [owner for owner in owners if zones.get(owner) == zones[giver]]
        return Cause.ZONES if len(sharing) > in_zone_max else Cause.SHARE

    moves = tuple(
        PlannedMove(partition, giver, taker, cause(old, giver, taker))
        for partition, (old, new) in enumerate(zip(before, after, strict=True))
        for giver, taker in _exchanged(old, new)
    )
    return Plan(registry.nodes, after_nodes, before, after, moves)


def _exchanged(old: Owners, new: Owners) -> Iterable[tuple[NodeId | None, NodeId | None]]:
    gone = [node for node in old if node not in new]
    return zip_longest(gone, [node for node in new if node not in old])


def owned(placement: Sequence[Owners]) -> Counter[NodeId]:
    """Return how many partitions each node owns in a placement."""
    return Counter(chain.from_iterable(placement))
