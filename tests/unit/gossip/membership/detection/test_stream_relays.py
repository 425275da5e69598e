"""Who is asked to carry a stream to a member that cannot be dialled."""

from gossip.core.machine import Address
from gossip.membership.model.messages import Dead
from tests.support.membership_solo import Solo, alive, where


def test_relays_are_those_that_have_both_families_first() -> None:
    solo = Solo(2, 3, 4, 5)
    six = Address("fd77::3", 7747)
    solo.hear(3, alive(3, incarnation=2, addresses=(six,)), incarnation=2)
    solo.hear(5, alive(5, incarnation=2, addresses=(where(5), six)), incarnation=2)
    assert solo.swim.relays_to(3)[0] == 5, "it has an address of either family"
    assert set(solo.swim.relays_to(3)) == {2, 4, 5}
    solo.hear(2, Dead(5, 1, 2, 2))
    assert 5 not in solo.swim.relays_to(3)
    solo.hear(2, Dead(3, 1, 2, 2))
    assert solo.swim.relays_to(3) == [], "who is gone is not looked for through others"
    assert solo.swim.relays_to(99) == []
