"""What a voter promised is there after anything that a disk may do, or is given up as a whole."""

import asyncio
import random
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from agent.store import commit_note
from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.consensus_store import ConsensusStore
from agent.store.control import ControlStore
from agent.store.errors import LogDamaged, StorageError
from gossip.consensus.configuration import Configuration, StoreId, Voter
from gossip.consensus.messages import Entry, EntryKind, SnapshotMark
from gossip.consensus.storage import (
    AppendChange,
    ArrivalChange,
    ChunkChange,
    CompactChange,
    HardState,
    MemoryLog,
    SnapshotChange,
    StoredState,
    TruncateChange,
    founded,
    recovered,
)

COVEY, NODE = bytes(range(16)), 7
ME = Voter(5, NODE)
CHUNK_BYTES = 100
FRAME_BYTES = 4096 + 24
"""One page in SQLite's write-ahead log (sqlite.org/walformat.html)."""


class View(NamedTuple):
    """All that a start reads back, compared by value."""

    hard: HardState
    entries: tuple[Entry, ...]
    snapshot: SnapshotMark | None
    arriving: SnapshotMark | None
    arrived: int
    chunks: tuple[bytes, ...]


def view(state: StoredState) -> View:
    asked = [(state.snapshot, state.snapshot.chunks if state.snapshot else 0)]
    asked.append((state.arriving, state.arrived))
    chunks = (state.chunks.chunk(m, n) for m, count in asked if m for n in range(count))
    told = state.hard, state.entries, state.snapshot, state.arriving, state.arrived
    return View(*told, tuple(chunks))


class Life(NamedTuple):
    """What one start found, and what was there when it ended."""

    store: StoreId
    damage: str
    found: View


Action = Callable[[ConsensusStore], Any]


def live(folder: Path, *batches: Sequence[object], action: Action | None = None) -> Life:
    """Start, save these batches, do something, and end in order."""

    async def main() -> Life:
        mark = CleanShutdownMark(folder / "running")
        control = await ControlStore.open(folder / "control.db", COVEY, NODE)
        log = await ConsensusStore.open(folder / "consensus.db", mark, control)
        mark.begin()
        found = view(log.take())
        for batch in batches:
            await log.save(batch)
        if action is not None:
            done = action(log)
            if asyncio.iscoroutine(done):
                await done
        await log.close()
        await control.close()
        mark.end()
        return Life(log.store, str(log.damage or ""), found)

    return asyncio.run(main())


def entry(index: int, term: int = 1, size_bytes: int = 20) -> Entry:
    return Entry(index, term, EntryKind.COMMAND, bytes([index % 256]) * size_bytes)


def entries(first: int, last: int, term: int = 1, size_bytes: int = 20) -> AppendChange:
    return AppendChange(tuple(entry(n, term, size_bytes) for n in range(first, last + 1)))


def snapshot(index: int, data: bytes, term: int = 1) -> tuple[SnapshotMark, list[object]]:
    """Return a snapshot, and the changes by which it arrives."""
    crc = zlib.crc32(data)
    mark = SnapshotMark(index, term, Configuration((ME,)), 1, len(data), crc, CHUNK_BYTES)
    parts = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    return mark, [ArrivalChange(mark), *(ChunkChange(n, part) for n, part in enumerate(parts))]


MARK, ARRIVAL = snapshot(3, bytes(range(250)))
FULL: list[list[object]] = [
    [HardState(1, 1, 5), entries(1, 6)],
    [*ARRIVAL, SnapshotChange(MARK), CompactChange(2)],
    snapshot(5, b"later" * 50)[1][:2],
    [HardState(1, 2, 9), TruncateChange(5), entries(6, 8, term=2)],
]
"""Leaves something in every table, and both kinds of snapshots."""


def memory_after(batches: Sequence[Sequence[object]]) -> View:
    memory = MemoryLog()
    for batch in batches:
        memory.apply(batch)
    return view(memory.stored())


@pytest.fixture
def full(tmp_path: Path) -> Path:
    live(tmp_path, *FULL)
    return tmp_path


def random_batches(rng: random.Random, count: int) -> Iterator[list[object]]:
    """Yield what a machine may ask for, in any legal order."""
    memory = MemoryLog()
    for number in range(count):
        batch: list[object] = [] if number else [HardState(1, 1, 5)]
        memory.apply(batch)
        for _ in range(rng.randrange(1, 4)):
            change = random_change(rng, memory)
            memory.apply([change])
            batch.append(change)
        yield batch


def random_change(rng: random.Random, memory: MemoryLog) -> object:
    marks = (memory.snapshot, memory.arriving)
    covered, to_come = (mark.index if mark else 0 for mark in marks)
    last = memory.entries[-1].index if memory.entries else covered
    term = max(memory.hard.term, 1)
    match rng.randrange(9):
        case 0:
            return HardState(1, term + rng.randrange(2), rng.choice([0, 5, 2**63 - 1]))
        case 1 if last > max(covered, to_come):
            return TruncateChange(rng.randrange(max(covered, to_come), last))
        case 2 if memory.entries:
            return CompactChange(rng.randrange(memory.entries[0].index - 1, covered + 1))
        case 3:
            return snapshot(last, rng.randbytes(rng.randrange(1, 400)), term)[1][0]
        case 4 | 5 if memory.arriving is not None:
            mark, number = memory.arriving, len(memory.arrived)
            if number == mark.chunks:
                return SnapshotChange(mark) if mark.index >= covered else ArrivalChange(None)
            rest = mark.size_bytes - number * CHUNK_BYTES
            return ChunkChange(number, rng.randbytes(min(rest, CHUNK_BYTES)))
        case _:
            return entries(last + 1, last + rng.randrange(1, 5), term)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_is_read_back_as_from_memory(tmp_path: Path, seed: int) -> None:
    rng, memory, store = random.Random(seed), MemoryLog(), 0
    batches = list(random_batches(rng, 40))
    for at in range(0, 40, 10):
        part = batches[at : at + 10]
        before = view(memory.stored())
        life = live(tmp_path, *part)
        assert (life.damage, life.store or 1) == ("", store or life.store)
        store = life.store
        assert life.found == before
        for batch in part:
            memory.apply(batch)
    assert live(tmp_path).found == view(memory.stored())


def test_a_new_log_is_empty_private_and_another_store_each_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, other = live(tmp_path / "a"), live(tmp_path / "b")
    assert first.found == memory_after([])
    assert first.store != other.store
    assert live(tmp_path / "a") == first
    assert (tmp_path / "a" / "consensus.db").stat().st_mode & 0o777 == 0o600


def test_only_the_first_log_that_did_nothing_may_be_founded(tmp_path: Path) -> None:
    """Or a founder whose log is gone would found another group beside that of the others."""
    firsts: list[bool] = []

    def look(log: ConsensusStore) -> None:
        firsts.append(log.is_first)

    live(tmp_path, action=look)
    live(tmp_path, [HardState(1, 1, 5)], action=look)
    live(tmp_path, action=look)
    (tmp_path / "consensus.db").unlink()
    live(tmp_path, action=look)
    live(tmp_path, action=look)
    assert firsts == [True, True, False, False, False]


def test_a_batch_is_all_or_nothing(tmp_path: Path) -> None:
    async def fails(log: ConsensusStore) -> None:
        with pytest.raises(AssertionError):
            await log.save([entries(1, 3), "not a change"])
        with pytest.raises(AssertionError):
            await log.save([entries(2, 3), entries(5, 6)])

    live(tmp_path, [HardState(1, 1, 5)], action=fails)
    assert live(tmp_path).found == memory_after([[HardState(1, 1, 5)]])


@pytest.mark.parametrize("count", [1, 2, 7, 128, 300])
def test_a_batch_of_any_size_is_written_whole(tmp_path: Path, count: int) -> None:
    live(tmp_path, [HardState(1, 1), entries(1, 3)], [entries(4, 3 + count)])
    found = live(tmp_path).found
    assert found.entries == (*entries(1, 3).entries, *entries(4, 3 + count).entries)


@pytest.mark.parametrize("first", [3, 5])
def test_entries_that_do_not_follow_are_not_written(tmp_path: Path, first: int) -> None:
    with pytest.raises((AssertionError, StorageError)):
        live(tmp_path, [HardState(1, 1), entries(1, 3)], [entries(first, 8)])
    assert live(tmp_path).found.entries == entries(1, 3).entries


def test_a_whole_state_takes_the_place_of_another(full: Path) -> None:
    """Recovery after a lost majority; then a new group."""
    made: list[View] = []

    async def recover(log: ConsensusStore) -> None:
        memory = MemoryLog()
        for batch in FULL:
            memory.apply(batch)
        old = memory.stored()
        state = recovered(msgspec.structs.replace(old, chunks=log), ME, b"state" * 50, CHUNK_BYTES)
        made.append(view(await log.replace(state)))

    live(full, action=recover)
    (made_of,) = made
    assert made_of.hard == HardState(2, 3, 0)
    assert made_of.snapshot is not None
    assert made_of.snapshot.index == 2**32 + 8
    assert live(full).found == made_of
    live(full, action=lambda log: log.replace(founded(ME)))
    assert live(full).found == view(founded(ME)), "without a snapshot"


# What a disk does


def copied(folder: Path, *, without: Sequence[str] = ()) -> Path:
    """Return a copy of a data directory as it is now: an open one is as after a crash."""
    copy = folder.with_name(f"{folder.name}-copy")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in folder.iterdir():
        if not file.name.endswith("-shm") and file.name not in without:
            shutil.copy(file, copy / file.name)
    return copy


class Torn(NamedTuple):
    """A directory as it was when one batch was acknowledged and the next was not."""

    folder: Path
    acknowledged: View
    complete: View
    before_bytes: int
    log: bytes


@pytest.fixture
def torn(tmp_path: Path) -> Torn:
    """Save some batches and one more; keep the note from before the last."""
    folder, made = tmp_path / "data", []
    folder.mkdir()
    wal = folder / "consensus.db-wal"

    async def cut(log: ConsensusStore) -> None:
        for batch in FULL:
            await log.save(batch)
        acknowledged = copied(folder)
        before_bytes = wal.stat().st_size
        await log.save([entries(9, 12, term=2, size_bytes=2000)])
        last = memory_after([*FULL, [entries(9, 12, term=2, size_bytes=2000)]])
        made.append(Torn(acknowledged, memory_after(FULL), last, before_bytes, wal.read_bytes()))

    live(folder, action=cut)
    return made[0]


def start_torn(torn: Torn, tail: bytes, monkeypatch: pytest.MonkeyPatch) -> Life:
    copy = copied(torn.folder)
    (copy / "consensus.db-wal").write_bytes(torn.log[: torn.before_bytes] + tail)
    monkeypatch.setattr(commit_note, "running_kernel", lambda: b"another kernel..")
    return live(copy)


def check_torn(torn: Torn, cuts: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    tail = torn.log[torn.before_bytes :]
    assert len(tail) > 2 * FRAME_BYTES
    for at in cuts:
        is_whole = at == len(tail)
        expected = torn.complete if is_whole else torn.acknowledged
        life = start_torn(torn, tail[:at], monkeypatch)
        assert (life.damage, life.found) == ("", expected), f"cut off at byte {at}"
        # A sector that did not get there, while others behind it did.
        holed = tail[:at] + bytes(512)[: len(tail) - at] + tail[at + 512 :]
        expected = torn.complete if holed == tail else torn.acknowledged
        life = start_torn(torn, holed, monkeypatch)
        assert (life.damage, life.found) == ("", expected), f"no sector at byte {at}"


def test_what_was_never_acknowledged_may_be_torn_anywhere(
    torn: Torn, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(torn.log) - torn.before_bytes
    check_torn(torn, [0, 1, 23, 24, 25, FRAME_BYTES, size // 2, size - 1, size], monkeypatch)


@pytest.mark.slow
def test_what_was_never_acknowledged_may_be_torn_around_each_frame(
    torn: Torn, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(torn.log) - torn.before_bytes
    frames = range(FRAME_BYTES, size, FRAME_BYTES)
    edges = {at + byte for at in frames for byte in (-1, 0, 1, 23, 24, 25)}
    check_torn(torn, sorted({*range(0, size, 509), *edges}), monkeypatch)


@pytest.mark.parametrize("kernel", [None, b"another kernel.."], ids=["killed", "power cut"])
def test_an_acknowledged_commit_that_is_gone_is_damage(
    torn: Torn, monkeypatch: pytest.MonkeyPatch, kernel: bytes | None
) -> None:
    """The note knows of it, and that it was synced: no power cut took it."""
    store = live(copied(torn.folder)).store
    copy = copied(torn.folder)
    with (copy / "consensus.db-wal").open("r+b") as file:
        file.truncate(torn.before_bytes - 100)
    if kernel:
        monkeypatch.setattr(commit_note, "running_kernel", lambda: kernel)
    life = live(copy)
    assert "commits are missing" in life.damage
    assert life.found == memory_after([])
    assert life.store != store
    assert (copy / "consensus.db.damaged-1").exists()
    assert live(copy)._replace(damage="") == life._replace(damage="")


COLUMNS = {
    "hard": ["store", "generation", "term", "vote", "run", "checksum"],
    "log": ["position", "term", "kind", "data", "checksum"],
    "marks": ["name", "slot", "mark", "checksum"],
    "chunks": ["place", "data", "checksum"],
}
FLIPS = [(table, column) for table, columns in COLUMNS.items() for column in columns]


@pytest.mark.parametrize(("table", "column"), FLIPS)
def test_one_bit_in_any_column_makes_another_store(full: Path, table: str, column: str) -> None:
    before = live(full)
    with sqlite3.connect(full / "consensus.db") as connection:
        query = f"SELECT rowid, {column} FROM {table} ORDER BY rowid DESC LIMIT 1"
        rowid, value = connection.execute(query).fetchone()
        change = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"
        connection.execute(change, (flipped(value), rowid))
    connection.close()
    after = live(full)
    assert after.damage
    assert after.store != before.store
    assert after.found == memory_after([]), "nothing of such a log is believed"
    assert "are not as they were written" in after.damage
    assert not live(full).damage, "it is said once"


def flipped(value: Any) -> Any:
    if isinstance(value, int):
        return value ^ 16
    if isinstance(value, str):
        return chr(ord(value[0]) ^ 1) + value[1:]
    return value[:-1] + bytes([value[-1] ^ 1])


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM hard",
        "DELETE FROM log WHERE position = 5",
        "DELETE FROM log WHERE position <= 4",
        "DELETE FROM chunks WHERE place % 4294967296 = 1",
        "DELETE FROM chunks WHERE place = (SELECT min(place) FROM chunks) + 2",
        "DELETE FROM marks WHERE name = 'counts'",
    ],
)
def test_rows_that_are_missing_make_another_store(full: Path, loss: str) -> None:
    before = live(full)
    with sqlite3.connect(full / "consensus.db") as connection:
        assert connection.execute(loss).rowcount
    connection.close()
    after = live(full)
    assert after.damage
    assert after.store != before.store
    assert after.found == memory_after([])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_byte_anywhere_in_the_file_is_noticed_or_means_nothing(full: Path, seed: int) -> None:
    rng, data = random.Random(seed), (full / "consensus.db").read_bytes()
    expected, noticed = memory_after(FULL), 0
    for _ in range(150):
        copy = copied(full)
        at = rng.randrange(len(data))
        torn = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        (copy / "consensus.db").write_bytes(torn)
        life = live(copy)
        assert life.damage or life.found == expected, f"byte {at}"
        noticed += bool(life.damage)
    assert noticed, "most of a small file are bytes that mean nothing"


def test_a_chunk_that_changes_while_the_agent_runs_is_not_handed_out(full: Path) -> None:
    async def read(log: ConsensusStore) -> None:
        await log.database.write(lambda c: c.execute("UPDATE chunks SET data = x'00'"))
        with pytest.raises(LogDamaged, match="not as it was written"):
            log.chunk(MARK, 0)
        with pytest.raises(KeyError):
            log.chunk(MARK, 3)
        with pytest.raises(KeyError):
            log.chunk(snapshot(9, b"unknown")[0], 0)

    live(full, action=read)
    assert live(full).damage


def test_a_full_disk_refuses_for_now_and_reads_go_on(full: Path) -> None:
    async def fill(log: ConsensusStore) -> None:
        await log.database.write(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone())
        with pytest.raises(StorageError, match="the disk is full") as caught:
            await log.save([entries(9, 40, term=2, size_bytes=4000)])
        assert (caught.value.may_pass, caught.value.is_full) == (True, True)
        assert log.chunk(MARK, 0)
        await log.database.write(lambda c: c.execute("PRAGMA max_page_count = 99999").fetchone())
        await log.save([entries(9, 9, term=2)])

    live(full, action=fill)
    assert live(full).found == memory_after([*FULL, [entries(9, 9, term=2)]])


class FailingSync:
    """A connection whose commits are written and not confirmed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return self._connection.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_a_sync_that_fails_is_not_tried_again_and_ends_the_store(full: Path) -> None:
    async def fail(log: ConsensusStore) -> None:
        database = log.database
        connection = database._writer
        database._writer = FailingSync(connection)  # type: ignore[assignment]
        with pytest.raises(StorageError) as caught:
            await log.save([HardState(1, 3, 9)])
        assert not caught.value.may_pass
        database._writer = connection
        with pytest.raises(StorageError):
            await log.save([HardState(1, 3, 5)])

    before = live(full)
    live(full, action=fail)
    assert CleanShutdownMark(full / "running").is_void
    after = live(full)
    assert after.damage
    assert after.store != before.store


def test_the_file_does_not_grow_while_what_counts_does_not(tmp_path: Path) -> None:
    async def go_on(log: ConsensusStore) -> None:
        await log.save([HardState(1, 1, 5)])
        for round_ in range(20):
            first = 1 + 100 * round_
            await log.save([entries(first, first + 99, size_bytes=4000)])
            mark, arrival = snapshot(first + 99, bytes([round_]) * 20_000)
            await log.save(arrival)
            await log.save([SnapshotChange(mark), CompactChange(first + 49)])

    live(tmp_path, action=go_on)
    assert (tmp_path / "consensus.db").stat().st_size < 6 * 1024 * 1024, "4 MiB may be free"


# A disk of an earlier moment


async def mark_void(log: ConsensusStore) -> None:
    CleanShutdownMark(log.database.path.with_name("running")).doubt(is_void=True)


def test_who_was_told_that_it_was_set_back_votes_no_more(full: Path) -> None:
    before = live(full)
    CleanShutdownMark(full / "running").doubt()
    assert live(full) == before, "copies of records are doubted, and no log"
    mark = CleanShutdownMark(full / "running")
    mark.doubt(is_void=True)
    mark.doubt()
    assert "a later start of this node" in live(full, action=mark_void).damage
    after = live(full)
    assert not after.damage, "it was said by the start that did not get further"
    assert not (full / "consensus.db.damaged-2").exists()
    assert after.store != before.store
    assert after.found == memory_after([])
    assert live(full).damage == ""


async def give_up(folder: Path) -> None:
    control = await ControlStore.open(folder / "control.db", COVEY, NODE)
    await control.give_up_log()
    await control.close()


def test_a_log_of_a_generation_that_is_over_is_set_aside_and_is_no_damage(full: Path) -> None:
    before = live(full)
    asyncio.run(give_up(full))
    after = live(full)
    assert not after.damage
    assert after.store != before.store
    assert after.found == memory_after([])
    assert (full / "consensus.db.damaged-1").exists(), "what others may lack is kept"
    assert live(full).store == after.store, "once"


def test_a_given_up_log_whose_start_did_not_get_further_is_given_up_once(full: Path) -> None:
    asyncio.run(give_up(full))
    given_up = copied(full)
    after = live(full)
    for name in ("control.db", "control.db.tail", "control.db.copy"):
        shutil.copy(given_up / name, full / name)
    again = live(full)
    assert (again.damage, again.found) == ("", after.found)
    assert not (full / "consensus.db.damaged-2").exists()


def test_a_log_from_a_backup_is_not_used(full: Path) -> None:
    live(full)
    backup = copied(full)
    live(full, [HardState(1, 3, 5)])
    for file in backup.glob("consensus.db*"):
        shutil.copy(file, full / file.name)
    assert "an earlier moment than control.db" in live(full).damage


def test_a_log_that_came_back_with_control_db_is_known_by_the_note(full: Path) -> None:
    backup = copied(full)
    live(full, [HardState(1, 3, 5)])
    for name in ("consensus.db", "control.db", "control.db.tail"):
        shutil.copy(backup / name, full / name)
    assert "an earlier moment than the note" in live(full).damage


def test_one_that_was_given_up_does_not_come_back(full: Path) -> None:
    given_up = copied(full)
    for file in full.glob("consensus.db*"):
        file.unlink()
    life = live(full)
    assert "it is gone" in life.damage
    for file in given_up.glob("consensus.db*"):
        shutil.copy(file, full / file.name)
    after = live(full)
    assert after.damage
    assert after.found == memory_after([])


def test_a_start_that_ended_in_the_middle_changes_nothing(full: Path) -> None:
    """The log had noted the run, and control.db not yet."""
    before = live(full)
    control = copied(full)
    assert live(full) == before
    for name in ("control.db", "control.db.tail", "control.db.copy"):
        shutil.copy(control / name, full / name)
    assert live(full) == before
