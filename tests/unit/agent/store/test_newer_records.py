"""A later version may write records with more in them, and nothing is sent on account of that."""

import asyncio
import sqlite3
from pathlib import Path

import msgspec
import pytest

from agent.store.kv_store import RECORDS, RecordStore, _signed
from gossip.core.ids import NodeId
from gossip.kv.plane import KvPlane
from gossip.kv.records import Record, Version, record_mark
from gossip.kv.storage import ClockChange, HoldingChange, RecordChange
from gossip.registry.placement import PARTITIONS, partition_of
from tests.support.kv_net import Net, registry_of

ACTOR, OWNERS = 7, (1, 2)
KEYS = [f"many/{n}" for n in range(5_000)]
SENT_BYTES_MAX = 1_000
"""Between two owners of all records; what is sent does not depend on how many these are."""


class LaterVersion(Version, frozen=True, array_like=True):
    """A version as some later Covey may write it."""

    origin: str = "a device that this version knows nothing of"


class LaterRecord(msgspec.Struct, frozen=True, array_like=True):
    """A record as some later Covey may write it."""

    live: tuple[LaterVersion, ...]
    context: tuple[tuple[int, int], ...]
    expires_ms: int = 1_800_000_000_000


class OnDisk(Net):
    """Two owners with their records in files, and what they send."""

    def __init__(self, files: dict[NodeId, RecordStore]) -> None:
        self.files, self.sent_bytes = files, 0
        super().__init__(registry_of(OWNERS, PARTITIONS, len(OWNERS)))

    def start(self, number: NodeId, registry: object = None) -> KvPlane:
        del registry
        self.storages[number] = self.files[number]  # type: ignore[assignment]
        return super().start(number)

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        self.sent_bytes += len(data)
        super().send(sender, to, data)


def record(number: int) -> Record:
    return Record((Version(ACTOR, number, 1, b"value"),), ((ACTOR, number),))


async def filled(path: Path) -> RecordStore:
    records = await RecordStore.open(path)
    numbered = list(enumerate(KEYS, 1))
    made: list[object] = [
        RecordChange(partition_of(k, PARTITIONS), k, record(n)) for n, k in numbered
    ]
    made += [ClockChange(p, ACTOR, ((1, len(KEYS)),)) for p in range(PARTITIONS)]
    made += [HoldingChange(p, 1) for p in range(PARTITIONS)]
    await records.save(made)
    return records


def write_as_later(connection: sqlite3.Connection) -> None:
    """Write all records anew, with a field more in each, and in each version."""
    rows = []
    for number, key in enumerate(KEYS, 1):
        held = record(number)
        live = tuple(LaterVersion(v.actor, v.n, v.stamp, v.value) for v in held.live)
        mark = _signed(record_mark(key, held.dots()))
        data = msgspec.msgpack.encode(LaterRecord(live, held.context))
        rows.append(RECORDS.sealed(partition_of(key, PARTITIONS), key, mark, data, None))
    connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)


@pytest.mark.parametrize("later", OWNERS)
def test_records_with_another_field_are_the_same_records(tmp_path: Path, later: NodeId) -> None:
    async def prepare() -> dict[NodeId, RecordStore]:
        files = {number: await filled(tmp_path / f"{number}.db") for number in OWNERS}
        before = files[later].load(partition_of(KEYS[0], PARTITIONS), KEYS[0])
        await files[later].database.write(write_as_later)
        await files[later].close()
        files[later] = await RecordStore.open(tmp_path / f"{later}.db")
        assert files[later].load(partition_of(KEYS[0], PARTITIONS), KEYS[0]) == before
        return files

    async def close(files: dict[NodeId, RecordStore]) -> None:
        for each in files.values():
            await each.close()

    files = asyncio.run(prepare())
    for partition in range(PARTITIONS):
        assert files[1].marks(partition) == files[2].marks(partition)
    net = OnDisk(files)
    net.planes[later].peer_alive(3 - later, net.now)
    net.settle(later)
    net.run(90)
    surveyed = sum(plane.counts["digest_rounds/summed up"] for plane in net.planes.values())
    assert surveyed >= 4, "both have asked, and more than once"
    assert not any(plane.counts["partition_syncs/begun"] for plane in net.planes.values())
    assert net.sent_bytes < SENT_BYTES_MAX
    asyncio.run(close(files))
