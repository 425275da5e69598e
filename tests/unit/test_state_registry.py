"""The registry: epochs, who owned what before, signatures, and what cannot be one."""

import msgspec
import pytest

from gossip.errors import Forged, InvalidRequest, Malformed
from gossip.state.admitted import SERIAL_BYTES, Removed
from gossip.state.lineage import LINEAGE_MAX, mark_at, mark_of
from gossip.state.registry import (
    REMOVED_MAX,
    NameTaken,
    Registry,
    SignedRegistry,
    UnknownNode,
    admit,
    follow,
    found,
    open_registry,
    remove,
)
from tests.unit.state_net import CLUSTER, node, sign, verify


def test_a_covey_begins_with_one_node_that_owns_everything() -> None:
    registry = found(CLUSTER, node(7))
    assert registry.epoch == 1
    assert set(registry.owners) == {(7,)}
    assert set(registry.former) == {()}
    assert registry.owners_of("lamp") == (7,)


def test_every_change_is_an_epoch_and_remembers_who_owned_before() -> None:
    registry = found(CLUSTER, node(1), partitions=16)
    for number in range(2, 7):
        before = registry
        registry = admit(registry, node(number))
        assert registry.epoch == before.epoch + 1
        for p in range(16):
            if set(registry.owners[p]) != set(before.owners[p]):
                assert registry.former[p] == before.owners[p]
                assert registry.since[p] == registry.epoch
                assert registry.former_since[p] == before.since[p]
            else:
                assert registry.former[p] == before.former[p]
                assert registry.since[p] == before.since[p]
    gone = remove(registry, 3)
    assert gone.node(3) is None
    assert all(3 not in owners for owners in gone.owners)
    assert any(3 in owners for owners in gone.former)


def test_names_are_unique_and_a_node_may_be_admitted_again() -> None:
    registry = admit(found(CLUSTER, node(1)), node(2))
    with pytest.raises(NameTaken):
        admit(registry, msgspec.structs.replace(node(3), name="node-2"))
    again = admit(registry, msgspec.structs.replace(node(2), key=b"new"))
    entry = again.node(2)
    assert entry is not None
    assert entry.key == b"new"
    assert len(again.nodes) == 2


def test_what_cannot_be_removed() -> None:
    registry = found(CLUSTER, node(1))
    with pytest.raises(UnknownNode):
        remove(registry, 9)
    with pytest.raises(InvalidRequest):
        remove(registry, 1)


def test_a_signed_registry_comes_back_whole() -> None:
    registry = admit(found(CLUSTER, node(1)), node(2, zone="attic", weight=2.5))
    assert open_registry(sign(registry), verify) == registry


def test_every_truncation_and_a_wrong_signature_are_refused() -> None:
    data = sign(found(CLUSTER, node(1), partitions=4))
    for end in range(len(data)):
        with pytest.raises((Malformed, Forged)):
            open_registry(data[:end], verify)
    payload = SignedRegistry.decode(data).payload
    with pytest.raises(Forged):
        open_registry(SignedRegistry(payload, b"somebody else").encode(), verify)


@pytest.mark.parametrize("change", [
    {"owners": ((1,),)}, {"owners": ((),) * 4}, {"owners": ((1, 1),) * 4}, {"owners": ((9,),) * 4},
    {"nodes": ()}, {"nodes": (node(1), node(1))}, {"since": (1,)},
])  # fmt: skip
def test_parts_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    registry = msgspec.structs.replace(found(CLUSTER, node(1), partitions=4), **change)
    with pytest.raises(Malformed):
        Registry.decode(registry.encode())


def test_each_registry_names_those_before_it() -> None:
    first = found(CLUSTER, node(1), partitions=4)
    second = admit(first, node(2))
    third = remove(second, 2)
    assert first.lineage == ()
    assert second.lineage == (first.mark,)
    assert third.lineage == (second.mark, first.mark)
    assert mark_at(1, third.epoch, third.mark, third.lineage) == first.mark
    assert mark_at(4, third.epoch, third.mark, third.lineage) is None
    other = follow(b"as a later version wrote it", third)
    assert other.lineage == (mark_of(b"as a later version wrote it"), first.mark)


def test_the_lineage_and_the_list_of_the_removed_are_bounded() -> None:
    registry = found(CLUSTER, node(1), partitions=1)
    for number in range(2, 2 + REMOVED_MAX + 5):
        registry = remove(admit(registry, node(number)), number)
    assert len(registry.lineage) == LINEAGE_MAX
    assert len(registry.removed) == REMOVED_MAX
    assert registry.removed[0] == Removed(number, f"node-{number}", registry.epoch)
    assert Registry.decode(registry.encode()) == registry


def test_who_was_removed_is_remembered_until_it_is_admitted_again() -> None:
    registry = remove(admit(found(CLUSTER, node(1)), node(2)), 2)
    assert [gone.id for gone in registry.removed] == [2]
    assert admit(registry, node(2)).removed == ()


def test_a_node_shows_only_the_certificates_that_its_entry_names() -> None:
    entry = msgspec.structs.replace(node(1), serials=(b"1" * SERIAL_BYTES, b"0" * SERIAL_BYTES))
    assert entry.shows(b"0" * SERIAL_BYTES)
    assert not entry.shows(b"2" * SERIAL_BYTES)
    assert not node(1).shows(b"")
