"""Placement: consistent hashing with bounded load over a fixed number of partitions.

A key hashes to one of P partitions for ever; a table says which nodes own each partition. The
table is computed once, by the issuer, from the table before it, and travels in the registry:
nobody has to arrive at the same result by itself. That allows a better table than a ring of
tokens gives. In order of weight:

1. every partition has min(replicas, nodes) different owners;
2. owners of one partition lie in different zones; where there are fewer zones than owners, no
   zone has more of them than it must;
3. a node owns its weighted share, rounded down or up (*bounded load*: with 256 partitions and
   three replicas, max/mean stays below 1.02 up to some tens of nodes);
4. as little moves as 1 to 3 allow (a joining node takes only its share, from the fullest);
5. what is still undecided goes by rendezvous hashing of (partition, node).

Sources: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018;
Thaler and Ravishankar, rendezvous hashing, 1998.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

from gossip.core.ids import NodeId

Owners = tuple[NodeId, ...]

Numbered = tuple[int, NodeId | None]
"""The number of a partition, and who is to own it before all others."""

PARTITIONS = 256
PARTITIONS_MAX = 4096
REPLICAS = 3

_Name = TypeVar("_Name")
_ROUNDING = 1e-6
"""Shares are quotients: a share of 64 must not be read as one a hair above it."""


class Placeable(Protocol):
    """What placement needs to know of a node. An empty zone is a zone of its own."""

    @property
    def id(self) -> NodeId:
        """The node's id."""

    @property
    def weight(self) -> float:
        """The node's share, relative to the others'."""

    @property
    def zone(self) -> str:
        """What fails together: a rack, a room, a power line."""


def partition_of(key: str, partitions: int) -> int:
    """Return the partition of a key: the same on every machine, for ever."""
    digest = blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % partitions


def assign(
    previous: Sequence[Owners],
    nodes: Sequence[Placeable],
    partitions: int,
    replicas: int,
    names: Sequence[Numbered] = (),
) -> tuple[Owners, ...]:
    """Return the owners of each partition, moving as little as possible from ``previous``.

    Owners that stay keep their order and come first. ``previous`` may be empty. ``names`` are the
    numbers of the partitions, where they are not those of ``range(partitions)``, each with the node
    that is to be its first owner whatever its share, if there is one and it is among the nodes.
    """
    assert nodes, "somebody must own the partitions"
    assert not previous or len(previous) == partitions, "the number of partitions never changes"
    table = _Table(previous or [()] * partitions, nodes, replicas, names)
    table.part_shared_zones()
    table.fill()
    table.level()
    return tuple(tuple(owners) for owners in table.owners)


def shares(nodes: Sequence[Placeable], partitions: int, replicas: int) -> dict[NodeId, float]:
    """Return how many partitions each node should own.

    Weight counts, but nobody can own a partition twice, nor can a zone more often than
    ``owners_in_zone_max``. What exceeds that is shared among the rest.
    """
    count = min(replicas, len(nodes))
    zones: dict[str, list[Placeable]] = {}
    for node in nodes:
        zones.setdefault(zone_of(node), []).append(node)
    most = owners_in_zone_max([len(inside) for inside in zones.values()], count)
    weights = {name: sum(node.weight for node in inside) for name, inside in zones.items()}
    bounds = {name: float(min(most, len(inside)) * partitions) for name, inside in zones.items()}
    result: dict[NodeId, float] = {}
    for name, share in _pour(float(count * partitions), weights, bounds).items():
        inside = {node.id: node.weight for node in zones[name]}
        result |= _pour(share, inside, dict.fromkeys(inside, float(partitions)))
    return result


def owners_in_zone_max(sizes: Sequence[int], count: int) -> int:
    """Return how many of ``count`` owners a zone must take, when each has so many nodes."""
    assert sum(sizes) >= count, "there are as many nodes as owners"
    return next(m for m in range(1, count + 1) if sum(min(m, each) for each in sizes) >= count)


def _pour(
    slots: float, weights: Mapping[_Name, float], bounds: Mapping[_Name, float]
) -> dict[_Name, float]:
    """Share out by weight with an upper bound for each; the overflow goes to the others."""
    poured: dict[_Name, float] = {}
    open_weights = dict(weights)
    while open_weights:
        per_weight = slots / sum(open_weights.values())
        full = [name for name, w in open_weights.items() if w * per_weight > bounds[name]]
        if not full:
            return poured | {name: w * per_weight for name, w in open_weights.items()}
        for name in full:
            poured[name] = bounds[name]
            slots -= bounds[name]
            del open_weights[name]
    return poured


def zone_of(node: Placeable) -> str:
    """Return the zone of a node; who has none is one of its own."""
    return node.zone or f"node {node.id:016x}"


class _Table:
    """A placement in the making."""

    def __init__(
        self,
        previous: Sequence[Owners],
        nodes: Sequence[Placeable],
        replicas: int,
        names: Sequence[Numbered],
    ) -> None:
        self.names = names or [(number, None) for number in range(len(previous))]
        self.zone_of = {node.id: zone_of(node) for node in nodes}
        self.replicas = min(replicas, len(nodes))
        sizes = list(Counter(self.zone_of.values()).values())
        self.in_zone_max = owners_in_zone_max(sizes, self.replicas)
        self.share = shares(nodes, len(previous), replicas)
        self.owners: list[list[NodeId]] = [
            self._kept(owners, first)
            for owners, (_, first) in zip(previous, self.names, strict=True)
        ]
        self.load = dict.fromkeys(self.zone_of, 0)
        for owners in self.owners:
            for node in owners:
                self.load[node] += 1
        self.fixed = Counter(first for _, first in self.names if first is not None)
        """How many partitions a node owns whatever its share."""
        self._scores: dict[tuple[int, NodeId], int] = {}

    def _kept(self, owners: Owners, first: NodeId | None) -> list[NodeId]:
        """Return the owners of before that are there, behind the one that is to be the first."""
        order = owners if first is None else (first, *(node for node in owners if node != first))
        return [node for node in order if node in self.zone_of][: self.replicas]

    def part_shared_zones(self) -> None:
        """Let go of owners where a zone has more of them than it must."""
        for owners, (_, first) in zip(self.owners, self.names, strict=True):
            for node in sorted(owners, key=self._overload, reverse=True):
                others = [other for other in owners if other != node]
                if node != first and not self._fits(node, others):
                    owners.remove(node)
                    self.load[node] -= 1

    def fill(self) -> None:
        """Give every partition its full number of owners, emptiest nodes first."""
        for partition, owners in enumerate(self.owners):
            while len(owners) < self.replicas:
                outside = [node for node in self.zone_of if node not in owners]
                fitting = [node for node in outside if self._fits(node, owners)]
                assert fitting, "some zone has room as long as owners are missing"
                chosen = max(fitting, key=lambda n: (-self._overload(n), self._score(partition, n)))
                owners.append(chosen)
                self.load[chosen] += 1

    def level(self) -> None:
        """Move partitions from the fullest to the emptiest until shares hold."""
        while self._move_one():
            pass

    def _move_one(self) -> bool:
        """Make the move that helps most; False when none helps."""
        by_load = sorted(self.zone_of, key=lambda node: (self._overload(node), node))
        for giver in reversed(by_load):
            if self.load[giver] <= self.fixed[giver]:
                continue
            for taker in by_load:
                if not self._helps(giver, taker):
                    break
                partition = self._movable(giver, taker)
                if partition is not None:
                    self._move(partition, giver, taker)
                    return True
        return False

    def _helps(self, giver: NodeId, taker: NodeId) -> bool:
        """Tell whether a move brings one to its bounds and drives neither out of them."""
        gives = self.load[giver] > math.floor(self.share[giver] + _ROUNDING)
        takes = self.load[taker] < math.ceil(self.share[taker] - _ROUNDING)
        too_full = self.load[giver] > math.ceil(self.share[giver] - _ROUNDING)
        too_empty = self.load[taker] < math.floor(self.share[taker] + _ROUNDING)
        return gives and takes and (too_full or too_empty)

    def _movable(self, giver: NodeId, taker: NodeId) -> int | None:
        """Return the giver's partition that suits the taker best, if any may go to it."""
        best, best_score = None, -1
        for partition, owners in enumerate(self.owners):
            if giver not in owners or taker in owners or giver == self.names[partition][1]:
                continue
            if self._fits(taker, [node for node in owners if node != giver]):
                score = self._score(partition, taker)
                if score > best_score:
                    best, best_score = partition, score
        return best

    def _move(self, partition: int, giver: NodeId, taker: NodeId) -> None:
        owners = self.owners[partition]
        owners.remove(giver)
        owners.append(taker)
        self.load[giver] -= 1
        self.load[taker] += 1

    def _fits(self, node: NodeId, others: Iterable[NodeId]) -> bool:
        """Tell whether the zones allow this node beside those others."""
        zone, taken = self.zone_of[node], [self.zone_of[other] for other in others]
        return taken.count(zone) < self.in_zone_max

    def _overload(self, node: NodeId) -> float:
        """How far a node is above its share, in units of the share."""
        return (self.load[node] - self.share[node]) / max(self.share[node], _ROUNDING)

    def _score(self, partition: int, node: NodeId) -> int:
        """Rendezvous hash of a partition's number and a node."""
        found = self._scores.get((partition, node))
        if found is None:
            number = self.names[partition][0]
            data = number.to_bytes(4 if number < PARTITIONS_MAX else 8) + node.to_bytes(8)
            found = int.from_bytes(blake2b(data, digest_size=8).digest())
            self._scores[partition, node] = found
        return found
