"""The registry: epochs, who owned what before, signatures, and what cannot be one."""

import msgspec
import pytest

from gossip.core.errors import Forged, InvalidRequest, Malformed
from gossip.registry.lineage import LINEAGE_MAX, mark_at, mark_of
from gossip.registry.node import ISSUER, SERIAL_BYTES, RemovedNode
from gossip.registry.ownership import Ownership, Stage
from gossip.registry.registry import (
    REMOVED_MAX,
    NameTaken,
    Registry,
    SignedRegistry,
    UnknownNode,
    WouldLose,
    admit,
    advance,
    follow,
    found,
    losses,
    open_registry,
    remove,
    replace,
)
from tests.support.kv_net import CLUSTER, node, sign, verify


def test_a_covey_begins_with_one_node_that_owns_everything() -> None:
    registry = found(CLUSTER, node(7))
    assert registry.epoch == 1
    assert set(registry.owners) == {(7,)}
    assert registry.is_settled
    assert registry.owners_of("lamp") == (7,)


def all_done(registry: Registry) -> dict[int, frozenset[int]]:
    return {p: frozenset(each.holders) for p, each in enumerate(registry.table)}


def settled(registry: Registry) -> Registry:
    """Return the registry once everybody has done what the stages ask."""
    while not registry.is_settled:
        registry = advance(registry, all_done(registry), registry.epoch)
    return registry


def test_a_newcomer_owns_nothing_before_it_has_what_there_is() -> None:
    before = found(CLUSTER, node(1), partitions=16)
    registry = admit(before, node(2))
    assert registry.epoch == 2
    assert registry.owners == before.owners
    assert {each.pending for each in registry.table} == {(1, 2)}
    stages = []
    while not registry.is_settled:
        [stage] = {each.stage for each in registry.table}
        stages.append(stage)
        assert advance(registry, {}, registry.epoch) is registry
        registry = advance(registry, all_done(registry), registry.epoch)
    assert stages == [Stage.COPYING, Stage.JOINING, Stage.LEAVING]
    assert set(registry.owners) == {(1, 2)}


def test_who_stays_in_a_target_goes_no_step_back_when_others_come() -> None:
    registry = admit(found(CLUSTER, node(1), partitions=16), node(2))
    kept = admit(registry, node(3))
    assert kept.owners == registry.owners
    for before, after in zip(registry.table, kept.table, strict=True):
        assert set(before.pending) <= set(after.pending), "three nodes, three owners"
    fourth = admit(kept, node(4))
    for before, after in zip(kept.table, fourth.table, strict=True):
        assert before == after or set(before.pending) != set(after.pending)
    assert any(before == after for before, after in zip(kept.table, fourth.table, strict=True))


def test_what_was_done_under_an_older_entry_counts_for_nothing() -> None:
    registry = admit(found(CLUSTER, node(1), partitions=16), node(2))
    after = admit(registry, node(3))
    assert advance(after, all_done(registry), registry.epoch) is after


def test_a_removed_node_counts_until_others_have_taken_over() -> None:
    registry = found(CLUSTER, node(1), partitions=16)
    for number in range(2, 6):
        registry = settled(admit(registry, node(number)))
    gone = remove(registry, 3)
    assert gone.node(3) is None
    for before, after in zip(registry.table, gone.table, strict=True):
        assert after.owners == before.owners
        assert 3 not in after.target
    assert all(3 not in owners for owners in settled(gone).owners)


def test_who_may_have_what_nobody_else_has_is_not_removed_without_a_word() -> None:
    registry = found(CLUSTER, node(1), partitions=16)
    for number in (2, 3, 4):
        registry = settled(admit(registry, node(number)))
    once = remove(registry, 2)
    lost = losses(once, 3)
    assert lost == tuple(p for p, each in enumerate(once.table) if {2, 3} <= set(each.owners))
    with pytest.raises(WouldLose, match="node-3") as refused:
        remove(once, 3)
    assert refused.value.partitions == lost
    accepted = remove(once, 3, accept_loss=True)
    for p in lost:
        assert accepted.table[p].owners == tuple(n for n in once.table[p].owners if n in (1, 4))
        assert accepted.table[p].owners_since == 0, "what is left counts as all"
    assert not losses(settled(remove(registry, 2)), 3), "nothing is lost once others have it"


def test_of_two_owners_either_may_go_at_once() -> None:
    registry = settled(admit(found(CLUSTER, node(1), partitions=16), node(2)))
    assert set(remove(registry, 2).owners) == {(1,)}


def test_a_target_that_never_answers_changes_nothing() -> None:
    registry = settled(admit(found(CLUSTER, node(1), partitions=16), node(2)))
    ghost = admit(registry, node(3))
    done = {p: frozenset({1, 2}) for p in range(16)}
    assert advance(ghost, done, ghost.epoch) is ghost
    assert all(each.writers == ((1, 2),) for each in ghost.table)


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


def entry(*parts: object) -> dict[str, object]:
    return {"table": (Ownership(*parts),) * 4}  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [
    {"table": (Ownership((1,), 1),)}, entry((), 1), entry((1, 1), 1), entry((9,), 1),
    entry((1,), 2), entry((1,), 1, 0, (1, 1)), entry((1,), 1, 0, (), 1), entry((1,), 1, 1, (1,), 2),
    {"nodes": ()}, {"nodes": (node(1), node(1))},
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
    assert registry.removed[0] == RemovedNode(number, f"node-{number}", registry.epoch, spared=True)
    assert Registry.decode(registry.encode()) == registry


def test_who_held_the_authoritys_key_when_it_was_removed_is_remembered() -> None:
    issuer = msgspec.structs.replace(node(2), roles=(ISSUER,))
    registry = admit(admit(found(CLUSTER, node(1)), issuer), node(3))
    registry = remove(remove(registry, 2), 3)
    assert {gone.id: gone.held_authority for gone in registry.removed} == {2: 0, 3: -1}


def test_who_was_removed_is_remembered_until_it_is_admitted_again() -> None:
    registry = remove(admit(found(CLUSTER, node(1)), node(2)), 2)
    assert [gone.id for gone in registry.removed] == [2]
    assert admit(registry, node(2)).removed == ()


def test_a_node_shows_only_the_certificates_that_its_entry_names() -> None:
    entry = msgspec.structs.replace(node(1), serials=(b"1" * SERIAL_BYTES, b"0" * SERIAL_BYTES))
    assert entry.shows(b"0" * SERIAL_BYTES)
    assert not entry.shows(b"2" * SERIAL_BYTES)
    assert not node(1).shows(b"")


def test_a_replacement_moves_the_share_of_one_and_nothing_else() -> None:
    registry = found(CLUSTER, node(1), partitions=64)
    for number in range(2, 7):
        registry = admit(registry, node(number, zone=f"z{number}", weight=1.0 + number / 10))
    targets = [each.target for each in registry.table]
    registry = msgspec.structs.replace(
        registry, table=tuple(Ownership(target, registry.epoch) for target in targets)
    )
    new = replace(registry, 3, node(9, zone="elsewhere"))
    entry = new.node(9)
    assert entry is not None
    assert (entry.name, entry.zone, entry.weight) == ("node-3", "z3", 1.3)
    assert new.node(3) is None
    assert [gone.id for gone in new.removed] == [3]
    for before, after in zip(registry.table, new.table, strict=True):
        if 3 not in before.owners:
            assert after == before, "nothing else moves"
        else:
            assert set(after.target) == {9 if each == 3 else each for each in before.owners}
            assert 9 not in after.owners, "it has nothing yet"


def test_a_replacement_that_would_lose_writes_is_refused() -> None:
    registry = admit(found(CLUSTER, node(1), partitions=4), node(2))
    alone = msgspec.structs.replace(registry, table=(Ownership((2,), 2),) * 4)
    with pytest.raises(WouldLose):
        replace(alone, 2, node(9))
    with pytest.raises(UnknownNode):
        replace(alone, 8, node(9))
