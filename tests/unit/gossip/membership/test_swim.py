"""One Swim machine, fed by hand: meeting, probing, suspecting."""

import itertools

import pytest

from gossip.core.machine import Address
from gossip.core.tuning import LAN
from gossip.membership.bootstrap import HELLOS_PER_WAKE
from gossip.membership.detection.probe import ProbeState
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import (
    Ack,
    Alive,
    Dead,
    Hello,
    Left,
    Nack,
    Ping,
    PingRequest,
    Suspect,
    SyncSummary,
    Update,
)
from tests.support.membership_solo import ME, MINE, MY_BOOT, Sent, Solo, alive, said, where

# Meeting.


def test_a_newcomer_lists_itself_and_nobody_else() -> None:
    solo = Solo()
    [itself] = solo.swim.members
    assert (itself.id, itself.state, itself.name) == (ME, MemberState.ALIVE, "me")
    assert itself.described == solo.swim.incarnation


def test_a_hint_is_greeted_with_growing_pauses_for_ever() -> None:
    solo = Solo()
    seed = Address("192.0.2.77", 7747)
    solo.swim.discovered([seed], solo.now)
    begun, at = solo.now, []
    for _ in range(10 * 3600):
        if said(solo.run(0.1), Hello, seed):
            at.append(solo.now - begun)
    pauses = [b - a for a, b in itertools.pairwise(at)]
    assert at[0] < 0.2
    assert pauses[0] < 1
    assert all(
        LAN.hello_slowest_s * 0.7 < pause < LAN.hello_slowest_s * 1.3 for pause in pauses[8:]
    )
    assert len(at) > 100


def test_greetings_stop_when_somebody_speaks_from_there() -> None:
    solo = Solo()
    solo.swim.discovered([where(2)], solo.now)
    assert said(solo.run(1), Hello, where(2))
    solo.hear(2, alive(2))
    solo.drain()
    assert not said(solo.run(4), Hello, where(2))


def test_our_own_and_unusable_addresses_are_no_hints() -> None:
    solo = Solo()
    solo.swim.discovered([MINE, Address("example.org", 1), Address("224.0.0.1", 9)], solo.now)
    assert solo.run(5) == []


def test_many_hints_are_followed_a_few_at_a_time() -> None:
    solo = Solo()
    hints = [Address(f"192.0.2.{n}", 7747) for n in range(100, 200)]
    solo.swim.discovered(hints, solo.now)
    assert 0 < len(said(solo.run(0.1), Hello)) <= 2 * HELLOS_PER_WAKE
    solo.run(30)
    begun = len(said(solo.run(60), Hello))
    assert begun >= len(hints), "and none is forgotten"


def test_where_a_live_member_says_to_be_can_wait() -> None:
    solo, second, other = Solo(), Address("198.51.100.2", 7747), Address("198.51.100.3", 7747)
    solo.hear(2, alive(2, addresses=(where(2), second)))
    solo.swim.discovered([where(2), second, other], solo.now)
    sent = solo.run(3)
    assert said(sent, Hello, other)
    assert said(sent, Hello, second) == []
    assert said(solo.run(LAN.hello_slowest_s), Hello, second), "somebody else may be there"


def test_where_a_live_member_has_answered_nobody_is_greeted_again() -> None:
    solo, second = Solo(), Address("198.51.100.2", 7747)
    solo.swim.discovered([second], solo.now)
    assert said(solo.run(1), Hello, second)
    solo.hear(2, alive(2, addresses=(where(2), second)), source=second)
    solo.hear(2, alive(2, addresses=(where(2), second)))
    solo.swim.discovered([second], solo.now)
    assert said(solo.run(1), Hello, second) == []
    assert len(solo.swim._bootstrap) == 0


def test_hints_are_bounded() -> None:
    solo = Solo()
    hints = [Address(f"10.{n >> 8}.{n & 255}.1", 7747) for n in range(3 * LAN.candidates_max)]
    solo.swim.discovered(hints, solo.now)
    assert len(solo.swim._bootstrap) == LAN.candidates_max


def test_a_greeting_is_answered_with_who_we_are_and_whom_we_know() -> None:
    solo = Solo(2, 3)
    solo.hear(9, Hello(wants_reply=True), alive(9))
    sent = solo.drain()
    assert said(sent, Hello, where(9)) == [Hello(wants_reply=False)]
    assert {m.member for m in said(sent, Alive, where(9))} >= {ME, 2, 3}


def test_an_answered_greeting_begins_one_exchange() -> None:
    solo = Solo()
    solo.hear(2, Hello(wants_reply=False), alive(2))
    solo.hear(2, Hello(wants_reply=False), alive(2))
    solo.run(0.01)
    assert [to for to, frame in solo.frames if isinstance(frame, SyncSummary)] == [2]


def test_a_stranger_who_says_nothing_of_itself_is_asked_once_at_a_time() -> None:
    solo = Solo()
    for _ in range(50):
        solo.hear(9, Ping(1, ME))
    assert len(said(solo.drain(), Hello, where(9))) == 1
    assert solo.state(9) is None


# Probing.


def test_a_ping_is_answered_only_by_its_target() -> None:
    solo = Solo(2)
    solo.hear(2, Ping(7, ME), Ping(8, 99))
    assert said(solo.drain(), Ack) == [Ack(7)]


def test_a_silent_member_is_pinged_again_then_through_relays_then_suspected_then_dead() -> None:
    solo = Solo(2, 3, 4, 5)
    sent = solo.run(2.0)
    ping = said(sent, Ping)[0]
    # Each has a number of its own, so that an answer says which of them it measures.
    pings = [other.number for other in said(sent, Ping) if other.target == ping.target]
    assert len(pings) == len(set(pings)) == 2
    requests = said(sent, PingRequest)
    assert [r.number for r in requests[:3]] == [ping.number] * 3
    assert {r.target for r in requests[:3]} == {ping.target}
    assert solo.state(ping.target) is MemberState.SUSPECT
    solo.run(LAN.suspicion_max_s(5) + 1)
    assert solo.state(ping.target) is MemberState.DEAD


def test_an_ack_through_a_relay_counts_and_one_from_anybody_else_does_not() -> None:
    solo = Solo(2, 3, 4, 5)
    probe = solo.probe(ProbeState.INDIRECT)
    strangers = [n for n in (2, 3, 4, 5, 6) if n != probe.target and n not in probe.nacks]
    for stranger in strangers:
        solo.hear(stranger, Ack(probe.number))
    assert not probe.is_over
    relay = next(iter(probe.nacks))
    solo.hear(relay, Ack(probe.number))
    assert probe.state is ProbeState.ANSWERED


def test_nacks_spare_our_health_and_silence_costs_it() -> None:
    quiet = Solo(2, 3, 4, 5)
    quiet.probe(ProbeState.INDIRECT)
    quiet.run(0.6)
    assert quiet.swim.counts["probes/lost"] == 1
    assert quiet.swim.health == 3
    helped = Solo(2, 3, 4, 5)
    probe = helped.probe(ProbeState.INDIRECT)
    for relay in probe.nacks:
        helped.hear(relay, Nack(probe.number))
    helped.run(0.6)
    assert helped.swim.counts["probes/lost"] == 1
    assert helped.swim.health == 0


def test_a_suspect_is_pinged_together_with_the_accusation() -> None:
    solo = Solo(2)
    solo.hear(2, Suspect(2, 1, 1, 9))
    solo.drain()
    effects: Sent = []
    while not any(isinstance(m, Ping) for _, m in effects):
        effects = solo.run(0.1)
    assert said(effects, Suspect, where(2))


def test_we_ping_for_others_and_pass_the_answer_on() -> None:
    solo = Solo(2, 3)
    solo.hear(2, PingRequest(77, 3, where(3)))
    [ping] = said(solo.drain(), Ping, where(3))
    solo.hear(2, Ack(ping.number))
    assert said(solo.drain(), Ack) == []
    solo.hear(3, Ack(ping.number))
    assert said(solo.drain(), Ack, where(2)) == [Ack(77)]


def test_we_say_nack_when_the_target_is_silent() -> None:
    solo = Solo(2, 3)
    solo.hear(2, PingRequest(77, 3, where(3)))
    assert said(solo.run(0.45), Nack, where(2)) == [Nack(77)]


def test_nobody_makes_us_send_to_addresses_that_are_none() -> None:
    solo = Solo(2)
    for host in ("224.0.0.1", "example.org", "", "255.255.255.255", "::"):
        solo.hear(2, PingRequest(1, 3, Address(host, 7747)))
    solo.hear(2, PingRequest(1, 3, Address("192.0.2.9", 0)))
    assert said(solo.drain(), Ping) == []
    assert solo.swim.counts["relays/refused"] == 6


def test_a_broken_stream_makes_the_member_the_next_to_be_probed() -> None:
    for broken in (2, 3, 4, 5, 6):
        solo = Solo(2, 3, 4, 5, 6)
        solo.swim.peer_unreachable(broken, solo.now)
        assert said(solo.run(1.1), Ping)[0].target == broken


# Suspicion and refutation.


def test_confirmations_by_others_shorten_the_trial() -> None:
    alone, confirmed = Solo(*range(2, 9)), Solo(*range(2, 9))
    begun = {}
    for solo, accusers in ((alone, (3,)), (confirmed, (3, 4, 5, 6))):
        for accuser in accusers:
            solo.hear(accuser, Suspect(2, 1, 1, accuser))
        begun[solo] = solo.now
        while solo.state(2) is not MemberState.DEAD:
            solo.run(0.25)
    assert confirmed.now - begun[confirmed] == pytest.approx(LAN.suspicion_min_s(8), abs=0.5)
    assert alone.now - begun[alone] > 2 * LAN.suspicion_min_s(8)


def test_the_same_accuser_twice_confirms_nothing() -> None:
    solo = Solo(*range(2, 9))
    for _ in range(5):
        solo.hear(3, Suspect(2, 1, 1, 3))
    assert solo.swim.counts["suspicions/confirmed"] == 0


def test_we_refute_what_is_said_about_us_and_say_so_to_whoever_said_it() -> None:
    for claim in (Suspect(ME, MY_BOOT, 1, 9), Dead(ME, MY_BOOT, 4, 9), Left(ME, MY_BOOT, 7)):
        solo = Solo(2)
        solo.hear(2, claim)
        assert solo.swim.incarnation == claim.incarnation + 1
        assert said(solo.drain(), Alive, where(2))[0].incarnation == claim.incarnation + 1
        assert solo.state(ME) is MemberState.ALIVE
        assert solo.swim.health == 1


def test_a_stale_suspicion_of_us_is_answered_with_our_latest_words() -> None:
    solo = Solo(2)
    solo.hear(2, Suspect(ME, MY_BOOT, 1, 9))
    solo.drain()
    solo.now += 1
    solo.hear(2, Suspect(ME, MY_BOOT, 1, 9))
    assert said(solo.drain(), Alive, where(2))[0].incarnation == 2
    assert solo.swim.incarnation == 2


@pytest.mark.parametrize("state", ["suspect", "dead"])
def test_any_packet_with_a_higher_incarnation_clears_its_sender(state: str) -> None:
    solo = Solo(2, 3)
    solo.hear(3, Suspect(2, 1, 1, 3) if state == "suspect" else Dead(2, 1, 1, 3))
    solo.hear(2, Ping(1, ME), incarnation=2)
    assert solo.state(2) is MemberState.ALIVE
    assert solo.swim._updates.suspicions == {}


def test_a_packet_with_the_accused_incarnation_clears_nothing_and_is_told_so() -> None:
    solo = Solo(2, 3)
    solo.hear(3, Dead(2, 1, 1, 3))
    solo.drain()
    solo.hear(2, Ping(1, ME))
    assert solo.state(2) is MemberState.DEAD
    assert said(solo.drain(), Dead, where(2))


def test_words_that_arrive_after_the_header_are_still_believed() -> None:
    solo = Solo(2)
    solo.hear(2, Ping(1, ME), incarnation=2)
    assert solo.swim.members[2].described == 1
    assert said(solo.drain(), Hello, where(2)), "we ask for the words that we lack"
    solo.hear(2, alive(2, incarnation=2, tags={"new": "yes"}), incarnation=2)
    assert solo.swim.members[2].tags == {"new": "yes"}


@pytest.mark.parametrize(("boot", "incarnation"), [(1, 2), (2, 1)])
def test_whoever_rose_during_a_probe_is_not_accused_on_it(boot: int, incarnation: int) -> None:
    solo = Solo(2)
    solo.probe(ProbeState.RETRIED)
    solo.hear(2, alive(2, boot, incarnation), boot=boot, incarnation=incarnation)
    solo.run(1.0)
    assert solo.swim.counts["probes/lost"] == 1
    assert solo.swim.counts["suspicions/begun"] == 0


@pytest.mark.parametrize(
    ("held", "outdated"),
    [
        (alive(2, incarnation=5), Suspect(2, 1, 3, 9)),
        (alive(2, incarnation=5), Dead(2, 1, 3, 9)),
        (Dead(2, 1, 5, 9), Suspect(2, 1, 5, 9)),
        (Left(2, 1, 5), alive(2, incarnation=5)),
    ],
)
def test_whoever_says_something_outdated_is_told_what_we_know(
    held: Update, outdated: Update
) -> None:
    solo = Solo(2, 3)
    solo.hear(3, held)
    solo.drain()
    solo.hear(3, outdated)
    assert type(held) in [type(m) for m in (m for _, m in solo.drain()) if m.member == 2]


def test_whoever_is_alive_to_others_and_dead_to_us_hears_of_it_itself() -> None:
    """After a split each half holds the other for dead; answering would kill the living."""
    for outdated in (alive(2), alive(2, incarnation=3)):
        solo = Solo(2, 3)
        solo.hear(3, Dead(2, 1, 5, 9))
        solo.drain()
        solo.hear(3, outdated)
        sent = solo.drain()
        assert said(sent, Dead, where(2))
        assert not said(sent, Dead, where(3))
