"""The tables of ``telemetry.db``, as migrations: append new ones, never change an old one.

A reading is written once and deleted once; in between, nothing rewrites its row. What has been
delivered stands in the single row of ``progress``: everything up to ``cursor``, and the few
positions ``beyond`` it that were acknowledged out of order. On flash, this is the difference
between one small page now and then, and every page twice.

Positions count readings over the whole life of the file, without gaps. A row of ``boots`` says
at which position a life of this node began, so that neither the boot nor the sequence number
needs to be stored with each reading.
"""

from typing import TYPE_CHECKING

from agent.store.checksums import add_checksums
from agent.store.migrations import Migrations
from agent.telemetry.outbox_repair import mend
from agent.telemetry.outbox_tables import BOOTS, DEAD_LETTERS, LOSSES, NUMBERS, PROGRESS, READINGS

if TYPE_CHECKING:
    from sqlite_utils import Database as Schema

OUTBOX_MIGRATIONS = Migrations(
    "outbox",
    (READINGS, BOOTS, PROGRESS, DEAD_LETTERS, LOSSES),
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
    for table in (BOOTS, PROGRESS, DEAD_LETTERS):
        add_checksums(db.conn, table)


@OUTBOX_MIGRATIONS
def losses(db: "Schema") -> None:
    """Create the list of positions whose readings were lost on the disk."""
    db.execute(
        "CREATE TABLE losses (number INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER NOT NULL,"
        " last INTEGER NOT NULL, readings INTEGER NOT NULL, found_at_ns INTEGER NOT NULL,"
        " checksum INTEGER)"
    )
