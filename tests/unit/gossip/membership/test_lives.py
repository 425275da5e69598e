"""One Swim machine, fed by hand: restarts, goodbyes, pauses, and the bounds of its memory."""

from gossip.core.machine import Address
from gossip.core.tuning import LAN
from gossip.membership.detection.probe import ProbeState
from gossip.membership.detection.updates import BootSuperseded
from gossip.membership.model.members import FORGOTTEN, MemberChanged, MemberState
from gossip.membership.model.messages import Alive, Dead, Hello, Left, Ping, Suspect
from tests.support.membership_solo import LAN_SMALL, ME, MY_BOOT, Solo, alive, said, where

# Lives.


def test_a_later_life_replaces_an_earlier_one_in_any_state_and_at_any_address() -> None:
    for claim in (alive(2, incarnation=9), Dead(2, 1, 9, 3), Left(2, 1, 9)):
        solo = Solo(2, 3)
        solo.hear(3, claim)
        there = Address("192.0.2.222", 7747)
        solo.drain()
        solo.hear(2, alive(2, boot=2, addresses=(there,)), boot=2, source=there)
        assert solo.state(2) is MemberState.ALIVE
        assert solo.swim.addresses_of(2) == [there]
        solo.drain()
        assert "restarted" in {e.reason for e in solo.events if isinstance(e, MemberChanged)}


def test_a_packet_of_a_former_life_is_ignored_and_told_about_the_later_one() -> None:
    solo = Solo(3)
    solo.hear(2, alive(2, boot=7), boot=7)
    solo.drain()
    solo.hear(2, Ping(1, ME), Dead(3, 1, 1, 2), boot=6, incarnation=50)
    assert solo.state(3) is MemberState.ALIVE
    assert said(solo.drain(), Alive, where(2))[0].boot == 7


def test_a_later_life_of_ourselves_is_reported_once_and_never_argued_with() -> None:
    solo = Solo(2)
    solo.hear(2, Alive(ME, MY_BOOT + 9, 1, "me", (), {}))
    solo.hear(2, Dead(ME, MY_BOOT + 9, 1, 2))
    solo.hear(ME, Ping(1, 2), boot=MY_BOOT + 9, source=where(50))
    solo.drain()
    assert [e for e in solo.events if isinstance(e, BootSuperseded)] == [
        BootSuperseded(MY_BOOT + 9)
    ]
    assert (solo.swim.boot, solo.swim.incarnation) == (MY_BOOT, 1)


def test_claims_about_a_former_life_of_ours_change_nothing() -> None:
    solo = Solo(2)
    solo.hear(2, Dead(ME, MY_BOOT - 1, 10**6, 2))
    assert solo.swim.incarnation == 1


# Leaving, and being stopped.


def test_leaving_is_said_to_all_several_times_and_then_the_machine_rests() -> None:
    solo = Solo(2, 3, 4)
    solo.swim.leave(solo.now)
    assert solo.swim.leaving
    assert not solo.swim.left
    sent = solo.drain() + solo.run(LAN.leave_linger_s + 0.01)
    for node in (2, 3, 4):
        assert len(said(sent, Left, where(node))) == 3
    assert solo.swim.left
    assert solo.swim.deadline() is None
    solo.hear(2, Ping(1, ME))
    assert solo.drain() == []


def test_who_leaves_neither_refutes_nor_comes_back() -> None:
    solo = Solo(2)
    solo.swim.leave(solo.now)
    incarnation = solo.swim.incarnation
    solo.hear(2, Suspect(ME, MY_BOOT, incarnation, 2))
    assert solo.swim.incarnation == incarnation
    assert solo.state(ME) is MemberState.LEFT


def test_a_goodbye_beats_accusations_and_what_was_on_its_way() -> None:
    solo = Solo(2, 3)
    solo.hear(2, Left(2, 1, 2), incarnation=2)
    assert solo.state(2) is MemberState.LEFT
    solo.hear(3, Suspect(2, 1, 2, 3), Dead(2, 1, 2, 3), alive(2, incarnation=2))
    assert solo.state(2) is MemberState.LEFT


def test_after_a_pause_nobody_is_accused_and_we_announce_ourselves_first() -> None:
    solo = Solo(2, 3, 4)
    solo.probe(ProbeState.INDIRECT)
    solo.hear(2, Suspect(4, 1, 1, 2))
    solo.drain()
    solo.now += 3600
    solo.swim.wake(solo.now)
    first = solo.drain()
    assert solo.swim.counts["pauses/noticed"] == 1
    assert isinstance(first[0][1], Alive)
    assert first[0][1].member == ME
    assert first[0][1].incarnation == 2
    assert solo.swim.counts["probes/lost"] == 0
    assert solo.state(4) is MemberState.SUSPECT, "the suspect gets its time back"


def test_the_pause_is_noticed_by_the_first_packet_too() -> None:
    solo = Solo(2, 3)
    solo.run(1.15)
    solo.now += 60
    for _ in range(3):
        solo.hear(2, Ping(1, ME))
    assert solo.swim.counts["pauses/noticed"] == 1


def test_idling_is_no_pause() -> None:
    solo = Solo()
    for _ in range(100):
        solo.run(30)
    assert solo.swim.counts["pauses/noticed"] == 0


# Describing ourselves.


def test_new_tags_and_addresses_reach_the_others_under_a_new_incarnation() -> None:
    solo = Solo(2)
    solo.swim.set_tags({"role": "gate"}, solo.now)
    solo.swim.set_addresses([where(50)], solo.now)
    told = [m for m in said(solo.run(0.3), Alive, where(2)) if m.member == ME]
    assert told[-1].incarnation == 3
    assert (told[-1].tags, told[-1].addresses) == ({"role": "gate"}, (where(50),))
    assert solo.swim.members[ME].tags == {"role": "gate"}


# Bounds.


def test_the_list_is_bounded_and_the_longest_departed_make_room() -> None:
    tuning = LAN_SMALL
    solo = Solo(2, 3, 4, tuning=tuning)
    solo.hear(2, Dead(3, 1, 1, 2))
    solo.now += 1
    solo.hear(2, Dead(4, 1, 1, 2))
    solo.hear(2, alive(5))
    solo.drain()
    solo.hear(2, alive(6))
    solo.drain()
    assert (solo.state(3), solo.state(4)) == (None, MemberState.DEAD)
    assert FORGOTTEN in {event.reason for event in solo.events}
    assert solo.swim.addresses_of(3) == [where(3)], "the book still knows"
    solo.hear(2, alive(7))
    solo.hear(2, alive(8))
    assert solo.state(8) is None
    assert len(solo.swim.members) == tuning.members_max
    assert solo.swim.counts["members_refused/list full"] == 1


def test_nobody_is_listed_who_is_not_in_the_registry() -> None:
    solo = Solo(2, tuning=LAN_SMALL)
    solo.swim.admit(dict.fromkeys([ME, 2, 9], "n"), solo.now)
    for node in (3, 4, 5):
        solo.hear(2, alive(node))
    solo.hear(2, alive(9))
    assert [m.id for m in solo.swim.members] == [ME, 2, 9]
    assert solo.swim.counts["members_refused/not in the registry"] == 3


def test_a_member_has_the_name_that_the_registry_has_for_it() -> None:
    """Whatever it calls itself: that is passed on as it was said, and shown as what it is."""
    solo = Solo(2, tuning=LAN_SMALL)
    solo.swim.admit({ME: "me", 2: "ash", 3: "birch"}, solo.now)
    assert solo.swim.members[2].name == "ash", "also of one that was listed before"
    solo.hear(2, Alive(3, 1, 1, "root", (where(3),), {}))
    birch = solo.swim.members[3]
    assert (birch.name, birch.says) == ("birch", "root")
    told = said(solo.run(1), Alive)
    assert {words.name for words in told if words.member == 3} == {"root"}
    solo.swim.admit({ME: "me", 2: "ash", 3: "root"}, solo.now)
    assert (solo.swim.members[3].name, solo.swim.members[3].says) == ("root", "")


def test_strangers_are_listed_when_the_registry_arrives_that_names_them() -> None:
    solo = Solo(2, tuning=LAN_SMALL)
    solo.swim.admit(dict.fromkeys([ME, 2], "n"), solo.now)
    for node in (3, 4, 5):
        solo.hear(2, alive(node))
    solo.swim.admit(dict.fromkeys([ME, 2, 3, 4, 5], "n"), solo.now)
    listed = [m.id for m in solo.swim.members]
    assert listed == [ME, 2, 4, 5], "two are remembered, those heard of last"
    assert said(solo.run(1), Alive), "and passed on"


def test_who_is_no_longer_in_the_registry_is_neither_listed_nor_looked_for() -> None:
    solo = Solo(2, 3, 4, tuning=LAN_SMALL)
    solo.hear(2, Suspect(3, 1, 1, 2), Dead(4, 1, 1, 2))
    solo.drain()
    solo.swim.admit(dict.fromkeys([ME, 2], "n"), solo.now)
    assert [m.id for m in solo.swim.members] == [ME, 2]
    solo.drain()
    assert {e.member.id for e in solo.events if e.reason == FORGOTTEN} == {3, 4}
    solo.events.clear()
    sent = solo.run(120)
    assert not said(sent, Hello, where(3))
    assert not said(sent, Hello, where(4))
    solo.hear(2, Suspect(3, 1, 1, 2), alive(3, incarnation=5))
    assert solo.state(3) is None


def test_the_dead_are_taken_off_the_list_in_the_end_and_greeted_for_ever() -> None:
    solo = Solo(2, tuning=LAN_SMALL)
    solo.hear(2, Dead(2, 1, 1, 9))
    solo.drain()
    solo.run(300)
    assert solo.state(2) is None
    for _ in range(10):
        assert said(solo.run(60), Hello, where(2))
    solo.hear(2, alive(2, incarnation=2), incarnation=2)
    assert solo.state(2) is MemberState.ALIVE
    assert len(solo.swim._member_list.departed) == 0


def test_who_left_is_asked_once_whether_it_did_and_then_let_go() -> None:
    solo = Solo(2)
    solo.hear(2, Left(2, 1, 2), incarnation=2)
    solo.drain()
    assert 1 <= len(said(solo.run(LAN.healed_s), Hello)) <= LAN.healed_s / LAN.reconnect_interval_s
    assert said(solo.run(600), Hello) == []


# Whom to try first.


def test_the_reachable_come_first() -> None:
    solo = Solo(2, 3, 4, 5, 6)
    solo.hear(2, Suspect(3, 1, 1, 2), Dead(4, 1, 1, 2))
    solo.swim._reachability.answered(5, 0.9)
    solo.swim._reachability.answered(6, 0.1)
    assert solo.swim.reachable_first([4, 77, 3, 2, 5, 6, ME]) == [ME, 6, 5, 2, 3, 77, 4]
