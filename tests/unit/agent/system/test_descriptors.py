"""When file descriptors run out: strangers go without first, and no disk is blamed for it."""

import asyncio
import os
import resource
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent.config.logs import RateLimitedLog
from agent.net.accept import connections
from agent.store import commit_note, errors
from agent.store.database import Database
from agent.store.errors import StorageError
from agent.store.kv_store import RecordStore
from agent.system import descriptors
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from tests.support.patience import GIVE_UP_S

ROWS, ROW_BYTES = 2000, 900
"""More than SQLite keeps in memory of what one statement changes (64 KiB)."""


@contextmanager
def limited(most: int) -> Iterator[None]:
    """Allow this process so many descriptors; those beyond stay open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def lowest_free() -> int:
    probe = os.open(os.devnull, os.O_RDONLY)
    os.close(probe)
    return probe


def test_the_agent_takes_all_descriptors_that_it_may_have_and_can_need() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with limited(900):
        descriptors.raise_limit()
        assert descriptors.limit() == min(hard, descriptors.ENOUGH)
        descriptors.raise_limit()
        assert descriptors.limit() == min(hard, descriptors.ENOUGH)


def test_the_last_quarter_is_reserved_up_to_a_bound() -> None:
    with limited(400):
        assert not descriptors.is_reserved(299)
        assert descriptors.is_reserved(300)
    with limited(4000):
        assert not descriptors.is_reserved(4000 - descriptors.RESERVE_MAX - 1)
        assert descriptors.is_reserved(4000 - descriptors.RESERVE_MAX)


def test_connections_get_none_of_the_last_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    counts: Counter[str] = Counter()

    async def scenario() -> None:
        with ExitStack() as opened:
            listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            listening.setblocking(False)
            taken: list[socket.socket] = []

            async def accept() -> None:
                quiet = RateLimitedLog(failures_log)
                async for accepted, address in connections(listening, counts, "doors", quiet):
                    taken.append(opened.enter_context(accepted))
                    assert address[0] == "127.0.0.1"

            waiting = [opened.enter_context(socket.socket()) for _ in range(12)]
            accepting = asyncio.create_task(accept())
            await asyncio.sleep(0)
            # Room for sixteen more, of which a quarter of all is not for them.
            room = lowest_free() + 6
            with limited(room * 4 // 3 + 1):
                for each in waiting:
                    each.connect(listening.getsockname())
                async with asyncio.timeout(GIVE_UP_S):
                    while len(taken) + counts["doors/reserve"] < len(waiting):  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                assert descriptors.are_left(), "the agent's own files find room"
            accepting.cancel()
            assert 0 < len(taken) < len(waiting)
            assert not counts["doors/accept_failed"]

    import logging

    failures_log = logging.getLogger("test")
    asyncio.run(scenario())
    assert caplog.text.count("few file descriptors are left") == 1, "and it is said once"


def test_a_database_without_descriptors_blames_no_disk(tmp_path: Path) -> None:
    """SQLite says "unable to open database file" of a temporary one."""

    async def scenario() -> None:
        store = await RecordStore.open(tmp_path / "data.db")
        database = store.database
        rows = [(n, bytes(ROW_BYTES)) for n in range(ROWS)]
        await database.write(lambda c: c.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)"))
        await database.write(lambda c: c.executemany("INSERT INTO t VALUES (?, ?)", rows))
        with limited(0):
            with pytest.raises(StorageError, match="no file can be opened just now") as caught:
                await database.write(
                    lambda c: c.execute(f"UPDATE t SET b = randomblob({ROW_BYTES})")
                )
            assert caught.value.may_pass
            assert "LimitNOFILE" in caught.value.hint
            assert "card" not in caught.value.hint
        await database.write(lambda c: c.execute("UPDATE t SET b = randomblob(900)"))
        assert not database.problem
        await store.close()

    asyncio.run(scenario())


def test_a_damaged_file_is_not_closed_while_nothing_could_be_opened_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.store.database.PROBE_DELAY_S", 0.01)

    async def scenario() -> None:
        database = await Database.open(tmp_path / "telemetry.db", OUTBOX_MIGRATIONS)
        with limited(0):
            assert database.suspect("a page that is none")
            await asyncio.sleep(0.1)
            assert database.is_rebuilding
            assert not database.counts["database_rebuilds/done"]
        async with asyncio.timeout(GIVE_UP_S):
            while database.is_rebuilding:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert database.counts["database_rebuilds/done"] == 1
        await database.write(lambda c: c.execute("CREATE TABLE t (n)"))
        assert not database.problem
        await database.close()

    asyncio.run(scenario())


def test_a_file_that_cannot_be_opened_otherwise_is_no_shortage(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path / "nowhere" / "data.db")
    assert errors.ABSENT in str(errors.translate(caught.value, tmp_path / "data.db"))
    with limited(0):
        assert errors.SHORT in str(errors.translate(caught.value, tmp_path / "data.db"))


def test_a_start_without_descriptors_does_not_take_the_kernel_for_another() -> None:
    """It would take a sound file for one that a power cut has shortened."""
    commit_note.running_kernel()
    with limited(0), pytest.raises(OSError, match="Too many open files"):
        commit_note.running_kernel()
