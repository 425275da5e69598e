"""Placement: balance, zones, least movement, and the same table from the same inputs."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.registry.node import RegisteredNode
from gossip.registry.placement import assign, owners_in_zone_max, partition_of, shares

PARTITIONS, REPLICAS = 256, 3


def nodes_of(
    count: int, zones: int = 0, weights: tuple[float, ...] = (1.0,)
) -> list[RegisteredNode]:
    rng = random.Random(count)
    return [
        RegisteredNode(
            rng.getrandbits(64),
            f"n{at}",
            weight=weights[at % len(weights)],
            zone=f"z{at % zones}" if zones else "",
        )
        for at in range(count)
    ]


def loads(table: tuple[tuple[int, ...], ...]) -> Counter[int]:
    return Counter(node for owners in table for node in owners)


def moved(before: tuple[tuple[int, ...], ...], after: tuple[tuple[int, ...], ...]) -> int:
    return sum(len(set(new) - set(old)) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 10, 16, 30])
def test_load_is_bounded(count: int) -> None:
    nodes = nodes_of(count)
    load = loads(assign((), nodes, PARTITIONS, REPLICAS))
    mean = PARTITIONS * min(REPLICAS, count) / count
    assert max(load.values()) <= -(-mean // 1)
    assert max(load.values()) / mean <= 1.02
    assert min(load.values()) >= mean // 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10, 30])
def test_a_joining_node_moves_its_share_and_no_more(count: int) -> None:
    nodes = nodes_of(count + 1)
    before = assign((), nodes[:-1], PARTITIONS, REPLICAS)
    after = assign(before, nodes, PARTITIONS, REPLICAS)
    newcomer = nodes[-1].id
    assert moved(before, after) == loads(after)[newcomer]
    assert abs(loads(after)[newcomer] - shares(nodes, PARTITIONS, REPLICAS)[newcomer]) < 1
    for old, new in zip(before, after, strict=True):
        assert len(set(new) - set(old)) <= 1, "at most one owner of a partition changes"


@pytest.mark.parametrize("count", [4, 5, 10, 30])
def test_a_leaving_node_moves_what_it_had_and_little_more(count: int) -> None:
    nodes = nodes_of(count)
    before = assign((), nodes, PARTITIONS, REPLICAS)
    after = assign(before, nodes[1:], PARTITIONS, REPLICAS)
    had = loads(before)[nodes[0].id]
    assert had <= moved(before, after) <= had + count
    mean = PARTITIONS * min(REPLICAS, count - 1) / (count - 1)
    assert max(loads(after).values()) <= -(-mean // 1)


def test_growing_one_by_one_stays_balanced() -> None:
    nodes = nodes_of(20)
    table: tuple[tuple[int, ...], ...] = ()
    for count in range(1, 21):
        table = assign(table, nodes[:count], PARTITIONS, REPLICAS)
        mean = PARTITIONS * min(REPLICAS, count) / count
        assert max(loads(table).values()) <= -(-mean // 1)


def test_nothing_changes_when_nothing_changed() -> None:
    nodes = nodes_of(9)
    table = assign((), nodes, PARTITIONS, REPLICAS)
    assert assign(table, list(reversed(nodes)), PARTITIONS, REPLICAS) == table


@pytest.mark.parametrize("zones", [3, 4, 5])
def test_zones_are_apart_and_load_stays_bounded(zones: int) -> None:
    nodes = nodes_of(2 * zones, zones)
    zone_of = {node.id: node.zone for node in nodes}
    table = assign((), nodes, PARTITIONS, REPLICAS)
    assert all(len({zone_of[node] for node in owners}) == 3 for owners in table)
    mean = PARTITIONS * REPLICAS / len(nodes)
    assert max(loads(table).values()) / mean <= 1.02


def test_zones_that_appear_later_are_used() -> None:
    flat = [RegisteredNode(n, f"n{n}", zone="attic") for n in range(1, 7)]
    before = assign((), flat, PARTITIONS, REPLICAS)
    nodes = [RegisteredNode(n, f"n{n}", zone=f"z{n % 3}") for n in range(1, 7)]
    zone_of = {node.id: node.zone for node in nodes}
    after = assign(before, nodes, PARTITIONS, REPLICAS)
    assert all(len({zone_of[node] for node in owners}) == 3 for owners in after)


def test_two_zones_cannot_keep_three_copies_apart_and_each_has_one_and_still_balance() -> None:
    nodes = nodes_of(6, 2)
    zone_of = {node.id: node.zone for node in nodes}
    table = assign((), nodes, PARTITIONS, REPLICAS)
    assert max(loads(table).values()) / (PARTITIONS * REPLICAS / 6) <= 1.02
    assert all({zone_of[node] for node in owners} == {"z0", "z1"} for owners in table)


@pytest.mark.parametrize(
    ("sizes", "count", "most"),
    [([2, 2], 3, 2), ([5, 1], 3, 2), ([4], 3, 3), ([1, 1, 5], 3, 1), ([1, 1, 5], 5, 3)],
)
def test_a_zone_takes_no_more_owners_than_it_must(sizes: list[int], count: int, most: int) -> None:
    assert owners_in_zone_max(sizes, count) == most


def test_weights_give_shares_and_nobody_owns_a_partition_twice() -> None:
    nodes = nodes_of(8, weights=(1.0, 2.0))
    share = shares(nodes, PARTITIONS, REPLICAS)
    load = loads(assign((), nodes, PARTITIONS, REPLICAS))
    assert all(abs(load[node.id] - share[node.id]) <= 1 for node in nodes)
    heavy = [
        RegisteredNode(1, "a", weight=100.0),
        *(RegisteredNode(n, f"n{n}") for n in range(2, 6)),
    ]
    assert loads(assign((), heavy, PARTITIONS, REPLICAS))[1] == PARTITIONS


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from(["", "a", "b", "c", "d"]),
                  st.floats(0.1, 10)),
        min_size=1, max_size=8,
    ),
    st.integers(1, 4),
)  # fmt: skip
def test_any_history_of_joins_and_leaves_is_valid(
    steps: list[tuple[int, str, float]], replicas: int
) -> None:
    nodes: dict[int, RegisteredNode] = {}
    table: tuple[tuple[int, ...], ...] = ()
    for number, zone, weight in steps:
        if number in nodes and len(nodes) > 1:
            del nodes[number]
        else:
            nodes[number] = RegisteredNode(number, f"n{number}", weight=weight, zone=zone)
        table = assign(table, list(nodes.values()), 64, replicas)
        assert len(table) == 64
        names = {n: node.zone or f"own-{n}" for n, node in nodes.items()}
        sizes = list(Counter(names.values()).values())
        most = owners_in_zone_max(sizes, min(replicas, len(nodes)))
        assert most == 1 or len(sizes) < min(replicas, len(nodes)), "apart where zones suffice"
        for owners in table:
            assert len(owners) == len(set(owners)) == min(replicas, len(nodes))
            assert set(owners) <= nodes.keys()
            assert max(Counter(names[o] for o in owners).values()) <= most


def test_the_partition_of_a_key_never_changes() -> None:
    assert [partition_of(key, 256) for key in ("lamp", "room/1", "ö")] == [107, 76, 26]


def test_keys_spread_evenly_over_partitions() -> None:
    counts = Counter(partition_of(f"device/{n}/temperature", 64) for n in range(64 * 200))
    assert max(counts.values()) < 1.3 * 200
    assert min(counts.values()) > 0.7 * 200
