"""Timers: moved, cancelled and due ones."""

from gossip.kv.timers import TimerQueue


def test_items_come_when_due_and_in_order() -> None:
    timers: TimerQueue[str] = TimerQueue()
    timers.set("late", 3.0)
    timers.set("early", 1.0)
    assert timers.deadline() == 1.0
    assert list(timers.pop_due(2.0)) == ["early"]
    assert list(timers.pop_due(2.0)) == []
    assert list(timers.pop_due(3.0)) == ["late"]
    assert timers.deadline() is None


def test_a_moved_item_has_one_time_and_a_cancelled_one_none() -> None:
    timers: TimerQueue[str] = TimerQueue()
    timers.set("a", 1.0)
    timers.set("a", 5.0)
    timers.set("b", 2.0)
    timers.cancel("b")
    timers.cancel("never set")
    assert timers.deadline() == 5.0
    assert list(timers.pop_due(9.0)) == ["a"]


def test_an_item_may_be_set_again_while_due_ones_are_taken() -> None:
    timers: TimerQueue[str] = TimerQueue()
    timers.set("a", 1.0)
    for item in timers.pop_due(1.0):
        timers.set(item, 2.0)
    assert timers.deadline() == 2.0
