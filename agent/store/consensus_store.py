"""``consensus.db``: what this node has promised to the other voters, and the log they agree on.

This is ``gossip/consensus/storage.py`` on SQLite, in a file of its own: it is synced with each
commit, and a burst of records in ``data.db`` must not hold up a vote. Entries are rows in their
order, so an append writes the last page of the table and nothing else. Chunks of snapshots are
rows, too: those of the snapshot that counts, and beside them those of one that is arriving, which
takes its place in one transaction. A node that does not vote keeps its copy in the same tables.

**Whose log this is.** The *store* is the voter (``configuration.py``): it is drawn together with
the file, and a log that is not the one it was is another store's. Whatever is wrong with the file,
nothing of it is read back: it is set aside as ``consensus.db.damaged-N``, a new store begins with
an empty log, and takes part again once it was let in as a learner. Who went on with what is left
would vote twice, or deny what it has acknowledged. That is told in ``damage``.

What is noticed, when the file is opened:

* A byte that is not as it was written: each row has its checksum, the rows follow on each other,
  and SQLite's own structure is checked as a whole. What a power cut tore off the end of the
  write-ahead log was never acknowledged, and is no damage.
* Commits that are missing at the end of that log (``commit_note.py``): all of them after a process
  that ended, and after a power cut those that the note on the disk knows of.
* A file of an earlier moment: ``control.db`` remembers store and run, the note term and vote.
* A log of a generation that is over: another node was recovered, and this one has heard of it.
* A sync that failed: nobody knows what is on the disk, so the run ends, and its log with it.
* A device whose whole disk is of an earlier moment shows nothing of that by itself. Once the others
  have told it (``clean_shutdown.py``), its log is set aside as well. Until then it may vote twice
  in a term.
"""

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from agent.store.checksums import Table, seal_all
from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.commit_note import CommitNote
from agent.store.control import ControlStore, LogMark
from agent.store.database import Database
from agent.store.errors import LogDamaged, StorageError, translate
from agent.store.inserting import insert_all
from agent.store.migrations import Migrations
from agent.store.salvage import rebuild
from agent.store.vacuum import give_back
from gossip.consensus.configuration import STORE_ID_BITS, StoreId
from gossip.consensus.messages import Entry, EntryKind, SnapshotMark
from gossip.consensus.storage import (
    NOBODY,
    AppendChange,
    ArrivalChange,
    ChunkChange,
    ChunkSource,
    CompactChange,
    HardState,
    MemoryLog,
    SnapshotChange,
    StoredState,
    TruncateChange,
)

if TYPE_CHECKING:
    from sqlite_utils import Database as Schema

HARD = Table("hard", ("one", "store", "generation", "term", "vote", "run", "checksum"), rowid="one")
LOG = Table("log", ("position", "term", "kind", "data", "checksum"), rowid="position")
MARKS = Table("marks", ("name", "slot", "mark", "checksum"))
CHUNKS = Table("chunks", ("place", "data", "checksum"), rowid="place")
PROMISE = "store, generation, term, vote, run"
COUNTS, ARRIVES = "counts", "arrives"
"""The names of the two marks: of the snapshot that counts, and of the one that is arriving."""
FIRST_RUN = 1
GIVEN_UP = "an operator has let another node go on without it, in a later generation"
SLOT_BITS = 32
"""A chunk's place is its snapshot's slot, and behind it, in so many bits, its own number."""

log = logging.getLogger(__name__)

_encode_mark = msgspec.msgpack.Encoder().encode
_decode_mark = msgspec.msgpack.Decoder(SnapshotMark).decode


def _all_gone(connection: sqlite3.Connection, path: Path, note: CommitNote | None) -> list[str]:
    """Say what is lost with a damaged file: all of it, by rule."""
    del connection, path, note
    return ["the log, which other voters have; this node takes part in none of it any more"]


CONSENSUS_MIGRATIONS = Migrations(
    "consensus",
    (HARD, LOG, MARKS, CHUNKS),
    mend=_all_gone,
    numbers="SELECT coalesce(max(term), 0), coalesce(max(vote), 0) FROM hard",
    is_rewritten=True,
    is_carried_over=False,
)


@CONSENSUS_MIGRATIONS
def promises_log_snapshots(schema: "Schema") -> None:
    """Create the tables; each is in the order of its numbers."""
    schema.execute(
        "CREATE TABLE hard (one INTEGER PRIMARY KEY, store INTEGER NOT NULL,"
        " generation INTEGER NOT NULL, term INTEGER NOT NULL, vote INTEGER NOT NULL,"
        " run INTEGER NOT NULL, checksum INTEGER NOT NULL)"
    )
    schema.execute(
        "CREATE TABLE log (position INTEGER PRIMARY KEY, term INTEGER NOT NULL,"
        " kind INTEGER NOT NULL, data BLOB NOT NULL, checksum INTEGER NOT NULL)"
    )
    schema.execute(
        "CREATE TABLE marks (name TEXT PRIMARY KEY, slot INTEGER NOT NULL, mark BLOB NOT NULL,"
        " checksum INTEGER NOT NULL)"
    )
    schema.execute(
        "CREATE TABLE chunks (place INTEGER PRIMARY KEY, data BLOB NOT NULL,"
        " checksum INTEGER NOT NULL)"
    )


class HardRow(NamedTuple):
    """The one row of ``hard``."""

    store: StoreId
    generation: int
    term: int
    vote: StoreId
    run: int

    @property
    def hard(self) -> HardState:
        """What Raft knows of it."""
        return HardState(self.generation, self.term, self.vote)


class StoredSnapshot(NamedTuple):
    """Where the chunks of a snapshot are."""

    number: int
    mark: SnapshotMark

    def place(self, chunk: int) -> int:
        """Return the place of a chunk, or of the first behind the last."""
        return self.number << SLOT_BITS | chunk


class Found(NamedTuple):
    """What is in a file that is as it was written; ``promise`` is None in a new one."""

    promise: HardRow | None = None
    entries: tuple[Entry, ...] = ()
    counts: StoredSnapshot | None = None
    arrives: StoredSnapshot | None = None
    arrived: int = 0

    def state(self, chunks: ChunkSource) -> StoredState:
        """Return what Raft starts with."""
        hard = self.promise.hard if self.promise else HardState()
        snapshot = self.counts.mark if self.counts else None
        arriving = self.arrives.mark if self.arrives else None
        return StoredState(hard, self.entries, chunks, snapshot, arriving, self.arrived)


class ConsensusStore:
    """The log of one node, and its snapshots: a ``ChunkSource``, and a store of changes.

    ``store`` is who this log is as a voter. ``damage`` says why it is a new one; None where it is
    the one of before, or the first. ``is_first``: this node never had another, and this one has
    taken part in nothing yet; a start that ended before it did anything is none.
    """

    def __init__(
        self, database: Database, store: StoreId, run: int, found: Found, damage: LogDamaged | None
    ) -> None:
        before = found.promise
        did_nothing = before is not None and before.run == FIRST_RUN and not before.generation
        is_blank = run == FIRST_RUN or (did_nothing and run == FIRST_RUN + 1)
        self.is_first = damage is None and is_blank
        self.database = database
        self.store = store
        self.damage = damage
        self._run = run
        self._found = found

    @classmethod
    async def open(
        cls, path: Path, mark: CleanShutdownMark, control: ControlStore
    ) -> "ConsensusStore":
        """Open or create the file, before ``mark`` notes that this run has begun.

        A log that is not what it was is set aside, and ``damage`` says so. Raises StorageError.
        """
        is_void = await asyncio.to_thread(lambda: mark.is_void)
        known = control.log_mark()
        database, found, damage = await _open(path, known, is_void=is_void)
        before = found.promise
        is_expected = known is not None and known.store != NOBODY and not is_void
        if before is None and damage is None and is_expected:
            damage = LogDamaged(path, "it is gone; this node had one.")
        store = before.store if before else 1 + secrets.randbelow(2**STORE_ID_BITS - 1)
        run = 1 + max(before.run if before else 0, known.run if known else 0)
        self = cls(database, store, run, found, damage)
        if damage is not None and not database.losses:
            database.losses.append(damage.message)
        database.on_unsynced = partial(_void, mark)
        try:
            # With it all that was read is synced, too: a process that was killed had perhaps
            # written what it never confirmed, and a vote must not rest on that.
            await database.write(partial(self._promise, before.hard if before else HardState()))
            await control.save_log_mark(LogMark(store, run))
        except BaseException:
            await database.close()
            raise
        return self

    async def close(self) -> None:
        """Commit what is queued, and close the file."""
        await self.database.close()

    def take(self) -> StoredState:
        """Return what was there when the file was opened; it is held no longer."""
        found, self._found = self._found, Found()
        return found.state(self)

    async def save(self, changes: Sequence[object]) -> None:
        """Sync the changes in this order, in one transaction. Raises StorageError."""
        await self.database.write(partial(self._apply, changes))

    async def replace(self, state: StoredState) -> StoredState:
        """Take over a whole state, founded or recovered, and return it. Raises StorageError.

        Cut off in the middle, the state of before counts.
        """
        mark = state.snapshot
        if mark is not None:
            await self.save([ArrivalChange(mark)])
            for number in range(mark.chunks):
                await self.save([ChunkChange(number, state.chunks.chunk(mark, number))])
        await self.database.write(partial(self._replace, state))
        return msgspec.structs.replace(state, chunks=self, arriving=None, arrived=0)

    def chunk(self, mark: SnapshotMark, number: int) -> bytes:
        """Return a chunk of the snapshot that counts, or of the one that is arriving.

        Raises KeyError for a chunk that is in neither, LogDamaged for one that changed.
        """
        row = self.database.read(partial(find_chunk, mark, number))
        if row is None:
            raise KeyError(number)
        if not CHUNKS.verifies(row):
            raise LogDamaged(self.database.path, "a chunk of a snapshot is not as it was written")
        return bytes(row[1])

    # ---- in the writer thread -------------------------------------------------------------------

    def _apply(self, changes: Sequence[object], rows: sqlite3.Connection) -> None:
        for change in changes:
            match change:
                case HardState():
                    self._promise(change, rows)
                case AppendChange(entries):
                    _append(rows, entries)
                case TruncateChange(after):
                    rows.execute("DELETE FROM log WHERE position > ?", (after,))
                case CompactChange(through):
                    rows.execute("DELETE FROM log WHERE position <= ?", (through,))
                    give_back(rows)
                case ArrivalChange(mark):
                    _begin_arrival(rows, mark)
                case ChunkChange(number, data):
                    _add_chunk(rows, number, data)
                case SnapshotChange(mark):
                    _install(rows, mark)
                case _:
                    raise AssertionError(f"not a change of a Raft log: {change!r}")

    def _replace(self, state: StoredState, rows: sqlite3.Connection) -> None:
        mark = state.snapshot
        self._apply([TruncateChange(0), AppendChange(state.entries), state.hard], rows)
        if mark is not None:
            _install(rows, mark)
        else:
            for table in (MARKS, CHUNKS):
                rows.execute(f"DELETE FROM {table.name}")  # noqa: S608 - our names

    def _promise(self, hard: HardState, rows: sqlite3.Connection) -> None:
        row = HARD.sealed(1, self.store, hard.generation, hard.term, hard.vote, self._run)
        rows.execute("INSERT OR REPLACE INTO hard VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def _void(mark: CleanShutdownMark) -> None:
    """Count no promise of this disk any more, as far as it takes at least that."""
    with suppress(StorageError):
        mark.doubt(is_void=True)


async def _open(
    path: Path, known: LogMark | None, *, is_void: bool
) -> tuple[Database, Found, LogDamaged | None]:
    """Open the file, and a new one in its place if it is not what it was. Raises StorageError."""
    database = await Database.open(path, CONSENSUS_MIGRATIONS, synchronous="FULL")
    try:
        if database.losses:
            return database, Found(), LogDamaged(path, database.losses[0])
        found = await database.write(partial(_look, database.noted, known, is_void=is_void))
    except BaseException:
        await database.close()
        raise
    if isinstance(found, Found):
        return database, found, None
    await database.close()
    try:
        loss = await asyncio.to_thread(rebuild, path, CONSENSUS_MIGRATIONS, found, None)
    except (OSError, sqlite3.Error) as error:
        raise translate(error, path) from error
    database = await Database.open(path, CONSENSUS_MIGRATIONS, synchronous="FULL")
    if found == GIVEN_UP:
        log.warning("the log in %s was set aside: %s", path, found)
        return database, Found(), None
    log.error("%s", loss)
    return database, Found(), LogDamaged(path, loss)


def _look(
    note: CommitNote | None, known: LogMark | None, rows: sqlite3.Connection, *, is_void: bool
) -> Found | str:
    """Return what is in the file, or why it cannot be what was written last.

    Each row is as it was written by somebody at some time: that was looked at before.
    """
    promises = [HardRow(*row) for row in rows.execute(f"SELECT {PROMISE} FROM hard")]  # noqa: S608
    if not promises:
        return "its promises are missing" if _has_rows(rows) else Found()
    (promise,) = promises
    is_given_up = known is not None and known.store == NOBODY
    if (is_void or is_given_up) and promise.hard == HardState() and not _has_rows(rows):
        return Found()  # a start that did not get further has set the log aside
    if is_given_up:
        return GIVEN_UP
    if is_void:
        return "the others know a later start of this node, or the disk failed to sync it"
    # A new store has a later run than the one in whose place it begins.
    if known is not None and _is_before(promise, known):
        return "it is of an earlier moment than control.db"
    if note is not None and not _is_after(promise, note):
        return "it is of an earlier moment than the note of its commits"
    try:
        found = Found(promise, _entries(rows), *_snapshots(rows))
        found.state(MemoryLog()).check()
    except ValueError as error:
        return str(error)
    return found


def found_in(rows: sqlite3.Connection) -> Found | str:
    """Return what is in a file of which nothing else is known, or what is wrong with it."""
    return _look(None, None, rows, is_void=False)


def _is_before(promise: HardRow, known: LogMark) -> bool:
    """Tell whether a later run, or another store, is known to have written last."""
    if promise.run == known.run:
        return promise.store != known.store
    return promise.run < known.run


def _is_after(promise: HardRow, note: CommitNote) -> bool:
    """Tell whether a promise was made when a note was made, or later: terms and votes only grow."""
    if promise.term == note.last:
        return note.cursor in (NOBODY, promise.vote)
    return promise.term > note.last


def _has_rows(rows: sqlite3.Connection) -> bool:
    return any(
        rows.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0]  # noqa: S608 - our names
        for table in (LOG, MARKS, CHUNKS)
    )


def _entries(rows: sqlite3.Connection) -> tuple[Entry, ...]:
    """Return the log. Raises ValueError for a kind that nobody has written."""
    found = rows.execute("SELECT position, term, kind, data FROM log ORDER BY position")
    return tuple(Entry(place, term, EntryKind(kind), data) for place, term, kind, data in found)


def _snapshots(
    rows: sqlite3.Connection,
) -> tuple[StoredSnapshot | None, StoredSnapshot | None, int]:
    """Return both snapshots, and how many chunks of the second there are.

    Raises ValueError for chunks that are missing.
    """
    counts, arrives = _slot(rows, COUNTS), _slot(rows, ARRIVES)
    if counts is not None and _chunks(rows, counts) != (counts.mark.chunks, counts.mark.size_bytes):
        raise ValueError("chunks of its snapshot are missing")
    arrived = _chunks(rows, arrives)[0] if arrives is not None else 0
    return counts, arrives, arrived


def _chunks(rows: sqlite3.Connection, slot: StoredSnapshot) -> tuple[int, int]:
    """Return how many chunks a slot has, and their bytes. Raises ValueError if one is missing."""
    query = "SELECT count(*), coalesce(sum(length(data)), 0), max(place) FROM chunks"
    where = " WHERE place >= ? AND place < ?"
    ends = slot.place(0), slot._replace(number=slot.number + 1).place(0)
    count, size_bytes, last = rows.execute(query + where, ends).fetchone()
    if count and last != slot.place(count - 1):
        raise ValueError("chunks of a snapshot are missing")
    return count, size_bytes


def _slot(rows: sqlite3.Connection, name: str) -> StoredSnapshot | None:
    query = "SELECT slot, mark FROM marks WHERE name = ?"
    found = rows.execute(query, (name,)).fetchone()
    return StoredSnapshot(found[0], _decode_mark(found[1])) if found else None


def _set_slot(rows: sqlite3.Connection, name: str, slot: StoredSnapshot) -> None:
    row = MARKS.sealed(name, slot.number, _encode_mark(slot.mark))
    rows.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)", row)


def find_chunk(mark: SnapshotMark, number: int, rows: sqlite3.Connection) -> Any:
    """Return the row of a chunk; None if there is none."""
    for name in (COUNTS, ARRIVES):
        slot = _slot(rows, name)
        if slot is not None and slot.mark == mark:
            query = f"SELECT {CHUNKS.names} FROM chunks WHERE place = ?"  # noqa: S608 - our names
            return rows.execute(query, (slot.place(number),)).fetchone()
    return None


def _append(rows: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    if not entries:
        return
    first = entries[0].index
    (last,) = rows.execute("SELECT max(position) FROM log").fetchone()
    assert last is None or first == last + 1, "entries follow on those that are there"
    assert entries[-1].index == first + len(entries) - 1, "and on each other"
    values = [(each.term, int(each.kind), each.data) for each in entries]
    insert_all(rows, LOG, seal_all(LOG, first, values))


def _begin_arrival(rows: sqlite3.Connection, mark: SnapshotMark | None) -> None:
    """Drop what had arrived of another snapshot; make room behind what counts."""
    counts = _slot(rows, COUNTS)
    number = counts.number + 1 if counts is not None else 0
    rows.execute("DELETE FROM chunks WHERE place >= ?", (number << SLOT_BITS,))
    rows.execute("DELETE FROM marks WHERE name = ?", (ARRIVES,))
    if mark is not None:
        _set_slot(rows, ARRIVES, StoredSnapshot(number, mark))
    give_back(rows)


def _add_chunk(rows: sqlite3.Connection, number: int, data: bytes) -> None:
    slot = _slot(rows, ARRIVES)
    assert slot is not None, "a snapshot is announced before it arrives"
    rows.execute("INSERT INTO chunks VALUES (?, ?, ?)", CHUNKS.sealed(slot.place(number), data))


def _install(rows: sqlite3.Connection, mark: SnapshotMark) -> None:
    slot = _slot(rows, ARRIVES)
    assert slot is not None, "a snapshot arrives before it counts"
    assert slot.mark == mark, "and it is that one"
    assert _chunks(rows, slot) == (mark.chunks, mark.size_bytes), "and is whole"
    rows.execute("DELETE FROM chunks WHERE place < ?", (slot.place(0),))
    rows.execute("DELETE FROM marks WHERE name = ?", (ARRIVES,))
    _set_slot(rows, COUNTS, slot)
    give_back(rows)
