"""The parts of the simulator do what they claim: a test kit that is wrong proves nothing."""

import itertools
import random
from collections import Counter

import pytest

from gossip.consensus.messages import Entry, EntryKind
from gossip.consensus.storage import AppendChange, HardState
from gossip.core.errors import Forged
from gossip.core.machine import Durability, Persist
from gossip.kv.storage import HoldingChange
from gossip.sim.disk import Disk
from gossip.sim.faults import CLASSES, plan
from gossip.sim.network import Conditions, Network
from gossip.sim.rng import stream
from gossip.sim.schedule import Schedule, whole_tick
from gossip.sim.toy_cipher import PRIMARY_KEY_ID, ToySuite, toy_sign, toy_verify

NONCE, AAD = bytes(12), b"header"


def network(**conditions: float) -> Network:
    return Network(random.Random(3), Conditions(**conditions))


def sent(air: Network, times: int, source: str = "a", target: str = "b") -> list[float]:
    return [
        delay
        for number in range(times)
        for delay in air.datagram_delays(source, target, number / 10)
    ]


def test_a_calm_network_delivers_each_datagram_once() -> None:
    assert len(sent(network(), 500)) == 500


def test_loss_is_about_as_frequent_as_asked_for() -> None:
    assert 250 < len(sent(network(loss=0.4), 500)) < 350


def test_bursts_lose_neighbours_together() -> None:
    air = network(burst=0.02, burst_s=1.0)
    arrived = [bool(air.datagram_delays("a", "b", n / 10)) for n in range(2000)]
    pairs = Counter(itertools.pairwise(arrived))
    lost_after_lost = pairs[False, False] / (pairs[False, False] + pairs[False, True])
    assert lost_after_lost > 3 * arrived.count(False) / len(arrived)


def test_duplicates_and_lateness() -> None:
    assert 550 < len(sent(network(duplicate=0.2), 500)) < 650
    assert max(sent(network(late=0.1, late_s=5.0), 500)) > 3.0


def test_jitter_reorders() -> None:
    delays = sent(network(jitter_s=0.05), 100)
    assert delays != sorted(delays)


def test_cuts_are_one_way() -> None:
    air = network()
    air.cut("a", "b")
    assert not sent(air, 10)
    assert len(sent(air, 10, "b", "a")) == 10
    assert not air.connected("b", "a")
    air.mend("a", "b")
    assert air.connected("a", "b")


def test_partitions_leave_the_unnamed_together() -> None:
    air = network()
    air.partition([["a"], ["b", "c"]])
    assert air.hears("b", "c")
    assert air.hears("d", "e")
    assert not air.hears("a", "b")
    assert not air.hears("c", "d")
    air.heal()
    assert air.hears("a", "b")


def test_a_masked_fault_moves_no_other_draw() -> None:
    """What is not lost arrives after the same delay, with and without loss."""
    calm, lossy = network(), network(loss=0.3)
    for number in range(200):
        expected = calm.datagram_delays("a", "b", number)
        assert lossy.datagram_delays("a", "b", number) in ([], expected)


def test_events_at_one_instant_keep_their_order() -> None:
    schedule, seen = Schedule(), list[int]()
    for number in range(20):
        schedule.at(1.0, seen.append, number)
    schedule.run_to(2.0)
    assert seen == list(range(20))
    assert schedule.now == 2.0


def test_events_may_schedule_events() -> None:
    schedule, seen = Schedule(), list[float]()

    def again() -> None:
        seen.append(schedule.now)
        schedule.after(0.25, again)

    schedule.at(0.0, again)
    schedule.run_to(1.0)
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_instants_are_rounded_up_to_exact_numbers() -> None:
    assert whole_tick(0.1) >= 0.1
    offset = 4096.0 * 1023
    assert whole_tick(0.1) + offset - offset == whole_tick(0.1)


def test_streams_of_random_numbers_are_independent() -> None:
    assert stream(1, "a").random() != stream(1, "b").random()
    assert stream(1, "a").random() != stream(2, "a").random()
    assert stream(1, "a", 2).random() == stream(1, "a", 2).random()


def test_masking_a_class_of_faults_leaves_the_others() -> None:
    names = list("abcd")
    for seed in range(20):
        everything = [fault.at for fault in plan(seed, names, 60.0, frozenset())]
        parts = [
            fault.at
            for kept in CLASSES
            for fault in plan(seed, names, 60.0, frozenset(CLASSES) - {kept})
        ]
        assert sorted(parts) == everything


def test_the_toy_suite_opens_what_it_sealed_and_nothing_else() -> None:
    aead = ToySuite(b"secret").aead(PRIMARY_KEY_ID, 1, 2)
    assert aead is not None
    sealed = aead.encrypt(NONCE, b"hello", AAD)
    assert aead.decrypt(NONCE, sealed, AAD) == b"hello"
    for bit in range(8 * len(sealed)):
        flipped = (int.from_bytes(sealed) ^ 1 << bit).to_bytes(len(sealed))
        with pytest.raises(Forged):
            aead.decrypt(NONCE, flipped, AAD)
    with pytest.raises(Forged):
        aead.decrypt(NONCE, sealed, b"another header")
    with pytest.raises(Forged):
        aead.decrypt(NONCE, b"short", AAD)


def test_the_toy_suite_has_a_key_per_life() -> None:
    suite = ToySuite(b"secret")
    one, other = suite.aead(PRIMARY_KEY_ID, 1, 2), suite.aead(PRIMARY_KEY_ID, 1, 3)
    assert one is not None
    assert other is not None
    assert one.encrypt(NONCE, b"hello", AAD) != other.encrypt(NONCE, b"hello", AAD)
    assert suite.aead(99, 1, 2) is None


def test_toy_signatures() -> None:
    signature = toy_sign(b"key", b"payload")
    assert toy_verify(b"key", b"payload", signature)
    assert not toy_verify(b"key", b"payloads", signature)


def test_a_power_cut_takes_what_was_flushed_and_nothing_that_was_synced() -> None:
    lost, entry = 0, Entry(1, 2, EntryKind.NOTHING)
    for seed in range(20):
        disk = Disk()
        disk.commit(Persist(1, (HardState(1, 2, 5),), Durability.FSYNC), 10.0)
        disk.commit(Persist(1, (HoldingChange(3, 7),), Durability.FLUSH), 10.0)
        disk.commit(Persist(2, (AppendChange((entry,)),), Durability.FSYNC), 10.1)
        assert disk.storage.holdings() == {3: 7}, "both are there while the process goes on"
        lost += disk.lose_power(random.Random(seed), 0, 10.2)
        assert (disk.log.hard, disk.log.entries) == (HardState(1, 2, 5), [entry])
    assert 0 < lost < 20, "what was flushed is at the mercy of the moment"
