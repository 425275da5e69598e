"""Members that come and go are damped, and two devices with one identity are named."""

from collections import Counter

import msgspec
import pytest

from gossip.core.machine import Address
from gossip.core.tuning import LAN
from gossip.membership.detection.updates import BootSuperseded
from gossip.membership.members.flap_damping import FlapDamping
from gossip.membership.members.id_conflicts import (
    PROOFS_NEEDED,
    REPORT_AGAIN_S,
    SETTLED_S,
    IdConflictDetected,
)
from gossip.membership.model.members import FLAPS, MemberChanged, MemberState
from gossip.membership.model.messages import Dead, Ping, Suspect
from tests.support.membership_net import Net
from tests.support.membership_solo import ME, Solo, alive, where

ALIVE, DEAD = MemberState.ALIVE, MemberState.DEAD


def die_and_return(solo: Solo, node: int, incarnation: int, boot: int = 1) -> None:
    solo.hear(2, Dead(node, boot, incarnation, 2))
    assert solo.state(node) is DEAD
    solo.now += 1
    solo.hear(2, alive(node, boot=boot, incarnation=incarnation + 1))
    assert solo.state(node) is ALIVE
    solo.now += 1


def flapper(times: int = 4) -> Solo:
    solo = Solo(2, 3)
    for turn in range(times):
        die_and_return(solo, 3, turn + 1)
    return solo


# Flapping.


def test_a_member_that_came_back_often_flaps_until_it_has_behaved_for_long() -> None:
    solo = flapper(2)
    assert not solo.swim.is_flapping(3, solo.now)
    die_and_return(solo, 3, 3)
    die_and_return(solo, 3, 4)
    assert solo.swim.is_flapping(3, solo.now)
    assert not solo.swim.is_flapping(2, solo.now)
    assert solo.swim.is_flapping(3, solo.now + LAN.flapping_half_life_s)
    assert not solo.swim.is_flapping(3, solo.now + 3 * LAN.flapping_half_life_s)


def test_returns_far_apart_are_no_flapping() -> None:
    flapping = FlapDamping(LAN, Counter())
    for turn in range(100):
        flapping.came_back(3, turn * LAN.flapping_half_life_s, same_life=True)
    assert not flapping.is_flapping(3, 100 * LAN.flapping_half_life_s)


def test_the_worst_conduct_is_forgiven_in_a_known_time() -> None:
    flapping = FlapDamping(LAN, Counter())
    for turn in range(10_000):
        flapping.came_back(3, turn * 0.1, same_life=True)
    assert flapping.is_flapping(3, 1000)
    halvings = LAN.flapping_most / LAN.flapping_until
    assert not flapping.is_flapping(3, 1000 + LAN.flapping_half_life_s * halvings)


def test_changes_of_a_flapping_member_are_true_and_mostly_muted() -> None:
    solo = flapper(4)
    events = [e for e in _changes(solo, 3) if e.before is not None]
    assert [e.member.state for e in events] == [DEAD, ALIVE] * 4
    told = [event for event in events if not event.muted]
    assert [event.muted for event in events] == [False] * 6 + [True] * 2
    assert len(told) == 6
    assert solo.swim.counts["flapping/changes not told"] == 2
    assert solo.swim.counts["members_changed/dead"] == 4
    solo.swim._member_list.reap(solo.now)
    assert _changes(solo, 3) == [], "it is too early to tell"
    solo.swim._member_list.reap(solo.now + LAN.flapping_notice_s)
    [late] = _changes(solo, 3)
    assert late.reason == FLAPS
    assert (late.suppressed, late.muted, late.member.state) == (2, False, ALIVE)


def test_the_next_change_that_is_told_says_how_many_were_not() -> None:
    solo = flapper(5)
    solo.drain()
    solo.now += LAN.flapping_notice_s
    solo.hear(2, Dead(3, 1, 6, 2))
    [change] = _changes(solo, 3)
    assert (change.muted, change.suppressed) == (False, 4)


def test_suspicions_of_a_bad_link_last_longer_within_bounds() -> None:
    ordinary, flapping = Solo(2, 3, 4, 5), Solo(2, 3, 4, 5)
    for turn in range(8):
        die_and_return(flapping, 3, turn + 1)
    ordinary.now = flapping.now
    ordinary.hear(2, Suspect(3, 1, 1, 2))
    flapping.hear(2, Suspect(3, 1, 9, 2))
    usual, patient = (
        each.swim._updates.suspicions[3].deadline - each.now for each in (ordinary, flapping)
    )
    assert 1.5 * usual < patient <= LAN.flapping_patience * usual


def test_a_program_that_crashes_again_and_again_is_no_bad_link() -> None:
    solo = Solo(2, 3)
    for boot in range(1, 7):
        solo.hear(2, alive(3, boot=boot))
        solo.hear(2, Dead(3, boot, 1, 2))
        solo.now += 1
    assert solo.swim.is_flapping(3, solo.now)
    assert solo.swim._member_list.flapping.patience(3, solo.now) == 1.0


def test_flapping_is_forgotten_with_the_member() -> None:
    brief = msgspec.structs.replace(LAN, dead_keep_s=60.0)
    solo = Solo(2, 3, tuning=brief)
    for turn in range(5):
        die_and_return(solo, 3, turn + 1)
    solo.hear(2, Dead(3, 1, 6, 2))
    solo.run(300)
    assert solo.state(3) is None
    assert not solo.swim.is_flapping(3, solo.now)


def _changes(solo: Solo, node: int) -> list[MemberChanged]:
    solo.drain()
    return [e for e in solo.events if isinstance(e, MemberChanged) and e.member.id == node]


# Two devices, one identity.


def cloned_covey() -> tuple[Net, int, int]:
    """Members 0 to 2, and then 3 and 4: one SD card, copied."""
    net = Net(3)
    net.join_all()
    net.ids += [77, 77]
    net.addresses += [Address("10.7.7.3", 7747), Address("10.7.7.4", 7747)]
    return net, 3, 4


def test_two_devices_with_one_identity_are_noticed_by_themselves_and_by_the_others() -> None:
    net, one, other = cloned_covey()
    net.start(one)
    net.join(one, 0)
    net.run(20)
    net.starts[other] = net.starts[one]
    net.start(other)
    net.join(other, 1)
    net.run(60)
    earlier = min((one, other), key=lambda index: net.swims[index].boot)
    outrun = [index for _, index, event in net.events if isinstance(event, BootSuperseded)]
    assert set(outrun) == {earlier}
    noticed = {i: e for _, i, e in net.events if isinstance(e, IdConflictDetected) and i < 3}
    assert noticed, "nobody else noticed"
    for index, event in noticed.items():
        assert event.member == 77
        assert set(event.addresses) == {net.addresses[one], net.addresses[other]}
        assert set(net.swims[index].clones_of(77, net.now)) == set(event.addresses)
        assert net.swims[index].counts["id_conflicts/suspected"] == 1


def test_the_warning_is_repeated_rarely_and_ends() -> None:
    solo = Solo(2)
    solo.hear(3, alive(3, boot=9), boot=9)
    solo.now += SETTLED_S
    solo.hear(3, Ping(1, ME), boot=9)
    for _ in range(200):
        solo.hear(3, Ping(1, ME), boot=8, source=where(33))
        solo.now += REPORT_AGAIN_S / 100
    solo.drain()
    told = [event for event in solo.events if isinstance(event, IdConflictDetected)]
    assert len(told) == 2
    assert told[0] == IdConflictDetected(3, "n3", (where(3), where(33)))
    assert solo.swim.clones_of(3, solo.now) == (where(3), where(33))
    assert solo.swim.clones_of(3, solo.now + 4000) == ()


@pytest.mark.parametrize(
    ("wait_s", "packets", "source"),
    [(SETTLED_S - 1, 50, where(33)), (60, PROOFS_NEEDED - 1, where(33)), (60, 50, where(3))],
)
def test_a_restart_is_no_clone(wait_s: float, packets: int, source: Address) -> None:
    solo = Solo(2)
    solo.hear(3, alive(3, boot=8), boot=8, source=where(33))
    solo.hear(3, alive(3, boot=9), boot=9)
    solo.now += wait_s
    for _ in range(packets):
        solo.hear(3, Ping(1, ME), boot=8, source=source)
    solo.drain()
    assert [event for event in solo.events if isinstance(event, IdConflictDetected)] == []
