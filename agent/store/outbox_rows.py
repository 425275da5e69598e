"""The SQL of the outbox: each function runs on a connection that ``Database`` hands it.

Writes run in the writer thread inside a savepoint, reads on the event loop inside a snapshot;
none of them knows which. They deal in rows and positions; what these mean stands in
``outbox.py`` and ``outbox_schema.py``.
"""

from sqlite3 import Connection
from typing import NamedTuple

import msgspec

from agent.store.progress import Progress
from edge_apps.reading import Reading, Value
from gossip.ids import Boot

# Delivered readings are deleted in batches: rare enough for flash, small enough for the thread.
PRUNE_BATCH, PRUNE_BATCH_MAX = 1_000, 20_000
DEAD_LETTERS_MAX = 10_000

Row = tuple[int, str, bytes]  # time_ns, sensor, body
StoredRow = tuple[int, int, str, bytes]  # position, and the same
LetterRow = tuple[StoredRow, str, str, int]  # the reading, its id, the reason, when


class Burial(NamedTuple):
    """Which reading is given up, why, and when."""

    position: int
    reading_id: str
    reason: str
    now_ns: int


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[Value, str, dict[str, str]])


def row(reading: Reading) -> Row:
    """Return a reading as it is stored."""
    body = _ENCODER.encode((reading.value, reading.unit, reading.tags))
    return (reading.time_ns, reading.sensor, body)


def reading(row: StoredRow) -> Reading:
    """Return the reading that a row holds."""
    _, time_ns, sensor, body = row
    value, unit, tags = _DECODER.decode(body)
    return Reading(sensor, value, unit, time_ns, tags)


def next_position(connection: Connection) -> int:
    """Return the position of the next reading: one behind the last, even when all are deleted."""
    (last,) = connection.execute(
        "SELECT max(coalesce((SELECT max(position) FROM readings), 0),"
        " (SELECT cursor FROM progress))"
    ).fetchone()
    return int(last) + 1


def begin_life(boot: Boot, connection: Connection) -> None:
    """Note at which position this life of the node begins."""
    first = next_position(connection)
    connection.execute("INSERT OR REPLACE INTO boots VALUES (?, ?)", (first, boot))


def boots(connection: Connection) -> list[tuple[int, Boot]]:
    """Return the lives whose readings are here: first position and boot, in order."""
    return connection.execute("SELECT * FROM boots ORDER BY first_position").fetchall()


def progress(connection: Connection) -> Progress:
    """Return how far delivery had come when it was saved last."""
    cursor, beyond = connection.execute("SELECT cursor, beyond FROM progress").fetchone()
    return Progress(cursor, beyond)


def insert(rows: list[Row], connection: Connection) -> int:
    """Append rows; return the position of the first."""
    first = next_position(connection)
    connection.executemany(
        "INSERT INTO readings VALUES (?, ?, ?, ?)",
        ((position, *row) for position, row in enumerate(rows, first)),
    )
    return first


def rows_after(after: int, limit: int, connection: Connection) -> list[StoredRow]:
    """Return up to ``limit`` rows behind a position, in order."""
    return connection.execute(
        "SELECT position, time_ns, sensor, body FROM readings WHERE position > ?"
        " ORDER BY position LIMIT ?",
        (after, limit),
    ).fetchall()


def recent_rows(
    pattern: str, limit: int, after: int, last: int, connection: Connection
) -> list[StoredRow]:
    """Return the newest rows behind a position, up to ``last``, whose sensor matches."""
    return connection.execute(
        "SELECT position, time_ns, sensor, body FROM readings WHERE position > ?"
        " AND position <= ? AND sensor GLOB ? ORDER BY position DESC LIMIT ?",
        (after, last, pattern.replace("[!", "[^"), limit),  # the shell's way of "none of these"
    ).fetchall()


def save_progress(progress: Progress, keep: int, connection: Connection) -> bool:
    """Save, and delete one batch of what is no longer kept; tell whether more is to delete."""
    _write_progress(progress, connection)
    (oldest,) = connection.execute("SELECT min(position) FROM readings").fetchone()
    if oldest is None:
        return False
    surplus: int = progress.cursor - keep - oldest + 1
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


def _write_progress(progress: Progress, connection: Connection) -> None:
    connection.execute(
        "UPDATE progress SET cursor = ?, beyond = ?", (progress.cursor, progress.encoded_beyond())
    )


def bury(letter: Burial, after: Progress, connection: Connection) -> int:
    """Copy a reading to the dead letters and save the progress that this makes, as one.

    Return how many old letters were forgotten for it.
    """
    _write_progress(after, connection)
    connection.execute(
        "INSERT INTO dead_letters (reading_id, time_ns, sensor, body, reason, buried_at_ns)"
        " SELECT ?, time_ns, sensor, body, ?, ? FROM readings WHERE position = ?",
        (letter.reading_id, letter.reason, letter.now_ns, letter.position),
    )
    return connection.execute(
        "DELETE FROM dead_letters WHERE number <= (SELECT max(number) FROM dead_letters) - ?",
        (DEAD_LETTERS_MAX,),
    ).rowcount


def buried(connection: Connection) -> int:
    """Return how many dead letters there ever were."""
    (number,) = connection.execute("SELECT max(number) FROM dead_letters").fetchone()
    return number or 0


def dead_letters(limit: int, connection: Connection) -> list[LetterRow]:
    """Return the newest dead letters, newest first."""
    rows = connection.execute(
        "SELECT number, time_ns, sensor, body, reading_id, reason, buried_at_ns"
        " FROM dead_letters ORDER BY number DESC LIMIT ?",
        (limit,),
    )
    return [(row[:4], *row[4:]) for row in rows]
