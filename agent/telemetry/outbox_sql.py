"""The SQL of the outbox: each function runs on a connection that ``Database`` hands it.

Writes run in the writer thread inside a savepoint, reads on the event loop inside a snapshot;
none of them knows which. They deal in rows and positions; what these mean stands in
``outbox.py`` and ``outbox_schema.py``.
"""

from collections.abc import Sequence
from sqlite3 import Connection
from typing import NamedTuple

import msgspec

from agent.store.checksums import is_sealed, seal_all
from agent.store.commit_note import CommitNote
from agent.store.ranges import Range
from agent.store.vacuum import give_back, is_mostly_free
from agent.telemetry import eviction_sql
from agent.telemetry import outbox_repair as mending
from agent.telemetry.delivery_progress import DeliveryProgress
from agent.telemetry.outbox_tables import BOOTS, READINGS
from agent.telemetry.timekeeping import Stamp
from edge_apps.reading import Reading, Value
from gossip.core.ids import Boot

# Delivered readings are deleted in batches: rare enough for flash, small enough for the thread.
PRUNE_BATCH, PRUNE_BATCH_MAX = 1_000, 20_000
INSERTED_AT_ONCE = 1_000  # a list of them is faster to make than one after the other, and small

Row = tuple[int, str, bytes]  # time_ns, sensor, body
StoredRow = tuple[int, int, str, bytes, int | None]  # position, the same, checksum


class BadBody(Exception):
    """What a row holds is no reading."""


class StoredReading(NamedTuple):
    """A reading as a row holds it: with the stamp of our clock, and an id if it has one already."""

    reading: Reading
    kernel: int
    is_kept: bool
    id: str


class Life(NamedTuple):
    """From which position on a life of this node took readings, and the number of the first."""

    first_position: int
    boot: Boot
    first_sequence: int = 1

    def sequence_of(self, position: int) -> int:
        """Return the number that the reading at a position has within its life."""
        return position - self.first_position + self.first_sequence


class Stored(NamedTuple):
    """An outbox as it is on disk, and how many lost readings there ever were."""

    last: int
    boots: list[Life]
    progress: DeliveryProgress
    losses: list[Range]
    lost: int
    dropped: dict[str, int]
    size_bytes: int
    has_spare_room: bool


class _Body(msgspec.Struct, array_like=True, gc=False):
    """What a row holds of a reading beside time and sensor; its end only where it is needed."""

    value: Value
    unit: str
    tags: dict[str, str]
    taken_ns: int = 0
    kernel: int = 0
    is_kept: bool = True
    id: str = ""  # of what was a dead letter, and waits again


_encode = msgspec.msgpack.Encoder().encode
_DECODER = msgspec.msgpack.Decoder(_Body)


def row(reading: Reading, stamp: Stamp) -> Row:
    """Return a reading as it is stored, and how the clock was that timed it, if it was ours."""
    value, unit, tags, taken_ns = reading.value, reading.unit, reading.tags, reading.taken_ns
    kernel, is_kept = stamp
    timed = (value, unit, tags, taken_ns, kernel, is_kept)
    return reading.time_ns, reading.sensor, _encode(timed if taken_ns else timed[:3])


def read_body(time_ns: int, sensor: str, body: bytes) -> StoredReading:
    """Return the reading that the columns of a row hold. Raises BadBody."""
    try:
        held = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
        raise BadBody(str(error)) from None
    reading = Reading(sensor, held.value, held.unit, time_ns, held.tags, held.taken_ns)
    return StoredReading(reading, held.kernel, held.is_kept, held.id)


def with_id(body: bytes, reading_id: str) -> bytes:
    """Return the body of a row that keeps the id which its reading has. Raises BadBody."""
    try:
        held = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
        raise BadBody(str(error)) from None
    return _encode(msgspec.structs.replace(held, id=reading_id))


def sound_reading(row: StoredRow) -> StoredReading | None:
    """Return the reading that a row holds, None when it is not as it was written.

    Rows from before there were checksums are believed when they can be read.
    """
    _, time_ns, sensor, body, checksum = row
    if checksum is not None and not is_sealed(READINGS, row):
        return None
    try:
        return read_body(time_ns, sensor, body)
    except BadBody:
        return None


def next_position(connection: Connection) -> int:
    """Return the position of the next reading: one behind the last, even when all are deleted."""
    (last,) = connection.execute(
        "SELECT max(coalesce((SELECT max(position) FROM readings), 0),"
        " (SELECT cursor FROM progress), coalesce((SELECT max(last) FROM losses), 0))"
    ).fetchone()
    return int(last) + 1


def begin_life(
    boot: Boot, note: CommitNote | None, connection: Connection
) -> tuple[list[Range], Stored]:
    """Note at which position this life of the node begins; return what was found to be lost."""
    gone = mending.mend_end(connection, note)
    row = BOOTS.sealed(next_position(connection), boot, None)
    connection.execute("INSERT OR REPLACE INTO boots VALUES (?, ?, ?, ?)", row)
    return gone, stored(connection)


def stored(connection: Connection) -> Stored:
    """Return the state of the outbox as it is on disk."""
    last, far = next_position(connection) - 1, progress(connection)
    return Stored(
        last,
        boots(connection),
        far,
        mending.losses(connection),
        mending.lost_readings(connection),
        eviction_sql.drops(connection),
        eviction_sql.bytes_between(far.cursor, last, connection),
        is_mostly_free(connection),
    )


def boots(connection: Connection) -> list[Life]:
    """Return the lives whose readings are here, in order; one goes on behind what was replayed."""
    query = f"SELECT {BOOTS.names} FROM boots ORDER BY first_position"  # noqa: S608 - our names
    return [
        Life(first, boot, sequence or 1)
        for first, boot, checksum, sequence in connection.execute(query)
        if BOOTS.verifies((first, boot, checksum, sequence))
    ]


def progress(connection: Connection) -> DeliveryProgress:
    """Return how far delivery had come when it was saved last."""
    cursor, beyond = connection.execute("SELECT cursor, beyond FROM progress").fetchone()
    evicted = eviction_sql.evicted(connection)
    return DeliveryProgress(cursor, beyond, mending.losses(connection), evicted)


def losses(connection: Connection) -> list[Range]:
    """Return the positions whose readings were lost on the disk."""
    return mending.losses(connection)


def insert(rows: Sequence[Row], at_least: int, connection: Connection) -> int:
    """Append rows, behind all others and from this position on; return that of the first."""
    first = max(next_position(connection), at_least)
    for start in range(0, len(rows), INSERTED_AT_ONCE):
        connection.executemany(
            "INSERT INTO readings (position, time_ns, sensor, body, checksum)"
            " VALUES (?, ?, ?, ?, ?)",
            seal_all(READINGS, first + start, rows[start : start + INSERTED_AT_ONCE]),
        )
    return first


def rows_after(after: int, limit: int, connection: Connection) -> list[StoredRow]:
    """Return up to ``limit`` rows behind a position, in order."""
    return connection.execute(
        "SELECT position, time_ns, sensor, body, checksum FROM readings WHERE position > ?"
        " ORDER BY position LIMIT ?",
        (after, limit),
    ).fetchall()


def recent_rows(
    pattern: str, limit: int, after: int, last: int, connection: Connection
) -> list[StoredRow]:
    """Return the newest rows behind a position, up to ``last``, whose sensor matches."""
    return connection.execute(
        "SELECT position, time_ns, sensor, body, checksum FROM readings WHERE position > ?"
        " AND position <= ? AND sensor GLOB ? ORDER BY position DESC LIMIT ?",
        (after, last, pattern.replace("[!", "[^"), limit),  # the shell's way of "none of these"
    ).fetchall()


def save_progress(
    progress: DeliveryProgress,
    gone: Sequence[Range],
    now_ns: int,
    keep: int,
    before: int,
    connection: Connection,
) -> tuple[bool, int]:
    """Save, with what is newly lost, and delete one batch of what is no longer kept.

    Tell whether there is more of that, or of the space to give back; and the bytes that the cursor
    has passed since it stood at ``before``.
    """
    mending.save(connection, progress)
    eviction_sql.forget(progress.cursor, connection)
    passed_bytes = eviction_sql.bytes_between(before, progress.cursor, connection)
    if gone:
        mending.record(connection, gone, now_ns)
    has_more = _prune(progress.cursor - keep, connection) or give_back(connection)
    return has_more, passed_bytes


def _prune(until: int, connection: Connection) -> bool:
    """Delete one batch of what stands up to a position; tell whether there is more."""
    (oldest,) = connection.execute("SELECT min(position) FROM readings").fetchone()
    if oldest is None:
        return False
    surplus: int = until - oldest + 1
    if surplus < PRUNE_BATCH:
        return False
    last = oldest + min(surplus, PRUNE_BATCH_MAX) - 1
    connection.execute("DELETE FROM readings WHERE position <= ?", (last,))
    connection.execute(
        "DELETE FROM boots WHERE first_position <"
        " (SELECT max(first_position) FROM boots WHERE first_position <= ?)",
        (last + 1,),
    )
    return surplus > PRUNE_BATCH_MAX
