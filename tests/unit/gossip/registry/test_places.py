"""Homes in the registry: whose they are, who owns them, and what stays of them."""

from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest

from gossip.core.errors import Malformed
from gossip.core.ids import NodeId
from gossip.registry.lineage import mark_of
from gossip.registry.merge import merge
from gossip.registry.node import ISSUER, RegisteredNode
from gossip.registry.node_change import NodeChange, arrange
from gossip.registry.ownership import Ownership, Stage
from gossip.registry.places import HOMES_FROM, Place, home_number, home_prefix
from gossip.registry.registry import (
    Registry,
    WouldLose,
    admit,
    advance,
    found,
    house,
    remove,
    replace,
)

COVEY = bytes(16)


def node(number: int, zone: str = "", *, absent: bool = False) -> RegisteredNode:
    roles = (ISSUER,) if number == 1 else ()
    return RegisteredNode(number, f"node-{number}", zone=zone, roles=roles, absent=absent)


def grown(nodes: Iterable[RegisteredNode], partitions: int = 8) -> Registry:
    """A covey with homes in which all nodes have come, one after the other."""
    first, *others = nodes
    registry = house(found(COVEY, first, partitions))
    for each in others:
        registry = finished(admit(registry, each))
    return registry


def finished(registry: Registry) -> Registry:
    """Carry all partitions on to their owners."""
    while not registry.is_settled:
        done = {p: frozenset(each.holders) for p, each in registry.ownerships}
        registry = advance(registry, done, registry.epoch)
    return registry


def home(registry: Registry, device: NodeId) -> Ownership:
    return registry.ownership(home_number(device))


def test_a_key_of_a_device_lies_in_its_home_and_all_others_hash() -> None:
    bare = found(COVEY, node(1))
    registry = house(bare)
    key = f"{home_prefix(1)}mode"
    assert registry.partition_of(key) == home_number(1)
    assert bare.partition_of(key) < bare.partitions, "before it had one"
    others = (
        "device/0000000000000002/mode",  # nobody's
        "device/0000000000000001",  # no component behind it
        "device/1/mode",
        "device/",
        "device",
        "devices/0000000000000001/mode",
        "lights/north",
        "",
    )
    for other in others:
        assert registry.partition_of(other) == bare.partition_of(other) < bare.partitions
    assert registry.owners_of(key) == (1,)
    assert house(registry) is registry


def test_keys_with_a_prefix_are_looked_for_where_they_can_be() -> None:
    registry = grown([node(1), node(2), node(0xAB)])
    every, homes = tuple(range(8)), tuple(home_number(n) for n in (1, 2, 0xAB))
    assert registry.partitions_of("") == (*every, *homes)
    assert registry.partitions_of("dev") == (*every, *homes)
    assert registry.partitions_of("device/") == (*every, *homes)
    assert registry.partitions_of("lights/") == every
    assert registry.partitions_of("device/00000000000000ab") == (*every, home_number(0xAB))
    assert registry.partitions_of("device/00000000000000ab/mo") == (home_number(0xAB),)
    assert registry.partitions_of("device/00000000000000cd/") == every


def test_a_device_owns_its_home_with_others_in_other_zones() -> None:
    registry = grown(node(n, f"z{n % 3}") for n in range(1, 10))
    for each in registry.nodes:
        owners = home(registry, each.id).owners
        zones = {registry.node(owner).zone for owner in owners}  # type: ignore[union-attr]
        assert owners[0] == each.id
        assert len(zones) == len(owners) == 3
    load = Counter(owner for place in registry.places for owner in place.ownership.owners)
    assert max(load.values()) - min(load.values()) <= 1, load


def test_who_joins_takes_only_its_share_of_the_homes() -> None:
    before = grown(node(n) for n in range(1, 9))
    after = finished(admit(before, node(9)))
    moved = {
        owner
        for place in before.places
        for owner in set(home(after, place.device).owners) - set(place.ownership.owners)
    }
    assert moved <= {9}
    assert sum(9 in place.ownership.owners for place in after.places) == 3


def test_who_was_never_heard_has_no_home_yet() -> None:
    registry = admit(grown([node(1)]), node(2, absent=True))
    assert not registry.has(home_number(2))
    heard = advance(registry, {}, registry.epoch, frozenset({2}))
    assert home(heard, 2).owners == (2, 1)
    assert home(heard, 2).owners_since == 0, "there is nothing that its owners must have first"


def test_who_drains_gives_its_home_to_others_and_gets_it_back() -> None:
    registry = grown(node(n) for n in range(1, 6))
    drained = arrange(registry, 3, NodeChange(drains=True))
    assert 3 in home(drained, 3).owners, "until others have it"
    drained = finished(drained)
    assert 3 not in home(drained, 3).owners
    assert len(home(drained, 3).owners) == 3
    assert drained.left_at(3) == 0
    back = arrange(drained, 3, NodeChange(drains=False))
    back = finished(advance(back, {}, back.epoch, frozenset({3})))
    assert home(back, 3).owners[0] == 3


def test_a_removed_device_leaves_its_home_to_others_and_nobody_gets_its_number() -> None:
    registry = grown(node(n) for n in range(1, 6))
    gone = remove(registry, 3)
    assert home(gone, 3).owners == home(registry, 3).owners, "its silence is no consent"
    gone = finished(gone)
    assert gone.partition_of(f"{home_prefix(3)}x") == home_number(3)
    assert len(home(gone, 3).owners) == 3
    assert 3 not in home(gone, 3).owners
    later = finished(admit(gone, node(6)))
    assert home(later, 6).owners[0] == 6
    assert len({place.number for place in later.places}) == 6, "one each, and one of who is gone"


def test_who_takes_the_place_of_another_owns_its_home_and_has_one_too() -> None:
    registry = grown(node(n) for n in range(1, 6))
    fresh = finished(replace(registry, 3, msgspec.structs.replace(node(9), name="node-3")))
    assert 9 in home(fresh, 3).owners
    assert home(fresh, 9).owners[0] == 9


def test_a_home_that_few_are_left_of_is_lost_by_name_only() -> None:
    registry = grown([node(1), node(2), node(3)])
    gone = remove(registry, 2)
    with pytest.raises(WouldLose, match="11 of 11 partitions"):
        remove(gone, 3)
    rescued = remove(gone, 3, accept_loss=True)
    assert all(ownership.owners == (1,) for _, ownership in rescued.ownerships)


def test_partitions_and_homes_move_alike_and_are_counted_together() -> None:
    registry = admit(grown([node(1), node(2), node(3)]), node(4))
    moving = [p for p, each in registry.ownerships if each.stage is Stage.COPYING]
    assert registry.count_moving()["copying"] == len(moving)
    assert any(number >= HOMES_FROM for number in moving)
    assert registry.changed_after(registry.epoch - 1) == {*moving, home_number(4)}


def test_a_registry_with_homes_is_read_by_a_version_before_which_leaves_them_out() -> None:
    class Former(msgspec.Struct, frozen=True, array_like=True):
        """The fields of the registry before there were places."""

        cluster_id: bytes
        epoch: int
        partitions: int
        replicas: int
        nodes: tuple[RegisteredNode, ...]
        table: tuple[Ownership, ...]
        removed: tuple[object, ...] = ()
        lineage: tuple[bytes, ...] = ()
        merged: tuple[bytes, ...] = ()
        successions: tuple[object, ...] = ()
        overlaps: bool = False

    registry = grown([node(1), node(2)])
    former = msgspec.msgpack.decode(registry.encode(), type=Former)
    assert former.table == registry.table
    written = Registry.decode(msgspec.msgpack.encode(former))
    assert written.places == ()
    again = house(written)
    assert {place.number for place in again.places} == {place.number for place in registry.places}


def test_two_halves_of_a_fork_mean_the_same_by_a_home() -> None:
    common = grown([node(1), node(2), node(3)])
    ours, theirs = finished(admit(common, node(4))), finished(admit(common, node(5)))
    ended = merge(ours, mark_of(ours.encode()), theirs, mark_of(theirs.encode()))
    assert {place.device for place in ended.places} == {1, 2, 3, 4, 5}
    ended.check()
    for device in (1, 2, 3, 4, 5):
        held = {*home(ours, device).owners, *home(theirs, device).owners}
        assert held <= set(home(ended, device).holders), "nobody's copy is left out"
    ended = finished(ended)
    assert all(home(ended, device).owners[0] == device for device in (1, 2, 3, 4, 5))


@pytest.mark.parametrize(
    "places",
    [
        (
            Place(home_number(1), 1, Ownership((1,), 1)),
            Place(home_number(1), 1, Ownership((1,), 1)),
        ),
        (Place(home_number(1), 1, Ownership((), 1)),),
        (Place(home_number(1), 1, Ownership((7,), 1)),),
        (Place(home_number(1), 1, Ownership((1,), 9)),),
        (Place(5, 1, Ownership((1,), 1)),),
        (Place(2**63, 1, Ownership((1,), 1)),),
    ],
    ids=["twice", "without owners", "owned by strangers", "of later", "in the table", "too large"],
)
def test_homes_that_cannot_be_are_refused(places: tuple[Place, ...]) -> None:
    registry = msgspec.structs.replace(found(COVEY, node(1), 8), places=places)
    with pytest.raises(Malformed):
        Registry.decode(registry.encode())
