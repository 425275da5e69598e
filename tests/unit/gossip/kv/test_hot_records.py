"""Records in memory: few, small, and never older than the storage."""

import random

import pytest

from gossip.core.hlc import HybridClock
from gossip.kv.hot_records import DOT_BYTES, HotRecords
from gossip.kv.records import NOTHING, Record, Version
from gossip.kv.replica import Replica
from gossip.kv.storage import MemoryStorage


class CountedStorage(MemoryStorage):
    """Counts how often a record is read."""

    loads = 0

    def load(self, partition: int, key: str) -> Record | None:
        self.loads += 1
        return super().load(partition, key)


def record(n: int, value: bytes = b"v") -> Record:
    return Record((Version(1, n, n, value),), ((1, n),))


def replica_on(storage: MemoryStorage) -> Replica:
    clock = HybridClock(lambda now: int(now * 1000))
    return Replica(1, 7, storage, clock, random.Random(1), iter(range(1, 1_000_000)), boot=1)


def save(replica: Replica, storage: MemoryStorage) -> None:
    if batch := replica.flush():
        storage.apply(batch.changes)
        replica.saved(batch.token)


def test_who_was_used_last_stays() -> None:
    hot = HotRecords(records_max=2)
    hot.keep((0, "a"), record(1))
    hot.keep((0, "b"), None)
    assert hot.use((0, "a")) == record(1)
    hot.keep((0, "c"), record(3))
    assert (0, "b") not in hot
    assert (0, "a") in hot
    assert hot.use((0, "c")) == record(3)


def test_bytes_are_bounded_and_a_large_value_puts_nobody_out() -> None:
    size = 100 + 2 * DOT_BYTES  # a version, and a dot of the context
    hot = HotRecords(bytes_max=8 * size)
    for number in range(20):
        hot.keep((0, str(number)), record(number + 1, bytes(100)))
    assert len(hot) == 8
    hot.keep((0, "large"), record(1, bytes(101)))
    assert len(hot) == 8
    dots = Record(context=tuple((actor, 1) for actor in range(size // DOT_BYTES + 1)))
    hot.keep((0, "dots"), dots)
    assert (0, "dots") not in hot, "nor do many dots without a value"
    hot.keep((0, "19"), record(2, bytes(101)))
    assert (0, "19") not in hot, "what was kept of it is old now"
    for number in range(20):
        hot.drop((0, str(number)))
    hot.keep((0, "again"), record(1, bytes(100)))
    assert len(hot) == 1


@pytest.mark.interpreted
def test_a_record_is_read_once_and_a_missing_one_too() -> None:
    storage = CountedStorage()
    storage.records[0] = {"k": record(1)}
    replica = replica_on(storage)
    for _ in range(3):
        assert replica.record(0, "k") == record(1)
        assert replica.record(0, "none") == NOTHING
    assert storage.loads == 2


@pytest.mark.interpreted
def test_what_is_in_memory_is_what_is_stored_whatever_happens() -> None:
    rng, storage = random.Random(3), CountedStorage()
    replica = replica_on(storage)
    for step in range(3000):
        partition, key = rng.randrange(3), f"k{rng.randrange(6)}"
        match rng.randrange(12):
            case 0:
                replica.forget(partition)
            case 1 | 2:
                save(replica, storage)
            case 3 | 4:
                replica.write(partition, key, None, None, float(step))
            case 5 | 6:
                replica.write(partition, key, rng.randbytes(4), None, float(step))
            case _:
                replica.record(partition, key)
        if rng.random() < 0.2:
            save(replica, storage)
            for of in range(3):
                for number in range(6):
                    stored = storage.records.get(of, {}).get(f"k{number}")
                    assert replica.record(of, f"k{number}") == (stored or NOTHING)
    assert storage.loads < 2000, "most of some 13,000 reads are in memory"
    save(replica, storage)
    assert not replica._overlay
    assert not replica._unsaved


@pytest.mark.interpreted
def test_a_save_that_is_overtaken_leaves_the_newer_change() -> None:
    storage = CountedStorage()
    replica = replica_on(storage)
    replica.write(0, "k", b"one", None, 1.0)
    first = replica.flush()
    replica.write(0, "k", b"two", None, 2.0)
    second = replica.flush()
    assert first is not None
    assert second is not None
    storage.apply(first.changes)
    replica.saved(first.token)
    assert replica.record(0, "k").live[0].value == b"two"
    storage.apply(second.changes)
    replica.saved(second.token)
    assert replica.record(0, "k").live[0].value == b"two"
    assert storage.loads == 1, "before the first write"
