"""The state plane's part of ``data.db``: records, coverage clocks, holdings.

This is ``gossip/kv/storage.py`` on SQLite. The machine reads on the event loop, one row or
one page at a time; its changes come as batches from the driver and are applied in the writer
thread, each batch within one transaction.

A record is one row, its versions and context packed together: they are always read together, and
a key has one version except after concurrent writes. The hash of its live dots stands beside it
as a number, so that the digest of a partition is computed without unpacking a single value.
SQLite's integers are signed: numbers of 64 bits are stored as what they are in two's complement.

A record that the disk lost, or changed, while the clock still covers it would be taken for a
deleted one, and deleted everywhere. So the whole file is looked through when it is opened, and
each row again when it is read. Records and clocks have an index beside them: a row that is
missing in one of the two is found as well. From a file in which anything is wrong, the sound
records are carried over, no clock, and every partition is marked as damaged, as
``gossip/kv/storage.py`` asks for: the other owners then give what is missing. While the agent
runs, damage ends it: what the machine holds in memory would not fit a file without it, and the
next start mends it.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agent.store.checksums import Table, add_checksums
from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.commit_note import CommitNote
from agent.store.database import Database
from agent.store.errors import StorageError, damaged
from agent.store.migrations import Migrations
from agent.store.vacuum import give_back
from agent.store.value_seal import ValueBroken, ValueSeal
from gossip.kv.dots import Coverage, Interval
from gossip.kv.limits import KEY_BYTES_MAX
from gossip.kv.records import Record, record_mark
from gossip.kv.storage import (
    DAMAGED,
    PLACES,
    ClockChange,
    DropPartition,
    Expiry,
    HoldingChange,
    RecordChange,
)
from gossip.kv.typed_values import earliest_expiry_ms
from gossip.registry.placement import PARTITIONS

if TYPE_CHECKING:
    from sqlite_utils import Database as Schema

RECORDS = Table("records", ("partition", "key", "mark", "record", "checksum", "expires_ms"))
CLOCKS = Table("clocks", ("partition", "actor", "intervals", "checksum"))
HOLDINGS = Table("holdings", ("partition", "since", "checksum"), rowid="partition")


def mark_damaged(connection: sqlite3.Connection, path: Path, note: CommitNote | None) -> list[str]:
    """Let the state plane know that records may be missing; see the module's text."""
    del path, note
    connection.execute("DELETE FROM clocks")
    connection.execute("DELETE FROM holdings")
    rows = (HOLDINGS.sealed(partition, DAMAGED) for partition in (*range(PARTITIONS), PLACES))
    connection.executemany("INSERT INTO holdings VALUES (?, ?, ?)", rows)
    return ["what lay in the damaged places; the other owners of these keys are asked for it"]


RECORDS_MIGRATIONS = Migrations(
    "records", (RECORDS, CLOCKS, HOLDINGS), mend=mark_damaged, is_rewritten=True
)

log = logging.getLogger(__name__)

BITS = 64
IN_CLEAR = ValueSeal()
RESEALED_ROWS = 100
BEYOND = "\U0010ffff" * (KEY_BYTES_MAX // 4 + 1)
"""Sorts behind everything that can follow a prefix within the length of a key."""

_encode = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(Record).decode
_decode_intervals = msgspec.msgpack.Decoder(tuple[Interval, ...]).decode


@RECORDS_MIGRATIONS
def records_clocks_holdings(db: "Schema") -> None:
    """Create the tables; each is its own index."""
    db.execute(
        "CREATE TABLE records (partition INTEGER NOT NULL, key TEXT NOT NULL,"
        " mark INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (partition, key)) WITHOUT ROWID"
    )
    # A digest reads marks alone; beside values of 256 KiB it would read them as well.
    db.execute("CREATE INDEX marks ON records (partition, mark)")
    db.execute(
        "CREATE TABLE clocks (partition INTEGER NOT NULL, actor INTEGER NOT NULL,"
        " intervals BLOB NOT NULL, PRIMARY KEY (partition, actor)) WITHOUT ROWID"
    )
    db.execute("CREATE TABLE holdings (partition INTEGER PRIMARY KEY, since INTEGER NOT NULL)")


@RECORDS_MIGRATIONS
def checksums(db: "Schema") -> None:
    """Add the checksums, and an index by which a missing clock is noticed."""
    for table in (RECORDS._replace(columns=RECORDS.columns[:5]), CLOCKS, HOLDINGS):
        db.execute(f"ALTER TABLE {table.name} ADD COLUMN checksum INTEGER")
        add_checksums(db.conn, table)
    db.execute("CREATE INDEX clock_checksums ON clocks (partition, checksum)")


@RECORDS_MIGRATIONS
def expiries(db: "Schema") -> None:
    """Add when a record expires; an index has those alone that do, and costs others nothing."""
    db.execute("ALTER TABLE records ADD COLUMN expires_ms INTEGER")
    db.execute("CREATE INDEX expiries ON records (expires_ms) WHERE expires_ms NOT NULL")


def record_of(seal: ValueSeal, row: Sequence[Any]) -> Record:
    """Return the record of a row of all columns that fits its checksum.

    Raises KeyMissing and ValueBroken.
    """
    return _decode_record(seal.open(row[1], row[3]))


def _signed(number: int) -> int:
    return number - (1 << BITS) if number >> (BITS - 1) else number


def _unsigned(number: int) -> int:
    return number % (1 << BITS)


class RecordStore:
    """Storage of the shared keys in a database that has ``RECORDS_MIGRATIONS``."""

    def __init__(self, db: Database, seal: ValueSeal = IN_CLEAR) -> None:
        self.database, self.seal = db, seal

    @classmethod
    async def open(cls, path: Path, seal: ValueSeal = IN_CLEAR) -> "RecordStore":
        """Open or create the database file. Raises StorageError."""
        return cls(await Database.open(path, RECORDS_MIGRATIONS, synchronous="NORMAL"), seal)

    async def close(self) -> None:
        """Commit what is queued, and close the file."""
        await self.database.close()

    async def believe(self, mark: CleanShutdownMark) -> None:
        """Begin a run; after one that ended badly, have all copies compared before they are read.

        Such a disk may be of an earlier moment: records and clocks fit each other, so both stay.
        From then on a sync that fails leaves doubt at once. Raises StorageError.
        """
        if await asyncio.to_thread(lambda: mark.is_bad):
            log.warning(
                "the power was lost, this disk is a copy or of an earlier moment, or %s was gone: "
                "shared keys are compared with their other owners before reads are answered here",
                self.database.path.name,
            )
            self.database.counts[f"copies_doubted/{await asyncio.to_thread(_why, mark)}"] += 1
            await self.database.write(_doubt)
            await self.database.sync()
        await asyncio.to_thread(mark.begin)
        self.database.on_unsynced = partial(_doubt_from_now_on, mark)

    async def finish(self, mark: CleanShutdownMark) -> None:
        """Close the file and end the run that ``believe`` began. Raises StorageError.

        The mark stays where the file cannot be closed in order, in doubt unless room alone lacks.
        """
        try:
            await self.close()
        except StorageError as error:
            if not error.is_full:
                await asyncio.to_thread(_doubt_from_now_on, mark)
            raise
        await asyncio.to_thread(mark.end)

    async def save(self, changes: Sequence[object]) -> None:
        """Commit the changes in this order, in one transaction. Raises StorageError."""
        await self.database.write(lambda connection: apply(connection, changes, self.seal))

    async def sync(self) -> None:
        """Return when every commit so far survives a power cut. Raises StorageError."""
        await self.database.sync()

    def load(self, partition: int, key: str) -> Record | None:
        """Return a key's record."""
        found = self._sound(RECORDS, "partition = ? AND key = ?", partition, key)
        return self._record(found[0]) if found else None

    def scan(self, partition: int, prefix: str, after: str, limit: int) -> list[tuple[str, Record]]:
        """Return up to ``limit`` records with this prefix after this key, in key order."""
        # SQLite compares UTF-8 bytes, which sort like code points, which is how Python sorts.
        where = "partition = ? AND key > ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
        end = prefix + BEYOND
        found = self._sound(RECORDS, where, partition, after, prefix, end, limit)
        return [(row[1], self._record(row)) for row in found]

    def digest(self, partition: int) -> int:
        """Return the exclusive or of ``record_mark`` over all records of a partition."""
        digest = 0
        for (mark,) in self._rows("SELECT mark FROM records WHERE partition = ?", partition):
            digest ^= mark
        return _unsigned(digest)

    def marks(self, partition: int) -> dict[str, int]:
        """Return the ``record_mark`` of each key of a partition that has a live version."""
        # The index of marks has the keys as well: no value is read.
        query = "SELECT key, mark FROM records WHERE partition = ? AND mark != 0"
        return {key: _unsigned(mark) for key, mark in self._rows(query, partition)}

    def orphan_context(self, partition: int) -> list[tuple[str, Record]]:
        """Return the records that have a context but no live version."""
        found = self._sound(RECORDS, "partition = ? AND mark = 0", partition)
        return [(row[1], self._record(row)) for row in found]

    def expired(self, until_ms: int, after: Expiry, limit: int) -> list[Expiry]:
        """Return records with a version that expires by then, in order, behind ``after``."""
        return self._rows(
            "SELECT expires_ms, partition, key FROM records WHERE expires_ms NOT NULL"
            " AND expires_ms BETWEEN ? AND ? AND (expires_ms, partition, key) > (?, ?, ?)"
            " ORDER BY expires_ms, partition, key LIMIT ?",
            *(after[0], until_ms, *after, limit),
        )

    def clock(self, partition: int) -> Coverage:
        """Return the coverage clock of a partition."""
        found = self._sound(CLOCKS, "partition = ?", partition)
        clock = ((_unsigned(row[1]), _decode_intervals(row[2])) for row in found)
        return tuple(sorted(clock))

    def holdings(self) -> dict[int, int]:
        """Return for each complete partition the epoch of its owners; DAMAGED for damaged ones."""
        return {partition: since for partition, since, _ in self._sound(HOLDINGS, "true")}

    def partitions(self) -> set[int]:
        """Return the partitions that have records."""
        return {partition for (partition,) in self._rows("SELECT DISTINCT partition FROM records")}

    def count_keys(self, partition: int) -> int:
        """Return how many keys of a partition have a value here."""
        # By the index of marks, a page of which has hundreds; 0 stands for a context alone.
        query = "SELECT count(*) FROM records WHERE partition = ? AND mark != 0"
        [[keys]] = self._rows(query, partition)
        return int(keys)

    def count_space(self, partition: int, name: str) -> tuple[int, int]:
        """Return how many keys of a space have a value in a partition here, and their bytes.

        Of a value not a page more is read than the one that says how long it is.
        """
        query = (
            "SELECT count(*), total(length(record)) FROM records"
            " WHERE partition = ? AND key >= ? AND key < ? AND mark != 0"
        )
        # Behind the slash comes the zero; of what is called like the space there is one key.
        counts = [
            self._rows(query, partition, *bounds)[0]
            for bounds in ((name, f"{name}\0"), (f"{name}/", f"{name}0"))
        ]
        return sum(int(keys) for keys, _ in counts), sum(int(size) for _, size in counts)

    def size_bytes(self) -> int:
        """Return how much of the file is in use."""
        [[pages, free, page_bytes]] = self._rows(
            "SELECT page_count, freelist_count, page_size"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        return int((pages - free) * page_bytes)

    async def reseal(self, after: tuple[int, str]) -> tuple[tuple[int, str] | None, int]:
        """Write some rows as they would be written now; see ``reseal``. Raises StorageError."""
        return await self.database.write(lambda connection: reseal(connection, self.seal, after))

    def _record(self, row: Sequence[Any]) -> Record:
        try:
            return record_of(self.seal, row)
        except ValueBroken as error:
            raise damaged(self.database.path, str(error)) from None

    def _sound(self, table: Table, where: str, *parameters: object) -> list[tuple]:  # type: ignore[type-arg]
        """Return rows with all columns. Raises StorageError if one is not as it was written."""
        query = f"SELECT {table.names} FROM {table.name} WHERE {where}"  # noqa: S608 - our names
        found = self._rows(query, *parameters)
        if not all(map(table.verifies, found)):
            raise damaged(self.database.path, f"a row of {table.name} is not as it was written")
        return found

    def _rows(self, query: str, *parameters: object) -> list[tuple]:  # type: ignore[type-arg]
        return self.database.read(
            lambda connection: connection.execute(query, parameters).fetchall()
        )


async def doubt_if_gone(path: Path, mark: CleanShutdownMark, starts: int) -> None:
    """Doubt what will be there, before a file is made anew that this device had: ``starts`` says.

    Whoever removes a database and its log takes with them what this node has acknowledged; the
    empty copy must not be taken for one that never had anything. Raises StorageError.
    """
    if starts > 1 and not await asyncio.to_thread(path.exists):
        await asyncio.to_thread(mark.doubt)


def _why(mark: CleanShutdownMark) -> str:
    """Return why the copies of a disk are doubted, as it is counted."""
    if mark.is_void:
        return "outlived"
    return "copied" if mark.is_copied else "unclean"


def _doubt_from_now_on(mark: CleanShutdownMark) -> None:
    """Leave doubt as far as the disk takes it: what went wrong with the records is told of."""
    with suppress(StorageError):
        mark.doubt()


def _doubt(connection: sqlite3.Connection) -> None:
    """Doubt every partition: one that was joined lately has no row yet, and took writes as well."""
    rows = [HOLDINGS.sealed(partition, DAMAGED) for partition in (*range(PARTITIONS), PLACES)]
    connection.executemany("INSERT OR REPLACE INTO holdings VALUES (?, ?, ?)", rows)


def apply(
    connection: sqlite3.Connection, changes: Sequence[object], seal: ValueSeal = IN_CLEAR
) -> None:
    """Apply changes, in order, inside the transaction that is open.

    Of changes to one row the last counts, and rows of one table are written with one statement:
    many writers share a transaction. A row that is there is changed in its place: to replace it
    would touch each of its indexes twice.
    """
    rows = _Rows(seal)
    for change in changes:
        match change:
            case RecordChange(partition, key):
                rows.records[partition, key] = change.record
            case ClockChange(partition, actor, intervals):
                rows.clocks[partition, actor] = intervals
            case HoldingChange(partition, None):
                connection.execute("DELETE FROM holdings WHERE partition = ?", (partition,))
            case HoldingChange(partition, since):
                row = HOLDINGS.sealed(partition, since)
                connection.execute("INSERT OR REPLACE INTO holdings VALUES (?, ?, ?)", row)
            case DropPartition(partition):
                rows.write(connection)
                for table in ("records", "clocks", "holdings"):
                    query = f"DELETE FROM {table} WHERE partition = ?"  # noqa: S608 - our names
                    connection.execute(query, (partition,))
                give_back(connection)
            case _:
                raise AssertionError(f"not a change of the state plane: {change!r}")
    rows.write(connection)


def reseal(
    connection: sqlite3.Connection, seal: ValueSeal, after: tuple[int, str]
) -> tuple[tuple[int, str] | None, int]:
    """Write the next rows behind one as they would be written now, inside the open transaction.

    Returns how far that is, None at the end, and how many were written anew. A row that is not as
    it was written is left alone: whoever reads it next says so. Raises KeyMissing.
    """
    query = (
        f"SELECT {RECORDS.names} FROM records WHERE (partition, key) > (?, ?)"  # noqa: S608
        " ORDER BY partition, key LIMIT ?"
    )
    rows = connection.execute(query, (*after, RESEALED_ROWS)).fetchall()
    fresh = []
    for row in rows:
        partition, key, mark, data, _, expires_ms = row
        if RECORDS.verifies(row) and not seal.is_current(data):
            with suppress(ValueBroken):
                closed = seal.close(key, seal.open(key, data))
                fresh.append(RECORDS.sealed(partition, key, mark, closed, expires_ms))
    connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", fresh)
    at = rows[-1][:2] if len(rows) == RESEALED_ROWS else None
    return at, len(fresh)


class _Rows:
    """Records and clocks that are to be written, each row once."""

    def __init__(self, seal: ValueSeal) -> None:
        self._seal = seal
        self.records: dict[tuple[int, str], Record | None] = {}
        self.clocks: dict[tuple[int, int], tuple[Interval, ...]] = {}

    def write(self, connection: sqlite3.Connection) -> None:
        """Write all, and forget them."""
        gone = [name for name, record in self.records.items() if record is None]
        if gone:
            connection.executemany("DELETE FROM records WHERE partition = ? AND key = ?", gone)
        connection.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " mark = excluded.mark, record = excluded.record, checksum = excluded.checksum,"
            " expires_ms = excluded.expires_ms",
            [
                RECORDS.sealed(
                    partition,
                    key,
                    _signed(record_mark(key, record.dots())),
                    self._seal.close(key, _encode(record)),
                    earliest_expiry_ms(record.live) or None,
                )
                for (partition, key), record in self.records.items()
                if record is not None
            ],
        )
        connection.executemany(
            "INSERT INTO clocks VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " intervals = excluded.intervals, checksum = excluded.checksum",
            [
                CLOCKS.sealed(partition, _signed(actor), _encode(intervals))
                for (partition, actor), intervals in self.clocks.items()
            ],
        )
        self.records.clear()
        self.clocks.clear()
