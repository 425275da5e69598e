"""The tables of ``telemetry.db``, as migrations: append new ones, never change an old one.

A reading is written once and deleted once; in between, nothing rewrites its row. What has been
delivered stands in the single row of ``progress``: everything up to ``cursor``, and the few
positions ``beyond`` it that were acknowledged out of order. On flash, this is the difference
between one small page now and then, and every page twice.

Positions count readings over the whole life of the file, without gaps. A row of ``boots`` says
at which position a life of this node began, and where its numbers go on behind readings that were
replayed, so that neither the boot nor the sequence number needs to be stored with each reading.
"""

from typing import TYPE_CHECKING

from agent.store.checksums import Table, add_checksums
from agent.store.migrations import Migrations
from agent.telemetry import dead_letter_sql, outbox_repair
from agent.telemetry.outbox_tables import (
    BOOTS,
    DEAD_LETTERS,
    DROPS,
    EVICTED,
    LETTER_TOTALS,
    LOSSES,
    NUMBERS,
    PROGRESS,
    READINGS,
)

if TYPE_CHECKING:
    from pathlib import Path
    from sqlite3 import Connection

    from sqlite_utils import Database as Schema

    from agent.store.commit_note import CommitNote


def mend(connection: "Connection", path: "Path", note: "CommitNote | None") -> list[str]:
    """Note what is missing in a file that was made of a damaged one; see ``Migrations``."""
    told = outbox_repair.mend(connection, path, note)
    before = dead_letter_sql.totals(connection).damaged
    if gone := dead_letter_sql.recount(connection).damaged - before:
        told.append(f"{gone} dead letters")
    return told


OUTBOX_MIGRATIONS = Migrations(
    "outbox",
    (READINGS, BOOTS, PROGRESS, DEAD_LETTERS, LOSSES, LETTER_TOTALS, EVICTED, DROPS),
    mend=mend,
    numbers=NUMBERS,
)


@OUTBOX_MIGRATIONS
def readings_and_progress(db: "Schema") -> None:
    """Create the readings, the lives they belong to, and how far delivery has come."""
    db.execute(
        "CREATE TABLE readings (position INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL,"
        " sensor TEXT NOT NULL, body BLOB NOT NULL)"
    )
    db.execute("CREATE TABLE boots (first_position INTEGER PRIMARY KEY, boot INTEGER NOT NULL)")
    db.execute(
        "CREATE TABLE progress (id INTEGER PRIMARY KEY CHECK (id = 1),"
        " cursor INTEGER NOT NULL, beyond BLOB NOT NULL)"
    )
    db.execute("INSERT INTO progress VALUES (1, 0, x'90')")  # x'90': msgpack's empty array


@OUTBOX_MIGRATIONS
def dead_letters(db: "Schema") -> None:
    """Create the place for readings that no broker would take; numbers are never reused."""
    db.execute(
        "CREATE TABLE dead_letters (number INTEGER PRIMARY KEY AUTOINCREMENT, reading_id TEXT"
        " NOT NULL, time_ns INTEGER NOT NULL, sensor TEXT NOT NULL, body BLOB NOT NULL,"
        " reason TEXT NOT NULL, buried_at_ns INTEGER NOT NULL)"
    )


@OUTBOX_MIGRATIONS
def checksums(db: "Schema") -> None:
    """Add the checksums. Readings that wait go without: there may be a million, and they leave."""
    for table in (READINGS, BOOTS, PROGRESS, DEAD_LETTERS):
        db.execute(f"ALTER TABLE {table.name} ADD COLUMN checksum INTEGER")
    boots = Table("boots", ("first_position", "boot", "checksum"), rowid="first_position")
    for table in (boots, PROGRESS, DEAD_LETTERS):
        add_checksums(db.conn, table)


@OUTBOX_MIGRATIONS
def losses(db: "Schema") -> None:
    """Create the list of positions whose readings were lost on the disk."""
    db.execute(
        "CREATE TABLE losses (number INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER NOT NULL,"
        " last INTEGER NOT NULL, readings INTEGER NOT NULL, found_at_ns INTEGER NOT NULL,"
        " checksum INTEGER)"
    )


@OUTBOX_MIGRATIONS
def replayed_letters(db: "Schema") -> None:
    """Add where the numbers of a life go on, and what became of all dead letters.

    That row is counted from the letters when the file is opened.
    """
    db.execute("ALTER TABLE boots ADD COLUMN first_sequence INTEGER")
    db.execute(
        "CREATE TABLE letter_totals (id INTEGER PRIMARY KEY CHECK (id = 1), buried INTEGER"
        " NOT NULL, held INTEGER NOT NULL, held_bytes INTEGER NOT NULL, replayed INTEGER NOT NULL,"
        " dropped INTEGER NOT NULL, forgotten INTEGER NOT NULL, damaged INTEGER NOT NULL,"
        " checksum INTEGER)"
    )


@OUTBOX_MIGRATIONS
def evictions(db: "Schema") -> None:
    """Create the notes of what was dropped to make room: where, and how many by what reason."""
    db.execute(
        "CREATE TABLE evicted (block INTEGER PRIMARY KEY, bits BLOB NOT NULL, checksum INTEGER)"
    )
    db.execute(
        "CREATE TABLE drops (kind TEXT PRIMARY KEY, readings INTEGER NOT NULL, checksum INTEGER)"
    )
