"""What is missing in an outbox, and how it goes on without it.

Positions have no gaps: what is not there, and was not delivered, is lost. Each loss becomes a row
of ``losses``, so that the user hears which readings are gone and nobody looks for them again.
Where the cursor itself is lost, delivery begins at the oldest reading that is there: some arrive
twice, under the same ids, and none stays behind.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from sqlite3 import Connection

from agent.store.commit_note import CommitNote
from agent.store.ranges import Range, format_ranges, joined, size, without
from agent.telemetry import eviction_sql
from agent.telemetry.delivery_progress import DeliveryProgress
from agent.telemetry.evicted import EvictedPositions
from agent.telemetry.outbox_tables import LOSSES, PROGRESS, READINGS

LOSSES_MAX = 1000
"""So many rows are kept; the two oldest become one when there are more."""


def mend(connection: Connection, path: Path, note: CommitNote | None) -> list[str]:
    """Note what is missing in a file that was made of a damaged one; see ``Migrations``."""
    del path
    drop_unsound_end(connection)
    progress = _mended_progress(connection, note)
    last = _last(connection, progress, note)
    evicted = EvictedPositions(eviction_sql.evicted(connection))
    gone = [
        part
        for gap in _gaps(connection, progress.cursor, last)
        for each in without(gap, _settled_beyond(progress))
        for part in evicted.others_in(each)
    ]
    record(connection, gone, time.time_ns())
    return [f"the readings at positions {format_ranges(gone)} ({size(gone)})"] if gone else []


def mend_end(connection: Connection, note: CommitNote | None) -> list[Range]:
    """Look at the end of an outbox, and at its progress; return what is missing there, noted."""
    drop_unsound_end(connection)
    progress = _mended_progress(connection, note)
    there = _last(connection, progress, None)
    last = _last(connection, progress, note)
    gone = [(there + 1, last)] if last > there else []
    record(connection, gone, time.time_ns())
    return gone


def drop_unsound_end(connection: Connection) -> None:
    """Delete what stands at the end and is no reading: its position would be believed."""
    while True:
        row = connection.execute(
            f"SELECT {READINGS.names} FROM readings ORDER BY position DESC LIMIT 1"  # noqa: S608
        ).fetchone()
        if row is None or row[-1] is None or READINGS.verifies(row):
            return
        connection.execute("DELETE FROM readings WHERE position = ?", row[:1])


def losses(connection: Connection) -> list[Range]:
    """Return the positions that are known to be lost."""
    rows = connection.execute(f"SELECT {LOSSES.names} FROM losses").fetchall()  # noqa: S608
    return joined((first, last) for _, first, last, *_ in filter(LOSSES.verifies, rows))


def lost_readings(connection: Connection) -> int:
    """Return how many readings were lost, over the whole life of the outbox."""
    rows = connection.execute(f"SELECT {LOSSES.names} FROM losses").fetchall()  # noqa: S608
    return sum(row[3] for row in rows if LOSSES.verifies(row))


def record(connection: Connection, gone: Iterable[Range], now_ns: int) -> None:
    """Add to the losses what is not among them; the list stays short, and its sum right."""
    known = losses(connection)
    (number,) = connection.execute("SELECT coalesce(max(number), 0) FROM losses").fetchone()
    for first, last in (part for each in gone for part in without(each, known)):
        number += 1
        _put(connection, (number, first, last, last - first + 1, now_ns))
    _shorten(connection)


def _shorten(connection: Connection) -> None:
    """Make one of the two oldest losses, if delivery is past both, while there are too many."""
    rows = connection.execute(
        f"SELECT {LOSSES.names} FROM losses ORDER BY number"  # noqa: S608
    ).fetchall()
    (cursor,) = connection.execute("SELECT max(cursor) FROM progress").fetchone()
    while len(rows) > LOSSES_MAX and rows[1][2] <= cursor:
        older, old = rows.pop(0), rows[0]
        joint = (old[0], min(old[1], older[1]), max(old[2], older[2]), old[3] + older[3], old[4])
        connection.execute("DELETE FROM losses WHERE number = ?", older[:1])
        _put(connection, joint)
        rows[0] = LOSSES.sealed(*joint)


def _put(connection: Connection, row: tuple[int, ...]) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO losses VALUES (?, ?, ?, ?, ?, ?)", LOSSES.sealed(*row)
    )


def _mended_progress(connection: Connection, note: CommitNote | None) -> DeliveryProgress:
    """Return the progress; where its row is not sound, make a careful one."""
    row = connection.execute(
        f"SELECT {PROGRESS.names} FROM progress WHERE id = 1"  # noqa: S608
    ).fetchone()
    (oldest,) = connection.execute("SELECT min(position) FROM readings").fetchone()
    if row is not None and PROGRESS.verifies(row):
        progress = DeliveryProgress(max(row[1], note.cursor if note is not None else 0), row[2])
    else:
        before = oldest - 1 if oldest is not None else 0
        progress = DeliveryProgress(note.cursor if note is not None else before)
    save(connection, progress)
    return progress


def save(connection: Connection, progress: DeliveryProgress) -> None:
    """Write how far delivery has come."""
    connection.execute("DELETE FROM progress WHERE id <> 1")
    connection.execute(
        "INSERT OR REPLACE INTO progress (id, cursor, beyond, checksum) VALUES (?, ?, ?, ?)",
        PROGRESS.sealed(1, progress.cursor, progress.encoded_beyond()),
    )


def _last(connection: Connection, progress: DeliveryProgress, note: CommitNote | None) -> int:
    """Return the last position that was ever given."""
    (last,) = connection.execute("SELECT coalesce(max(position), 0) FROM readings").fetchone()
    ends = [end for _, end in losses(connection)]
    return max(int(last), progress.cursor, note.last if note is not None else 0, *ends)


def _gaps(connection: Connection, cursor: int, last: int) -> list[Range]:
    """Return the ranges behind the cursor in which there is no reading."""
    found = connection.execute(
        "SELECT before + 1, position - 1 FROM (SELECT position,"
        " lag(position, 1, ?) OVER (ORDER BY position) AS before FROM readings WHERE position > ?)"
        " WHERE position > before + 1",
        (cursor, cursor),
    ).fetchall()
    (newest,) = connection.execute(
        "SELECT max(coalesce(max(position), 0), ?) FROM readings", (cursor,)
    ).fetchone()
    gaps = [*found, *([(newest + 1, last)] if newest < last else [])]
    known = losses(connection)
    return [part for gap in gaps for part in without(gap, known)]


def _settled_beyond(progress: DeliveryProgress) -> list[Range]:
    return [(position, position) for position in progress.beyond]
