"""What a node's files hold is read from a copy, as far as it is as it was written."""

import asyncio
import hashlib
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.exits import AgentError
from agent.store.kv_store import RecordStore
from agent.store.salvaged_keys import SalvagedDatabase
from gossip.kv.records import Record, Version
from gossip.kv.storage import RecordChange

RECORDS = {
    f"k/{n:04}": Record((Version(n + 1, 1, 7, b"value %d" % n * (1 + n % 900)),), ((n + 1, 1),))
    for n in range(600)
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "node" / "data.db"
    path.parent.mkdir()

    async def scenario() -> None:
        records = await RecordStore.open(path)
        for number, (key, record) in enumerate(RECORDS.items()):
            await records.save([RecordChange(number % 5, key, record)])
        await records.close()

    asyncio.run(scenario())
    return path


def salvage(path: Path, tmp_path: Path) -> tuple[SalvagedDatabase, dict[str, Record | None]]:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    for left in scratch.iterdir():
        left.unlink()
    found = SalvagedDatabase(path, scratch)
    return found, {key: record for key, record, _ in found.rows()}


def digests(directory: Path) -> dict[str, str]:
    files = sorted(directory.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_all_of_a_sound_file_comes_out_and_nothing_is_changed(
    database: Path, tmp_path: Path
) -> None:
    before = digests(database.parent)
    found, rows = salvage(database, tmp_path)
    assert rows == RECORDS
    assert found.is_in_order
    assert found.unreadable_bytes == 0
    assert digests(database.parent) == before, "also no log was put beside it"


def test_a_view_in_the_place_of_the_records_is_not_run(database: Path, tmp_path: Path) -> None:
    """Who made the file could else have it go on without an end, or fill the memory."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            "ALTER TABLE records RENAME TO theirs;"
            "CREATE VIEW records AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) "
            "SELECT x AS partition, x AS key, x AS record, x AS checksum FROM n;"
        )
    found, rows = salvage(database, tmp_path)
    assert not found.is_in_order
    assert rows.items() <= RECORDS.items()


def test_what_is_in_the_log_alone_comes_out(database: Path, tmp_path: Path) -> None:
    late = Record((Version(9, 9, 9, b"late"),), ((9, 9),))

    async def scenario() -> dict[str, Record | None]:
        records = await RecordStore.open(database)
        await records.save([RecordChange(0, "late", late)])
        assert database.with_name("data.db-wal").stat().st_size
        _, rows = salvage(database, tmp_path)
        await records.close()
        return rows

    assert asyncio.run(scenario()) == {**RECORDS, "late": late}


def test_rows_that_changed_are_counted_and_left_out(database: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        records = await RecordStore.open(database)
        change = "UPDATE records SET record = x'9090' WHERE key IN ('k/0004', 'k/0009')"
        await records.database.write(lambda c: c.execute(change))
        await records.close()

    asyncio.run(scenario())
    _, rows = salvage(database, tmp_path)
    assert [key for key, record in rows.items() if record is None] == ["k/0004", "k/0009"]
    assert {key: record for key, record in rows.items() if record} == {
        key: record for key, record in RECORDS.items() if key not in ("k/0004", "k/0009")
    }


@pytest.mark.parametrize("seed", range(6))
def test_of_a_file_with_damaged_pages_no_wrong_value_comes_out_and_most_do(
    database: Path, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    data = bytearray(database.read_bytes())
    pages = [0] if seed == 0 else [rng.randrange(len(data) // 4096) for _ in range(3)]
    for page in pages:
        data[page * 4096 : page * 4096 + 64] = rng.randbytes(64)
    database.write_bytes(data)
    _, rows = salvage(database, tmp_path)
    sound = {key: record for key, record in rows.items() if record}
    assert sound.items() <= RECORDS.items()
    assert len(sound) > len(RECORDS) // 2


def test_what_the_disk_does_not_give_is_counted(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, bad_at = os.pread, 40 * 4096

    def failing(handle: int, size: int, at: int) -> bytes:
        if at <= bad_at < at + size:
            raise OSError(5, "Input/output error")
        return read(handle, size, at)

    monkeypatch.setattr(os, "pread", failing)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = SalvagedDatabase(database, scratch)
    monkeypatch.undo()
    assert found.unreadable_bytes == 4096
    sound = {key: record for key, record, _ in found.rows() if record}
    assert sound.items() <= RECORDS.items()
    assert len(sound) > len(RECORDS) // 2


def test_where_there_is_nothing_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="there is no"):
        salvage(tmp_path / "data.db", tmp_path)
