"""Writes many rows with each statement.

A statement makes the writer thread take Python's lock several times, and each time it waits for the
event loop. Row by row, a busy agent's commits waited longer for that than for the disk.
"""

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain

from agent.store.checksums import Table, Value

ROWS = (64, 32, 16, 8, 4, 2, 1)
"""So many at once, by statements of which SQLite knows each already the second time."""


def insert_all(writer: sqlite3.Connection, table: Table, rows: Sequence[tuple[Value, ...]]) -> None:
    """Insert whole rows, with their checksums, in their order."""
    at = 0
    while at < len(rows):
        size = next(size for size in ROWS if size <= len(rows) - at)
        writer.execute(
            _statement(table.name, len(rows[at]), size),
            tuple(chain.from_iterable(rows[at : at + size])),
        )
        at += size


@cache
def _statement(table: str, columns: int, size: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * size)}"  # noqa: S608 - our names
