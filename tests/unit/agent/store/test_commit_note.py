"""Notes beside a database: what a power cut may take, and what only a bad disk takes."""

import asyncio
import shutil
from pathlib import Path

import pytest

from agent.store import commit_note
from agent.store.commit_note import CommitNote, Log
from agent.store.database import Database
from agent.telemetry.outbox import Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from tests.support.readings import checked

HERE, BEFORE = b"this kernel.....", b"the one before.."
ONE, OTHER = b"one life", b"another."


def note(
    frames: int, backfilled: int = 0, synced: int = 0, synced_salts: bytes = ONE
) -> CommitNote:
    return CommitNote(HERE, 1, Log(ONE, frames, backfilled), synced, synced_salts, 0, 0)


@pytest.mark.parametrize(
    ("noted", "found", "kernel", "misses"),
    [
        (note(10), Log(ONE, 10, 0), HERE, False),
        (note(10), Log(ONE, 12, 0), HERE, False),  # the last commit came before its note
        (note(10), Log(ONE, 9, 0), HERE, True),
        (note(10, 10), Log(ONE, 9, 0), HERE, True),  # older pages would hide those in the file
        (note(10, 10), Log(OTHER, 1, 0), HERE, False),  # all was in the file, the log began anew
        (note(10, 9), Log(OTHER, 1, 0), HERE, True),
        (note(10, 10), None, HERE, False),
        (note(10), None, HERE, True),
        (note(10, 0, 6), Log(ONE, 6, 0), BEFORE, False),  # a power cut takes what was not synced
        (note(10, 0, 6), Log(ONE, 5, 0), BEFORE, True),
        (note(10, 0, 6, OTHER), Log(ONE, 5, 0), BEFORE, False),
        (note(10, 0, 6), Log(OTHER, 1, 0), BEFORE, False),  # the note may be of long ago
        (note(10, 0, 6), None, BEFORE, False),
    ],
)
def test_what_is_missing_and_what_a_power_cut_took(
    noted: CommitNote, found: Log | None, kernel: bytes, misses: bool
) -> None:
    assert noted.misses(found, kernel) is misses


async def _written(folder: Path) -> tuple[int, int]:
    """Accept ten readings, sync, accept ten more; return how long the log was at both times."""
    database = await Database.open(folder / "t.db", OUTBOX_MIGRATIONS)
    outbox = await Outbox.open(database, 1, 1 << 32)
    lengths = []
    for at in (0, 10):
        for value in range(at, at + 10):
            await outbox.accept([checked("t", value)])
        lengths.append((folder / "t.db-wal").stat().st_size)
        if at == 0:
            await database.sync()
    for name in ("t.db", "t.db-wal", "t.db.tail"):
        shutil.copy(folder / name, folder / f"left-{name}")
    await outbox.close()
    await database.close()
    return lengths[0], lengths[1]


async def _found(folder: Path) -> tuple[int, int, list[str]]:
    database = await Database.open(folder / "left-t.db", OUTBOX_MIGRATIONS)
    outbox = await Outbox.open(database, 1, 2 << 32)
    await outbox.accept([checked("t", 99)])
    positions = [each.position for each in outbox.batch(100)]
    assert positions[-1] == 21, "no position is given twice, whatever became of it"
    found = len(positions), outbox.stats().lost, database.losses
    await outbox.close()
    await database.close()
    return found


def test_a_power_cut_takes_the_newest_readings_and_the_user_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, _ = asyncio.run(_written(tmp_path))
    log = tmp_path / "left-t.db-wal"
    log.write_bytes(log.read_bytes()[:synced])
    monkeypatch.setattr(commit_note, "running_kernel", lambda: BEFORE)
    assert asyncio.run(_found(tmp_path)) == (11, 10, [])


def test_after_a_power_cut_less_than_was_synced_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, _ = asyncio.run(_written(tmp_path))
    log = tmp_path / "left-t.db-wal"
    log.write_bytes(log.read_bytes()[: synced // 2])
    monkeypatch.setattr(commit_note, "running_kernel", lambda: BEFORE)
    readings, lost, losses = asyncio.run(_found(tmp_path))
    assert readings + lost == 21
    assert "commits are missing" in losses[0]


def test_without_a_power_cut_every_missing_commit_is_damage(tmp_path: Path) -> None:
    _, whole = asyncio.run(_written(tmp_path))
    log = tmp_path / "left-t.db-wal"
    log.write_bytes(log.read_bytes()[: whole - 1])
    readings, lost, losses = asyncio.run(_found(tmp_path))
    assert readings + lost == 21
    assert lost <= 1
    assert "commits are missing" in losses[0]


def test_a_process_that_was_killed_has_lost_nothing(tmp_path: Path) -> None:
    asyncio.run(_written(tmp_path))
    assert asyncio.run(_found(tmp_path)) == (21, 0, [])


@pytest.mark.parametrize("content", [b"", b"noise" * 300])
def test_without_a_note_what_is_there_is_believed(tmp_path: Path, content: bytes) -> None:
    asyncio.run(_written(tmp_path))
    (tmp_path / "left-t.db.tail").write_bytes(content)
    assert asyncio.run(_found(tmp_path)) == (21, 0, [])
