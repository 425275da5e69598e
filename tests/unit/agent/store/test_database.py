"""The database thread: grouping, isolation of failures, errors of the disk, schema versions."""

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlite_utils import Database as Schema

from agent import exits
from agent.store import errors
from agent.store.database import Database
from agent.store.errors import NewerSchemaError, StorageError, has_room, translate, until_room
from agent.store.migrations import Migrations
from agent.store.salvage import damaged_files
from tests.support.patience import GIVE_UP_S


def make_migrations(*, newer: bool = False) -> Migrations:
    migrations = Migrations("test")

    @migrations
    def notes(db: Schema) -> None:
        db.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT UNIQUE)")

    if newer:

        @migrations
        def colours(db: Schema) -> None:
            db.execute("ALTER TABLE notes ADD COLUMN colour TEXT")

    return migrations


def insert(text: str) -> Callable[[sqlite3.Connection], int | None]:
    return lambda c: c.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid


def texts(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT text FROM notes ORDER BY id")]


def run(path: Path, scenario: Callable[[Database], Any], **options: Any) -> Any:
    async def main() -> Any:
        database = await Database.open(path / "t.db", make_migrations(), **options)
        try:
            return await scenario(database)
        finally:
            await database.close()

    return asyncio.run(main())


def test_write_returns_the_result_and_read_sees_it(tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        assert await database.write(insert("a")) == 1
        assert database.read(texts) == ["a"]

    run(tmp_path, scenario)


def test_writes_queued_together_share_one_transaction(tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        await asyncio.gather(*(database.write(insert(str(n))) for n in range(100)))
        assert database.read(texts) == [str(n) for n in range(100)]
        assert database.counts["database_transactions/committed"] == 1

    run(tmp_path, scenario)


def test_a_failing_write_is_undone_alone(tmp_path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        insert("half")(connection)
        raise ValueError("no")

    async def scenario(database: Database) -> None:
        outcomes = await asyncio.gather(
            database.write(insert("before")),
            database.write(half),
            database.write(insert("before")),  # breaks UNIQUE: our own error, not the disk's
            database.write(insert("after")),
            return_exceptions=True,
        )
        assert [type(o) for o in outcomes] == [int, ValueError, sqlite3.IntegrityError, int]
        assert database.read(texts) == ["before", "after"]
        assert database.counts["database_writes/failed"] == 2

    run(tmp_path, scenario)


def test_a_full_disk_says_so_and_keeps_what_was_committed(tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        await database.write(insert("kept"))
        await database.write(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone())
        with pytest.raises(StorageError, match="the disk is full") as caught:
            await database.write(insert("x" * 100_000))
        assert "Free some space" in (caught.value.hint or "")
        assert caught.value.status == exits.UNHEALTHY
        assert database.read(texts) == ["kept"]
        await database.write(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
        await database.write(insert("again"))
        assert database.read(texts) == ["kept", "again"]

    run(tmp_path, scenario)


def test_the_reader_cannot_write(tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        with pytest.raises(StorageError, match="cannot be written"):
            database.read(insert("a"))

    run(tmp_path, scenario)


def test_a_read_sees_one_snapshot(tmp_path: Path) -> None:
    other = tmp_path / "t.db"

    def twice(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
        first = texts(connection)
        with sqlite3.connect(other) as second:
            second.execute("INSERT INTO notes (text) VALUES ('meanwhile')")
        second.close()
        return first, texts(connection)

    async def scenario(database: Database) -> None:
        assert database.read(twice) == ([], [])
        assert database.read(texts) == ["meanwhile"]

    run(tmp_path, scenario)


def test_a_missing_directory_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened") as caught:
        run(tmp_path / "absent", lambda _: asyncio.sleep(0))
    assert "directory exists" in (caught.value.hint or "")


def test_a_damaged_file_is_replaced_kept_and_told_of(tmp_path: Path) -> None:
    damaged = b"SQLite format 3\0" + os.urandom(4096)
    (tmp_path / "t.db").write_bytes(damaged)

    async def scenario(database: Database) -> None:
        assert "byte 16 of its header" in database.losses[0]
        assert "t.db.damaged-1" in database.losses[0]
        await database.write(insert("new"))
        assert database.problem == ""

    run(tmp_path, scenario)
    assert (tmp_path / "t.db.damaged-1").read_bytes() == damaged


def test_only_the_newest_damaged_files_are_kept(tmp_path: Path) -> None:
    for _ in range(4):
        (tmp_path / "t.db").write_bytes(b"noise" * 1000)
        run(tmp_path, lambda _: asyncio.sleep(0))
    assert damaged_files(tmp_path) == ["t.db.damaged-3", "t.db.damaged-4"]


def test_damage_found_while_reading_is_explained_and_mended(tmp_path: Path) -> None:
    async def fill(database: Database) -> None:
        for n in range(500):
            await database.write(insert(f"{n}" + "a" * 100))

    run(tmp_path, fill)
    path = tmp_path / "t.db"
    whole = bytearray(path.read_bytes())
    whole[-5 * 4096 :] = b"\xff" * 5 * 4096
    path.write_bytes(whole)

    async def scenario(database: Database) -> None:
        with pytest.raises(StorageError, match="damaged"):
            database.read(texts)
        assert "damaged" in database.problem
        await database.write(insert("goes to the new file"))
        assert database.problem == ""
        assert len(database.losses) == 1

    run(tmp_path, scenario)


def unreadable(connection: sqlite3.Connection) -> None:
    """Raise what SQLite does about a block that the disk does not give back."""
    insert("undone")(connection)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    raise error


def test_of_a_group_only_the_write_that_met_damage_is_made_again(tmp_path: Path) -> None:
    """The others were committed with it: made again, they would be there twice."""
    tries: list[int] = []

    def meets_damage_once(connection: sqlite3.Connection) -> None:
        tries.append(1)
        if len(tries) == 1:
            unreadable(connection)
        insert("second")(connection)

    async def scenario(database: Database) -> None:
        await asyncio.gather(
            database.write(lambda c: c.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY)")),
            database.write(meets_damage_once),
            database.write(lambda c: tries.append(10)),
            return_exceptions=True,
        )
        assert tries == [1, 10, 1]
        assert len(database.losses) == 1

    run(tmp_path, scenario)


def test_a_file_that_is_damaged_again_and_again_is_given_up(tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        with pytest.raises(StorageError, match="damaged 5 times since the start"):
            await database.write(unreadable)
        with pytest.raises(StorageError, match="damaged 5 times since the start"):
            database.read(texts)
        assert "damaged 5 times" in database.problem
        assert len(database.losses) == 5

    run(tmp_path, scenario)


def test_a_swap_that_a_crash_interrupted_is_finished(tmp_path: Path) -> None:
    run(tmp_path, lambda database: database.write(insert("rebuilt")))
    path = tmp_path / "t.db"
    path.rename(tmp_path / "t.db.rebuilt")
    path.write_bytes(b"damaged")
    (tmp_path / "t.db-wal").write_bytes(b"its log")

    async def scenario(database: Database) -> None:
        assert database.read(texts) == ["rebuilt"]

    run(tmp_path, scenario)
    assert (tmp_path / "t.db.damaged-1").read_bytes() == b"damaged"
    assert (tmp_path / "t.db.damaged-1-wal").read_bytes() == b"its log"


def test_the_problem_follows_the_writes_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody writes again after the disk has room: the database tries by itself."""
    room: list[bool] = []
    monkeypatch.setattr("agent.store.database.PROBE_DELAY_S", 0.01)
    monkeypatch.setattr("agent.store.database.has_room", lambda _path: bool(room))
    caplog.set_level("INFO")

    async def scenario(database: Database) -> None:
        await database.write(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone())
        for _ in range(3):
            with pytest.raises(StorageError, match="the disk is full"):
                await database.write(insert("x" * 100_000))
            assert "the disk is full" in database.problem
        await asyncio.sleep(0.05)
        assert "the disk is full" in database.problem
        room.append(True)
        more = "PRAGMA max_page_count = 100000"
        database._thread.submit(lambda: database._writer.execute(more).fetchone()).result()
        while database.problem:  # noqa: ASYNC110 - it is the property that is watched
            await asyncio.sleep(0.01)

    run(tmp_path, scenario)
    assert sum("disk is full" in record.message for record in caplog.records) == 1
    assert sum("written again" in record.message for record in caplog.records) == 1


def test_a_disk_that_is_mounted_read_only_is_told_from_a_file_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that turned read-only is no reason to give up for good: it may be mounted again."""
    refused = sqlite3.OperationalError("attempt to write a readonly database")
    refused.sqlite_errorcode = sqlite3.SQLITE_READONLY
    theirs = translate(refused, tmp_path / "t.db")
    assert isinstance(theirs, StorageError)
    assert theirs.status == exits.NOT_PERMITTED
    status = SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda _path: status)
    for error in (refused, OSError(errno.EROFS, "Read-only file system")):
        ours = translate(error, tmp_path / "t.db")
        assert isinstance(ours, StorageError)
        assert "the disk is read-only" in ours.message
        assert (ours.status, ours.may_pass) == (exits.UNHEALTHY, True)


def test_who_waits_for_room_does_not_try_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without inodes has bytes, and what is opened with it finds no room all the same."""
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(until_room(tmp_path / "t.db"))
    assert slept == [errors.TRY_AGAIN_S]


def test_room_is_looked_for_and_nothing_is_left_of_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has_room(tmp_path / "t.db")
    monkeypatch.setattr("agent.store.errors.ROOM_BYTES", 1 << 60)
    assert not has_room(tmp_path / "t.db")
    assert not has_room(tmp_path / "absent" / "t.db")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_our_own_is_no_problem_of_the_disk(tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        with pytest.raises(sqlite3.OperationalError):
            await database.write(lambda c: c.execute("SELECT nonsense"))
        assert database.problem == ""

    run(tmp_path, scenario)


def test_a_newer_schema_is_refused_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "t.db"

    async def newer() -> None:
        await (await Database.open(path, make_migrations(newer=True))).close()

    asyncio.run(newer())
    before = path.read_bytes()
    with pytest.raises(NewerSchemaError, match=r"newer version of Covey.*colours") as caught:
        run(tmp_path, lambda _: asyncio.sleep(0))
    assert caught.value.status == exits.BAD_CONFIG
    assert path.read_bytes() == before


def test_the_schema_is_migrated_in_place(tmp_path: Path) -> None:
    async def old(database: Database) -> None:
        await database.write(insert("old"))

    run(tmp_path, old)

    async def main() -> None:
        database = await Database.open(tmp_path / "t.db", make_migrations(newer=True))
        rows = database.read(lambda c: c.execute("SELECT text, colour FROM notes").fetchall())
        assert rows == [("old", None)]
        await database.close()

    asyncio.run(main())


def test_close_commits_what_is_queued_and_refuses_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        database = await Database.open(tmp_path / "t.db", make_migrations())
        queued = [asyncio.create_task(database.write(insert(str(n)))) for n in range(10)]
        await asyncio.sleep(0)
        await database.close()
        await database.close()
        await asyncio.gather(*queued)
        with pytest.raises(StorageError, match="closed"):
            await database.write(insert("late"))
        with pytest.raises(StorageError, match="closed"):
            database.read(texts)

    asyncio.run(main())
    assert not (tmp_path / "t.db-wal").exists()
    with sqlite3.connect(tmp_path / "t.db") as connection:
        assert len(texts(connection)) == 10


def test_a_cancelled_caller_does_not_disturb_the_group(tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        first = asyncio.create_task(database.write(insert("first")))
        second = asyncio.create_task(database.write(insert("second")))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert database.read(texts) == ["first", "second"]

    run(tmp_path, scenario)


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_the_mode_is_what_was_asked_for(tmp_path: Path, synchronous: str) -> None:
    async def scenario(database: Database) -> None:
        mode = await database.write(lambda c: c.execute("PRAGMA synchronous").fetchone()[0])
        assert mode == {"NORMAL": 1, "FULL": 2}[synchronous]
        assert database.read(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"

    run(tmp_path, scenario, synchronous=synchronous)


def test_many_commits_share_one_timed_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.store.database.SYNC_DELAY_S", 0.2)

    async def scenario(database: Database) -> None:
        for n in range(20):
            await database.write(insert(str(n)))
        while not database.counts["database_syncs/done"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert database.counts["database_transactions/committed"] == 20
        assert database.counts["database_syncs/done"] < 20

    run(tmp_path, scenario)


def test_full_needs_no_timed_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.store.database.SYNC_DELAY_S", 0.0)

    async def scenario(database: Database) -> None:
        await database.write(insert("a"))
        await asyncio.sleep(0.05)
        assert database.counts["database_syncs/done"] == 0

    run(tmp_path, scenario, synchronous="FULL")


def test_after_a_failed_sync_nothing_more_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    async def scenario(database: Database) -> None:
        await database.write(insert("a"))
        monkeypatch.setattr("os.fdatasync", fail)
        with pytest.raises(StorageError, match="disk reports an error"):
            await database.sync()
        monkeypatch.undo()
        with pytest.raises(StorageError, match="disk reports an error"):
            await database.write(insert("b"))
        assert database.counts["database_syncs/failed"] == 1

    run(tmp_path, scenario)


def test_the_log_is_cut_back_after_a_burst(tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        for n in range(60):
            await database.write(insert(f"{n}" + "x" * 500_000))
        await database.write(insert("end"))
        await database.write(insert("end of the end"))
        assert (tmp_path / "t.db-wal").stat().st_size <= 12 * 1024 * 1024

    run(tmp_path, scenario)


KILLED = """
import asyncio, os, pathlib, signal, sys
sys.path.insert(0, sys.argv[2])
from test_database import Database, insert, make_migrations
async def main():
    database = await Database.open(pathlib.Path(sys.argv[1]), make_migrations())
    for n in range(500):
        await asyncio.gather(*(database.write(insert(f"{n}.{i}")) for i in range(3)))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_write_returned(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    path = str(tmp_path / "t.db")
    done = subprocess.run([sys.executable, "-c", KILLED, path, here], check=False)
    assert done.returncode == -signal.SIGKILL

    async def scenario(database: Database) -> None:
        assert len(database.read(texts)) == 1500

    run(tmp_path, scenario)


def test_a_sync_without_a_file_descriptor_is_put_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was tried, so nothing is known to be lost; the disk was not even asked."""
    monkeypatch.setattr("agent.store.database.SYNC_DELAY_S", 0.01)

    async def story() -> None:
        database = await Database.open(tmp_path / "t.db", make_migrations())
        sync, refusals = database._sync_log, [OSError(24, "Too many open files")]

        def scarce() -> None:
            if refusals:
                raise refusals.pop()
            sync()

        monkeypatch.setattr(database, "_sync_log", scarce)
        with pytest.raises(StorageError, match="no file can be opened just now") as caught:
            await database.sync()
        assert caught.value.may_pass
        assert not database.problem
        async with asyncio.timeout(GIVE_UP_S):
            while not database.counts["database_syncs/done"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert database.counts["database_syncs/put off"] == 1
        assert not database.counts["database_syncs/failed"]
        await database.close()

    asyncio.run(story())


def test_what_the_system_said_is_told_without_its_number(tmp_path: Path) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "control.db"))
    said = str(translate(refused, tmp_path / "control.db"))
    assert said == f"{tmp_path}/control.db: it cannot be written (Permission denied)."
