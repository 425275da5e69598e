"""Several steps as one registry: it is sound, follows the first, and is named by exact bytes."""

from hypothesis import given
from hypothesis import strategies as st

from gossip.registry.batch import as_next
from gossip.registry.lineage import mark_of
from gossip.registry.node import RegisteredNode
from gossip.registry.ownership import Stage
from gossip.registry.registry import Registry, admit, advance, found, remove

FOUNDER = RegisteredNode(1, "pi1")
STEPS = st.lists(
    st.tuples(st.sampled_from(["admit", "remove", "here", "advance"]), st.integers(2, 8)),
    max_size=12,
)


def step(registry: Registry, kind: str, node: int, heard_of: int) -> Registry:
    belongs = registry.node(node) is not None
    if kind == "admit" and not belongs:
        return admit(registry, RegisteredNode(node, f"pi{node}", absent=True))
    if kind == "remove" and belongs:
        return remove(registry, node, accept_loss=True)
    if kind == "here":
        return advance(registry, {}, heard_of, here=frozenset({node}))
    if kind == "advance":  # what was reported is of registries that somebody has seen
        done = {p: frozenset(each.holders) for p, each in enumerate(registry.table)}
        return advance(registry, done, heard_of)
    return registry


@given(STEPS, st.lists(STEPS, max_size=6))
def test_steps_that_share_a_registry_make_a_sound_one(
    before: list[tuple[str, int]], batches: list[list[tuple[str, int]]]
) -> None:
    base = found(bytes(16), FOUNDER, partitions=8)
    for kind, node in before:
        base = step(base, kind, node, base.epoch)
    for batch in batches:
        last, payload = base, base.encode()
        for kind, node in batch:
            last = step(last, kind, node, base.epoch)
        if last.epoch == base.epoch:
            continue
        fresh = as_next(payload, base, last)
        fresh.check()
        assert Registry.decode(fresh.encode()) == fresh
        assert fresh.epoch == base.epoch + 1
        assert fresh.lineage[0] == mark_of(payload)
        assert not fresh.denies(fresh.mark, base.epoch, base.mark)
        for one, other in zip(fresh.table, last.table, strict=True):
            assert (one.owners, one.pending, one.stage) == (
                other.owners,
                other.pending,
                other.stage,
            )
            assert one.since <= fresh.epoch
        base = fresh


def test_a_stage_is_not_mistaken_for_the_one_before_it() -> None:
    """``LEAVING`` is told from ``JOINING`` by its epochs."""
    base = found(bytes(16), FOUNDER, partitions=4)
    base = admit(base, RegisteredNode(2, "pi2"))
    ready = {p: frozenset({1, 2}) for p in range(4)}
    joining = advance(base, ready, base.epoch)
    leaving = advance(joining, ready, joining.epoch)
    assert {each.stage for each in leaving.table} == {Stage.LEAVING}
    last = admit(admit(leaving, RegisteredNode(3, "pi3")), RegisteredNode(4, "pi4"))
    fresh = as_next(leaving.encode(), leaving, last)
    assert {each.stage for each in fresh.table} == {Stage.LEAVING}
