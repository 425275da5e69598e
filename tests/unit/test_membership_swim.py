"""One Swim machine, fed by hand: what each kind of evidence does to it."""

import random

import msgspec
import pytest

from gossip.machine import Address, Emit, SendDatagram, SendFrame
from gossip.membership.beliefs import IdentityOutrun
from gossip.membership.exchange import EpochHeard
from gossip.membership.members import FORGOTTEN, MemberChanged, MemberState
from gossip.membership.messages import (
    DATAGRAMS,
    FRAMES,
    Ack,
    Alive,
    Dead,
    Entry,
    ExchangeReply,
    ExchangeRequest,
    Hello,
    Left,
    Nack,
    Ping,
    PingRequest,
    Suspect,
)
from gossip.membership.probe import ProbeState
from gossip.membership.swim import Swim
from gossip.tuning import LAN
from gossip.wire import pack, unpack

LAN_SMALL = msgspec.structs.replace(LAN, members_max=5, strangers_max=2, dead_keep_s=60.0)
ME, MY_BOOT = 1, 5 << 32
MINE = Address("192.0.2.1", 7747)


def where(node):
    return Address(f"192.0.2.{node}", 7747)


def alive(node, boot=1, incarnation=1, **more):
    fields = {"name": f"n{node}", "addresses": (where(node),), "tags": {}} | more
    return Alive(node, boot, incarnation, **fields)


class Solo:
    """A machine, its clock, and hands to feed it."""

    def __init__(self, *others, tuning=LAN):
        self.now = 100.0
        self.tuning = tuning
        self.swim = Swim(ME, MY_BOOT, "me", (MINE,), {}, tuning, random.Random(1), self.now)
        for node in others:
            self.hear(node, alive(node))
        self.drain()

    def hear(self, sender, *messages, boot=1, incarnation=1, source=None):
        body = pack(DATAGRAMS.encode(message) for message in messages)
        source = source or where(sender)
        self.swim.receive(body, sender, boot, incarnation, source, self.now)

    def drain(self):
        """Return [(to, message)], frames and events since the last call."""
        self.frames, self.events, sent = [], [], []
        for effect in self.swim.effects():
            if isinstance(effect, SendDatagram):
                sent += [(effect.to, DATAGRAMS.decode(item)) for item in unpack(effect.data)]
            elif isinstance(effect, SendFrame):
                self.frames.append((effect.to, FRAMES.decode(effect.data)))
            elif isinstance(effect, Emit):
                self.events.append(effect.event)
        return sent

    def run(self, duration_s):
        """Let time pass with nobody answering; return what was sent."""
        sent, frames, events = [], [], []
        end = self.now + duration_s
        while (due := self.swim.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.swim.wake(self.now)
            sent += self.drain()
            frames += self.frames
            events += self.events
        self.now = end
        self.frames, self.events = frames, events
        return sent

    def probe(self, state):
        """Let time pass until a probe is in this state, and return it."""
        for _ in range(100):
            probe = self.swim._detector._probe
            if probe is not None and probe.state is state:
                return probe
            self.run(0.05)
        raise AssertionError(f"no probe came to be {state}")

    def state(self, node):
        member = self.swim.members.get(node)
        return member and member.state


def said(sent, kind, to=None):
    return [m for at, m in sent if isinstance(m, kind) and (to is None or at == to)]


# Meeting.


def test_a_newcomer_lists_itself_and_nobody_else():
    solo = Solo()
    [itself] = solo.swim.members
    assert (itself.id, itself.state, itself.name) == (ME, MemberState.ALIVE, "me")
    assert itself.described == solo.swim.incarnation


def test_a_hint_is_greeted_with_growing_pauses_for_ever():
    solo = Solo()
    seed = Address("192.0.2.77", 7747)
    solo.swim.discovered([seed], solo.now)
    begun, at = solo.now, []
    for _ in range(10 * 3600):
        if said(solo.run(0.1), Hello, seed):
            at.append(solo.now - begun)
    pauses = [b - a for a, b in zip(at, at[1:], strict=False)]
    assert at[0] < 0.2
    assert pauses[0] < 1
    assert all(
        LAN.hello_slowest_s * 0.7 < pause < LAN.hello_slowest_s * 1.3 for pause in pauses[8:]
    )
    assert len(at) > 100


def test_greetings_stop_when_somebody_speaks_from_there():
    solo = Solo()
    solo.swim.discovered([where(2)], solo.now)
    assert said(solo.run(1), Hello, where(2))
    solo.hear(2, alive(2))
    solo.drain()
    assert not said(solo.run(4), Hello, where(2))


def test_our_own_and_unusable_addresses_are_no_hints():
    solo = Solo()
    solo.swim.discovered([MINE, Address("example.org", 1), Address("224.0.0.1", 9)], solo.now)
    assert solo.run(5) == []


def test_hints_are_bounded():
    solo = Solo()
    hints = [Address(f"10.{n >> 8}.{n & 255}.1", 7747) for n in range(3 * LAN.hints_max)]
    solo.swim.discovered(hints, solo.now)
    assert len(solo.swim._introductions) == LAN.hints_max


def test_a_greeting_is_answered_with_who_we_are_and_whom_we_know():
    solo = Solo(2, 3)
    solo.hear(9, Hello(wants_reply=True), alive(9))
    sent = solo.drain()
    assert said(sent, Hello, where(9)) == [Hello(wants_reply=False)]
    assert {m.member for m in said(sent, Alive, where(9))} >= {ME, 2, 3}


def test_an_answered_greeting_begins_one_exchange():
    solo = Solo()
    solo.hear(2, Hello(wants_reply=False), alive(2))
    solo.hear(2, Hello(wants_reply=False), alive(2))
    solo.run(0.01)
    [(to, frame)] = solo.frames
    assert to == 2
    assert isinstance(frame, ExchangeRequest)


def test_a_stranger_who_says_nothing_of_itself_is_asked_once_at_a_time():
    solo = Solo()
    for _ in range(50):
        solo.hear(9, Ping(1, ME))
    assert len(said(solo.drain(), Hello, where(9))) == 1
    assert solo.state(9) is None


# Probing.


def test_a_ping_is_answered_only_by_its_target():
    solo = Solo(2)
    solo.hear(2, Ping(7, ME), Ping(8, 99))
    assert said(solo.drain(), Ack) == [Ack(7)]


def test_a_silent_member_is_pinged_again_then_through_relays_then_suspected_then_dead():
    solo = Solo(2, 3, 4, 5)
    sent = solo.run(2.0)
    ping = said(sent, Ping)[0]
    assert said(sent, Ping).count(ping) == 2
    requests = said(sent, PingRequest)
    assert [r.number for r in requests[:3]] == [ping.number] * 3
    assert {r.target for r in requests[:3]} == {ping.target}
    assert solo.state(ping.target) is MemberState.SUSPECT
    solo.run(LAN.suspicion_max_s(5) + 1)
    assert solo.state(ping.target) is MemberState.DEAD


def test_an_ack_through_a_relay_counts_and_one_from_anybody_else_does_not():
    solo = Solo(2, 3, 4, 5)
    probe = solo.probe(ProbeState.RELAYED)
    strangers = [n for n in (2, 3, 4, 5, 6) if n != probe.target and n not in probe.nacks]
    for stranger in strangers:
        solo.hear(stranger, Ack(probe.number))
    assert not probe.is_over
    relay = next(iter(probe.nacks))
    solo.hear(relay, Ack(probe.number))
    assert probe.state is ProbeState.ANSWERED


def test_nacks_spare_our_health_and_silence_costs_it():
    quiet = Solo(2, 3, 4, 5)
    quiet.probe(ProbeState.RELAYED)
    quiet.run(0.6)
    assert quiet.swim.counts["probes/lost"] == 1
    assert quiet.swim.health == 3
    helped = Solo(2, 3, 4, 5)
    probe = helped.probe(ProbeState.RELAYED)
    for relay in probe.nacks:
        helped.hear(relay, Nack(probe.number))
    helped.run(0.6)
    assert helped.swim.counts["probes/lost"] == 1
    assert helped.swim.health == 0


def test_a_suspect_is_pinged_together_with_the_accusation():
    solo = Solo(2)
    solo.hear(2, Suspect(2, 1, 1, 9))
    solo.drain()
    effects = []
    while not any(isinstance(m, Ping) for _, m in effects):
        effects = solo.run(0.1)
    assert said(effects, Suspect, where(2))


def test_we_ping_for_others_and_pass_the_answer_on():
    solo = Solo(2, 3)
    solo.hear(2, PingRequest(77, 3, where(3)))
    [ping] = said(solo.drain(), Ping, where(3))
    solo.hear(2, Ack(ping.number))
    assert said(solo.drain(), Ack) == []
    solo.hear(3, Ack(ping.number))
    assert said(solo.drain(), Ack, where(2)) == [Ack(77)]


def test_we_say_nack_when_the_target_is_silent():
    solo = Solo(2, 3)
    solo.hear(2, PingRequest(77, 3, where(3)))
    assert said(solo.run(0.45), Nack, where(2)) == [Nack(77)]


def test_nobody_makes_us_send_to_addresses_that_are_none():
    solo = Solo(2)
    for host in ("224.0.0.1", "example.org", "", "255.255.255.255", "::"):
        solo.hear(2, PingRequest(1, 3, Address(host, 7747)))
    solo.hear(2, PingRequest(1, 3, Address("192.0.2.9", 0)))
    assert said(solo.drain(), Ping) == []
    assert solo.swim.counts["relays/refused"] == 6


def test_a_broken_stream_makes_the_member_the_next_to_be_probed():
    for broken in (2, 3, 4, 5, 6):
        solo = Solo(2, 3, 4, 5, 6)
        solo.swim.peer_unreachable(broken, solo.now)
        assert said(solo.run(1.1), Ping)[0].target == broken


# Suspicion and refutation.


def test_confirmations_by_others_shorten_the_trial():
    alone, confirmed = Solo(*range(2, 9)), Solo(*range(2, 9))
    for solo, accusers in ((alone, (3,)), (confirmed, (3, 4, 5, 6))):
        for accuser in accusers:
            solo.hear(accuser, Suspect(2, 1, 1, accuser))
        solo.begun = solo.now
        while solo.state(2) is not MemberState.DEAD:
            solo.run(0.25)
    assert confirmed.now - confirmed.begun == pytest.approx(LAN.suspicion_min_s(8), abs=0.5)
    assert alone.now - alone.begun > 2 * LAN.suspicion_min_s(8)


def test_the_same_accuser_twice_confirms_nothing():
    solo = Solo(*range(2, 9))
    for _ in range(5):
        solo.hear(3, Suspect(2, 1, 1, 3))
    assert solo.swim.counts["suspicions/confirmed"] == 0


def test_we_refute_what_is_said_about_us_and_say_so_to_whoever_said_it():
    for claim in (Suspect(ME, MY_BOOT, 1, 9), Dead(ME, MY_BOOT, 4, 9), Left(ME, MY_BOOT, 7)):
        solo = Solo(2)
        solo.hear(2, claim)
        assert solo.swim.incarnation == claim.incarnation + 1
        assert said(solo.drain(), Alive, where(2))[0].incarnation == claim.incarnation + 1
        assert solo.state(ME) is MemberState.ALIVE
        assert solo.swim.health == 1


def test_a_stale_suspicion_of_us_is_answered_with_our_latest_words():
    solo = Solo(2)
    solo.hear(2, Suspect(ME, MY_BOOT, 1, 9))
    solo.drain()
    solo.now += 1
    solo.hear(2, Suspect(ME, MY_BOOT, 1, 9))
    assert said(solo.drain(), Alive, where(2))[0].incarnation == 2
    assert solo.swim.incarnation == 2


@pytest.mark.parametrize("state", ["suspect", "dead"])
def test_any_packet_with_a_higher_incarnation_clears_its_sender(state):
    solo = Solo(2, 3)
    solo.hear(3, Suspect(2, 1, 1, 3) if state == "suspect" else Dead(2, 1, 1, 3))
    solo.hear(2, Ping(1, ME), incarnation=2)
    assert solo.state(2) is MemberState.ALIVE
    assert solo.swim._beliefs.suspicions == {}


def test_a_packet_with_the_accused_incarnation_clears_nothing_and_is_told_so():
    solo = Solo(2, 3)
    solo.hear(3, Dead(2, 1, 1, 3))
    solo.drain()
    solo.hear(2, Ping(1, ME))
    assert solo.state(2) is MemberState.DEAD
    assert said(solo.drain(), Dead, where(2))


def test_words_that_arrive_after_the_header_are_still_believed():
    solo = Solo(2)
    solo.hear(2, Ping(1, ME), incarnation=2)
    assert solo.swim.members[2].described == 1
    assert said(solo.drain(), Hello, where(2)), "we ask for the words that we lack"
    solo.hear(2, alive(2, incarnation=2, tags={"new": "yes"}), incarnation=2)
    assert solo.swim.members[2].tags == {"new": "yes"}


def test_the_accused_is_not_accused_anew_on_an_old_probe():
    solo = Solo(2)
    solo.probe(ProbeState.ASKED_AGAIN)
    solo.hear(2, alive(2, incarnation=2), incarnation=2)
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
def test_whoever_says_something_outdated_is_told_what_we_know(held, outdated):
    solo = Solo(2, 3)
    solo.hear(3, held)
    solo.drain()
    solo.hear(3, outdated)
    assert type(held) in [type(m) for m in (m for _, m in solo.drain()) if m.member == 2]


def test_whoever_is_alive_to_others_and_dead_to_us_hears_of_it_itself():
    """After a split each half holds the other for dead; answering would kill the living."""
    for outdated in (alive(2), alive(2, incarnation=3)):
        solo = Solo(2, 3)
        solo.hear(3, Dead(2, 1, 5, 9))
        solo.drain()
        solo.hear(3, outdated)
        sent = solo.drain()
        assert said(sent, Dead, where(2))
        assert not said(sent, Dead, where(3))


# Lives.


def test_a_later_life_replaces_an_earlier_one_in_any_state_and_at_any_address():
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


def test_a_packet_of_a_former_life_is_ignored_and_told_about_the_later_one():
    solo = Solo(3)
    solo.hear(2, alive(2, boot=7), boot=7)
    solo.drain()
    solo.hear(2, Ping(1, ME), Dead(3, 1, 1, 2), boot=6, incarnation=50)
    assert solo.state(3) is MemberState.ALIVE
    assert said(solo.drain(), Alive, where(2))[0].boot == 7


def test_a_later_life_of_ourselves_is_reported_once_and_never_argued_with():
    solo = Solo(2)
    solo.hear(2, Alive(ME, MY_BOOT + 9, 1, "me", (), {}))
    solo.hear(2, Dead(ME, MY_BOOT + 9, 1, 2))
    solo.hear(ME, Ping(1, 2), boot=MY_BOOT + 9, source=where(50))
    solo.drain()
    assert [e for e in solo.events if isinstance(e, IdentityOutrun)] == [
        IdentityOutrun(MY_BOOT + 9)
    ]
    assert (solo.swim.boot, solo.swim.incarnation) == (MY_BOOT, 1)


def test_claims_about_a_former_life_of_ours_change_nothing():
    solo = Solo(2)
    solo.hear(2, Dead(ME, MY_BOOT - 1, 10**6, 2))
    assert solo.swim.incarnation == 1


# Leaving, and being stopped.


def test_leaving_is_said_to_all_several_times_and_then_the_machine_rests():
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


def test_who_leaves_neither_refutes_nor_comes_back():
    solo = Solo(2)
    solo.swim.leave(solo.now)
    incarnation = solo.swim.incarnation
    solo.hear(2, Suspect(ME, MY_BOOT, incarnation, 2))
    assert solo.swim.incarnation == incarnation
    assert solo.state(ME) is MemberState.LEFT


def test_a_goodbye_beats_accusations_and_what_was_on_its_way():
    solo = Solo(2, 3)
    solo.hear(2, Left(2, 1, 2), incarnation=2)
    assert solo.state(2) is MemberState.LEFT
    solo.hear(3, Suspect(2, 1, 2, 3), Dead(2, 1, 2, 3), alive(2, incarnation=2))
    assert solo.state(2) is MemberState.LEFT


def test_after_a_pause_nobody_is_accused_and_we_announce_ourselves_first():
    solo = Solo(2, 3, 4)
    solo.probe(ProbeState.RELAYED)
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


def test_the_pause_is_noticed_by_the_first_packet_too():
    solo = Solo(2, 3)
    solo.run(1.15)
    solo.now += 60
    for _ in range(3):
        solo.hear(2, Ping(1, ME))
    assert solo.swim.counts["pauses/noticed"] == 1


def test_idling_is_no_pause():
    solo = Solo()
    for _ in range(100):
        solo.run(30)
    assert solo.swim.counts["pauses/noticed"] == 0


# Describing ourselves.


def test_new_tags_and_addresses_reach_the_others_under_a_new_incarnation():
    solo = Solo(2)
    solo.swim.set_tags({"role": "gate"}, solo.now)
    solo.swim.set_addresses([where(50)], solo.now)
    told = [m for m in said(solo.run(0.3), Alive, where(2)) if m.member == ME]
    assert told[-1].incarnation == 3
    assert (told[-1].tags, told[-1].addresses) == ({"role": "gate"}, (where(50),))
    assert solo.swim.members[ME].tags == {"role": "gate"}


# Exchanges.


def entry(node, state=MemberState.ALIVE, boot=1, incarnation=1, described=None, age_s=0, **more):
    fields = {"name": f"n{node}", "addresses": (where(node),), "tags": {}} | more
    described = incarnation if described is None else described
    return Entry(node, boot, incarnation, state, described, age_s, **fields)


def exchange(solo, *entries, kind=ExchangeReply, epoch=0):
    solo.swim.receive_frame(FRAMES.encode(kind(tuple(entries), epoch)), 2, solo.now)
    return solo.drain()


def test_a_request_is_answered_with_all_we_know():
    solo = Solo(2, 3)
    exchange(solo, entry(4), kind=ExchangeRequest)
    [(to, reply)] = solo.frames
    assert (to, type(reply)) == (2, ExchangeReply)
    assert {e.member for e in reply.members} == {ME, 2, 3}
    assert solo.state(4) is MemberState.ALIVE


def test_another_epoch_is_reported_and_the_same_is_not():
    solo = Solo(2)
    solo.swim.epoch = 4
    exchange(solo, epoch=4)
    assert solo.events == []
    exchange(solo, epoch=9)
    assert solo.events == [EpochHeard(2, 9)]
    exchange(solo, kind=ExchangeRequest)
    assert solo.frames[0][1].epoch == 4


def test_hearsay_kills_nobody_but_is_told_to_the_one_concerned():
    solo = Solo(2, 3)
    sent = exchange(solo, entry(3, MemberState.DEAD))
    assert solo.state(3) is MemberState.ALIVE
    assert said(sent, Dead, where(3))
    assert said(solo.run(1.1), Ping)[0].target == 3, "and we look for ourselves"


def test_hearsay_about_us_is_refuted():
    solo = Solo(2)
    exchange(solo, entry(ME, MemberState.DEAD, boot=MY_BOOT))
    assert solo.swim.incarnation == 2


def test_the_departed_are_listed_as_of_their_death():
    solo = Solo(2)
    exchange(solo, entry(7, MemberState.DEAD, age_s=50), entry(8, MemberState.LEFT, age_s=60))
    assert solo.state(7) is MemberState.DEAD
    assert solo.swim.members[7].changed_at == solo.now - 50
    exchange(solo, entry(9, MemberState.DEAD, age_s=10**12))
    assert solo.state(9) is None, "dead for longer than we keep the dead"


def test_an_entry_may_know_a_life_better_than_its_words():
    solo = Solo(2)
    exchange(solo, entry(7, incarnation=9, described=4))
    member = solo.swim.members[7]
    assert (member.incarnation, member.described) == (9, 4)
    exchange(solo, entry(7, incarnation=9, described=8, name="newer"))
    assert solo.swim.members[7].name == "newer"


def test_unsound_entries_are_counted_and_ignored():
    solo = Solo(2)
    tags = {str(n): "v" * 250 for n in range(30)}
    exchange(
        solo, entry(7, described=2), entry(8, tags=tags), entry(9, MemberState.DEAD, tags=tags)
    )
    assert [solo.state(node) for node in (7, 8, 9)] == [None] * 3
    assert solo.swim.counts["claims_ignored/unsound"] == 3


# Bounds.


def test_the_list_is_bounded_and_the_longest_departed_make_room():
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


def test_only_a_few_who_are_not_in_the_registry_are_listed():
    solo = Solo(tuning=LAN_SMALL)
    solo.swim.admitted = frozenset({ME, 2, 9})
    for node in (3, 4, 5):
        solo.hear(2, alive(node))
    solo.hear(2, alive(9))
    assert [m.id for m in solo.swim.members] == [ME, 3, 4, 9]


def test_the_dead_are_taken_off_the_list_in_the_end_and_greeted_for_ever():
    solo = Solo(2, tuning=LAN_SMALL)
    solo.hear(2, Dead(2, 1, 1, 9))
    solo.drain()
    solo.run(300)
    assert solo.state(2) is None
    for _ in range(10):
        assert said(solo.run(60), Hello, where(2))
    solo.hear(2, alive(2, incarnation=2), incarnation=2)
    assert solo.state(2) is MemberState.ALIVE
    assert len(solo.swim._roll.book) == 0


def test_who_left_is_not_greeted():
    solo = Solo(2)
    solo.hear(2, Left(2, 1, 2), incarnation=2)
    solo.drain()
    assert said(solo.run(600), Hello) == []


# Whom to try first.


def test_the_reachable_come_first():
    solo = Solo(2, 3, 4, 5, 6)
    solo.hear(2, Suspect(3, 1, 1, 2), Dead(4, 1, 1, 2))
    solo.swim._contacts.answered(5, 0.9)
    solo.swim._contacts.answered(6, 0.1)
    assert solo.swim.reachable_first([4, 77, 3, 2, 5, 6, ME]) == [ME, 6, 5, 2, 3, 77, 4]
