"""The SQL of the dead letters: each function runs on a connection that ``Database`` hands it.

Every change of the letters changes their totals in the same transaction, so that at any moment
as many were buried as are held or have left, by way of ``REASONS``. What damage took of either is
found when the file is opened, and counted as ``damaged``.
"""

from collections.abc import Iterable, Iterator, Sequence
from sqlite3 import Connection
from typing import NamedTuple

import msgspec

from agent.store.checksums import seal_all
from agent.telemetry import outbox_repair as mending
from agent.telemetry.delivery_progress import DeliveryProgress
from agent.telemetry.outbox_sql import BadBody, boots, next_position, read_body, with_id
from agent.telemetry.outbox_tables import BOOTS, DEAD_LETTERS, LETTER_TOTALS, READINGS

LetterRow = tuple[int, str, int, str, bytes, str, int, int]  # the columns of dead_letters
Label = tuple[int, str, str, str]  # number, id, sensor, reason
REASONS = ("replayed", "dropped", "forgotten", "damaged")
FORGOTTEN_AT_ONCE = 100
BYTES = (
    "length(CAST(reading_id AS BLOB)) + length(CAST(sensor AS BLOB)) + length(body)"
    " + length(CAST(reason AS BLOB))"
)


class LetterTotals(msgspec.Struct, frozen=True):
    """What became of all dead letters there ever were; the last four say how they left.

    ``held_bytes`` are those of ids, sensors, bodies and reasons.
    """

    buried: int = 0
    held: int = 0
    held_bytes: int = 0
    replayed: int = 0
    dropped: int = 0
    forgotten: int = 0
    damaged: int = 0

    @property
    def left(self) -> int:
        """How many are here no more."""
        return self.replayed + self.dropped + self.forgotten + self.damaged


class LetterBounds(NamedTuple):
    """How many dead letters are kept, and how many bytes of them; the newest always is."""

    letters_max: int = 10_000
    bytes_max: int = 16 * 1024 * 1024


class DeadLetterRow(NamedTuple):
    """Which reading is given up, why, and when."""

    position: int
    reading_id: str
    reason: str
    now_ns: int


class ReplayResult(NamedTuple):
    """Letters that wait for the broker again, from position ``first`` on."""

    first: int
    readings: int
    totals: LetterTotals


def bury(
    letter: DeadLetterRow, after: DeliveryProgress, bounds: LetterBounds, connection: Connection
) -> LetterTotals:
    """Copy a reading to the dead letters and save the progress that this makes, as one."""
    mending.save(connection, after)
    before = totals(connection)
    row = connection.execute(
        "SELECT time_ns, sensor, body FROM readings WHERE position = ?", (letter.position,)
    ).fetchone()
    if row is None:  # the disk has lost it meanwhile
        now = _changed(before, buried=1, damaged=1)
    else:
        size_bytes = _insert(connection, letter, row)
        now = _changed(before, buried=1, held=1, held_bytes=size_bytes)
    now = _forget_oldest(connection, now, bounds)
    _save(connection, now)
    return now


def _insert(connection: Connection, letter: DeadLetterRow, row: tuple[int, str, bytes]) -> int:
    """Insert a letter under the id that its reading was accepted with; return its bytes."""
    (number,) = connection.execute(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'dead_letters'), 0) + 1"
    ).fetchone()
    try:
        reading_id = read_body(*row).id or letter.reading_id
    except BadBody:
        reading_id = letter.reading_id
    sealed = DEAD_LETTERS.sealed(number, reading_id, *row, letter.reason, letter.now_ns)
    connection.execute("INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?, ?)", sealed)
    return (
        len(reading_id.encode()) + len(row[1].encode()) + len(row[2]) + len(letter.reason.encode())
    )


def _forget_oldest(connection: Connection, now: LetterTotals, bounds: LetterBounds) -> LetterTotals:
    """Delete the oldest letters until what is held is within its bounds."""
    while now.held > 1 and (now.held > bounds.letters_max or now.held_bytes > bounds.bytes_max):
        query = f"SELECT number, {BYTES} FROM dead_letters ORDER BY number LIMIT ?"  # noqa: S608
        count = sum_bytes = last = 0
        for number, size_bytes in connection.execute(query, (FORGOTTEN_AT_ONCE,)).fetchall():
            held, held_bytes = now.held - count, now.held_bytes - sum_bytes
            if held <= 1 or (held <= bounds.letters_max and held_bytes <= bounds.bytes_max):
                break
            count, sum_bytes, last = count + 1, sum_bytes + size_bytes, number
        if not count:
            break
        connection.execute("DELETE FROM dead_letters WHERE number <= ?", (last,))
        now = _changed(now, held=-count, held_bytes=-sum_bytes, forgotten=count)
    return now


def labels(after: int, until: int, limit: int, connection: Connection) -> list[Label]:
    """Return what letters are chosen by, oldest first, from behind one number up to another."""
    return connection.execute(
        "SELECT number, reading_id, sensor, reason FROM dead_letters"
        " WHERE number > ? AND number <= ? ORDER BY number LIMIT ?",
        (after, until, limit),
    ).fetchall()


def newest_labels(before: int, limit: int, connection: Connection) -> list[Label]:
    """Return what letters are chosen by, newest first, in front of a number."""
    return connection.execute(
        "SELECT number, reading_id, sensor, reason FROM dead_letters"
        " WHERE number < ? ORDER BY number DESC LIMIT ?",
        (before, limit),
    ).fetchall()


def last_number(connection: Connection) -> int:
    """Return the number of the newest letter."""
    (number,) = connection.execute("SELECT max(number) FROM dead_letters").fetchone()
    return number or 0


def letters(numbers: Sequence[int], connection: Connection) -> list[LetterRow]:
    """Return those of these letters that are here and as they were written, oldest first."""
    return [row for row in _rows(connection, numbers) if DEAD_LETTERS.verifies(row)]


def _rows(connection: Connection, numbers: Sequence[int]) -> list[LetterRow]:
    marks = ", ".join("?" * len(numbers))
    query = f"SELECT {DEAD_LETTERS.names} FROM dead_letters WHERE number IN ({marks})"  # noqa: S608
    return connection.execute(f"{query} ORDER BY number", tuple(numbers)).fetchall()


def replay(numbers: Sequence[int], at_least: int, connection: Connection) -> ReplayResult:
    """Make readings of these letters again, behind all others, under their ids.

    Ids count readings that were accepted, and these were before: the next one that is accepted
    gets the number that it would have without them.
    """
    found = _rows(connection, numbers)
    sound = list(_readings_of(found))
    first = max(next_position(connection), at_least)
    if sound:
        connection.executemany(
            "INSERT INTO readings (position, time_ns, sensor, body, checksum)"
            " VALUES (?, ?, ?, ?, ?)",
            seal_all(READINGS, first, sound),
        )
        life = boots(connection)[-1]
        behind, sequence = first + len(sound), life.sequence_of(first)
        connection.execute(
            "INSERT OR REPLACE INTO boots VALUES (?, ?, ?, ?)",
            BOOTS.sealed(behind, life.boot, sequence),
        )
    now = _without(connection, found, replayed=len(sound), damaged=len(found) - len(sound))
    return ReplayResult(first, len(sound), now)


def _readings_of(found: Iterable[LetterRow]) -> Iterator[tuple[int, str, bytes]]:
    """Yield the letters that are as they were written, as rows of readings."""
    for row in found:
        _, reading_id, time_ns, sensor, body, *_ = row
        if DEAD_LETTERS.verifies(row):
            try:
                yield time_ns, sensor, with_id(body, reading_id)
            except BadBody:
                continue


def drop(numbers: Sequence[int], connection: Connection) -> LetterTotals:
    """Delete these letters for good."""
    found = _rows(connection, numbers)
    return _without(connection, found, dropped=len(found))


def _without(connection: Connection, gone: Sequence[LetterRow], **left: int) -> LetterTotals:
    """Delete letters, and count how they left."""
    marks = ", ".join("?" * len(gone))
    query = f"SELECT coalesce(sum({BYTES}), 0) FROM dead_letters WHERE number IN ({marks})"  # noqa: S608
    numbers = [row[0] for row in gone]
    (size_bytes,) = connection.execute(query, numbers).fetchone()
    connection.execute(f"DELETE FROM dead_letters WHERE number IN ({marks})", numbers)  # noqa: S608
    now = _changed(totals(connection), held=-len(gone), held_bytes=-size_bytes, **left)
    _save(connection, now)
    return now


# ---- totals -------------------------------------------------------------------------------------


def totals(connection: Connection) -> LetterTotals:
    """Return what became of all letters; counted anew where that row is not sound."""
    saved = _saved(connection)
    if saved is not None:
        return saved
    held, held_bytes, numbered = _there(connection)
    return LetterTotals(max(held, numbered), held, held_bytes, forgotten=max(0, numbered - held))


def _saved(connection: Connection) -> LetterTotals | None:
    row = connection.execute(
        f"SELECT {LETTER_TOTALS.names} FROM letter_totals WHERE id = 1"  # noqa: S608
    ).fetchone()
    if row is None or not LETTER_TOTALS.verifies(row):
        return None
    return LetterTotals(*row[1:-1])


def recount(connection: Connection) -> LetterTotals:
    """Compare the totals with what is there, as when a file is opened; return them mended."""
    held, held_bytes, numbered = _there(connection)
    before = totals(connection)
    buried = max(before.buried, held + before.left, numbered)
    damaged = before.damaged + buried - held - before.left
    now = msgspec.structs.replace(
        before, buried=buried, held=held, held_bytes=held_bytes, damaged=damaged
    )
    if now != _saved(connection):
        _save(connection, now)
    return now


def _there(connection: Connection) -> tuple[int, int, int]:
    """Return how many letters there are, their bytes, and the number of the newest."""
    query = f"SELECT count(*), coalesce(sum({BYTES}), 0), coalesce(max(number), 0)"
    held, held_bytes, numbered = connection.execute(f"{query} FROM dead_letters").fetchone()
    return int(held), int(held_bytes), int(numbered)


def _changed(before: LetterTotals, **more: int) -> LetterTotals:
    now = msgspec.structs.replace(
        before, **{name: getattr(before, name) + count for name, count in more.items()}
    )
    assert now.buried == now.held + now.left, "each letter is here, or has left in one way"
    return now


def _save(connection: Connection, now: LetterTotals) -> None:
    connection.execute("DELETE FROM letter_totals WHERE id <> 1")
    connection.execute(
        "INSERT OR REPLACE INTO letter_totals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        LETTER_TOTALS.sealed(1, *msgspec.structs.astuple(now)),
    )
