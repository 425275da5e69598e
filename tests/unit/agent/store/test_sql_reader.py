"""Reading databases with SQL of a person's: it finds what is there, and can do nothing else."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from agent import exits
from agent.exits import AgentError
from agent.store import sql_reader
from agent.store.kv_store import RecordStore
from agent.store.sql_reader import SelectedRows, select
from gossip.kv.records import Record, Version
from gossip.kv.storage import RecordChange

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT sum(x) FROM n"


def find(path: Path, sql: str, rows_max: int = 100, timeout_s: float = 60.0) -> SelectedRows:
    return select(path, sql, rows_max=rows_max, timeout_s=timeout_s)


def change(key: str, value: bytes = b"on") -> RecordChange:
    return RecordChange(0, key, Record((Version(7, 1, 1, value),), ((7, 1),)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a database of keys that no agent has open."""

    async def make() -> None:
        records = await RecordStore.open(tmp_path / "data.db")
        await records.save([change("a"), change("b", b"\xff")])
        await records.close()

    asyncio.run(make())
    return tmp_path / "data.db"


def files(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(path.parent.iterdir())}


def test_what_is_there_is_found_with_what_is_packed_as_json(path: Path) -> None:
    before = files(path)
    found = find(path, "SELECT key, unpacked(record) AS record FROM records ORDER BY key")
    assert found.columns == ("key", "record")
    assert found.rows == [
        ("a", '[[[7,1,1,"b24="]],[[7,1]]]'), ("b", '[[[7,1,1,"/w=="]],[[7,1]]]'),
    ]  # fmt: skip
    assert not found.is_cut
    assert ("records",) in find(path, "SELECT name FROM sqlite_schema").rows
    assert find(path, "PRAGMA table_info(records)").rows[0][1] == "partition"
    assert files(path) == before, "and nothing is put beside it"


WRITES = (
    "INSERT INTO holdings VALUES (1, 2, 3)",
    "UPDATE records SET key = 'x'",
    "DELETE FROM records",
    "WITH x AS (SELECT 1) DELETE FROM records",
    "REPLACE INTO holdings VALUES (1, 2, 3)",
    "CREATE TABLE t (a)",
    "CREATE TEMP TABLE t (a)",
    "DROP TABLE records",
    "ALTER TABLE records RENAME TO r",
    "REINDEX",
    "ANALYZE",
    "VACUUM",
    "VACUUM INTO '{other}'",
    "ATTACH '{other}' AS other",
    "ATTACH ':memory:' AS other",
    "PRAGMA user_version = 9",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA optimize",
    "BEGIN",
    "SAVEPOINT a",
    "SELECT load_extension('{other}')",
    "SELECT 1; DELETE FROM records",
)


@pytest.mark.parametrize("sql", WRITES)
def test_whatever_is_no_query_is_refused(path: Path, sql: str) -> None:
    other, before = path.with_name("other.db"), files(path)
    with pytest.raises(AgentError) as caught:
        find(path, sql.format(other=other))
    assert caught.value.status in (exits.NOT_PERMITTED, exits.USAGE)
    assert caught.value.status == exits.NOT_PERMITTED or "1; DELETE" in sql
    assert files(path) == before


@pytest.fixture(params=["authorizer", "query_only", "mode"])
def without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take one fence away."""
    fence = sql_reader._fence
    if request.param == "authorizer":
        monkeypatch.setattr(sql_reader, "_authorize", lambda *_: sqlite3.SQLITE_OK)
    elif request.param == "query_only":

        def bare(connection: sqlite3.Connection, until: float) -> None:
            fence(connection, until)
            connection.set_authorizer(None)
            connection.execute("PRAGMA query_only = OFF")
            connection.set_authorizer(sql_reader._authorize)

        monkeypatch.setattr(sql_reader, "_fence", bare)
    else:
        monkeypatch.setattr(
            sql_reader,
            "_open",
            lambda path, **_: sqlite3.connect(path, isolation_level=None),
        )
    return str(request.param)


@pytest.mark.parametrize(
    "sql", [each for each in WRITES if "records" in each or "holdings" in each]
)
def test_each_fence_would_do_without_one_of_the_others(path: Path, without: str, sql: str) -> None:
    before = path.read_bytes()
    with pytest.raises(AgentError):
        find(path, sql)
    assert path.read_bytes() == before


def test_an_agent_that_runs_is_read_and_writes_on_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    told: list[AgentError] = []

    def ask_for_long() -> None:
        try:
            find(path, f"SELECT (SELECT count(*) FROM records), ({ENDLESS})", timeout_s=3.0)
        except AgentError as error:
            told.append(error)

    async def scenario() -> None:
        records = await RecordStore.open(path)
        await records.save([change("a")])
        assert find(path, "SELECT key FROM records").rows == [("a",)]
        reader = threading.Thread(target=ask_for_long)
        reader.start()
        for n in range(50):
            await records.save([change(f"k{n}")])
        assert reader.is_alive(), "no write waited for the reader"
        assert len(find(path, "SELECT key FROM records").rows) == 51
        await asyncio.to_thread(reader.join)
        await records.close()

    asyncio.run(scenario())
    assert [error.status for error in told] == [exits.TIMED_OUT]
    assert find(path, "SELECT count(*) FROM records").rows == [(51,)]


def test_rows_bytes_and_time_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    found = find(path, many, rows_max=7)
    assert ([row[0] for row in found.rows], found.is_cut) == ([1, 2, 3, 4, 5, 6, 7], True)
    assert not find(path, f"{many} LIMIT 7", rows_max=7).is_cut
    monkeypatch.setattr(sql_reader, "ROWS_BYTES_MAX", 1000)
    found = find(path, "SELECT zeroblob(600) FROM records")
    assert (len(found.rows), found.is_cut) == (1, True)
    with pytest.raises(AgentError) as caught:
        find(path, "SELECT zeroblob(1000000000)")
    assert caught.value.status == exits.USAGE
    with pytest.raises(AgentError) as caught:
        find(path, ENDLESS, timeout_s=0.05)
    assert caught.value.status == exits.TIMED_OUT


def test_an_agent_that_starts_meanwhile_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = sql_reader._fetch

    def start_meanwhile(connection: sqlite3.Connection, sql: str, rows_max: int) -> SelectedRows:
        found = fetch(connection, sql, rows_max)
        path.with_name("data.db-wal").write_bytes(b"")
        return found

    monkeypatch.setattr(sql_reader, "_fetch", start_meanwhile)
    with pytest.raises(AgentError, match="began to write"):
        find(path, "SELECT 1")


def test_files_that_are_not_there_or_no_databases(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as caught:
        find(tmp_path / "data.db", "SELECT 1")
    assert caught.value.status == exits.NOT_FOUND
    assert not list(tmp_path.iterdir()), "none is made"
    (tmp_path / "data.db").write_bytes(b"x" * 5000)
    with pytest.raises(AgentError) as caught:
        find(tmp_path / "data.db", "SELECT 1")
    assert caught.value.status == exits.UNHEALTHY


def test_who_may_not_read_the_file_is_told_who_may(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AgentError) as caught:
        find(path, "SELECT 1")
    assert caught.value.status == exits.NOT_PERMITTED
    assert "root" in caught.value.hint


@pytest.mark.parametrize("sql", ["nonsense", "SELECT * FROM nothing", "SELECT ?"])
def test_what_sqlite_does_not_take_is_a_usage_error(path: Path, sql: str) -> None:
    with pytest.raises(AgentError) as caught:
        find(path, sql)
    assert caught.value.status == exits.USAGE


def test_nothing_asked_is_nothing_found(path: Path) -> None:
    assert find(path, "") == find(path, "-- a comment") == SelectedRows((), [], is_cut=False)
