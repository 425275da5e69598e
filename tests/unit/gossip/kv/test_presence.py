"""Who owns partitions: those who were heard; and who loses what it never took over."""

from typing import Any

import msgspec
import pytest

from gossip.kv.limits import PRESENCE_CHECK_S, PRESENCE_CHECKS_MAX
from gossip.kv.presence import Presence
from gossip.kv.requests import Get, OwnersReady, Put
from gossip.registry.merge import merge
from gossip.registry.node import RegisteredNode
from gossip.registry.ownership import Ownership, Stage
from gossip.registry.registry import Registry, admit, advance, amend, found, remove, replace
from tests.support.kv_net import CLUSTER, FIRST, Net, node, registry_of

PARTITIONS = 12
GIVEN_UP_S = PRESENCE_CHECK_S * (PRESENCE_CHECKS_MAX + 2)


def three() -> Registry:
    return registry_of((1, 2, 3), PARTITIONS)


def absent(registry: Registry) -> set[int]:
    return {each.id for each in registry.absent}


def owning(registry: Registry) -> set[int]:
    return {node for each in registry.table for node in each.holders}


# What the registry says


def test_who_was_let_in_and_not_heard_moves_nothing() -> None:
    before = three()
    after = admit(before, node(4, absent=True))
    assert after.table == before.table
    assert absent(after) == {4}
    assert not after.idle


def test_who_is_heard_gets_its_share_and_all_who_came_at_once_are_one_epoch() -> None:
    registry = three()
    for number in (4, 5, 6):
        registry = admit(registry, node(number, absent=True))
    after = advance(registry, {}, registry.epoch, here=frozenset({4, 6}))
    assert after.epoch == registry.epoch + 1
    assert absent(after) == {5}
    assert after.idle == {4, 6}
    assert owning(after) == {1, 2, 3, 4, 6}
    assert advance(after, {}, after.epoch, here=frozenset({4, 6, 99})) is after


def test_a_newcomer_that_is_away_leaves_what_it_was_to_get_to_others() -> None:
    registry = admit(admit(three(), node(4)), node(5))
    after = advance(registry, {}, registry.epoch, away=frozenset({5}))
    assert absent(after) == {5}
    assert owning(after) == {1, 2, 3, 4}
    assert after.idle == {4}
    assert not owning(advance(after, {}, after.epoch, away=frozenset({4}))) & {4, 5}


@pytest.mark.parametrize("who", [1, 2, 99])
def test_owners_and_the_issuer_do_not_lose_their_place(who: int) -> None:
    registry = admit(three(), node(4))
    assert advance(registry, {}, registry.epoch, away=frozenset({who})) is registry


def test_an_issuer_that_owns_nothing_is_no_newcomer() -> None:
    registry = registry_of((2, 3), PARTITIONS)
    assert admit(registry, node(4)).idle == {4}
    assert not admit(registry, node(FIRST)).idle


def test_who_is_heard_while_it_is_given_up_stays() -> None:
    registry = admit(three(), node(4))
    both = frozenset({4})
    assert advance(registry, {}, registry.epoch, here=both, away=both) is registry


def test_who_owns_something_is_present_whatever_its_entry_says() -> None:
    """It was given up inside its joining, and is complete just then."""
    registry = found(CLUSTER, node(1), 1)
    joining = Ownership((1,), 2, 1, (1, 2), 2)
    registry = msgspec.structs.replace(
        registry, epoch=2, nodes=(node(1), node(2, absent=True)), table=(joining,)
    )
    assert not registry.idle, "it is absent already"
    after = advance(registry, {0: frozenset({1, 2})}, 2)
    assert after.table[0].stage is Stage.LEAVING
    assert not after.absent


def test_what_joins_with_one_that_is_given_up_goes_a_step_back_without_it() -> None:
    """As when it is removed: what both sets have acknowledged, the owners alone have as well."""
    registry = admit(found(CLUSTER, node(1), 4), node(2))
    registry = advance(registry, {p: frozenset({1, 2}) for p in (0, 1)}, registry.epoch)
    after = advance(registry, {}, registry.epoch, away=frozenset({2}))
    assert {each.writers for each in after.table} == {((1,),)}
    assert 2 not in {n for each in after.table for n in each.holders}
    assert [each.table for each in (remove(registry, 2),)] == [after.table]
    back = advance(after, {}, after.epoch, here=frozenset({2}))
    assert {each.stage for each in back.table} == {Stage.COPYING}


def test_with_one_given_up_nobody_waits_for_the_next() -> None:
    registry = admit(admit(three(), node(4)), node(5))
    after = advance(registry, {}, registry.epoch, away=frozenset({4, 5}))
    assert absent(after) == {4, 5}
    assert after.is_settled


def test_a_replacement_gets_the_place_at_once_and_keeps_it_for_a_time() -> None:
    registry = admit(three(), node(4))
    registry = msgspec.structs.replace(
        registry, table=tuple(Ownership(each.target, 2) for each in registry.table)
    )
    after = replace(registry, 4, node(9, absent=True))
    assert not after.absent
    assert after.idle == {9}
    for before, now in zip(registry.table, after.table, strict=True):
        assert set(now.target) == {9 if each == 4 else each for each in before.owners}
    given_up = advance(after, {}, after.epoch, away=frozenset({9}))
    assert 9 not in {n for each in given_up.table for n in each.target}


def test_other_changes_leave_who_is_absent_as_it_is() -> None:
    registry = admit(three(), node(4, absent=True))
    entry = registry.node(4)
    assert entry is not None
    renewed = amend(registry, msgspec.structs.replace(entry, roles=("inviter",)))
    assert absent(renewed) == {4}
    assert absent(remove(renewed, 3)) == {4}
    assert 4 not in owning(remove(renewed, 3))
    assert not remove(renewed, 4).absent


def test_where_nobody_else_is_left_somebody_absent_owns() -> None:
    registry = admit(found(CLUSTER, node(1), 4), node(2, absent=True))
    after = remove(registry, 1, accept_loss=True)
    assert {each.owners for each in after.table} == {(2,)}
    assert not after.absent


def test_after_a_fork_who_was_heard_by_one_half_is_present() -> None:
    base = admit(admit(three(), node(4, absent=True)), node(5, absent=True))
    ours = advance(base, {}, base.epoch, here=frozenset({4}))
    theirs = admit(base, node(6, absent=True))
    assert absent(merge(ours, ours.mark, theirs, theirs.mark)) == {5, 6}
    assert absent(merge(theirs, theirs.mark, ours, ours.mark)) == {5, 6}


def test_an_entry_of_before_is_one_that_is_present() -> None:
    written = msgspec.msgpack.encode((4, "pi4", b"key", 1.0, "", (), (), 0))
    assert msgspec.msgpack.decode(written, type=RegisteredNode) == RegisteredNode(4, "pi4", b"key")


def test_a_version_of_before_reads_an_entry_of_now() -> None:
    class Former(msgspec.Struct, frozen=True, array_like=True):
        id: int
        name: str

    written = msgspec.msgpack.encode(node(4, absent=True))
    assert msgspec.msgpack.decode(written, type=Former) == Former(4, "node-4")


# What an issuer hears


def looks(presence: Presence, count: int, now: float = 0.0) -> None:
    for number in range(1, count + 1):
        assert presence.wake(now + number * PRESENCE_CHECK_S)


def test_looks_are_counted_and_not_the_time_between_them() -> None:
    """An issuer that was suspended for a night has looked once since."""
    presence = Presence()
    presence.adopted(admit(three(), node(4)), 0.0)
    looks(presence, PRESENCE_CHECKS_MAX)
    assert not presence.away
    assert presence.saw_frame(4) is False, "that a newcomer is there is no news"
    assert presence.wake(100_000.0)
    assert not presence.wake(100_001.0)
    assert not presence.away
    looks(presence, PRESENCE_CHECKS_MAX, 100_000.0)
    assert presence.away == {4}
    presence.saw_frame(4)
    assert not presence.away


def test_who_is_no_newcomer_any_more_is_not_looked_for() -> None:
    presence, registry = Presence(), admit(three(), node(4))
    presence.adopted(registry, 0.0)
    looks(presence, PRESENCE_CHECKS_MAX + 1)
    assert presence.away
    presence.adopted(three(), 700.0)
    assert not presence.away
    assert presence.deadline() is None
    presence.adopted(registry, 800.0)
    assert not presence.away, "it begins anew"


def test_only_who_is_absent_is_news() -> None:
    presence = Presence()
    presence.adopted(admit(three(), node(4, absent=True)), 0.0)
    assert presence.deadline() is None, "nobody is waited for"
    assert [presence.saw_frame(number) for number in (2, 77, 4, 4)] == [False, False, True, False]
    assert presence.here == {4}
    presence.adopted(three(), 1.0)
    assert not presence.here


# What whole planes do


class Signing(Net):
    """A net that remembers what its issuer was to sign."""

    def __init__(self, registry: Registry) -> None:
        self.ready: list[OwnersReady] = []
        super().__init__(registry)

    def advance(self, number: int, ready: OwnersReady) -> None:
        self.ready.append(ready)
        super().advance(number, ready)

    def let_in(self, *numbers: int, runs: bool = True) -> None:
        for number in numbers:
            self.adopt(admit(self.registry, node(number, absent=True)))
        for number in numbers if runs else ():
            self.start(number)

    def put_and_get(self) -> Any:
        assert self.ask(2, Put("lamp", b"on")).outcome == "ok"
        return self.ask(1, Get("lamp")).outcome


def test_four_that_never_run_keep_nobody_waiting() -> None:
    net = Signing(three())
    net.let_in(11, 12, 13, 14, runs=False)
    net.let_in(4)
    net.run(20.0)
    assert net.put_and_get() == "ok"
    assert net.registry.is_settled
    assert absent(net.registry) == {11, 12, 13, 14}
    assert owning(net.registry) == {1, 2, 3, 4}
    assert not any(plane.handoff.unfinished() for plane in net.planes.values())


def test_many_that_come_at_once_are_one_registry() -> None:
    net = Signing(three())
    net.let_in(*range(4, 24))
    net.run(1.5)
    [first] = [each for each in net.ready if each.here]
    assert first.here == frozenset(range(4, 24))
    net.run(60.0)
    assert not net.registry.absent
    assert net.registry.is_settled


def test_one_that_runs_late_gets_its_share_then() -> None:
    net = Signing(three())
    net.let_in(4, runs=False)
    net.run(GIVEN_UP_S)
    assert not net.ready
    net.start(4)
    net.run(20.0)
    assert 4 in owning(net.registry)
    assert net.registry.is_settled


def test_one_that_ends_before_it_owned_anything_is_given_up_after_ten_minutes() -> None:
    net = Signing(three())
    net.let_in(4, 5)
    while 4 not in net.registry.idle:
        net.run(0.001)
    net.crash(4)
    net.run(PRESENCE_CHECK_S * (PRESENCE_CHECKS_MAX - 1))
    assert not absent(net.registry), "it may be back any minute"
    assert not net.registry.is_settled
    net.run(3 * PRESENCE_CHECK_S)
    assert absent(net.registry) == {4}
    assert net.registry.is_settled
    assert owning(net.registry) == {1, 2, 3, 5}
    net.start(4, net.kept[4])
    net.run(20.0)
    assert 4 in owning(net.registry)
    assert net.registry.is_settled


@pytest.mark.interpreted
def test_a_newcomer_that_copies_for_long_is_heard_meanwhile() -> None:
    """What it does is between it and the owners; the issuer hears that it is there."""
    net = Signing(three())
    net.let_in(4)
    net.cut |= {frozenset((4, 2)), frozenset((4, 3))}
    ask = net.planes[4].handoff._ask_next
    net.planes[4].handoff._ask_next = lambda *_: None  # type: ignore[method-assign]
    net.run(2 * GIVEN_UP_S)
    assert not any(each.away for each in net.ready)
    assert net.registry.idle == {4}
    net.planes[4].handoff._ask_next = ask  # type: ignore[method-assign]
    net.heal()
    net.run(20.0)
    assert net.registry.is_settled
    assert 4 in owning(net.registry)


@pytest.mark.slow
def test_an_owner_that_is_off_for_a_day_stays_one_where_nobody_is_to_be_missing() -> None:
    net = Signing(three())
    net.let_in(4)
    net.run(20.0)
    net.planes[FIRST].progress.judge_after(0.0, net.now)
    before = net.registry
    net.crash(4)
    net.run(24 * 3600.0)
    assert net.registry is before


def test_all_start_anew_and_nobody_is_absent() -> None:
    net = Signing(three())
    net.let_in(4)
    net.run(20.0)
    net.let_in(5, runs=False)
    settled = net.registry
    for number in (1, 2, 3, 4):
        net.crash(number)
    net.run(GIVEN_UP_S)
    net.start(1, settled)
    net.run(GIVEN_UP_S)
    for number in (2, 3, 4):
        net.start(number, settled)
    net.run(20.0)
    assert net.registry is settled


def test_an_issuer_that_starts_again_and_again_takes_nobody_for_away() -> None:
    """What it has not heard since its start it has not looked for long enough."""
    net = Signing(three())
    net.let_in(4)
    while 4 not in net.registry.idle:
        net.run(0.001)
    net.isolate(4)
    for _ in range(4):
        net.run(GIVEN_UP_S / 2)
        net.crash(FIRST)
        net.start(FIRST, net.registry)
    assert not any(each.away for each in net.ready)


def test_while_the_issuer_is_away_who_comes_waits() -> None:
    net = Signing(three())
    net.let_in(4, runs=False)
    net.crash(FIRST)
    net.start(4)
    net.run(60.0)
    assert absent(net.registry) == {4}
    assert net.ask(4, Put("lamp", b"on")).outcome == "ok", "it reads and writes as anybody"
    net.start(FIRST)
    net.run(20.0)
    assert not net.registry.absent
    assert net.registry.is_settled


def test_who_comes_while_nothing_can_be_signed_is_told_of_again() -> None:
    net = Signing(three())
    signing = net.advance
    net.advance = lambda number, ready: net.ready.append(ready)  # type: ignore[method-assign]
    net.let_in(4)
    net.run(10.0)
    assert len([each for each in net.ready if each.here == {4}]) > 1
    net.advance = signing  # type: ignore[method-assign]
    net.run(20.0)
    assert net.registry.is_settled
    assert not net.registry.absent
