"""Logs of what is agreed on that this node set aside, and has as files still.

A log is set aside where it is no promise to anybody any more: the file is damaged, or of an earlier
moment, or a later generation has begun (``consensus_store.py``). Nobody votes by it again. But an
operator may have to go on from what it has, where the later generation was a lie, or is lost with
all who followed it; as from any other copy, in a generation of its own.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from agent.store.consensus_store import CHUNKS, HARD, LOG, MARKS, Found, find_chunk, found_in
from agent.store.errors import LogDamaged, StorageError, translate
from agent.store.salvage import damaged_files
from gossip.consensus.messages import SnapshotMark
from gossip.consensus.storage import ChunkSource, MemoryLog, SnapshotChange, StoredState, arrival


class SetAsideLog(NamedTuple):
    """What one of the files has; its last entry has this term and index."""

    file: str
    generation: int
    term: int
    last_index: int

    @property
    def newness(self) -> tuple[int, int, int]:
        """What is larger for whoever has more."""
        return self.generation, self.term, self.last_index


def set_aside_logs(path: Path) -> list[SetAsideLog]:
    """Return what the logs have that were set aside beside this file, the newest first.

    What cannot be read is left out.
    """
    found = []
    for file in damaged_files(path.parent):
        if not file.startswith(f"{path.name}."):
            continue
        try:
            stored = _read(path.with_name(file), is_whole=False)
        except StorageError:
            continue
        if stored.hard.generation:
            found.append(SetAsideLog(file, *stored.newness))
    return sorted(found, key=lambda each: each.newness, reverse=True)


def read_set_aside(path: Path) -> StoredState:
    """Return a log that was set aside, in memory. Raises StorageError for one that is damaged."""
    return _read(path, is_whole=True)


def _read(path: Path, *, is_whole: bool) -> StoredState:
    """Read a file; ``is_whole``: with its snapshot, and each row looked at."""
    try:
        with closing(sqlite3.connect(path)) as rows:
            if is_whole:
                _verify(path, rows)
            found = found_in(rows)
            if isinstance(found, str):
                raise LogDamaged(path, found)
            chunks = _chunks(found.counts.mark, rows) if is_whole and found.counts else MemoryLog()
            return _state(found, chunks)
    except sqlite3.Error as error:
        raise translate(error, path) from error


def _state(found: Found, chunks: ChunkSource) -> StoredState:
    return found._replace(arrives=None, arrived=0).state(chunks)


def _verify(path: Path, rows: sqlite3.Connection) -> None:
    for table in (HARD, LOG, MARKS, CHUNKS):
        every = rows.execute(f"SELECT {table.names} FROM {table.name}")  # noqa: S608 - our names
        if not all(map(table.verifies, every)):
            raise LogDamaged(path, "a row is not as it was written")


def _chunks(mark: SnapshotMark, rows: sqlite3.Connection) -> MemoryLog:
    pieces = [bytes(find_chunk(mark, number, rows)[1]) for number in range(mark.chunks)]
    log = MemoryLog()
    log.apply([*arrival(mark, b"".join(pieces)), SnapshotChange(mark)])
    return log
