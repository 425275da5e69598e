"""By which a start knows that the last run may have lost what it had acknowledged."""

import asyncio
import errno
import os
import shutil
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from agent.agent import Agent
from agent.config.loader import load
from agent.config.paths import Paths
from agent.runtime.keeper import Keeper
from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.commit_note import running_kernel
from agent.store.control import ControlStore
from agent.store.errors import StorageError
from agent.store.kv_store import RecordStore, doubt_if_gone
from gossip.core.ids import BOOT_RANDOM_BITS
from gossip.kv.storage import DAMAGED, PLACES, ClockChange, HoldingChange
from gossip.membership.detection.updates import BootSuperseded
from gossip.registry.placement import PARTITIONS

HELD = [HoldingChange(partition, 7) for partition in range(3)]
CLOCK = ClockChange(1, 99, ((1, 5),))


@pytest.fixture
def mark(tmp_path: Path) -> CleanShutdownMark:
    return CleanShutdownMark(tmp_path / "running")


def another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.store.clean_shutdown.running_kernel", lambda: b"another boot")


def started(folder: Path, mark: CleanShutdownMark, *changes: object) -> dict[int, int]:
    """Run a store until its file is closed; return what it held at the start."""

    async def life() -> dict[int, int]:
        store = await RecordStore.open(folder / "data.db")
        await store.believe(mark)
        held = store.holdings()
        assert store.clock(1) in ((), ((99, ((1, 5),)),)), "the clocks stay"
        await store.save(changes)
        await store.close()
        return held

    return asyncio.run(life())


def test_a_process_that_was_killed_has_lost_nothing(mark: CleanShutdownMark) -> None:
    assert not mark.is_bad
    mark.begin()
    assert not mark.is_bad, "the kernel is the same"


def test_a_power_cut_is_noticed_and_an_orderly_end_is_none(
    mark: CleanShutdownMark, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark.begin()
    mark.end()
    another_kernel(monkeypatch)
    assert not mark.is_bad
    mark.begin()
    monkeypatch.undo()
    assert mark.is_bad
    mark.end()
    assert mark.is_bad, "nothing was compared since"


def test_doubt_outlives_an_orderly_end(mark: CleanShutdownMark) -> None:
    mark.begin()
    mark.doubt()
    mark.end()
    assert mark.is_bad
    assert not mark.is_void, "promises are in another file"


def test_a_mark_that_cannot_be_read_is_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "running").mkdir()
    assert CleanShutdownMark(tmp_path / "running").is_bad


def test_copies_are_doubted_after_a_power_cut_and_their_clocks_kept(
    tmp_path: Path, mark: CleanShutdownMark, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started(tmp_path, mark, *HELD, CLOCK) == {}
    assert started(tmp_path, mark) == {0: 7, 1: 7, 2: 7}
    another_kernel(monkeypatch)
    assert set(started(tmp_path, mark).values()) == {DAMAGED}
    assert set(started(tmp_path, mark).values()) == {DAMAGED}, "until they were compared"


def fail(*_: object) -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("does_end_in_order", [True, False])
def test_a_sync_that_failed_leaves_doubt(
    tmp_path: Path,
    mark: CleanShutdownMark,
    monkeypatch: pytest.MonkeyPatch,
    does_end_in_order: bool,
) -> None:
    """Which pages the kernel dropped, nobody knows: not even the end of a process is harmless."""

    async def life() -> None:
        store = await RecordStore.open(tmp_path / "data.db")
        await store.believe(mark)
        await store.save([CLOCK])
        monkeypatch.setattr("os.fdatasync", fail)
        with pytest.raises(StorageError, match="disk reports an error"):
            await store.database.sync()
        monkeypatch.undo()
        await (store.finish(mark) if does_end_in_order else store.close())

    asyncio.run(life())
    assert CleanShutdownMark(tmp_path / "running").is_bad


def test_a_failed_sync_is_no_orderly_end_though_the_disk_takes_no_doubt(
    tmp_path: Path, mark: CleanShutdownMark, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def life() -> None:
        store = await RecordStore.open(tmp_path / "data.db")
        await store.believe(mark)
        await store.save([CLOCK])
        monkeypatch.setattr("os.fdatasync", fail)
        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(StorageError, match=r"data\.db: the disk reports an error"):
            await store.database.sync()
        monkeypatch.undo()
        await store.finish(mark)

    asyncio.run(life())
    another_kernel(monkeypatch)
    assert CleanShutdownMark(tmp_path / "running").is_bad, "the mark of that run is still there"


def test_a_file_that_cannot_be_closed_in_order_leaves_doubt(
    tmp_path: Path, mark: CleanShutdownMark, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def life() -> None:
        store = await RecordStore.open(tmp_path / "data.db")
        await store.believe(mark)
        monkeypatch.setattr(store.database, "_close_writer", fail_as_sqlite)
        with pytest.raises(StorageError):
            await store.finish(mark)

    def fail_as_sqlite() -> NoReturn:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    asyncio.run(life())
    assert CleanShutdownMark(tmp_path / "running").is_bad


def test_a_start_that_did_not_come_far_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the last run wrote is with the kernel alone until somebody syncs it."""
    paths = Paths.find(tmp_path, {})
    paths.create()
    CleanShutdownMark(paths.run_mark).begin()
    (paths.data / "data.db").mkdir()
    agent = Agent(load(paths), paths)
    who = SimpleNamespace(
        node_id=7, cluster_id=bytes(16), plausible=(0, 2**40), is_only_issuer=lambda: False
    )
    agent.identity = who  # type: ignore[assignment]

    async def start() -> None:
        async with AsyncExitStack() as opened:
            await agent._open_stores(opened)

    with pytest.raises(StorageError):
        asyncio.run(start())
    another_kernel(monkeypatch)
    assert CleanShutdownMark(paths.run_mark).is_bad


@pytest.mark.parametrize("step", ["begin", "doubt"])
def test_a_mark_for_which_there_is_no_room_is_a_full_disk(
    mark: CleanShutdownMark, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A start on a full disk then takes another portion of the ballast, or waits for room."""

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("agent.store.clean_shutdown.replace_private", full)
    with pytest.raises(StorageError, match="the disk is full") as raised:
        getattr(mark, step)()
    assert raised.value.is_full


def test_who_was_outrun_doubts_what_it_has(tmp_path: Path, mark: CleanShutdownMark) -> None:
    async def story() -> None:
        store = await ControlStore.open(tmp_path / "control.db", bytes(16), 7)
        keeper = Keeper(store, mark, bool, lambda: None)
        mark.begin()
        keeper.record(BootSuperseded(41 << BOOT_RANDOM_BITS))
        await keeper.finish()
        assert mark.is_bad
        assert mark.is_void, "and promises nothing of what it had promised"
        assert await store.count_start() == 42
        await store.close()

    asyncio.run(story())


def test_a_file_that_was_taken_away_is_not_taken_for_one_that_never_had_anything(
    tmp_path: Path, mark: CleanShutdownMark
) -> None:
    def start(starts: int) -> dict[int, int]:
        asyncio.run(doubt_if_gone(tmp_path / "data.db", mark, starts))
        return started(tmp_path, mark, *HELD)

    assert start(1) == {}, "the first start has lost nothing"
    mark.end()
    for path in tmp_path.glob("data.db*"):
        path.unlink()
    asyncio.run(doubt_if_gone(tmp_path / "data.db", mark, 2))
    (tmp_path / "data.db").touch()
    mark.end()
    assert mark.is_bad, "also when that start was cut off behind the making of the file"
    mark = CleanShutdownMark(tmp_path / "running")  # as another process has it
    assert set(start(3).values()) == {DAMAGED}
    mark.end()
    assert start(4) == dict.fromkeys(range(3), 7) | dict.fromkeys(
        (*range(3, PARTITIONS), PLACES), DAMAGED
    )


def node_directory(place: Path) -> CleanShutdownMark:
    place.mkdir()
    mark = CleanShutdownMark(place / "running")
    assert started(place, mark, *HELD) == {}
    return mark


@pytest.mark.parametrize("is_orderly", [True, False])
def test_a_directory_that_was_copied_is_noticed_though_no_clock_and_no_kernel_tells(
    tmp_path: Path, is_orderly: bool
) -> None:
    """It may be older than what its node acknowledged; the one that it was copied from is not."""
    mark = node_directory(tmp_path / "node")
    if is_orderly:
        mark.end()
    shutil.copytree(tmp_path / "node", tmp_path / "copy")
    copy = CleanShutdownMark(tmp_path / "copy" / "running")
    assert copy.is_bad
    assert copy.is_copied
    held = started(tmp_path / "copy", copy)
    assert held.keys() >= set(range(PARTITIONS))
    assert set(held.values()) == {DAMAGED}
    assert not copy.is_bad, "once compared, it is a disk like others"
    same = CleanShutdownMark(tmp_path / "node" / "running")
    assert not same.is_bad
    assert started(tmp_path / "node", same) == dict.fromkeys(range(3), 7)


def test_a_mark_of_a_version_before_is_believed(tmp_path: Path) -> None:
    mark = node_directory(tmp_path / "node")
    (tmp_path / "node" / "running").write_bytes(running_kernel())
    assert not mark.is_bad
    assert not mark.is_copied


def test_where_there_is_no_room_for_it_an_orderly_end_leaves_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = node_directory(tmp_path / "node")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("agent.store.clean_shutdown.replace_private", full)
    mark.end()
    assert not (tmp_path / "node" / "running").exists()
    assert not mark.is_bad
