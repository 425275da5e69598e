"""Events: told to everybody once and in order, whatever the network and liars do."""

import itertools
import random

import msgspec
import pytest

from gossip.core.errors import LimitExceeded
from gossip.core.tuning import LAN, Tuning
from gossip.events.events import EventDelivered, TooManyEvents
from gossip.events.lamport import JUMP_MAX, LEARNT_MAX, TIME_MAX, LamportClock, TokenBucket
from gossip.events.messages import EVENT_FRAMES, Event, EventId, EventSyncMessage
from gossip.membership.dissemination.broadcast_queue import TransmitLimitedQueue
from tests.support.events_net import HOLD_S, delivered, formed, names, send
from tests.support.membership_net import Net
from tests.support.membership_solo import MY_BOOT, Solo, alive, feed, where

# ---- events


def test_an_event_reaches_all_once() -> None:
    net = formed(9)
    send(net, 3, "alarm", b"\x00\xff")
    net.run(5)
    for got in delivered(net).values():
        assert [(one.event.name, one.event.payload, one.is_late) for _, one in got] == [
            ("alarm", b"\x00\xff", False)
        ]


def test_events_that_follow_each_other_are_delivered_in_that_order_everywhere() -> None:
    net = formed(9, loss=0.1)
    for number in range(20):
        send(net, number % 9, str(number))
        net.run(1.5)  # so that the next sender has heard of it
    net.run(20)
    for index in net.swims:
        assert names(net, index) == [str(number) for number in range(20)]


def test_two_nodes_that_say_the_same_at_once_are_both_heard() -> None:
    net = formed(5)
    send(net, 1, "door", b"open")
    send(net, 2, "door", b"open")
    net.run(5)
    for got in delivered(net).values():
        assert {one.event.sender for _, one in got} == {net.ids[1], net.ids[2]}
        assert len({one.event.time for _, one in got}) == 1


@pytest.mark.parametrize(
    ("count", "loss"), [(9, 0.1), (9, 0.3), pytest.param(30, 0.3, marks=pytest.mark.slow)]
)
def test_loss_stops_no_event(count: int, loss: float) -> None:
    net = formed(count, seed=count, loss=loss)
    for number in range(10):
        send(net, number % count, str(number))
        net.run(0.5)
    net.run(LAN.event_recent_s)
    for got in delivered(net).values():
        assert sorted(int(one.event.name) for _, one in got) == list(range(10))
        times = [one.event.time for _, one in got if not one.is_late]
        assert times == sorted(times)


def test_bulletins_find_whom_rumours_missed() -> None:
    net = formed(5)
    net.cut = {(one, 4) for one in range(4)}  # nothing gets to 4, but streams are tried
    send(net, 0, "alarm")
    net.run(4)
    net.heal()
    assert not delivered(net)[4]
    net.run(LAN.event_recent_s)
    assert names(net, 4) == ["alarm"]


def test_nothing_is_sent_about_events_when_there_are_none() -> None:
    net = formed(5)
    before = sum(swim.counts["event_syncs/asked"] for swim in net.swims.values())
    net.run(60)
    assert sum(swim.counts["event_syncs/asked"] for swim in net.swims.values()) == before
    send(net, 0, "alarm")
    net.run(LAN.event_recent_s + 5)
    during = sum(swim.counts["event_syncs/asked"] for swim in net.swims.values())
    net.run(60)
    assert during > before
    assert sum(swim.counts["event_syncs/asked"] for swim in net.swims.values()) == during


def test_latecomers_and_the_restarted_get_no_old_events() -> None:
    net = Net(5)
    for index in range(1, 4):
        net.join(index, 0)
    net.run(8)
    net.events.clear()
    send(net, 0, "old")
    net.run(3)
    net.join(4, 0)
    net.kill(3)
    net.run(0.5)
    net.start(3)
    net.join(3, 0)
    net.run(5)
    send(net, 0, "new")
    net.run(5)
    assert names(net, 4) == ["new"]
    assert names(net, 3) == ["old", "new"]  # the first by its earlier life
    assert names(net, 1) == ["old", "new"]


def test_a_newcomer_is_heard_although_its_clock_began_at_nothing() -> None:
    net = Net(4)
    for index in range(1, 3):
        net.join(index, 0)
    net.run(8)
    for number in range(700):  # more than anybody remembers
        send(net, number % 3, str(number))
        net.run(0.2)
    net.events.clear()
    net.join(3, 0)
    net.run(0.3)
    send(net, 3, "hello")
    net.run(8)
    assert all("hello" in names(net, index) for index in net.swims), delivered(net)


def test_halves_of_a_split_agree_on_the_time_again() -> None:
    net = formed(6)
    net.split([0, 1, 2], [3, 4, 5])
    net.run(60)
    for number in range(600):
        send(net, number % 3, "there")
        net.run(0.2)
    net.run(40)
    net.heal()
    net.run(70)
    assert net.agree()
    net.events.clear()
    send(net, 5, "again")
    net.run(5)
    for index in net.swims:
        assert names(net, index) == ["again"]


def test_a_node_alone_hears_itself() -> None:
    net = Net(1)
    send(net, 0, "echo")
    net.run(HOLD_S + 0.1)
    assert names(net, 0) == ["echo"]


def test_a_node_sends_only_so_many() -> None:
    solo = Solo()
    for _ in range(LAN.event_burst_max):
        solo.swim.with_delegate(
            lambda event_plane: event_plane.send_event("x", b"", solo.now), solo.now
        )
    with pytest.raises(TooManyEvents):
        solo.swim.with_delegate(
            lambda event_plane: event_plane.send_event("x", b"", solo.now), solo.now
        )
    solo.now += 1.0
    solo.swim.with_delegate(
        lambda event_plane: event_plane.send_event("x", b"", solo.now), solo.now
    )


@pytest.mark.parametrize(("name", "payload"), [("", b""), ("n" * 65, b""), ("x", b"p" * 513)])
def test_what_does_not_fit_is_refused(name: str, payload: bytes) -> None:
    solo = Solo()
    with pytest.raises(LimitExceeded):
        solo.swim.with_delegate(
            lambda event_plane: event_plane.send_event(name, payload, solo.now), solo.now
        )


# ---- events, hostile


def sure(*others: int, tuning: Tuning = LAN) -> Solo:
    """Return a machine that knows these members and the covey's time, 100."""
    solo = Solo(*others, tuning=tuning)
    for node in others:
        sync_message = EventSyncMessage(100, True, False, (), (), ())
        feed(solo.swim, EVENT_FRAMES.encode(sync_message), node, solo.now)
    solo.drain()
    return solo


def event(sender: int, sequence: int, time: int, boot: int = 1, name: str = "x") -> Event:
    return Event(sender, boot, sequence, time, name, b"")


def heard(solo: Solo) -> list[int]:
    solo.run(HOLD_S + 0.01)
    return [one.event.sequence for one in solo.events if isinstance(one, EventDelivered)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (event(9, 1, 101), "unknown sender"),
        (event(2, 1, 101, boot=5), "unknown sender"),
        (event(1, 1, 101, boot=MY_BOOT), "our own, of before"),
        (event(2, 1, 100 + JUMP_MAX + 1), "implausible time"),
        (event(2, 1, 2**64 - 1), "implausible time"),
    ],
)
def test_what_cannot_be_is_counted_and_changes_nothing(bad: Event, reason: str) -> None:
    solo = sure(2)
    solo.hear(2, bad)
    assert heard(solo) == []
    assert solo.swim.counts["events_ignored/" + reason] == 1
    assert solo.swim.delegate.time == 100
    solo.hear(2, event(2, 2, 101))
    assert heard(solo) == [2]


def test_many_senders_give_none_of_them_a_new_allowance() -> None:
    """Who was silent longest is forgotten, and not who has sent since the longest time."""
    few = msgspec.structs.replace(LAN, events_kept_max=4, event_burst_max=2)
    solo = sure(2, 3, 4, 5, 6, tuning=few)
    time = itertools.count(101)
    for sender in (2, 3, 4, 5, 2, 6, 2, 2, 2, 2):
        now = next(time)
        solo.hear(sender, event(sender, now, now))
    assert solo.swim.counts["events_ignored/too many"] == 2, "of six, an honest one sends four"


def test_one_sender_cannot_push_out_the_others() -> None:
    solo = sure(2, 3)
    solo.hear(3, event(3, 1, 101))
    for number in range(1, 2000):
        solo.hear(2, event(2, number, 100 + number))
    assert solo.swim.counts["events_ignored/too many"] == 1999 - 2 * LAN.event_burst_max
    solo.hear(3, event(3, 1, 101))
    assert solo.swim.counts["events_ignored/heard before"] == 1


def test_memory_is_bounded_and_what_is_pushed_out_is_delivered_first() -> None:
    solo = sure(*range(2, 12))
    for number in range(1, 101):
        for sender in range(2, 12):
            solo.hear(sender, event(sender, number, 100 + 10 * number))
    events = solo.swim.delegate._events
    assert len(events._kept) == LAN.events_kept_max
    assert len(solo.swim._outbound.broadcast_queue) <= LAN.events_kept_max
    solo.run(1.0 + HOLD_S)
    assert solo.swim.counts["events/delivered"] == 1000
    assert solo.swim.counts["events/delivered late"] == 0


def test_a_late_event_is_delivered_and_says_so() -> None:
    solo = sure(2, 3)
    solo.hear(2, event(2, 1, 110))
    assert heard(solo) == [1]
    solo.hear(3, event(3, 7, 105))
    solo.run(HOLD_S + 0.01)
    [late] = [one for one in solo.events if isinstance(one, EventDelivered)]
    assert (late.event.sequence, late.is_late) == (7, True)


def test_of_two_times_far_apart_a_newcomer_believes_the_lower() -> None:
    for liar in (2, 3):
        solo = Solo(2, 3)
        for node in (2, 3):
            time = LEARNT_MAX if node == liar else 50
            sync_message = EventSyncMessage(time, True, False, (), (), ())
            feed(solo.swim, EVENT_FRAMES.encode(sync_message), node, solo.now)
        assert solo.swim.delegate.time == 50


def test_a_newcomer_does_not_wait_for_ever() -> None:
    solo = Solo(2)
    solo.swim.with_delegate(
        lambda event_plane: event_plane.send_event("x", b"", solo.now), solo.now
    )
    solo.hear(2, event(2, 1, 7))
    sync_message = EventSyncMessage(LEARNT_MAX + 1, True, False, (), (), ())
    feed(solo.swim, EVENT_FRAMES.encode(sync_message), 2, solo.now)
    solo.run(LAN.event_patience_s + HOLD_S + 1)
    got = [one.event for one in solo.events if isinstance(one, EventDelivered)]
    assert [(one.sender, one.time) for one in got] == [(2, 7), (1, 8)]


@pytest.mark.parametrize("event_time", [0, 5])
def test_who_was_there_before_takes_no_rumour_for_new_until_it_knows_the_time(
    event_time: int,
) -> None:
    solo = Solo(event_time=event_time)
    solo.hear(2, alive(2))
    solo.hear(2, event(2, 1, 7))
    sync_message = EventSyncMessage(8, True, False, (), (), ())
    feed(solo.swim, EVENT_FRAMES.encode(sync_message), 2, solo.now)
    solo.hear(2, event(2, 2, 8))
    given = EventSyncMessage(9, True, False, (), (), (event(2, 3, 8), event(2, 4, 9)))
    feed(solo.swim, EVENT_FRAMES.encode(given), 2, solo.now)
    solo.drain()
    assert heard(solo) == ([4] if event_time else [1, 2, 4])
    solo.run(LAN.event_transmit_s)
    solo.hear(2, event(2, 5, 8), event(2, 6, 10))
    solo.drain()
    assert heard(solo) == [6]  # nobody is new for ever: that one was recorded and replayed


def test_bulletins_are_answered_in_moderation() -> None:
    solo = sure(2)
    solo.swim.with_delegate(
        lambda event_plane: event_plane.send_event("x", b"", solo.now), solo.now
    )
    solo.drain()
    wanted = tuple(EventId(7, 7, number) for number in range(500))
    sync_message = EVENT_FRAMES.encode(EventSyncMessage(100, True, True, wanted, wanted, ()))
    for _ in range(50):
        feed(solo.swim, sync_message, 2, solo.now)
    solo.drain()
    assert len(solo.frames) == 1
    assert solo.swim.counts["event_syncs/too many"] == 49


def test_damaged_frames_change_nothing() -> None:
    solo = sure(2)
    rng = random.Random(5)
    whole = EVENT_FRAMES.encode(EventSyncMessage(101, True, True, (EventId(2, 1, 1),), (), ()))
    for _ in range(500):
        cut = bytearray(whole[: rng.randrange(3, len(whole))])
        cut[rng.randrange(2, len(cut))] ^= 1 << rng.randrange(8)
        feed(solo.swim, bytes(cut), 2, solo.now)
    assert solo.swim.delegate.time <= 100 + JUMP_MAX


# ---- the parts


def test_news_of_members_come_before_events() -> None:
    solo = sure(2)
    for _ in range(40):
        solo.swim.with_delegate(lambda f: f.send_event("x", b"p" * 512, solo.now), solo.now)
    many = [alive(node, name="n" * 60) for node in range(3, 20)]
    for one in many:
        solo.hear(2, one)
    solo.drain()
    body = solo.swim._outbound
    body.send(where(2))
    first = [type(message).__name__ for _, message in solo.drain()]
    assert first.count("Alive") >= 8
    assert "Event" not in first[: first.count("Alive")]


def test_broadcasts_are_told_a_bounded_number_of_times_and_expire() -> None:
    broadcast_queue = TransmitLimitedQueue(2)
    assert broadcast_queue.put("a", b"a", 10.0)
    assert broadcast_queue.select(100, 3) == [b"a"]
    assert broadcast_queue.put("b", b"b", 10.0)
    assert broadcast_queue.select(3, 3) == [b"b"]  # told least
    assert not broadcast_queue.put("c", b"c", 20.0)
    assert len(broadcast_queue) == 2
    broadcast_queue.expire(10.0)
    assert [broadcast_queue.select(100, 3) for _ in range(4)] == [[b"c"], [b"c"], [b"c"], []]


def test_the_clock_cannot_be_driven_to_its_end() -> None:
    clock = LamportClock(5)
    assert not clock.witness(2**64 - 1)
    assert not clock.witness(5 + JUMP_MAX + 1)
    assert clock.witness(5 + JUMP_MAX)
    assert clock.tick() == 6 + JUMP_MAX
    assert LamportClock(TIME_MAX).tick() == TIME_MAX


def test_an_allowance_fills_up_again() -> None:
    allowance = TokenBucket(2, 1.0, 0.0)
    assert [allowance.take(0.0) for _ in range(3)] == [True, True, False]
    assert [allowance.take(10.0) for _ in range(3)] == [True, True, False]
