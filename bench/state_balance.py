"""How evenly keys lie, and how many move when a node comes, beside PyPI's uhashring.

Covey's placement is grown node by node, as an issuer grows it; the ring is made anew, which gives
the same. Each key has three copies: three owners, or the first three nodes on the ring after it.
Counted are copies of 100,000 keys, and the *optimum* is what the newcomer has to get.

Hashes are random: of 100,000 keys with three copies on 30 nodes each gets 10,000, give or take 100,
so the fullest has some 2 % more than the mean whatever the placement. What Covey's placement itself
makes uneven is its *share*: partitions are equal parts of the hash space, and a node owns a whole
number of them. ``share_max_mean`` is of these, and of no sample.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from typing import NamedTuple

from uhashring import HashRing

from bench.report import table
from gossip.registry.node import RegisteredNode
from gossip.registry.placement import PARTITIONS, REPLICAS, Owners, assign, partition_of

NODES = (3, 5, 10, 30)
KEYS = 100_000

Place = Callable[[str], Iterable[int]]
"""Says who has the copies of a key."""


class Spread(NamedTuple):
    """How one of them spreads the copies."""

    max_mean: float
    """Of the copies of the keys that were counted; chance is in it."""
    moved_percent: float
    """Of all copies, when one more node comes."""
    moved_over_optimum: float


class Balance(NamedTuple):
    """Both, with so many nodes."""

    nodes: int
    share_max_mean: float
    """Of the partitions, by which Covey's nodes share the hash space."""
    covey: Spread
    uhashring: Spread

    def figures(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "nodes": self.nodes,
            "share_max_mean": self.share_max_mean,
            "covey": self.covey._asdict(),
            "uhashring": self.uhashring._asdict(),
        }


def weigh() -> list[Balance]:
    """Measure both for all numbers of nodes."""
    keys = [f"bench/{number:06}" for number in range(KEYS)]
    tables = _grown(max(NODES) + 1)
    return [
        Balance(
            count,
            _share(tables[count], count),
            _spread(keys, count, _placed(tables[count]), _placed(tables[count + 1])),
            _spread(keys, count, _ring(count), _ring(count + 1)),
        )
        for count in NODES
    ]


def _grown(most: int) -> dict[int, tuple[Owners, ...]]:
    """Return the owners of each partition, by the number of nodes."""
    nodes = [RegisteredNode(number, f"node-{number}") for number in range(1, most + 1)]
    tables: dict[int, tuple[Owners, ...]] = {0: ()}
    for before, count in pairwise(range(most + 1)):
        tables[count] = assign(tables[before], nodes[:count], PARTITIONS, REPLICAS)
    return tables


def _share(owners: tuple[Owners, ...], nodes: int) -> float:
    owned = Counter(chain.from_iterable(owners))
    return max(owned.values()) * nodes / owned.total()


def _placed(owners: tuple[Owners, ...]) -> Place:
    return lambda key: owners[partition_of(key, PARTITIONS)]


def _ring(count: int) -> Place:
    ring = HashRing([str(number) for number in range(1, count + 1)])
    return lambda key: [int(node["nodename"]) for node in ring.range(key, REPLICAS)]


def _spread(keys: list[str], nodes: int, place: Place, then: Place) -> Spread:
    held: Counter[int] = Counter()
    moved = 0
    for key in keys:
        owners = place(key)
        held.update(owners)
        moved += len(set(then(key)).difference(owners))
    copies = sum(held.values())
    optimum = copies / (nodes + 1)
    return Spread(max(held.values()) * nodes / copies, 100 * moved / copies, moved / optimum)


def show_balance(found: list[Balance]) -> None:
    """Print a row for each number of nodes."""
    head = ["nodes", "covey, max/mean of the partitions"] + [
        f"{name}, {what}"
        for what in ("max/mean of the keys", "% moved to one more", "over the optimum")
        for name in ("covey", "uhashring")
    ]
    rows = [
        [
            each.nodes,
            each.share_max_mean,
            *(figure for pair in zip(each.covey, each.uhashring, strict=True) for figure in pair),
        ]
        for each in found
    ]
    table("Copies of keys among nodes", head, rows)
