"""Refusals and ended streams: when they are followed, when not, and what undoes them."""

from typing import Any

import msgspec
import pytest

from gossip.core.machine import Address, SendDatagram, SendFrame
from gossip.core.tuning import LAN
from gossip.core.wire import unpack
from gossip.membership.detection.probe import ProbeState
from gossip.membership.model.members import REFUSED, MemberState
from gossip.membership.model.messages import (
    DATAGRAMS,
    FRAMES,
    REFUSAL,
    Ack,
    Dead,
    Ping,
    PingRequest,
    StreamPing,
    StreamPong,
    Suspect,
)
from gossip.membership.network.reachability import PathStatus
from tests.support.membership_solo import ME, Solo, alive, said, where

GAP_S = LAN.refused_ping_share * LAN.probe_timeout_s
ACCUSED_S = LAN.accuse_timeouts * LAN.probe_timeout_s
CONFIRMED_S = LAN.confirm_timeouts * LAN.probe_timeout_s
MOMENT_S = 0.001


class Hinted(Solo):
    """A machine whose every datagram to one member is refused, by its host or by a forger.

    So are its streams, unless ``streams`` are open and silent. That nobody answers its ordinary
    probes does not make it doubt itself.
    """

    def __init__(self, *others: int, streams: bool = False) -> None:
        super().__init__(*others, tuning=msgspec.structs.replace(LAN, awareness_max=0))
        self.has_streams = streams
        self.asked: list[StreamPing] = []
        """What was asked by stream while refusals came."""

    def refuse(self, node: int) -> None:
        self.swim.port_unreachable(where(node), self.now)

    def refused_for(self, node: int, duration_s: float) -> list[tuple[Address, Any]]:
        """Let time pass while each packet to the node is refused; return what was sent."""
        sent: list[tuple[Address, Any]] = []
        end = self.now + duration_s
        while self.now < end:
            step = self.run(min(GAP_S / 2, end - self.now))
            for to, _ in step:
                if to == where(node):
                    self.refuse(node)
            asked = [f for to, f in self.frames if to == node and isinstance(f, StreamPing)]
            self.asked += asked
            if asked and not self.has_streams:
                self.swim.peer_unreachable(node, self.now)
            sent += step
        return sent

    def second(self, node: int, accuser: int) -> None:
        """Let somebody else say that it has evidence too."""
        self.hear(accuser, Suspect(node, 1, 1, accuser, REFUSAL))


def test_a_refusal_is_followed_by_pings_at_once() -> None:
    solo = Hinted(2, 3, 4)
    solo.refuse(2)
    sent = solo.run(MOMENT_S)
    assert [ping.target for ping in said(sent, Ping, where(2))] == [2]
    assert not said(sent, PingRequest)


def test_refusals_alone_accuse_nobody() -> None:
    """A firewall that rejects datagrams refuses as a host does whose process is gone."""
    solo = Hinted(2, 3, 4, streams=True)
    solo.refuse(2)
    solo.refused_for(2, LAN.probe_timeout_s)
    solo.second(2, accuser=3)
    assert not solo.swim.counts["crash_checks/accused"]
    assert len(solo.asked) == 1, "it was asked in the other way as well, once"


def test_an_answer_by_stream_means_that_refusals_lie() -> None:
    solo = Hinted(2, 3, 4, streams=True)
    solo.refuse(2)
    solo.refused_for(2, 3 * GAP_S)
    [ping] = solo.asked
    for number, peer, subject in (
        (ping.number + 9, 2, 2),
        (ping.number, 3, 3),
        (ping.number, 2, 3),
    ):
        pong = FRAMES.encode(StreamPong(number, alive(subject)))
        solo.swim.receive_frame(pong, peer, solo.now)
    assert not solo.swim.counts["crash_reports/proved wrong"]
    solo.swim.receive_frame(FRAMES.encode(StreamPong(ping.number, alive(2))), 2, solo.now)
    assert solo.swim.counts["crash_reports/proved wrong"] == 1
    solo.refuse(2)
    assert solo.swim.counts["crash_reports/not believed"] == 1


def test_a_packet_takes_the_end_of_a_stream_back() -> None:
    solo = Hinted(2, 3, 4, streams=True)
    solo.swim.stream_closed(2, solo.now)
    solo.hear(2)
    solo.refuse(2)
    solo.refused_for(2, LAN.probe_timeout_s)
    assert not solo.swim.counts["crash_checks/accused"]


def test_a_refusal_where_the_stream_has_ended_is_not_asked_about_by_stream() -> None:
    solo = Hinted(2, 3, 4)
    solo.swim.stream_closed(2, solo.now)
    solo.refused_for(2, ACCUSED_S + 2 * GAP_S)
    assert solo.state(2) is MemberState.SUSPECT
    assert not solo.asked


def test_refusals_and_a_closed_stream_accuse_and_with_a_second_they_convict() -> None:
    solo = Hinted(2, 3, 4)
    solo.refuse(2)
    sent = solo.refused_for(2, ACCUSED_S - GAP_S)
    assert solo.state(2) is MemberState.ALIVE
    sent = solo.refused_for(2, 2 * GAP_S)
    assert solo.state(2) is MemberState.SUSPECT
    assert Suspect(2, 1, 1, ME, REFUSAL) in said(sent, Suspect)
    assert said(sent, PingRequest), "relays look too, now that the accusation goes with it"
    solo.second(2, accuser=3)
    solo.refused_for(2, CONFIRMED_S - 3 * GAP_S)
    assert solo.state(2) is MemberState.SUSPECT
    sent = solo.refused_for(2, 5 * GAP_S)
    assert solo.state(2) is MemberState.DEAD
    assert Dead(2, 1, 1, ME, REFUSAL) in said(sent, Dead)
    assert solo.swim.counts["crash_checks/convicted"] == 1


def test_the_application_hears_the_reason() -> None:
    solo = Hinted(2)
    solo.refuse(2)
    reasons: list[str] = []
    for _ in range(40):
        solo.refused_for(2, GAP_S)
        reasons += [event.reason for event in solo.events if hasattr(event, "reason")]
    assert solo.state(2) is MemberState.DEAD, "with nobody else there, nobody can second"
    assert REFUSED in reasons


def test_nobody_is_convicted_on_one_word() -> None:
    solo = Hinted(2, 3, 4)
    solo.refuse(2)
    solo.refused_for(2, ACCUSED_S + 2 * CONFIRMED_S + 3 * GAP_S)
    assert solo.state(2) is MemberState.SUSPECT
    assert solo.swim.counts["crash_checks/given up"] == 1


def test_a_packet_begins_the_count_anew() -> None:
    solo = Hinted(2, 3, 4)
    solo.refuse(2)
    for _ in range(10):
        solo.refused_for(2, ACCUSED_S - GAP_S)
        solo.hear(2)
    assert not solo.swim.counts["crash_checks/accused"]


def answer_a_check(solo: Hinted, node: int) -> None:
    """Answer the ping that follows the refusal."""
    solo.refuse(node)
    [ping] = said(solo.run(MOMENT_S), Ping, where(node))
    solo.hear(node, Ack(ping.number))


def test_an_answer_after_a_refusal_means_that_refusals_lie() -> None:
    solo = Hinted(2, 3, 4)
    answer_a_check(solo, 2)
    assert solo.swim.counts["crash_reports/proved wrong"] == 1
    solo.refuse(2)
    assert solo.swim.counts["crash_reports/not believed"] == 1
    assert not solo.swim._crash_detector._checks


def test_refusal_backoff_doubles_and_ends_with_the_life_that_it_is_about() -> None:
    solo = Hinted(2, 3, 4)
    for length_s in (LAN.refusal_backoff_first_s, 2 * LAN.refusal_backoff_first_s):
        answer_a_check(solo, 2)
        backoff = solo.swim._crash_detector._refusal_backoffs[2]
        assert backoff.until == pytest.approx(solo.now + length_s)
        solo.now = backoff.until
        solo.hear(2)
    answer_a_check(solo, 2)
    solo.hear(2, alive(2, boot=5), boot=5)
    solo.run(1.0)
    solo.refuse(2)
    assert said(solo.run(MOMENT_S), Ping, where(2)), "another life, another chance"


def test_an_answer_through_a_relay_contradicts_too() -> None:
    solo = Hinted(2, 3, 4)
    solo.refuse(2)
    sent = solo.refused_for(2, ACCUSED_S + 2 * GAP_S)
    [(to, request), *_] = [(to, m) for to, m in sent if isinstance(m, PingRequest)]
    solo.hear(4 if to == where(4) else 3, Ack(request.number))
    assert solo.swim.counts["crash_checks/contradicted"] == 1
    solo.refused_for(2, CONFIRMED_S + 2 * GAP_S)
    assert solo.state(2) is MemberState.SUSPECT, "from here it goes its ordinary way"


def test_a_refutation_ends_the_check() -> None:
    solo = Hinted(2, 3, 4)
    solo.refuse(2)
    solo.refused_for(2, ACCUSED_S + 2 * GAP_S)
    solo.second(2, accuser=3)
    solo.hear(3, alive(2, incarnation=2))
    assert solo.state(2) is MemberState.ALIVE
    solo.refused_for(2, CONFIRMED_S)
    assert solo.state(2) is not MemberState.DEAD
    assert not solo.swim.counts["crash_checks/convicted"]


def test_refusals_of_strangers_of_other_addresses_and_of_the_dead_are_only_counted() -> None:
    solo = Hinted(2)
    solo.swim.port_unreachable(where(9), solo.now)
    solo.swim.port_unreachable(Address("192.0.2.2", 9), solo.now)
    solo.hear(3, Dead(2, 1, 1, 3))
    solo.refuse(2)
    assert solo.swim.counts["crash_reports/of nobody alive"] == 3


def test_an_ended_stream_is_a_reason_to_look_and_silence_none_to_accuse() -> None:
    solo = Hinted(2, 3, 4)
    solo.swim.stream_closed(2, solo.now)
    pings = said(solo.run(1.3 * LAN.probe_timeout_s), Ping, where(2))
    assert 3 <= len(pings) <= 3 + 2, "and two of the ordinary probe, if it was just its turn"
    assert solo.swim.counts["crash_checks/given up"] == 1
    assert not solo.swim.counts["crash_checks/accused"]
    solo.swim.stream_closed(99, solo.now)
    assert solo.swim.paths_of(99, solo.now) == PathStatus()


def test_an_accused_member_is_looked_after_by_those_who_watch_it() -> None:
    solo = Hinted(2, 3, 4)
    solo.run(LAN.observers_settle_s + 0.1)
    assert 2 in solo.swim.watched
    solo.hear(3, Suspect(2, 1, 1, 3, REFUSAL))
    assert said(solo.run(MOMENT_S), Ping, where(2))


def test_our_own_pause_ends_all_checks() -> None:
    solo = Hinted(2, 3, 4)
    solo.refuse(2)
    solo.refused_for(2, ACCUSED_S + 2 * GAP_S)
    solo.now += 60
    solo.swim.wake(solo.now)
    assert not solo.swim._crash_detector._checks


def test_hostile_numbers_of_evidence_are_only_unknown_evidence() -> None:
    solo = Hinted(2, 3, 4)
    solo.hear(3, Suspect(2, 1, 1, 3, 2**63))
    assert solo.state(2) is MemberState.SUSPECT
    assert not solo.swim._crash_detector._checks


# Who watches whom.


def test_each_watches_those_that_follow_it_on_the_ring() -> None:
    solo = Solo(*range(2, 12))
    solo.run(LAN.observers_settle_s + 0.1)
    assert solo.swim.watched == (2, 3, 4)
    assert solo.swim._observers.watchers_of(2) == [11, 10]
    solo.hear(5, Dead(3, 1, 1, 5))
    solo.run(LAN.observers_settle_s + 0.1)
    assert solo.swim.watched == (2, 4, 5)


def test_alone_there_is_nobody_to_watch() -> None:
    solo = Solo()
    solo.run(LAN.observers_settle_s + 0.1)
    assert solo.swim.watched == ()


# Which ways work.


def test_paths_are_told_by_the_age_of_the_last_success() -> None:
    solo = Solo(2)
    solo.now += 5
    probe = solo.probe(ProbeState.DIRECT)
    solo.hear(probe.target, Ack(probe.number))
    asked_at = solo.now
    solo.swim.receive_frame(FRAMES.encode(StreamPing(1)), 2, solo.now)
    solo.now += 1
    solo.swim.peer_unreachable(2, solo.now)
    paths = solo.swim.paths_of(2, solo.now + 2)
    age_s: Any = pytest.approx(solo.now + 2 - asked_at)
    assert paths == PathStatus(age_s, age_s, age_s, stream_failed_s=2)


def stream_pings(solo: Solo) -> list[StreamPing]:
    """Return the pings by stream among the effects that wait."""
    frames = [effect for effect in solo.swim.effects() if isinstance(effect, SendFrame)]
    pings = [FRAMES.decode(frame.data) for frame in frames]
    return [ping for ping in pings if isinstance(ping, StreamPing)]


def test_a_ping_by_stream_is_answered_with_our_latest_words() -> None:
    solo = Solo(2)
    accusation = Suspect(ME, solo.swim.boot, solo.swim.incarnation, 2)
    solo.swim.receive_frame(FRAMES.encode(StreamPing(7, accusation)), 2, solo.now)
    answers = [FRAMES.decode(e.data) for e in solo.swim.effects() if hasattr(e, "data")]
    [pong] = [answer for answer in answers if isinstance(answer, StreamPong)]
    assert pong.number == 7
    assert pong.alive.incarnation == accusation.incarnation + 1


def test_a_pong_counts_for_its_own_sender_and_number_alone() -> None:
    solo = Solo(2, 3)
    probe = solo.probe(ProbeState.INDIRECT)
    other = 5 - probe.target
    for number, peer, subject in (
        (probe.number + 1, probe.target, probe.target),
        (probe.number, other, other),
        (probe.number, probe.target, other),
    ):
        pong = StreamPong(number, alive(subject))
        solo.swim.receive_frame(FRAMES.encode(pong), peer, solo.now)
    assert probe.state is ProbeState.INDIRECT
    pong = StreamPong(probe.number, alive(probe.target))
    solo.swim.receive_frame(FRAMES.encode(pong), probe.target, solo.now)
    assert probe.state is ProbeState.ANSWERED
    assert solo.swim.paths_of(probe.target, solo.now).udp_blocked


def test_malformed_frames_of_probes_are_counted() -> None:
    solo = Solo(2)
    for data in (b"\x91\x2e", b"\x92\x2f\xa1x", b"\x93\x2e\x01\x02"):
        solo.swim.receive_frame(data, 2, solo.now)
    assert solo.swim.counts["frames_dropped/malformed"] == 3


def test_checks_send_no_rumours_to_a_closed_port() -> None:
    solo = Hinted(2, 3, 4)
    solo.refuse(2)
    before = solo.swim.counts["updates/told"]
    for effect in solo.swim.effects():
        assert effect
    solo.now += MOMENT_S
    solo.swim._crash_detector.wake(solo.now)
    sent = [effect for effect in solo.swim.effects() if isinstance(effect, SendDatagram)]
    bodies = [effect.data for effect in sent if effect.to == where(2)]
    assert [type(DATAGRAMS.decode(item)) for body in bodies for item in unpack(body)] == [Ping]
    assert solo.swim.counts["updates/told"] == before
