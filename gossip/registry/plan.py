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
from gossip.registry.ownership import Ownership
from gossip.registry.placement import Owners, Placeable, assign, owners_in_zone_max, zone_of
from gossip.registry.places import HOMES_FROM, PLACES_FROM, Places
from gossip.registry.places import follow as follow_places
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
    """The number of one of the table, or of a place."""
    giver: NodeId | None
    taker: NodeId | None
    cause: Cause


class Plan(NamedTuple):
    """Who is to own what before and after a change: first the table's partitions, then places.

    A home that is only made then has nobody before, and nothing in it that would have to be copied.
    """

    nodes_before: tuple[RegisteredNode, ...]
    nodes_after: tuple[RegisteredNode, ...]
    before: Sequence[Owners]
    after: Sequence[Owners]
    moves: tuple[PlannedMove, ...]
    places: Places

    @property
    def copied(self) -> int:
        """How many copies of a partition some node has to make, those of places with them."""
        return sum(move.taker is not None for move in self.moves)

    @property
    def copied_homes(self) -> int:
        """How many of these are of homes."""
        return sum(m.taker is not None and m.partition >= HOMES_FROM for m in self.moves)

    @property
    def copied_in_spaces(self) -> int:
        """How many of these are of spaces with partitions of their own."""
        return sum(
            m.taker is not None and PLACES_FROM <= m.partition < HOMES_FROM for m in self.moves
        )

    @property
    def copies(self) -> int:
        """How many owners a partition of the table has at least, afterwards."""
        return min(map(len, self.after[: self._table_size]))

    @property
    def copies_before(self) -> int:
        """How many it has now."""
        return min(map(len, self.before[: self._table_size]))

    @property
    def _table_size(self) -> int:
        return len(self.after) - len(self.places)

    def thinned_spaces(self) -> dict[str, tuple[int, int]]:
        """Return how many owners the keys of a space have before and after, where those are fewer.

        >>> from gossip.registry.places import Place
        >>> space = Place(PLACES_FROM, 0, Ownership((1, 2), 1), "photos", 2)
        >>> Plan((), (), [(1, 2), (1, 2)], [(1,), (1,)], (), (space,)).thinned_spaces()
        {'photos': (2, 1)}
        """
        size = self._table_size
        rows = zip(self.places, self.before[size:], self.after[size:], strict=True)
        return {
            place.space: (len(old), len(new))
            for place, old, new in rows
            if place.space and len(new) < len(old)
        }

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
    placed = placeable(after_nodes)
    targets = [ownership.target for _, ownership in registry.ownerships]
    partitions, replicas = registry.partitions, registry.replicas
    table = assign(targets[:partitions], placed, partitions, replicas)
    places = _places_after(registry, targets[partitions:], placed)
    homeless = len(places) - len(registry.places)
    before = [*targets, *[()] * homeless]
    after = [*table, *(place.ownership.owners for place in places)]
    numbers = [*range(partitions), *(place.number for place in places)]
    wanted = [*[replicas] * partitions, *(place.replicas or replicas for place in places)]
    zones = {node.id: zone_of(node) for node in placed}
    sizes = list(Counter(zones.values()).values())

    def cause(owners: Owners, copies: int, giver: NodeId | None, taker: NodeId | None) -> Cause:
        if giver is not None and giver not in zones:
            return Cause.LEAVES
        if giver is None or taker is None:
            return Cause.COPIES
        sharing = [owner for owner in owners if zones.get(owner) == zones[giver]]
        most = owners_in_zone_max(sizes, min(copies, len(placed)))
        return Cause.ZONES if len(sharing) > most else Cause.SHARE

    moves = tuple(
        PlannedMove(number, giver, taker, cause(old, copies, giver, taker))
        for number, copies, old, new in zip(numbers, wanted, before, after, strict=True)
        for giver, taker in _exchanged(old, new)
        if old
    )
    return Plan(registry.nodes, after_nodes, before, after, moves, places)


def _places_after(
    registry: Registry, targets: Sequence[Owners], placed: Sequence[Placeable]
) -> Places:
    """Return the places as they are once all has moved; whoever has no home gets one."""
    if not registry.places:
        return ()

    def at_once(_: Ownership, target: Owners) -> Ownership:
        return Ownership(target, registry.epoch)

    return follow_places(
        registry.places, targets, placed, registry.replicas, registry.epoch, at_once
    )


def _exchanged(old: Owners, new: Owners) -> Iterable[tuple[NodeId | None, NodeId | None]]:
    gone = [node for node in old if node not in new]
    return zip_longest(gone, [node for node in new if node not in old])


def owned(placement: Sequence[Owners]) -> Counter[NodeId]:
    """Return how many partitions each node owns in a placement."""
    return Counter(chain.from_iterable(placement))
