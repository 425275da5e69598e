"""The shared keys that a node's ``data.db`` holds, for who has the file and no agent.

The file and its log are copied first, and only read: what the disk does not give is zeros in the
copy. Of a copy that SQLite finds in order each row is looked at by its checksum. Of another one all
rows are gathered that are as they were written (``salvage.py``); among those may be some that were
deleted or replaced, in pages that nothing points to any more.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from agent.exits import NO, NOT_FOUND, NOT_PERMITTED, AgentError
from agent.store.checksums import lenient_text
from agent.store.kv_store import IN_CLEAR, RECORDS, RECORDS_MIGRATIONS, record_of
from agent.store.salvage import carry_over
from agent.store.value_seal import KeyMissing, ValueBroken, ValueSeal
from gossip.kv.records import Record

CHUNK_BYTES = 1024 * 1024
PAGE_BYTES = 4096
KIND_OF_RECORDS = "SELECT type FROM sqlite_schema WHERE name = 'records'"


class SalvagedKey(NamedTuple):
    """A key with what this node had of it.

    None where the row is not as it was written, or sealed with a key that is not here, ``is_shut``.
    """

    key: str
    record: Record | None
    is_shut: bool = False


class SalvagedDatabase:
    """A copy of a node's ``data.db``, in a scratch directory of the caller's.

    Raises AgentError for a file that is not there, or may not be read.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self._copy = scratch / "data.db"
        try:
            self.unreadable_bytes = _copy(path, self._copy)
            wal = path.with_name(f"{path.name}-wal")
            if wal.exists():
                self.unreadable_bytes += _copy(wal, scratch / "data.db-wal")
        except OSError as error:
            raise _told(error, path) from None
        self.is_in_order = self._is_in_order()
        """Whether SQLite finds every row there is; else it is what could be gathered."""
        self._rows = self._copy
        if not self.is_in_order:
            self._rows = scratch / "gathered.db"
            self._gather()

    def _is_in_order(self) -> bool:
        try:
            with closing(sqlite3.connect(self._copy, isolation_level=None)) as connection:
                # A view is a program of whoever made the file.
                [[kind]] = connection.execute(KIND_OF_RECORDS)
                if kind != "table":
                    return False
                [[said]] = connection.execute("PRAGMA integrity_check(1)")
                connection.execute(f"SELECT {RECORDS.names} FROM records LIMIT 1")  # noqa: S608
                return bool(said == "ok")
        except (sqlite3.Error, ValueError):
            return False

    def _gather(self) -> None:
        try:
            carry_over(self._copy, self._rows, RECORDS_MIGRATIONS, None)
        except (OSError, sqlite3.Error) as error:
            raise AgentError(
                f"what {self.path} holds could not be gathered: {error}; it was not changed",
                "is there room for it in the directory for temporary files (TMPDIR)?",
                NO,
            ) from None

    def rows(self, seal: ValueSeal = IN_CLEAR) -> Iterator[SalvagedKey]:
        """Yield all keys that have a row, one at a time; those that ``seal`` opens not are shut."""
        query = f"SELECT {RECORDS.names} FROM records ORDER BY partition, key"  # noqa: S608
        with closing(sqlite3.connect(self._rows, isolation_level=None)) as connection:
            connection.text_factory = lenient_text
            for row in connection.execute(query):
                record, is_shut = None, False
                if RECORDS.verifies(row):
                    try:
                        record = record_of(seal, row)
                    except KeyMissing:
                        is_shut = True
                    except ValueBroken:
                        record = None
                yield SalvagedKey(str(row[1]), record, is_shut)


def _copy(source: Path, target: Path) -> int:
    """Copy a file, with zeros for what the disk does not give; return how many bytes those are."""
    unreadable = 0
    # A pipe in its place is not waited for.
    handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size_bytes = os.fstat(handle).st_size
        with target.open("wb") as file:
            for at in range(0, size_bytes, CHUNK_BYTES):
                wanted = min(CHUNK_BYTES, size_bytes - at)
                try:
                    file.write(os.pread(handle, wanted, at))
                except OSError:
                    unreadable += _copy_pages(handle, file.fileno(), at, wanted)
                file.seek(at + wanted)
            file.truncate(size_bytes)
    finally:
        os.close(handle)
    return unreadable


def _copy_pages(source: int, target: int, start: int, size_bytes: int) -> int:
    unreadable = 0
    for at in range(start, start + size_bytes, PAGE_BYTES):
        wanted = min(PAGE_BYTES, start + size_bytes - at)
        try:
            os.pwrite(target, os.pread(source, wanted, at), at)
        except OSError:
            unreadable += wanted
    return unreadable


def _told(error: OSError, path: Path) -> AgentError:
    if isinstance(error, FileNotFoundError):
        return AgentError(
            f"there is no {error.filename or path}",
            "name the data directory of the node, or its data.db",
            NOT_FOUND,
        )
    if isinstance(error, PermissionError):
        hint = "ask as root, or as the user that the agent runs as"
        return AgentError(f"this user may not read {path}", hint, NOT_PERMITTED)
    return AgentError(
        f"{path} could not be copied: {error.strerror}; it was not changed",
        "is there room for it in the directory for temporary files (TMPDIR)?",
        NO,
    )
