"""When a copy is complete, by what it has heard; and what is told to the issuer meanwhile."""

import msgspec
import pytest

from gossip.kv.registry_sync import RegistrySync
from gossip.kv.requests import Get, Put
from gossip.kv.takeover import Copy, completed, has_done
from gossip.registry.ownership import Ownership, Stage
from gossip.registry.registry import Registry, admit
from tests.support.kv_net import FIRST, Net, node, registry_of

OLD = Copy(is_sound=True, complete_for=4)
NEW = Copy(is_sound=True, complete_for=8)
SOUND = Copy(is_sound=True, complete_for=0)
DAMAGED = Copy(is_sound=False, complete_for=0)
JOINING = Ownership((1, 2, 3), 8, 4, (1, 4, 5), 8)
SETTLED = Ownership((1, 2, 3), 4, 4)
ALL = (1, 2, 3, 4, 5)


@pytest.mark.parametrize(("me", "mine", "heard", "expected"), [
    (4, SOUND, {}, None),
    (4, SOUND, {1: OLD}, None),
    (4, SOUND, {1: OLD, 2: OLD}, 8),
    (4, SOUND, {1: OLD, 2: SOUND}, 8),  # the incomplete one counts for what it took itself
    (4, SOUND, {1: SOUND, 2: SOUND}, None),  # what is older than these owners is nowhere
    (4, SOUND, {1: OLD, 2: DAMAGED}, None),
    (4, SOUND, {5: NEW}, 8),  # who is complete has everything
    (4, SOUND, {5: SOUND, 1: OLD}, None),  # only owners were asked by every write of before
    (1, OLD, {}, 4),  # it is complete as an owner, and not yet as one of those to come
    (1, OLD, {2: OLD}, 8),
    (1, OLD, {4: SOUND}, 4),
    (4, DAMAGED, {1: OLD, 2: OLD}, None),
    (4, DAMAGED, {1: OLD, 2: OLD, 5: SOUND}, 8),  # one other of those pending, too
])  # fmt: skip
def test_who_joins_is_complete_when_it_has_heard_enough(
    me: int, mine: Copy, heard: dict[int, Copy], expected: int | None
) -> None:
    assert completed(JOINING, me, mine, heard, ALL) == expected


@pytest.mark.parametrize(("mine", "heard", "members", "expected"), [
    (SOUND, {2: SOUND}, (1, 2, 3), None),
    (SOUND, {2: OLD}, (1, 2, 3), 4),
    (SOUND, {2: SOUND, 3: SOUND}, (1, 2, 3), 4),  # nobody else has anything
    (DAMAGED, {2: OLD}, (1, 2, 3), None),  # what it acknowledged with 3 alone is with 3
    (DAMAGED, {2: OLD, 3: SOUND}, (1, 2, 3), 4),
    (DAMAGED, {2: DAMAGED}, (1, 2), 4),  # what is left is agreed upon
    (DAMAGED, {}, (1,), 4),
])  # fmt: skip
def test_an_owner_that_lacks_something_asks_the_others(
    mine: Copy, heard: dict[int, Copy], members: tuple[int, ...], expected: int | None
) -> None:
    assert completed(SETTLED, 1, mine, heard, members) == expected


def test_each_stage_asks_something_else() -> None:
    copying, leaving = Ownership((1, 2), 8, 4, (2, 3)), Ownership((1, 2), 9, 4, (2, 3), 8)
    assert (copying.stage, leaving.stage) == (Stage.COPYING, Stage.LEAVING)
    assert not has_done(copying, 3, SOUND, {})
    assert not has_done(copying, 3, SOUND, {1: DAMAGED})
    assert has_done(copying, 3, SOUND, {1: OLD})
    assert has_done(copying, 2, OLD, {})
    assert has_done(leaving, 1, DAMAGED, {}), "whoever leaves need only know that it does"
    assert not has_done(leaving, 3, SOUND, {})


def test_an_issuer_that_was_away_is_told_again() -> None:
    net = Net(registry_of([1, 2, 3]))
    assert net.ask(1, Put("k", b"v")).outcome == "ok"
    registry = admit(net.registry, node(4))
    net.start(4, registry)
    net.adopt(registry, 1, 2, 3, 4)
    net.crash(FIRST)
    net.run(30)
    assert net.registry is registry, "nobody else signs"
    assert net.ask(2, Put("k", b"w")).outcome == "ok", "those of before serve meanwhile"
    net.start(FIRST, registry)
    net.run(15)
    assert net.registry.is_settled
    assert any(4 in owners for owners in net.registry.owners)


def test_joins_in_a_row_share_their_steps() -> None:
    net = Net(registry_of([1, 2, 3], partitions=64))
    for number in (4, 5, 6):
        registry = admit(net.registry, node(number))
        net.start(number, registry)
        net.adopt(registry)
        net.run(0.03)
    net.run(20)
    assert net.registry.is_settled
    steps = net.registry.epoch - 4
    assert steps <= 6, f"three stages for all of them, and some for who came between: {steps}"


def succeeded_by(registry: Registry, *table: Ownership) -> Registry:
    lineage = (registry.mark, *registry.lineage)
    return msgspec.structs.replace(registry, epoch=registry.epoch + 1, table=table, lineage=lineage)


def acknowledges_what_nobody_reads() -> bool:
    """Whether a write under an old entry is acknowledged, and a read under a newer one misses it.

    3 has not heard that 4 is to follow it, and reaches 2 alone, which has heard, and has given 4
    all that it had.
    """
    settled = (Ownership((1, 2, 3), 1),)
    first = msgspec.structs.replace(registry_of([1, 2, 3, 4], 1), table=settled)
    net = Net(first)
    joining = Ownership((1, 2, 3), 2, 0, (1, 2, 4), 2)
    second = succeeded_by(first, joining)
    third = succeeded_by(second, msgspec.structs.replace(joining, since=3))
    net.cut = {frozenset((1, 3)), frozenset((3, 4))}
    net.adopt(second, 1, 2, 4)
    net.run(0.09)
    assert net.planes[4].replica.copy(0).complete_for == 2
    written = net.ask(3, Put("k", b"v", timeout_s=2.0))
    net.isolate(2)
    net.isolate(3)
    net.adopt(third, 1, 4)
    read = net.ask(4, Get("k"))
    assert read.outcome == "ok"
    return written.outcome == "ok" and not net.values(read)


@pytest.mark.interpreted
def test_who_follows_a_registry_takes_nothing_under_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not acknowledges_what_nobody_reads()
    monkeypatch.setattr(RegistrySync, "agrees", lambda *_: True)
    assert acknowledges_what_nobody_reads(), "sealing is needed"


def test_the_new_ones_are_left_alone_when_no_majority_of_the_old_ones_can_read() -> None:
    """2 and 3 read under the registry of before while the others write without them: too early."""
    first = msgspec.structs.replace(registry_of(ALL, 1), table=(Ownership((1, 2, 3), 1),))
    joining = succeeded_by(first, Ownership((1, 2, 3), 2, 0, (1, 4, 5), 2))
    leaving = succeeded_by(joining, Ownership((1, 2, 3), 3, 0, (1, 4, 5), 2))
    early = succeeded_by(leaving, Ownership((1, 4, 5), 4, 2))
    net = Net(first)
    net.adopt(joining)
    net.run(0.09)
    net.cut = {frozenset((one, other)) for one in (2, 3) for other in (1, 4, 5)}
    net.adopt(early, 1, 4, 5)
    assert net.ask(4, Put("k", b"v")).outcome == "ok"
    assert net.values(net.ask(3, Get("k"))) == [], "it is acknowledged, and 2 and 3 have not heard"
    [ownership] = leaving.table
    assert not ownership.may_advance(frozenset({1, 4, 5}), ALL), "so this must not come to pass"
    assert ownership.may_advance(frozenset({1, 2}), ALL)
    assert ownership.may_advance(frozenset({1}), (1, 2, 4, 5)), "who was removed is asked no more"


def test_what_is_planned_or_under_way_is_known_without_looking_at_all_of_it() -> None:
    """A hand-off asks for each partition at each turn: what is counted has to fit what there is."""
    net = Net(registry_of([1, 2, 3], 8))
    repair = net.planes[1].repair

    def is_known() -> bool:
        there = {partition for partition, _ in (*repair._wanted, *repair._running)}
        return all(repair.is_wanted(p) == (p in there) for p in range(8))

    for partition in (0, 0, 1, 2, 3, 4, 5):
        repair.want(partition, 2)
    repair.want(0, 3)
    repair.want(6, 1)  # with ourselves there is nothing to compare
    assert is_known()
    repair.work(net.now)
    repair.want(0, 2)
    assert repair._running
    repair.restart({1, 5})
    assert is_known()
    for pair in [*repair._running, (7, 2)]:
        repair.finished(*pair)
        repair.finished(*pair)
        assert is_known()
    assert not repair.is_wanted(1)
