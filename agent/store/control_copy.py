"""A copy of ``control.db`` beside it, for the day on which its card returns noise.

All rows, as they are, in one private file that is replaced as a whole a moment after they
changed. Each row has its checksum, so a damaged copy gives what is left of it. What only this
device knows is in here: how often it started, which tokens it gave out, whom it let in with them.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from agent.files.private_files import replace_private
from agent.loop import watched
from agent.store.checksums import Table
from agent.store.database import Database
from agent.store.errors import StorageError

DELAY_S = 0.2

Prefers = Callable[[Table, Sequence[Any], Sequence[Any]], bool]
"""Tells whether the copy's row of a table (given first) is to take the place of the one there."""

log = logging.getLogger(__name__)


def copy_of(path: Path) -> Path:
    """Return where the copy of a database lies."""
    return path.with_name(f"{path.name}.copy")


class ControlCopy:
    """Keeps the copy up to date, off the event loop."""

    def __init__(self, database: Database, tables: Sequence[Table]) -> None:
        self._database, self._tables = database, tables
        self._is_due = False
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """Copy what is there, in a moment: changes come together."""
        self._is_due = True
        if self._task is None or self._task.done():
            self._task = watched.start("control-copy", self._copy_later)

    async def finish(self) -> None:
        """Make the copy that is due, if one is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._is_due:
            await self._copy()

    async def _copy_later(self) -> None:
        while self._is_due:
            await asyncio.sleep(DELAY_S)
            await self._copy()

    async def _copy(self) -> None:
        """An old copy is better than no start: a disk that refuses it is told of and left alone."""
        self._is_due = False
        path = copy_of(self._database.path)
        try:
            data = msgspec.msgpack.encode(self._database.read(partial(_rows, self._tables)))
            await asyncio.to_thread(replace_private, path, data)
        except (OSError, StorageError) as error:
            log.warning("%s, the copy of %s, was not written: %s", path, path.stem, error)


def _rows(tables: Sequence[Table], connection: sqlite3.Connection) -> dict[str, list[Any]]:
    return {
        table.name: connection.execute(f"SELECT {table.names} FROM {table.name}").fetchall()  # noqa: S608
        for table in tables
    }


def restore(
    connection: sqlite3.Connection, copy: Path, tables: Sequence[Table], prefers: Prefers
) -> int:
    """Add the sound rows of a copy that are missing or older; return how many there were.

    What was read from a damaged file may be of yesterday: the end of its log may be gone.
    """
    try:
        kept = msgspec.msgpack.decode(copy.read_bytes(), type=dict[str, list[list[Any]]])
    except (OSError, ValueError, msgspec.DecodeError):
        return 0
    taken = 0
    for table in tables:
        width = len(table.columns)
        rows = [row for row in kept.get(table.name, []) if len(row) == width]
        marks = ", ".join("?" * width)
        replace = f"INSERT OR REPLACE INTO {table.name} ({table.names}) VALUES ({marks})"  # noqa: S608
        for row in filter(table.verifies, rows):
            ours = _same_key(connection, table, row)
            if ours is None or (ours != tuple(row) and prefers(table, row, ours)):
                connection.execute(replace, row)
                taken += 1
    return taken


def _same_key(connection: sqlite3.Connection, table: Table, row: Sequence[Any]) -> Any:
    """Return the row that is there under the same key."""
    where = " AND ".join(f"{column} = ?" for column in table.key)
    query = f"SELECT {table.names} FROM {table.name} WHERE {where}"  # noqa: S608 - our names
    return connection.execute(query, row[: len(table.key)]).fetchone()
