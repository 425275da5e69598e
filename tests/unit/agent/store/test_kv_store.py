"""The SQLite storage gives the same answers as the one in memory, after any changes."""

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from agent.store.errors import StorageError
from agent.store.kv_store import RecordStore
from gossip.kv.records import Record, Version
from gossip.kv.storage import (
    DAMAGED,
    FIRST_EXPIRY,
    PLACES,
    ClockChange,
    DropPartition,
    HoldingChange,
    MemoryStorage,
    RecordChange,
)
from gossip.kv.typed_values import pack_register
from gossip.registry.placement import PARTITIONS

KEYS = ["a", "a/b", "a/é", "a\U0010ffff", "a\U0010ffffb", "b", "ä", "z" * 512]
ENDS_MS = [0, 0, 1, 5, 2**63 - 1]
ACTORS = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]


def random_change(rng: random.Random) -> object:
    partition = rng.randrange(3)
    match rng.randrange(12):
        case 0:
            return DropPartition(partition)
        case 1:
            return HoldingChange(partition, rng.choice([None, 1, 7]))
        case 2 | 3:
            last = rng.randrange(1, 9)
            return ClockChange(partition, rng.choice(ACTORS), ((1, last), (last + 5, last + 6)))
        case 4 | 5:
            return RecordChange(partition, rng.choice(KEYS), None)
        case 6:
            return RecordChange(partition, rng.choice(KEYS), Record((), ((5, 6),)))
        case _:
            value = pack_register(rng.randbytes(9), rng.choice(ENDS_MS))
            version = Version(rng.choice(ACTORS), rng.randrange(1, 99), 2**64 - 1, value)
            record = Record((version,), ((version.actor, version.n),))
            return RecordChange(partition, rng.choice(KEYS), record)


def test_keys_are_counted_that_have_a_value(tmp_path: Path) -> None:
    async def scenario() -> None:
        records = await RecordStore.open(tmp_path / "data.db")
        live, bare = Record((Version(1, 1, 1, b"v"),), ((1, 1),)), Record((), ((1, 1),))
        rows = [(0, "a", live), (0, "b", live), (0, "c", bare), (1, "a", live)]
        await records.save([RecordChange(*row) for row in rows])
        assert [records.count_keys(partition) for partition in range(3)] == [2, 1, 0]
        await records.close()

    asyncio.run(scenario())


def test_keys_of_a_space_are_counted_and_their_bytes(tmp_path: Path) -> None:
    async def scenario() -> None:
        records = await RecordStore.open(tmp_path / "data.db")
        inside = {"lamps": 10, "lamps/": 20, "lamps/a/b": 5000, "lamps/\U0010ffff": 100_000}
        outside = ("lamp", "lamps0", "lamps.", "lamps\0", "lamps!/a", "Lamps/a")
        live = {
            key: Record((Version(7, n, 1, b"v" * size),), ())
            for n, (key, size) in enumerate(inside.items(), 1)
        }
        others = {key: Record((Version(9, n, 1, b"v"),), ()) for n, key in enumerate(outside, 1)}
        gone = {"lamps/gone": Record((), ((7, 99),))}
        await records.save([RecordChange(3, *each) for each in (live | others | gone).items()])
        await records.save(
            [RecordChange(4, "lamps/elsewhere", Record((Version(7, 50, 1, b"v"),), ()))]
        )
        keys, size_bytes = records.count_space(3, "lamps")
        assert keys == len(inside)
        assert 0 < size_bytes - sum(inside.values()) < 100 * len(inside)
        assert records.count_space(3, "lamp")[0] == 1
        assert records.count_space(5, "lamps") == (0, 0)
        await records.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(5))
def test_same_answers_as_memory(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    memory = MemoryStorage()

    async def scenario() -> None:
        records = await RecordStore.open(tmp_path / "data.db")
        for _ in range(40):
            batch = [random_change(rng) for _ in range(rng.randrange(1, 6))]
            await records.save(batch)
            memory.apply(batch)
        await records.close()
        records = await RecordStore.open(tmp_path / "data.db")
        compare(records, memory)
        await records.close()

    asyncio.run(scenario())


def compare(records: RecordStore, memory: MemoryStorage) -> None:
    assert records.holdings() == memory.holdings()
    assert records.partitions() == memory.partitions()
    for after in (FIRST_EXPIRY, (1, 1, "a/b"), (5, 0, "b")):
        for until_ms, limit in ((1, 100), (5, 2), (2**63 - 1, 100)):
            page = memory.expired(until_ms, after, limit)
            assert records.expired(until_ms, after, limit) == page
    for partition in range(3):
        assert records.clock(partition) == memory.clock(partition)
        assert records.digest(partition) == memory.digest(partition)
        assert records.marks(partition) == memory.marks(partition)
        assert dict(records.orphan_context(partition)) == dict(memory.orphan_context(partition))
        for key in KEYS:
            assert records.load(partition, key) == memory.load(partition, key)
            for prefix in ("", "a", "a/", "ä", "nothing"):
                for limit in (1, 3, 100):
                    expected = memory.scan(partition, prefix, key, limit)
                    assert records.scan(partition, prefix, key, limit) == expected


def test_a_changed_record_is_never_handed_out_and_the_next_start_mends_it(tmp_path: Path) -> None:
    """While the agent runs it is an error, which ends it; then the sound ones are carried over."""
    records_of = {f"key-{n}": Record((Version(n, 1, 7, b"value"),), ((n, 1),)) for n in range(9)}

    async def scenario() -> None:
        records = await RecordStore.open(tmp_path / "data.db")
        changes = [RecordChange(2, key, record) for key, record in records_of.items()]
        await records.save([*changes, ClockChange(2, 4, ((1, 1),)), HoldingChange(2, 5)])
        await records.database.write(
            lambda c: c.execute("UPDATE records SET record = x'9090' WHERE key = 'key-4'")
        )
        assert records.load(2, "key-3") == records_of["key-3"]
        for read in (lambda: records.load(2, "key-4"), lambda: records.scan(2, "", "", 99)):
            with pytest.raises(StorageError, match="a row of records is not as it was written"):
                read()
        await records.close()
        records = await RecordStore.open(tmp_path / "data.db")
        del records_of["key-4"]
        assert dict(records.scan(2, "", "", 99)) == records_of
        assert records.clock(2) == ()
        assert records.holdings() == dict.fromkeys((*range(PARTITIONS), PLACES), DAMAGED)
        await records.save([HoldingChange(2, 6), HoldingChange(3, None)])
        await records.close()
        records = await RecordStore.open(tmp_path / "data.db")
        assert records.database.losses == []
        assert (records.holdings()[2], 3 in records.holdings()) == (6, False)
        await records.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("table", ["records", "clocks"])
def test_a_row_that_is_missing_in_silence_is_noticed(tmp_path: Path, table: str) -> None:
    """As if a page said that it has one row less: every row that is there is sound."""

    async def scenario() -> None:
        records = await RecordStore.open(tmp_path / "data.db")
        version = Version(1, 1, 7, b"value")
        await records.save([RecordChange(n, "key", Record((version,), ())) for n in range(5)])
        await records.save([ClockChange(n, 1, ((1, 1),)) for n in range(5)])
        await records.close()
        with sqlite3.connect(tmp_path / "data.db") as connection:
            (page,) = connection.execute(
                "SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)
            ).fetchone()
        connection.close()
        data = bytearray((tmp_path / "data.db").read_bytes())
        at = (page - 1) * 4096 + 3
        assert data[at : at + 2] == b"\0\5", "five rows"
        data[at + 1] = 4
        (tmp_path / "data.db").write_bytes(data)
        records = await RecordStore.open(tmp_path / "data.db")
        assert records.database.losses
        assert set(records.holdings().values()) == {DAMAGED}
        await records.close()

    asyncio.run(scenario())


def test_a_batch_is_all_or_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        records = await RecordStore.open(tmp_path / "data.db")
        with pytest.raises(AssertionError):
            await records.save([HoldingChange(1, 1), "not a change"])
        assert records.holdings() == {}
        await records.close()

    asyncio.run(scenario())
