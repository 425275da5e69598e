"""The leader's clock: a time to live is a lower bound, whatever happened to the leader."""

from collections import Counter
from itertools import pairwise

from gossip.control.renewals import STALL_S, DelayTimer, LeaderTimer, Renewals, SessionTimer

A, B = SessionTimer(1), SessionTimer(2)


def begun() -> Renewals:
    return Renewals(Counter())


def look_in_time(renewals: Renewals, until: float) -> list[LeaderTimer]:
    """Wake it whenever it asks for that; return what is due then."""
    ended: list[LeaderTimer] = []
    while (asked := renewals.deadline()) is not None and asked <= until:
        ended += renewals.pop_due(asked)
    return ended


def anew(renewals: Renewals) -> int:
    return renewals._counts["control_renewals/begun_anew"]


def test_a_session_that_is_renewed_lives_and_one_that_is_not_is_due() -> None:
    renewals = begun()
    renewals.start(A, 10.0, 0.0)
    renewals.start(B, 10.0, 0.0)
    assert renewals.renew(1, 5.0)
    assert look_in_time(renewals, 9.9) == []
    assert renewals.deadline() == 10.0
    assert look_in_time(renewals, 10.0) == [B]
    assert look_in_time(renewals, 14.9) == []
    assert look_in_time(renewals, 15.0) == [A]
    assert renewals.deadline() is None


def test_a_session_that_is_ending_is_not_renewed() -> None:
    """Its end may be in the log already: whoever were told "renewed" would believe a lie."""
    renewals = begun()
    renewals.start(A, 10.0, 0.0)
    assert look_in_time(renewals, 10.0) == [A]
    assert not renewals.renew(1, 10.1)
    assert renewals.pop_due(10.2) == [], "once is enough"
    renewals.stop(A)
    assert len(renewals) == 0
    assert not renewals.renew(1, 10.3)


def test_what_could_not_be_proposed_is_tried_again() -> None:
    renewals = begun()
    renewals.start(A, 10.0, 0.0)
    look_in_time(renewals, 10.0)
    renewals.not_proposed(A, 11.0)
    assert renewals.renew(1, 10.5), "it did not get into the log, so it lives"
    renewals.not_proposed(A, 11.0)
    assert look_in_time(renewals, 20.4) == [], "and it is not ending any more"
    assert look_in_time(renewals, 20.5) == [A]
    renewals.not_proposed(A, 21.5)
    assert look_in_time(renewals, 21.5) == [A]
    assert anew(renewals) == 0


def test_a_leader_that_stood_still_judges_nobody_by_that_time() -> None:
    renewals = begun()
    renewals.start(A, 10.0, 0.0)
    renewals.start(B, 60.0, 0.0)
    stopped_until = 10.0 + STALL_S + 0.1
    assert renewals.pop_due(stopped_until) == []
    assert anew(renewals) == 1
    assert renewals.begun_anew_at == stopped_until
    assert look_in_time(renewals, stopped_until + 9.9) == []
    assert look_in_time(renewals, stopped_until + 10.0) == [A]
    assert look_in_time(renewals, stopped_until + 59.9) == []
    assert look_in_time(renewals, stopped_until + 60.0) == [B]


def test_a_stop_counts_for_nobody_however_soon_after_something_was_due_it_ends() -> None:
    """What was sent to it meanwhile waits in its sockets: it has not heard it, that is all."""
    for stop_s in (2.1 * STALL_S, 10.0):
        for late_s in (0.0, 0.01, 0.5, STALL_S, 1.5 * STALL_S):
            renewals = begun()
            renewals.start(A, 12.0, 0.0)
            assert look_in_time(renewals, 12.0 + late_s - stop_s) == []
            assert renewals.pop_due(12.0 + late_s) == [], f"{stop_s} s, until {late_s} s after"
            assert renewals.renew(1, 12.0 + late_s)
            assert anew(renewals) == 1


def test_a_loop_that_is_a_little_late_judges_as_ever() -> None:
    renewals = begun()
    renewals.start(A, 10.0, 0.0)
    assert renewals.pop_due(9.0 + 0.9 * STALL_S) == []
    assert renewals.pop_due(10.0 + 0.9 * STALL_S) == [A]
    assert anew(renewals) == 0


def test_a_leader_that_is_late_each_time_ends_nothing_and_counts_it() -> None:
    renewals = begun()
    for number in range(50):
        renewals.start(SessionTimer(number), 2.0 + number / 10, 0.0)
    now, woken = 0.0, [0.0]
    while now < 60.0:
        asked = renewals.deadline()
        assert asked is not None
        now = max(now, asked) + 1.05 * STALL_S
        woken.append(now)
        assert renewals.pop_due(now) == []
    assert anew(renewals) == len(woken) - 1
    assert all(after - before > STALL_S for before, after in pairwise(woken))


def test_a_new_leader_gives_everybody_the_full_time() -> None:
    renewals = begun()
    renewals.start(A, 10.0, 0.0)
    renewals.clear()
    assert renewals.deadline() is None
    renewals.start(A, 10.0, 9.0)
    renewals.start(A, 10.0, 12.0)
    assert look_in_time(renewals, 18.9) == []
    assert look_in_time(renewals, 19.0) == [A], "measured already"


def test_delays_are_measured_beside_sessions() -> None:
    renewals = begun()
    delay = DelayTimer("door", 7)
    renewals.start(delay, 15.0, 0.0)
    renewals.start(A, 15.0, 0.0)
    renewals.start(B, 0.1 * STALL_S, 0.0)
    assert look_in_time(renewals, 0.1 * STALL_S) == [B]
    assert look_in_time(renewals, 15.0) == [delay, A]
    assert anew(renewals) == 0
