"""Zones and weights that are set, nodes that drain, and plans of what would move."""

from dataclasses import dataclass

import msgspec
import pytest

from gossip.registry.node import RegisteredNode
from gossip.registry.node_change import NobodyLeft, NodeChange, arrange
from gossip.registry.ownership import Stage
from gossip.registry.places import HOMES_FROM, PLACES_FROM
from gossip.registry.plan import Cause, Plan, owned, plan
from gossip.registry.registry import (
    Registry,
    UnknownNode,
    admit,
    advance,
    found,
    house,
    losses,
    placeable,
    remove,
    replace,
)
from gossip.registry.space_change import place_space
from tests.support.kv_net import node, registry_of
from tests.unit.gossip.registry.test_places import finished
from tests.unit.gossip.registry.test_registry import all_done, settled

COVEY = bytes(16)
DRAINS, STAYS = NodeChange(drains=True), NodeChange(drains=False)


class EntryOfBefore(msgspec.Struct, frozen=True, array_like=True):
    """An entry as a version reads it that knows of no draining."""

    id: int
    name: str
    key: bytes = b""
    weight: float = 1.0
    zone: str = ""
    roles: tuple[str, ...] = ()
    serials: tuple[bytes, ...] = ()
    authority: int = 0
    absent: bool = False


def test_versions_of_before_read_an_entry_that_drains_and_the_reverse() -> None:
    written = msgspec.msgpack.encode(msgspec.structs.replace(node(4), drains=True))
    assert msgspec.msgpack.decode(written, type=EntryOfBefore).name == "node-4"
    of_before = msgspec.msgpack.encode(EntryOfBefore(4, "node-4", absent=True))
    read = msgspec.msgpack.decode(of_before, type=RegisteredNode)
    assert (read.absent, read.drains) == (True, False)


def test_who_drains_serves_until_those_pending_have_taken_over_and_then_owns_nothing() -> None:
    before = registry_of([1, 2, 3, 4], 16)
    registry = arrange(before, 4, DRAINS)
    assert registry.owners == before.owners, "nobody lets go of anything yet"
    moving = [each for each in registry.table if 4 in each.owners]
    assert moving
    assert all(each.stage is Stage.COPYING and 4 not in each.pending for each in moving)
    while 4 in {owner for each in registry.table for owner in each.owners}:
        held = [each for each in registry.table if 4 in each.owners]
        assert all(4 in each.readers or each.stage is Stage.LEAVING for each in held)
        registry = advance(registry, all_done(registry), registry.epoch)
    assert registry.is_settled
    assert registry.left_at(4) == 0
    assert not registry.idle, "nobody waits for it"
    assert not losses(registry, 4)
    assert remove(registry, 4).owners == registry.owners, "to remove it moves nothing"


def test_who_drains_gets_nothing_whoever_comes_or_goes() -> None:
    registry = settled(arrange(registry_of([1, 2, 3, 4], 16), 4, DRAINS))
    registry = settled(admit(registry, node(5)))
    assert registry.left_at(5)
    assert not registry.left_at(4)
    assert not settled(remove(registry, 5)).left_at(4)


def test_who_was_about_to_own_something_goes_a_step_back_without_losing_what_it_owns() -> None:
    registry = admit(registry_of([1, 2, 3], 16), node(4))
    joining = advance(registry, all_done(registry), registry.epoch)
    assert {each.stage for each in joining.table if each.pending} == {Stage.JOINING}
    registry = arrange(joining, 2, DRAINS)
    assert registry.owners == joining.owners
    assert not any(2 in each.pending for each in registry.table)
    assert not settled(registry).left_at(2)


def test_who_is_taken_back_is_absent_until_it_is_heard_unless_it_owns_something() -> None:
    draining = arrange(registry_of([1, 2, 3, 4], 16), 4, DRAINS)
    at_once = arrange(draining, 4, STAYS)
    assert [each.target for each in at_once.table] == [each.owners for each in at_once.table]
    assert not at_once.absent
    late = arrange(settled(draining), 4, STAYS)
    assert [each.id for each in late.absent] == [4]
    assert late.is_settled, "nothing waits for it"
    heard = settled(advance(late, {}, late.epoch, here=frozenset({4})))
    assert heard.left_at(4) == 12
    issuer = arrange(settled(arrange(registry_of([1, 2], 16), 1, DRAINS)), 1, STAYS)
    assert not issuer.absent, "it hears itself without that"


def test_somebody_owns_the_partitions_whoever_drains() -> None:
    alone = registry_of([1], 16)
    with pytest.raises(NobodyLeft, match="'node-1'"):
        arrange(alone, 1, DRAINS)
    with_a_shade = admit(alone, node(2, absent=True))
    with pytest.raises(NobodyLeft):
        arrange(with_a_shade, 1, DRAINS)
    two = settled(arrange(registry_of([1, 2], 16), 1, DRAINS))
    with pytest.raises(NobodyLeft):
        arrange(two, 2, DRAINS)
    left = settled(remove(two, 2, accept_loss=True))
    assert set(left.owners) == {(1,)}, "better one that drains than nobody"


def test_a_change_that_says_nothing_new_is_none() -> None:
    registry = registry_of([1, 2], 16)
    assert arrange(registry, 2, NodeChange(zone="", weight=1.0, drains=False)) is registry
    with pytest.raises(UnknownNode):
        arrange(registry, 9, DRAINS)


def test_weight_and_zone_move_what_follows_from_them_and_no_more() -> None:
    before = registry_of([1, 2, 3, 4], 64)
    heavy = settled(arrange(before, 4, NodeChange(weight=2.0)))
    assert owned(heavy.owners)[4] == 64, "twice the share, but no partition twice"
    zoned = before
    for number in (1, 2, 3, 4):
        zoned = settled(arrange(zoned, number, NodeChange(zone=f"z{number % 2}")))
    zones = {each.id: each.zone for each in zoned.nodes}
    assert all(len({zones[owner] for owner in each}) == 2 for each in zoned.owners)


def test_who_takes_the_place_of_one_that_drains_owns_its_share() -> None:
    draining = settled(arrange(registry_of([1, 2, 3, 4], 16), 4, DRAINS))
    instead = settled(replace(draining, 4, node(5)))
    assert instead.left_at(5) == 12
    assert not [each for each in instead.nodes if each.drains]


@dataclass
class Case:
    registry: Registry
    after: Registry

    def plan(self) -> Plan:
        return plan(self.registry, self.after.nodes)


def cases() -> dict[str, Case]:
    four = registry_of([1, 2, 3, 4], 16)
    zoned = msgspec.structs.replace(
        four, nodes=tuple(node(n, zone="a" if n < 3 else f"z{n}") for n in (1, 2, 3, 4))
    )
    return {
        "drain": Case(four, arrange(four, 4, DRAINS)),
        "remove": Case(four, remove(four, 4)),
        "add": Case(four, admit(four, node(5))),
        "capacity": Case(four, arrange(four, 4, NodeChange(weight=2.0))),
        "zone": Case(four, zoned),
        "more copies": Case(registry_of([1, 2], 16), admit(registry_of([1, 2], 16), node(3))),
        "fewer copies": Case(registry_of([1, 2, 3], 16), remove(registry_of([1, 2, 3], 16), 3)),
    }


CAUSES = {
    "drain": {Cause.LEAVES}, "remove": {Cause.LEAVES}, "add": {Cause.SHARE},
    "capacity": {Cause.SHARE}, "zone": {Cause.ZONES}, "more copies": {Cause.COPIES},
    "fewer copies": {Cause.LEAVES},
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
def test_a_plan_says_what_happens_and_why(name: str) -> None:
    case = cases()[name]
    told = case.plan()
    after = case.after
    if name == "zone":  # a registry of these nodes whose partitions have not moved yet
        after = arrange(after, 4, NodeChange(weight=1.5))
        told = plan(case.registry, after.nodes)
    assert [set(owners) for owners in settled(after).owners] == [set(o) for o in told.after]
    assert {move.cause for move in told.moves} >= CAUSES[name]
    assert sum(told.causes().values()) == len(told.moves)
    gained = owned(told.after) - owned(told.before)
    assert told.copied >= sum(gained.values())


def test_a_plan_counts_where_zones_do_not_suffice() -> None:
    def entries(*zones: str) -> list[RegisteredNode]:
        return [node(number, zone) for number, zone in enumerate(zones, 1)]

    registry = registry_of([1, 2, 3, 4], 16)
    assert plan(registry, entries("a", "b", "c", "a")).crowded() == (0, 0)
    assert plan(registry, entries("a", "b", "a", "b")).crowded() == (16, 0)
    assert plan(registry, entries("a", "a", "a", "a")).crowded() == (16, 16)
    assert plan(registry, entries("a", "a")).copies == 2
    assert plan(registry, entries("a")).crowded() == (0, 0), "one copy is no crowd"


def test_nobody_is_placed_who_is_absent_or_drains_as_long_as_others_are() -> None:
    entries = [node(1), msgspec.structs.replace(node(2), drains=True), node(3, absent=True)]
    assert [each.id for each in placeable(entries)] == [1]
    assert [each.id for each in placeable(entries[1:])] == [2]
    assert [each.id for each in placeable(entries[2:])] == [3]


def test_a_plan_counts_homes_and_spaces_as_the_issuer_will_place_them() -> None:
    """Compared with what comes of the change itself, for each partition and each place."""
    entries = [node(number, zone) for number, zone in enumerate("aabbcc", 1)]
    registry = house(found(COVEY, entries[0], 8))
    for each in entries[1:]:
        registry = finished(admit(registry, each))
    registry = finished(place_space(registry, "photos", 5))
    drained = arrange(registry, 2, NodeChange(drains=True))
    changes = {
        "remove": (remove(registry, 2), [each for each in registry.nodes if each.id != 2]),
        "drain": (drained, drained.nodes),
        "add": (admit(registry, node(7, "a")), [*registry.nodes, node(7, "a")]),
    }
    for name, (changed, nodes) in changes.items():
        told, after = plan(registry, nodes), finished(changed)
        numbers = [number for number, _ in after.ownerships]
        placed = [set(ownership.owners) for _, ownership in after.ownerships]
        assert [set(owners) for owners in told.after] == placed, name
        made = {
            (number, owner)
            for number in numbers
            for owner in set(after.ownership(number).owners)
            - set(registry.ownership(number).owners)
            if registry.has(number)
        }
        copied = {(m.partition, m.taker) for m in told.moves if m.taker is not None}
        assert copied == made, f"{name}: what is empty is not copied"
        assert told.copied == len(made)
        assert told.copied_homes == sum(number >= HOMES_FROM for number, _ in made), name
        in_spaces = sum(PLACES_FROM <= number < HOMES_FROM for number, _ in made)
        assert told.copied_in_spaces == in_spaces > 0, name
        assert told.copies == 3, "as all keys have, whatever was asked for a space"
        assert not told.thinned_spaces(), name
    few = plan(registry, [each for each in registry.nodes if each.id < 5])
    assert few.thinned_spaces() == {"photos": (5, 4)}
    assert (few.copies_before, few.copies) == (3, 3)
