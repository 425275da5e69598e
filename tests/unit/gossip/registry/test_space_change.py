"""Spaces with as many owners as was asked for: whose keys, how many, and how it is changed."""

from collections import Counter

import msgspec
import pytest

from gossip.core.errors import InvalidRequest
from gossip.registry.lineage import mark_of
from gossip.registry.merge import merge
from gossip.registry.placement import partition_of
from gossip.registry.places import SPACE_PARTITIONS, SPACES_MAX, space_numbers
from gossip.registry.registry import Registry, admit, found, house, remove
from gossip.registry.space_change import place_space
from tests.unit.gossip.registry.test_places import COVEY, finished, grown, node


def owners_in(registry: Registry, name: str) -> list[tuple[int, ...]]:
    return [registry.ownership(number).owners for number in space_numbers(name)]


@pytest.mark.parametrize(("replicas", "expected"), [(1, 1), (2, 2), (5, 5), (7, 6)])
def test_a_space_has_as_many_owners_as_was_asked_for_or_all_nodes(
    replicas: int, expected: int
) -> None:
    before = grown(node(n) for n in range(1, 7))
    registry = place_space(before, "photos", replicas)
    owners = owners_in(registry, "photos")
    assert {len(each) for each in owners} == {expected}
    load = Counter(owner for each in owners for owner in each)
    assert max(load.values()) - min(load.values()) <= 1
    assert registry.table == before.table, "nothing else moves"
    assert registry.is_settled, "there is nothing in it that anybody must have first"
    assert registry.spaces == {"photos": replicas}
    assert Registry.decode(registry.encode()) == registry
    assert registry.lineage[0] == before.mark


def test_keys_of_a_space_lie_in_its_partitions_and_all_others_where_they_were() -> None:
    before = grown([node(1), node(2)])
    registry = place_space(before, "photos", 1)
    numbers = set(space_numbers("photos"))
    keys = [f"photos/{n}" for n in range(500)]
    assert {registry.partition_of(key) for key in keys} == numbers
    for key in ("photos", "photosx/1", "x/photos/1", "device/x", ""):
        assert registry.partition_of(key) == before.partition_of(key)
    assert registry.partitions_of("photos/a") == tuple(space_numbers("photos"))
    assert numbers <= set(registry.partitions_of("pho"))
    assert numbers.isdisjoint(registry.partitions_of("lights/"))
    assert registry.may_lie_in("photos/1", partition_of("photos/1", registry.partitions))


def test_another_number_is_another_target_and_takes_the_usual_way() -> None:
    registry = place_space(grown(node(n) for n in range(1, 6)), "photos", 2)
    assert place_space(registry, "photos", 2) is registry
    wider = place_space(registry, "photos", 4)
    assert owners_in(wider, "photos") == owners_in(registry, "photos"), "until there are copies"
    assert {len(each) for each in owners_in(finished(wider), "photos")} == {4}
    narrower = finished(place_space(finished(wider), "photos", 1))
    assert {len(each) for each in owners_in(narrower, "photos")} == {1}
    assert narrower.spaces == {"photos": 1}


def test_who_joins_and_who_goes_is_placed_in_spaces_too() -> None:
    registry = place_space(grown(node(n) for n in range(1, 6)), "photos", 2)
    joined = finished(admit(registry, node(6)))
    assert any(6 in each for each in owners_in(joined, "photos"))
    gone = finished(remove(joined, 2))
    assert not any(2 in each for each in owners_in(gone, "photos"))
    assert {len(each) for each in owners_in(gone, "photos")} == {2}


def test_both_halves_of_a_fork_keep_their_spaces() -> None:
    common = place_space(grown([node(1), node(2), node(3)]), "photos", 2)
    ours, theirs = place_space(common, "photos", 3), place_space(common, "films", 1)
    ended = merge(ours, mark_of(ours.encode()), theirs, mark_of(theirs.encode()))
    ended.check()
    assert ended.spaces == {"photos": 3, "films": 1}


@pytest.mark.parametrize("name", ["", "device", "a/b", "-x", "x" * 64])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="nothing was changed"):
        place_space(grown([node(1)]), name, 2)


def test_what_cannot_be_is_refused() -> None:
    registry = grown([node(1)])
    for replicas in (0, 8):
        with pytest.raises(InvalidRequest, match="1 to 7"):
            place_space(registry, "photos", replicas)
    with pytest.raises(InvalidRequest, match="not all agents"):
        place_space(found(COVEY, node(1)), "photos", 2)
    for number in range(SPACES_MAX):
        registry = place_space(registry, f"space-{number}", 2)
    assert len(registry.places) == SPACES_MAX * SPACE_PARTITIONS + 1
    with pytest.raises(InvalidRequest, match="no more are possible"):
        place_space(registry, "one-more", 2)
    assert house(registry) is registry
    again = msgspec.structs.replace(registry, places=())
    assert not again.spaces
