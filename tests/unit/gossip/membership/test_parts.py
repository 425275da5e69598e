"""The small nouns of the membership, each alone."""

import itertools
import math
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from gossip.core.errors import LimitExceeded
from gossip.core.machine import Address
from gossip.core.tuning import LAN, LOCAL, METERED, PROFILES, WAN, Tuning
from gossip.membership.anti_entropy.digest import TableDigest
from gossip.membership.detection.awareness import Awareness
from gossip.membership.detection.probe import (
    TRANSITIONS,
    IndirectPings,
    Probe,
    ProbeEvent,
    ProbeOrder,
    ProbeState,
)
from gossip.membership.detection.suspicion import Suspicion, timeout_s
from gossip.membership.dissemination.broadcast_queue import TransmitLimitedQueue
from gossip.membership.members.departed import DepartedPeers
from gossip.membership.model.addresses import is_usable, only_gossiped
from gossip.membership.model.facts import FactTable
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import (
    RANK,
    REASONS,
    Member,
    MemberState,
    MemberTable,
    precedence,
)
from gossip.membership.model.messages import ALIVE_BYTES_MAX
from gossip.membership.model.rate_limit import Throttle
from gossip.membership.model.sanity import INCARNATION_JUMP_MAX, INCARNATION_MAX, is_plausible
from gossip.membership.network.coordinates import Coordinates
from gossip.membership.network.reachability import PATH_HOLD_S, Reachability
from gossip.membership.warm_start import warm_start_of

HERE, THERE = Address("192.0.2.1", 7747), Address("192.0.2.2", 7747)


def member(
    node: int,
    state: MemberState = MemberState.ALIVE,
    boot: int = 1,
    incarnation: int = 1,
    **more: Any,
) -> Member:
    return Member(node, f"n{node}", (HERE,), {}, state, boot, incarnation, 0.0, **more)


ME = 1000


def table_of(*members: Member) -> MemberTable:
    table = MemberTable()
    for each in members:
        table.put(each)
    return table


def taken(order: ProbeOrder, others: list[Member]) -> int | None:
    target = order.next(table_of(*others, member(ME)), ME)
    return target.id if target else None


# Members.


def test_precedence_is_a_total_order() -> None:
    lives = itertools.product((1, 2), (1, 2), MemberState)
    values = [precedence(*life) for life in lives]
    assert len(set(values)) == len(values)
    assert precedence(2, 1, MemberState.ALIVE) > precedence(1, 9, MemberState.LEFT)
    assert precedence(1, 2, MemberState.ALIVE) > precedence(1, 1, MemberState.LEFT)
    order = sorted(MemberState, key=RANK.__getitem__)
    assert [state.value for state in order] == ["alive", "suspect", "asleep", "dead", "left"]


def test_every_change_has_its_words() -> None:
    assert set(REASONS) == {(b, a) for b in (None, *MemberState) for a in MemberState}


def test_the_table_lists_in_the_order_of_ids_and_keeps_count_of_the_live() -> None:
    table = MemberTable()
    for node in (5, 3, 9):
        table.put(member(node))
    assert [m.id for m in table] == [3, 5, 9]
    table.put(member(3, MemberState.DEAD))
    table.put(member(5, MemberState.SUSPECT))
    assert [m.id for m in table.live] == [5, 9]
    table.remove(9)
    table.remove(9)
    assert [m.id for m in table.live] == [5]
    assert 9 not in table


def test_a_path_is_no_news_for_what_is_derived_from_the_table() -> None:
    table = table_of(member(1), member(2))
    changes = table.changes
    table.put(member(2, path=THERE))
    assert table.changes == changes
    table.put(member(2, MemberState.SUSPECT, path=THERE))
    assert table.changes > changes


def test_only_those_with_an_address_are_reachable() -> None:
    table = table_of(member(1), msgspec.structs.replace(member(2), addresses=()), member(3))
    assert [m.id for m in table.others(1)] == [3]
    table.put(msgspec.structs.replace(member(2), addresses=(), path=THERE))
    assert [m.id for m in table.others(1)] == [2, 3]
    table.put(member(3, MemberState.DEAD))
    assert [m.id for m in table.others(1)] == [2]


@pytest.mark.parametrize("me", [1, 5, 9, 4])
def test_a_sample_is_drawn_as_if_from_the_list_of_the_others(me: int) -> None:
    table = table_of(*(member(node) for node in (1, 3, 5, 7, 9)))
    others = table.others(me)
    for seed in range(20):
        drawn = table.sample_others(me, 3, random.Random(seed))
        assert drawn == random.Random(seed).sample(others, 3)
    assert sorted(m.id for m in table.sample_others(me, 99, random.Random(1))) == [
        m.id for m in others
    ]


def test_tables_that_began_with_the_same_company_go_their_own_ways() -> None:
    company = warm_start_of([member(2), member(1)], LAN, random.Random(1))
    one, two = MemberTable(), MemberTable()
    for table in (one, two):
        table.warm_start(company.members, company.ids)
    assert [*one] == [*two] == [member(1), member(2)]
    two.put(member(2, MemberState.DEAD))
    one.remove(1)
    assert [m.id for m in two.live] == [1]
    assert [m.id for m in one.live] == [2]
    assert company.ids == (1, 2)


def test_who_begins_with_a_company_has_the_hash_of_those_who_met() -> None:
    members = [member(node) for node in range(1, 9)]
    company = warm_start_of(members, LAN, random.Random(1))
    table = table_of(*reversed(members))
    table_digest = TableDigest(table, FactTable(table, LAN.facts_bytes_max, Counter()))
    assert table_digest.table() == company.table
    table.put(member(3, MemberState.SUSPECT))
    assert table_digest.table() != company.table


# Addresses.


@pytest.mark.parametrize(
    ("host", "port", "usable", "gossiped"),
    [
        ("192.0.2.1", 7747, True, True),
        ("2001:db8::1", 7747, True, True),
        ("127.0.0.1", 7747, True, True),
        ("fe80::1%eth0", 7747, True, False),
        ("example.org", 7747, False, False),
        ("", 7747, False, False),
        ("0.0.0.0", 7747, False, False),
        ("::", 7747, False, False),
        ("224.0.0.251", 7747, False, False),
        ("ff02::fb", 7747, False, False),
        ("255.255.255.255", 7747, False, False),
        ("192.0.2.1", 0, False, False),
        ("192.0.2.1", 65536, False, False),
        ("192.0.2.1", -1, False, False),
        ("1" * 10_000, 7747, False, False),
    ],
)
def test_only_literal_unicast_addresses_are_sent_to(
    host: str, port: int, usable: bool, gossiped: bool
) -> None:
    address = Address(host, port)
    assert is_usable(address) is usable
    assert only_gossiped([address, address]) == ((address,) if gossiped else ())


# Suspicion.


@pytest.mark.parametrize(
    ("confirmations", "needed", "expected"),
    [(0, 3, 30), (1, 3, 16), (2, 3, 7.81), (3, 3, 2), (5, 3, 2), (0, 0, 2)],
)
def test_confirmations_shorten_a_suspicion(
    confirmations: int, needed: int, expected: float
) -> None:
    assert timeout_s(confirmations, needed, 2, 30) == pytest.approx(expected, abs=0.01)


def test_only_independent_accusers_count() -> None:
    trial = Suspicion(10.0, needed=3, minimum_s=2, maximum_s=30)
    assert trial.accuse(1)
    assert trial.deadline == 40
    assert not trial.accuse(1)
    assert trial.accuse(2)
    assert trial.deadline == 26
    assert trial.accuse(3)
    assert trial.accuse(4)
    assert trial.deadline == 12
    assert not trial.accuse(5), "what no longer makes a difference is not told on"


def test_a_pause_gives_time_back() -> None:
    trial = Suspicion(10.0, needed=0, minimum_s=2, maximum_s=30)
    trial.extend(5)
    assert trial.deadline == 17


# Awareness.


def test_awareness_stays_within_its_bounds_and_stretches() -> None:
    health = Awareness(LAN)
    health.record(-3)
    assert health.stretch(1.0) == 1.0
    health.record_lost_probe(relays=3, nacks=3)
    assert health.score == 0, "three nacks: our links work, so the target is to blame"
    health.record_lost_probe(relays=3, nacks=1)
    assert health.score == 2
    health.record_lost_probe(relays=0, nacks=0)
    assert health.stretch(0.5) == 2.0
    health.record(100)
    assert health.score == LAN.awareness_max


# Updates.


def test_the_least_told_go_first_and_the_newest_of_them() -> None:
    update_queue = TransmitLimitedQueue(100)
    update_queue.put(1, b"one")
    assert update_queue.select(1000, 8) == [b"one"]
    update_queue.put(2, b"two")
    update_queue.put(3, b"three")
    assert update_queue.select(1000, 8) == [b"three", b"two", b"one"]


def test_a_rumour_is_told_so_often_and_no_more() -> None:
    update_queue = TransmitLimitedQueue(100)
    update_queue.put(1, b"one")
    assert [len(update_queue.select(1000, 3)) for _ in range(5)] == [1, 1, 1, 0, 0]
    assert len(update_queue) == 0


def test_a_fresher_rumour_replaces_the_older_and_all_accusations() -> None:
    update_queue = TransmitLimitedQueue(100)
    update_queue.put(1, b"alive")
    update_queue.put_accusation(1, 7, b"by 7", first=True)
    update_queue.put_accusation(1, 8, b"by 8", first=False)
    assert sorted(update_queue.select(1000, 8)) == [b"by 7", b"by 8"]
    update_queue.put(1, b"alive again")
    assert update_queue.select(1000, 8) == [b"alive again"]
    assert len(update_queue) == 1


def test_what_does_not_fit_waits_and_the_smaller_goes() -> None:
    update_queue = TransmitLimitedQueue(100)
    update_queue.put(1, b"small")
    update_queue.put(2, bytes(50))
    assert update_queue.select(10, 8) == [b"small"]
    assert update_queue.select(52, 8) == [bytes(50)]


def test_the_number_of_rumours_is_bounded_and_the_most_told_goes() -> None:
    update_queue = TransmitLimitedQueue(3)
    update_queue.put(1, b"1")
    update_queue.select(100, 8)
    for subject in (2, 3, 4):
        update_queue.put(subject, str(subject).encode())
    assert sorted(update_queue.select(100, 8)) == [b"2", b"3", b"4"]


# Probes.


def new_probe() -> Probe:
    probe = Probe(1, 2, 1, 1, 0.0)
    probe.schedule(timeout_s=0.5, period_s=1.0)
    return probe


def test_the_table_of_a_probe_is_complete_and_ends() -> None:
    final = {ProbeState.ANSWERED, ProbeState.LOST}
    for state, event in itertools.product(ProbeState, ProbeEvent):
        assert ((state, event) in TRANSITIONS) is (state not in final)
    for state in ProbeState:
        probe = new_probe()
        probe.state = state
        for _ in range(5):
            probe.move(ProbeEvent.TIME)
        assert probe.is_over


def test_an_answer_ends_a_probe_and_a_late_one_changes_nothing() -> None:
    probe = new_probe()
    assert probe.move(ProbeEvent.ANSWER)
    assert not probe.move(ProbeEvent.TIME)
    lost = new_probe()
    while lost.move(ProbeEvent.TIME):
        pass
    assert not lost.move(ProbeEvent.ANSWER)
    assert lost.state is ProbeState.LOST


def test_a_probe_that_is_noticed_late_gives_later_phases_their_full_time() -> None:
    probe = new_probe()
    assert probe.due_at == pytest.approx(0.2)
    probe.catch_up(0.9)
    probe.move(ProbeEvent.TIME)
    assert probe.due_at == pytest.approx(0.9 + 0.3)


def test_all_are_probed_once_before_any_is_probed_again() -> None:
    order = ProbeOrder(LAN, random.Random(1))
    others = [member(node) for node in range(1, 21)]
    for _ in range(5):
        assert {taken(order, others) for _ in others} == set(range(1, 21))


def test_the_urgent_jump_the_queue_once_and_only_if_they_may_be_probed() -> None:
    order = ProbeOrder(LAN, random.Random(1))
    others = [member(node) for node in range(1, 21)]
    order.probe_next(99)
    order.probe_next(7)
    assert taken(order, others) == 7
    assert {taken(order, others) for _ in range(20)} == set(range(1, 21))
    assert taken(order, []) is None


def test_a_new_member_gets_its_turn_in_the_pass_that_runs() -> None:
    order = ProbeOrder(LAN, random.Random(1))
    others = [member(node) for node in range(1, 11)]
    taken(order, others)
    order.insert(50)
    order.insert(50)
    visited = [taken(order, [*others, member(50)]) for _ in range(10)]
    assert visited.count(50) == 1


def test_about_so_many_check_a_suspect() -> None:
    order = ProbeOrder(LAN, random.Random(1))
    checkers = 0
    for _ in range(1000):
        order.probe_next_by_chance(7, members=102)
        checkers += order._next_urgent() is not None
    assert checkers / 1000 * 100 == pytest.approx(LAN.probe_checkers, rel=0.3)


def test_an_errand_is_nacked_once_and_still_passes_on_a_late_ack() -> None:
    indirect_pings = IndirectPings(LAN)
    assert indirect_pings.begin(5, target=7, asker=HERE, asked_number=3, now=0.0)
    assert indirect_pings.expire(0.39) == []
    assert [indirect_ping.asked_number for indirect_ping in indirect_pings.expire(0.4)] == [3]
    assert indirect_pings.expire(0.5) == []
    assert indirect_pings.answered(5, sender=8) is None, "only the target can answer"
    answered = indirect_pings.answered(5, sender=7)
    assert answered is not None
    assert answered.asker == HERE
    assert indirect_pings.answered(5, sender=7) is None


def test_errands_end_and_are_bounded() -> None:
    indirect_pings = IndirectPings(LAN)
    taken = [indirect_pings.begin(n, 7, HERE, n, 0.0) for n in range(LAN.relayed_max + 5)]
    assert taken.count(True) == LAN.relayed_max
    indirect_pings.expire(LAN.probe_interval_s)
    assert len(indirect_pings) == 0
    assert indirect_pings.deadline() == math.inf


# Memory of others.


def test_a_path_in_use_is_not_given_up_at_once() -> None:
    reachability = Reachability(Coordinates(1, random.Random(1), Counter()))
    assert reachability.on_packet(1, None, HERE, 0.0) == HERE
    assert reachability.on_packet(1, HERE, THERE, PATH_HOLD_S - 1) == HERE
    assert reachability.on_packet(1, HERE, THERE, PATH_HOLD_S + 1) == THERE


def test_round_trips_are_smoothed() -> None:
    reachability = Reachability(Coordinates(1, random.Random(1), Counter()))
    assert reachability.rtt_s(1) is None
    reachability.answered(1, 0.8)
    reachability.answered(1, 1.6)
    assert reachability.rtt_s(1) == pytest.approx(0.9)
    reachability.forget(1)
    assert reachability.rtt_s(1) is None


def test_the_book_is_bounded_and_keeps_the_latest() -> None:
    book = DepartedPeers(2)
    for node in (1, 2, 3):
        book.add(member(node, MemberState.DEAD, path=THERE))
    assert [peer.id for peer in book] == [2, 3]
    assert [peer.addresses for peer in book] == [(THERE, HERE)] * 2
    assert book.get(1) is None
    book.remove(3)
    book.remove(3)
    assert len(book) == 1


def test_a_throttle_allows_each_key_once_per_interval_and_is_bounded() -> None:
    throttle = Throttle(1.0, limit=2)
    assert [throttle.allows("a", now) for now in (0.0, 0.9, 1.0, 1.5)] == [True, False, True, False]
    for key in "bcd":
        assert throttle.allows(key, 2.0)
    assert len(throttle) == 2


# What may be believed.


def test_numbers_may_not_jump() -> None:
    known = member(1, boot=5 << 32, incarnation=10)
    assert is_plausible(known, 5 << 32, 10 + INCARNATION_JUMP_MAX)
    assert not is_plausible(known, 5 << 32, 11 + INCARNATION_JUMP_MAX)
    assert is_plausible(known, 6 << 32 | 77, 1)
    assert not is_plausible(known, (5 + 2**16 + 1) << 32, 1)
    assert not is_plausible(known, 2**64 - 1, 1)
    assert is_plausible(known, 1, 1), "what is older is harmless: precedence ignores it"
    assert not is_plausible(None, 1, INCARNATION_MAX + 1)


# Ourselves.


def test_what_we_say_of_ourselves_fits_and_a_refused_change_changes_nothing() -> None:
    local = LocalMember(1, 1, "name", [HERE], {"a": "b"})
    for tags in (
        {"k": "v" * 257},
        {"k" * 65: "v"},
        {f"{n}": "" for n in range(33)},
        {f"{n}": "v" * 200 for n in range(6)},
    ):
        with pytest.raises(LimitExceeded, match="nothing was changed"):
            local.describe(tags=tags)
    assert (local.incarnation, local.alive.tags) == (1, {"a": "b"})
    local.describe(tags={"a": "c"})
    assert (local.incarnation, local.alive.tags) == (2, {"a": "c"})
    with pytest.raises(LimitExceeded, match=str(ALIVE_BYTES_MAX)):
        LocalMember(1, 1, "name", [HERE], {f"{n}": "v" * 200 for n in range(6)})


def test_of_many_addresses_the_first_are_told() -> None:
    addresses = [Address(f"192.0.2.{n}", 1) for n in range(20)]
    local = LocalMember(1, 1, "n", [Address("fe80::1%eth0", 1), *addresses], {})
    assert local.alive.addresses == tuple(addresses[:8])


# Tuning.


def test_profiles_keep_their_own_inequalities() -> None:
    assert PROFILES == {"lan": LAN, "wan": WAN, "metered": METERED, "local": LOCAL}
    with pytest.raises(AssertionError):
        Tuning(
            probe_interval_s=1.0,
            probe_timeout_s=0.9,
            path_check_s=10,
            path_fresh_s=600,
            pause_s=2.0,
            suspicion_periods=4,
            gossip_interval_s=0.2,
            hello_first_s=1,
            hello_slowest_s=30,
            exchange_interval_s=30,
            exchange_gap_s=1,
            reconnect_interval_s=10,
            leave_linger_s=1,
        )


def test_small_coveys_do_not_stand_on_a_cliff() -> None:
    limits = [LAN.transmit_limit(n) for n in range(1, 2000)]
    assert min(limits) >= 8
    assert max(b - a for a, b in itertools.pairwise(limits)) <= 4
    assert LAN.suspicion_min_s(2) == LAN.suspicion_min_s(32) == 3.5
    assert LAN.exchange_s(1024) == 60.0
    assert [LAN.confirmations(n) for n in (1, 2, 3, 5, 7, 100)] == [0, 0, 1, 2, 3, 3]
