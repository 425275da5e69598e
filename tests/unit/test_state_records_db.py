"""The SQLite storage gives the same answers as the one in memory, after any changes."""

import asyncio
import random
from pathlib import Path

import pytest

from agent.store.records import RecordStore
from gossip.state.records import Record, Version
from gossip.state.storage import ClockChange, Forget, HoldingChange, MemoryStorage, RecordChange

KEYS = ["a", "a/b", "a/é", "a\U0010ffff", "a\U0010ffffb", "b", "ä", "z" * 512]
ACTORS = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]


def random_change(rng: random.Random) -> object:
    partition = rng.randrange(3)
    match rng.randrange(12):
        case 0:
            return Forget(partition)
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
            version = Version(rng.choice(ACTORS), rng.randrange(1, 99), 2**64 - 1, rng.randbytes(9))
            record = Record((version,), ((version.actor, version.n),))
            return RecordChange(partition, rng.choice(KEYS), record)


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
    for partition in range(3):
        assert records.clock(partition) == memory.clock(partition)
        assert records.digest(partition) == memory.digest(partition)
        assert dict(records.bare(partition)) == dict(memory.bare(partition))
        for key in KEYS:
            assert records.load(partition, key) == memory.load(partition, key)
            for prefix in ("", "a", "a/", "ä", "nothing"):
                for limit in (1, 3, 100):
                    expected = memory.scan(partition, prefix, key, limit)
                    assert records.scan(partition, prefix, key, limit) == expected


def test_a_batch_is_all_or_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        records = await RecordStore.open(tmp_path / "data.db")
        with pytest.raises(AssertionError):
            await records.save([HoldingChange(1, 1), "not a change"])
        assert records.holdings() == {}
        await records.close()

    asyncio.run(scenario())
