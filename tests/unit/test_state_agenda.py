"""Timers: moved, cancelled and due ones."""

from gossip.state.agenda import Agenda


def test_items_come_when_due_and_in_order() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.set("late", 3.0)
    agenda.set("early", 1.0)
    assert agenda.deadline() == 1.0
    assert list(agenda.pop_due(2.0)) == ["early"]
    assert list(agenda.pop_due(2.0)) == []
    assert list(agenda.pop_due(3.0)) == ["late"]
    assert agenda.deadline() is None


def test_a_moved_item_has_one_time_and_a_cancelled_one_none() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.set("a", 1.0)
    agenda.set("a", 5.0)
    agenda.set("b", 2.0)
    agenda.cancel("b")
    agenda.cancel("never set")
    assert agenda.deadline() == 5.0
    assert list(agenda.pop_due(9.0)) == ["a"]


def test_an_item_may_be_set_again_while_due_ones_are_taken() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.set("a", 1.0)
    for item in agenda.pop_due(1.0):
        agenda.set(item, 2.0)
    assert agenda.deadline() == 2.0
