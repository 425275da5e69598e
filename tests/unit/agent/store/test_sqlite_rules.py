"""One connection writes, and checkpoints, each SQLite file.

Two that do so at the same time can lose committed pages: SQLite 3.7.0 to 3.51.2, which Debian 12
and 13 have (https://sqlite.org/wal.html#walresetbug). And no file is mapped into memory, where an
error of the disk is a signal that ends the process (https://sqlite.org/mmap.html).
"""

import ast
import asyncio
import sqlite3
from pathlib import Path

import pytest

import agent
import edge_apps
from agent.doctor.device_checks import sqlite
from agent.doctor.findings import Status
from agent.store.kv_store import RecordStore
from agent.store.migrations import Migrations
from agent.store.opening import open_file
from tests.support.sources import nodes

WHO_CONNECTS = {"store/opening.py": 2, "store/salvage.py": 1, "store/set_aside.py": 1,
                "store/sql_reader.py": 1, "store/salvaged_keys.py": 2}  # fmt: skip
"""A reader and the writer; whoever writes a new file that nobody else has open; whoever reads one
that was set aside, which nobody writes any more; a person's query, which only reads; and who reads
a copy."""


def test_only_the_store_opens_sqlite_files() -> None:
    found: dict[str, int] = {}
    for package in (agent, edge_apps):
        root = Path(package.__path__[0])
        for source in root.rglob("*.py"):
            connects = sum(
                isinstance(node, ast.Attribute)
                and node.attr == "connect"
                and isinstance(node.value, ast.Name)
                and node.value.id == "sqlite3"
                for node in nodes(source)
            )
            if connects:
                found[str(source.relative_to(root))] = connects
    assert found == WHO_CONNECTS


def test_the_reader_neither_writes_nor_checkpoints(tmp_path: Path) -> None:
    migrations = Migrations("test")
    connections, tail, _ = open_file(tmp_path / "t.db", migrations, "NORMAL")
    connections.writer.execute("CREATE TABLE notes (text)")
    log = tmp_path / "t.db-wal"
    before = log.read_bytes()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connections.reader.execute("INSERT INTO notes VALUES ('x')")
    with pytest.raises(sqlite3.OperationalError):
        connections.reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert log.read_bytes() == before
    connections.close()
    tail.close()


def test_nothing_is_mapped_into_memory(tmp_path: Path) -> None:
    async def story() -> list[int]:
        store = await RecordStore.open(tmp_path / "data.db")
        ask = lambda c: c.execute("PRAGMA mmap_size").fetchone()[0]  # noqa: E731
        sizes = [store.database.read(ask), await store.database.write(ask)]
        await store.close()
        return sizes

    assert asyncio.run(story()) == [0, 0]


def test_the_doctor_names_the_version() -> None:
    assert sqlite("3.40.1").status is Status.OK
    assert "3.40.1" in sqlite("3.40.1").message
    assert "one connection" in sqlite("3.40.1").message
    assert "one connection" not in sqlite("3.51.3").message
