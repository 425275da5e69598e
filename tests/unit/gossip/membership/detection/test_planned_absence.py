"""Announced sleep: who says that it will be silent is left in peace, and not for ever."""

import msgspec
import pytest

from gossip.core.errors import InvalidRequest
from gossip.core.tuning import LAN
from gossip.membership.model.members import MemberChanged, MemberState
from gossip.membership.model.messages import (
    SLEEP_S_MAX,
    Ack,
    Alive,
    Asleep,
    Dead,
    Hello,
    Left,
    Ping,
    PingRequest,
    Suspect,
)
from tests.support.membership_net import Net
from tests.support.membership_solo import ME, MY_BOOT, Solo, alive, entry, exchange, said, where

ALIVE, ASLEEP, DEAD = MemberState.ALIVE, MemberState.ASLEEP, MemberState.DEAD
GRACE_S = LAN.sleep_grace_s


def remaining_s(solo: Solo, node: int) -> float:
    until = solo.swim.members[node].asleep_until
    assert until is not None
    return until - solo.now


# A covey with a sleeper.


def test_a_sleeper_is_asleep_to_all_and_dead_only_after_its_time_and_the_grace() -> None:
    net = Net(5)
    net.join_all()
    net.swims[4].sleep(600, net.now)
    net.settle(4)
    net.run(2)
    assert net.all_say(4, ASLEEP)
    net.kill(4)  # the device is switched off
    net.run(600 + GRACE_S - 5)
    assert net.all_say(4, ASLEEP)
    net.run(10)
    assert net.all_say(4, DEAD)
    assert net.changes(4, MemberState.SUSPECT) == []


def test_a_suspended_sleeper_comes_back_before_or_after_its_time() -> None:
    for slept_s in (60, 620):
        net = Net(4)
        net.join_all()
        net.swims[3].sleep(600, net.now)
        net.settle(3)
        net.run(1)
        net.stop(3)
        net.run(slept_s)
        assert net.all_say(3, ASLEEP)
        net.cont(3)
        net.run(1)
        assert net.agree(), net.show()
        assert net.deaths() == []
        assert net.swims[3].asleep_until is None


def test_a_sleep_that_only_silences_ends_by_itself_or_by_awaken() -> None:
    net = Net(4)
    net.join_all()
    for index in (2, 3):
        net.swims[index].sleep(120, net.now)
        net.settle(index)
    net.run(30)
    assert net.all_say(3, ASLEEP)
    net.swims[2].awaken(net.now)
    net.settle(2)
    net.run(1)
    assert {net.state(index, 2) for index in (0, 1, 2)} == {ALIVE}
    net.run(95)
    assert net.agree(), net.show()
    assert net.deaths() == []


def test_a_sleeper_that_starts_anew_is_there_again() -> None:
    net = Net(4)
    net.join_all()
    net.swims[3].sleep(600, net.now)
    net.settle(3)
    net.run(1)
    net.kill(3)
    net.run(30)
    net.start(3)
    net.join(3, 0)
    net.run(2)
    assert net.agree(), net.show()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_under_loss_a_sleeper_is_not_taken_for_dead(seed: int) -> None:
    net = Net(6, seed=seed, loss=0.3)
    for index in range(1, 6):
        net.join(index, 0)
    net.run(20)
    net.swims[5].sleep(900, net.now)
    net.settle(5)
    net.run(1)
    net.stop(5)
    net.run(900)
    assert net.all_say(5, ASLEEP), net.show()
    net.cont(5)
    net.run(60)
    assert net.agree(), net.show()


def test_who_joins_later_learns_of_the_sleeper_and_how_long_it_sleeps() -> None:
    net = Net(4)
    late = net.swims.pop(3)
    assert late is not None
    for index in (1, 2):
        net.join(index, 0)
    net.run(5)
    net.swims[2].sleep(1000, net.now)
    net.settle(2)
    net.run(1)
    net.stop(2)
    net.run(300)
    net.start(3)
    net.join(3, 0)
    net.run(40)
    assert net.state(3, 2) is ASLEEP
    until = net.swims[3].members[net.ids[2]].asleep_until
    known = net.swims[0].members[net.ids[2]].asleep_until
    assert until is not None
    assert known is not None
    assert 0 <= until - known <= 3, "late hearing adds at most the rounding"


def test_one_who_slept_itself_does_not_judge_other_sleepers_at_once() -> None:
    solo = Solo(2, 3)
    solo.hear(3, Asleep(3, 1, 2, 100), incarnation=2)
    solo.drain()
    solo.now += 4000  # we were suspended as well
    solo.swim.wake(solo.now)
    assert solo.state(3) is ASLEEP
    solo.run(GRACE_S + 1)
    assert solo.state(3) is DEAD


# What others say of a sleeper.


def test_a_sleeper_is_neither_probed_nor_asked_nor_told() -> None:
    solo = Solo(2, 3)
    solo.hear(3, Asleep(3, 1, 2, 3600), incarnation=2)
    solo.drain()
    sent = solo.run(60)
    assert said(sent, Ping, where(2))
    assert [to for to, _ in sent if to == where(3)] == []
    assert all(message.target != 3 for message in said(sent, PingRequest))


def test_no_accusation_of_a_sleeper_is_believed_before_its_time_is_over() -> None:
    solo = Solo(2, 3)
    solo.hear(3, Asleep(3, 1, 2, 100), incarnation=2)
    solo.hear(2, Suspect(3, 1, 2, 2), Dead(3, 1, 2, 2))
    assert solo.state(3) is ASLEEP
    told = said(solo.drain(), Asleep, where(2))
    assert told, "whoever accuses a sleeper is told that it sleeps"
    exchange(solo, entry(3, DEAD, incarnation=2))
    assert solo.state(3) is ASLEEP
    solo.now += 101
    solo.hear(2, Dead(3, 1, 2, 2))
    assert solo.state(3) is DEAD


def test_a_newer_incarnation_wakes_and_an_older_one_does_not() -> None:
    solo = Solo(2, 3)
    solo.hear(3, Asleep(3, 1, 5, 100), incarnation=5)
    solo.hear(3, Ping(1, ME), incarnation=4)
    solo.hear(2, alive(3, incarnation=4), Suspect(3, 1, 4, 2))
    assert solo.state(3) is ASLEEP
    solo.hear(3, Ping(1, ME), incarnation=6)
    assert solo.state(3) is ALIVE
    solo.hear(2, Asleep(3, 1, 5, 100))
    assert solo.state(3) is ALIVE
    reasons = [event.reason for event in _events(solo) if event.member.id == 3]
    assert reasons[-2:] == ["announced its sleep", "woke up"]


def _events(solo: Solo) -> list[MemberChanged]:
    solo.drain()
    return [event for event in solo.events if isinstance(event, MemberChanged)]


def test_what_is_passed_on_says_how_much_is_left() -> None:
    solo = Solo(2, 3, 4)
    solo.hear(3, Asleep(3, 1, 2, 100), incarnation=2)
    solo.drain()
    first = said(solo.run(0.1), Asleep)
    assert {message.duration_s for message in first} == {100}
    solo.now += 1.5
    later = said(solo.run(0.3), Asleep)
    assert {message.duration_s for message in later} == {99}


def test_a_sleep_heard_late_ends_no_later() -> None:
    solo = Solo(2, 3)
    exchange(solo, entry(3, ASLEEP, incarnation=2, asleep_s=40))
    assert remaining_s(solo, 3) == 40
    solo.hear(2, Asleep(3, 1, 2, 5000))
    assert remaining_s(solo, 3) == 40, "of the same announcement the first hearing counts"
    solo.hear(3, Asleep(3, 1, 3, 5000), incarnation=3)
    assert remaining_s(solo, 3) == 5000, "it announced another end"


def test_a_sleeper_that_others_only_claim_to_sleep_says_that_it_does_not() -> None:
    solo = Solo(2)
    solo.hear(2, Asleep(ME, MY_BOOT, 1, 1000))
    assert solo.swim.incarnation == 2
    assert said(solo.drain(), Alive, where(2))[0].incarnation == 2
    assert solo.state(ME) is ALIVE


def test_asleep_owners_are_tried_after_all_others_but_the_departed() -> None:
    solo = Solo(2, 3, 4)
    solo.hear(2, Dead(4, 1, 1, 2))
    solo.hear(3, Asleep(3, 1, 2, 100), incarnation=2)
    assert solo.swim.reachable_first([4, 3, 77, 2]) == [2, 77, 3, 4]


def test_sleepers_are_not_put_out_of_a_full_list() -> None:
    small = msgspec.structs.replace(LAN, members_max=4, strangers_max=2)
    solo = Solo(2, 3, 4, tuning=small)
    solo.hear(3, Asleep(3, 1, 2, 100), incarnation=2)
    solo.hear(2, Dead(4, 1, 1, 2))
    solo.hear(2, alive(5))
    solo.hear(2, alive(6))
    assert (solo.state(3), solo.state(4), solo.state(5), solo.state(6)) == (
        ASLEEP,
        None,
        ALIVE,
        None,
    )


# Our own sleep.


def test_going_to_sleep_is_told_to_all_three_times_and_then_we_are_silent() -> None:
    solo = Solo(2, 3, 4)
    solo.swim.sleep(600, solo.now)
    assert not solo.swim.absence.is_transmitted
    sent = solo.drain() + solo.run(LAN.leave_linger_s + 0.01)
    for node in (2, 3, 4):
        assert len(said(sent, Asleep, where(node))) >= 3
    assert solo.swim.absence.is_transmitted
    solo.run(10)
    assert solo.run(300) == []
    assert solo.frames == []
    assert solo.swim.counts["pauses/noticed"] == 0
    assert solo.state(ME) is ASLEEP


@pytest.mark.parametrize("now", [2052.3132, 3382.4624, 3609.1496])
def test_a_sleep_is_as_long_as_it_was_wanted_whatever_the_clock_says(now: float) -> None:
    assert (now + 3600.0) - now > 3600.0, "what is added to it is not what is left of it"
    solo = Solo(2)
    solo.now = now
    solo.swim.sleep(3600.0, now)
    assert solo.swim.members[ME].announced_s == 3600


def test_in_our_sleep_we_answer_who_asks_and_say_that_we_sleep() -> None:
    solo = Solo(2, 3)
    solo.swim.sleep(600, solo.now)
    solo.run(100)
    solo.hear(2, Ping(7, ME), Hello(wants_reply=True))
    [(_, first), *others] = solo.drain()
    assert first == Asleep(ME, MY_BOOT, 2, 500, announced_s=600)
    assert said(others, Ack) == [Ack(7)]
    assert said(others, Hello) == []
    solo.hear(2, Dead(ME, MY_BOOT, 2, 2))
    assert solo.swim.incarnation == 3
    assert said(solo.drain(), Asleep, where(2))[0].incarnation == 3
    assert solo.state(ME) is ASLEEP


def test_describing_ourselves_in_our_sleep_does_not_wake_us() -> None:
    solo = Solo(2)
    solo.swim.sleep(600, solo.now)
    solo.run(1)
    solo.swim.set_addresses([where(50)], solo.now)
    assert said(solo.run(1), Alive) == []
    assert solo.state(ME) is ASLEEP
    solo.swim.awaken(solo.now)
    words = said(solo.drain() + solo.run(1), Alive, where(2))
    assert words[0].addresses == (where(50),)
    assert solo.state(ME) is ALIVE


def test_the_first_packet_after_a_sleep_says_that_we_are_there() -> None:
    solo = Solo(2, 3)
    solo.swim.sleep(600, solo.now)
    solo.run(2)
    solo.now += 7200
    solo.swim.wake(solo.now)
    first = solo.drain()[0][1]
    assert isinstance(first, Alive)
    assert (first.member, first.incarnation) == (ME, 3)
    solo.run(1)
    assert solo.swim.counts["suspicions/begun"] == 0


def test_leaving_out_of_a_sleep_is_a_goodbye() -> None:
    solo = Solo(2)
    solo.swim.sleep(600, solo.now)
    solo.run(1)
    solo.swim.leave(solo.now)
    sent = solo.drain() + solo.run(2)
    assert said(sent, Left, where(2))
    assert said(sent, Asleep, where(2)) == []
    assert solo.swim.left


@pytest.mark.parametrize("duration_s", [0, -5, 0.5, SLEEP_S_MAX + 1, float("nan"), float("inf")])
def test_a_sleep_that_cannot_be_is_refused_and_changes_nothing(duration_s: float) -> None:
    solo = Solo(2)
    with pytest.raises(InvalidRequest, match="nothing was announced"):
        solo.swim.sleep(duration_s, solo.now)
    assert solo.swim.asleep_until is None
    assert solo.swim.incarnation == 1


def test_who_is_asleep_sends_no_events() -> None:
    solo = Solo(2)
    solo.swim.sleep(600, solo.now)
    with pytest.raises(InvalidRequest, match="asleep"):
        solo.swim.with_delegate(
            lambda event_plane: event_plane.send_event("x", b"", solo.now), solo.now
        )
