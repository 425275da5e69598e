"""The SQL of evictions: each function runs on a connection that ``Database`` hands it."""

from collections.abc import Mapping, Sequence
from sqlite3 import Connection
from typing import NamedTuple

from agent.telemetry.evicted import BLOCK_BITS, as_bytes
from agent.telemetry.outbox_tables import DROPS, EVICTED

ROW_BYTES = 24
"""What a row takes beside its texts: about."""
SIZE = f"length(sensor) + length(body) + {ROW_BYTES}"
AT_ONCE = 500


class Candidate(NamedTuple):
    """A reading that may be evicted."""

    position: int
    sensor: str
    size_bytes: int


def size_of(sensor: str, body: bytes) -> int:
    """Return the bytes for which a reading counts."""
    return len(sensor) + len(body) + ROW_BYTES


def candidates(after: int, limit: int, connection: Connection) -> list[Candidate]:
    """Return readings behind a position, in order."""
    query = (
        f"SELECT position, sensor, {SIZE} FROM readings WHERE position > ?"  # noqa: S608
        " ORDER BY position LIMIT ?"
    )
    return [Candidate(*row) for row in connection.execute(query, (after, limit))]


def bytes_between(after: int, last: int, connection: Connection) -> int:
    """Return the bytes of the readings behind one position, up to another."""
    query = f"SELECT coalesce(sum({SIZE}), 0) FROM readings WHERE position > ? AND position <= ?"  # noqa: S608
    (size_bytes,) = connection.execute(query, (after, last)).fetchone()
    return int(size_bytes)


def evict(
    positions: Sequence[int], blocks: Mapping[int, int], kind: str, connection: Connection
) -> None:
    """Delete readings, note where they were, and count them, as one."""
    for start in range(0, len(positions), AT_ONCE):
        part = positions[start : start + AT_ONCE]
        marks = ", ".join("?" * len(part))
        connection.execute(f"DELETE FROM readings WHERE position IN ({marks})", part)  # noqa: S608
    connection.executemany(
        "INSERT OR REPLACE INTO evicted VALUES (?, ?, ?)",
        [EVICTED.sealed(number, as_bytes(bits)) for number, bits in blocks.items()],
    )
    before = drops(connection).get(kind, 0)
    connection.execute(
        "INSERT OR REPLACE INTO drops VALUES (?, ?, ?)", DROPS.sealed(kind, before + len(positions))
    )


def forget(cursor: int, connection: Connection) -> None:
    """Delete the notes that the cursor has passed."""
    connection.execute("DELETE FROM evicted WHERE block < ?", (cursor >> BLOCK_BITS,))


def drops(connection: Connection) -> dict[str, int]:
    """Return how many readings were dropped over the life of the outbox, by class and reason."""
    rows = connection.execute(f"SELECT {DROPS.names} FROM drops").fetchall()  # noqa: S608
    return {row[0]: row[1] for row in rows if DROPS.verifies(row)}


def evicted(connection: Connection) -> dict[int, bytes]:
    """Return which positions were evicted ahead of the cursor, by block."""
    rows = connection.execute(f"SELECT {EVICTED.names} FROM evicted").fetchall()  # noqa: S608
    return {row[0]: row[1] for row in rows if EVICTED.verifies(row)}
