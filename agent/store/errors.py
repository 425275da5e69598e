"""What goes wrong with a disk, said so that somebody can act on it.

SQLite reports an error code and three English words; the kernel an errno. Both are looked up
in one table each and become a ``StorageError``: what happened, what was kept, what to do next.
Errors that are not the disk's (a constraint, a wrong statement) are our own and pass unchanged.
"""

import asyncio
import errno
import os
import shutil
import sqlite3
from pathlib import Path
from typing import NamedTuple

from agent import exits
from agent.exits import AgentError
from agent.system import descriptors

PRIMARY_CODE_MASK = 0xFF  # SQLite's extended codes keep the kind in the lowest byte
ROOM_BYTES = 1024 * 1024  # what a disk has room for that is no longer full
TRY_AGAIN_S = 5.0
WAL_INDEX_BYTES = 32768  # the smallest file beside a write-ahead log (sqlite.org/walformat.html)

FULL = "the disk is full"
READ_ONLY = "it cannot be written"
WRITE_PROTECTED = "the disk is read-only"
ABSENT = "it cannot be opened"
BROKEN = "its content is damaged"
FAILING = "the disk reports an error"
BUSY = "another process holds it"
SHORT = "no file can be opened just now"

OF_THE_DISK = frozenset({FULL, READ_ONLY, WRITE_PROTECTED, ABSENT, FAILING, BUSY, SHORT})
"""Kinds that say nothing about what is in the file."""

KIND_OF_CODE = {
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_PERM: READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: ABSENT,
    sqlite3.SQLITE_CORRUPT: BROKEN,
    sqlite3.SQLITE_NOTADB: BROKEN,
    sqlite3.SQLITE_IOERR: FAILING,
    sqlite3.SQLITE_BUSY: BUSY,
    sqlite3.SQLITE_LOCKED: BUSY,
}

SAID_OF_SHORTAGES = frozenset({ABSENT, FAILING})
"""What SQLite says of a file, also of a temporary one, for which there was no descriptor."""

UNREADABLE_CODES = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
    }
)
"""Errors of the disk that are damage, too: what lies in that place is gone, the rest is not."""

FAILED_SYNC_CODES = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})
"""After these nobody knows which pages the kernel dropped: trying again would only look well."""

KIND_OF_ERRNO = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: WRITE_PROTECTED,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.ENOENT: ABSENT,
    errno.ENOTDIR: ABSENT,
    errno.EISDIR: ABSENT,
}


class Advice(NamedTuple):
    """What to do about a kind of error, and the exit status that tells a script."""

    hint: str
    status: int


ADVICE = {
    FULL: Advice(
        "Nothing of this write was kept; what was accepted before is safe. "
        "Free some space on that file system, then try again.",
        exits.UNHEALTHY,
    ),
    READ_ONLY: Advice(
        "Nothing of this write was kept. Check who owns the directory.",
        exits.NOT_PERMITTED,
    ),
    WRITE_PROTECTED: Advice(
        "Nothing of this write was kept. Mount it for writing; the kernel turns a disk read-only "
        "that reports errors (see `dmesg`), and a worn SD card itself, to protect what it has.",
        exits.UNHEALTHY,
    ),
    ABSENT: Advice(
        "Check that its directory exists and that this user may enter and write it.",
        exits.NOT_PERMITTED,
    ),
    BROKEN: Advice(
        "Nothing of this write was kept. What can be read is carried over into a new file, now or "
        "when the agent starts again; the log and `covey doctor` say what is gone.",
        exits.UNHEALTHY,
    ),
    FAILING: Advice(
        "Nothing of this write was kept. See `dmesg` for the disk's own words; replace the card "
        "if they repeat, then restart the agent.",
        exits.UNHEALTHY,
    ),
    BUSY: Advice(
        "Nothing of this write was kept. Only one agent may use a data directory: stop the other "
        "one, or close the tool that has the file open.",
        exits.UNHEALTHY,
    ),
    SHORT: Advice(
        "The agent, or the whole machine, has no file descriptors left; it is tried again. See "
        "who has them: `ls /proc/PID/fd`; `LimitNOFILE=` raises the agent's limit.",
        exits.UNHEALTHY,
    ),
}


class StorageError(AgentError):
    """A database could not be opened, read or written; the hint says what to do.

    ``may_pass``: the disk refused it, and may take the same later. ``is_full``: for want of room.
    """

    may_pass = False
    is_full = False


class LogDamaged(StorageError):
    """The log of the control plane is not the one that this node wrote; nothing of it counts."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what}",
            hint="This node goes on as a new store with an empty log, and votes again once the "
            "other voters have let it in. See `dmesg` for the disk's own words.",
            status=exits.UNHEALTHY,
        )


class NewerSchemaError(StorageError):
    """A later version of Covey has changed this database in ways that we do not know."""

    def __init__(self, path: Path, unknown: list[str]) -> None:
        super().__init__(
            f"{path} was written by a newer version of Covey (it has: {', '.join(unknown)}).",
            hint="Nothing was changed. Install that version again, or restore the data directory "
            "that this version used.",
            status=exits.BAD_CONFIG,
        )


def translate(error: Exception, path: Path) -> Exception:
    """Return the StorageError that explains an error of the disk; any other error unchanged."""
    kind = _kind_of(error)
    if kind is None:
        return error
    if kind == FAILING and _has_no_room(path):
        kind = FULL
    if kind == READ_ONLY and _is_mounted_read_only(path):
        kind = WRITE_PROTECTED
    if kind in SAID_OF_SHORTAGES and not descriptors.are_left():
        kind = SHORT
    advice = ADVICE[kind]
    failure = StorageError(
        f"{path}: {kind} ({getattr(error, 'strerror', None) or error}).",
        hint=advice.hint,
        status=advice.status,
    )
    failure.may_pass = kind in OF_THE_DISK and not is_failed_sync(error)
    failure.is_full = kind == FULL
    return failure


def is_of_the_disk(error: sqlite3.Error) -> bool:
    """Tell whether the disk refused something, rather than the file being damaged."""
    return _kind_of(error) in OF_THE_DISK


def is_shortage(error: Exception) -> bool:
    """Tell whether there was no file descriptor: nothing was tried, so nothing has failed."""
    return _kind_of(error) == SHORT


def is_failed_sync(error: Exception) -> bool:
    """Tell whether the disk failed to confirm what was written."""
    return getattr(error, "sqlite_errorcode", 0) in FAILED_SYNC_CODES


def is_damage(error: Exception) -> bool:
    """Tell whether an error says that a file is not as it was written."""
    return _kind_of(error) == BROKEN


def rebuilding(path: Path) -> StorageError:
    """Return the error of a read while a damaged file is being replaced."""
    return StorageError(
        f"{path} was damaged, and what can be read is being carried over into a new file.",
        hint="Try again in a few seconds.",
        status=exits.UNHEALTHY,
    )


def damaged(path: Path, what: str) -> StorageError:
    """Return the error of a read that found what was not written."""
    advice = ADVICE[BROKEN]
    return StorageError(f"{path}: {BROKEN} ({what}).", hint=advice.hint, status=advice.status)


def closed(path: Path) -> StorageError:
    """Return the error of a call that came after ``close``."""
    return StorageError(
        f"{path} is closed: the agent is stopping.",
        hint="Nothing of this write was kept. Try again when the agent runs.",
        status=exits.UNREACHABLE,
    )


def has_room(path: Path) -> bool:
    """Tell whether a file beside this one could have ``ROOM_BYTES``; nothing is left of it."""
    probe = path.with_name(f".{path.name}.room")
    try:
        handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, ROOM_BYTES)
        finally:
            os.close(handle)
            probe.unlink()
    except OSError:
        return False
    return True


async def until_room(path: Path) -> None:
    """Return when a file beside this one has room again, at the earliest after a moment.

    Room for one file is not all that somebody may have lacked, who tries again at once: a disk
    that has no inodes left has bytes.
    """
    while True:
        await asyncio.sleep(TRY_AGAIN_S)
        if await asyncio.to_thread(has_room, path):
            return


def _is_mounted_read_only(path: Path) -> bool:
    """Tell whether nobody can write there: SQLite calls that as it calls a file of others."""
    try:
        return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _has_no_room(path: Path) -> bool:
    """Tell whether the index of a write-ahead log found no room: SQLite calls that an I/O error."""
    try:
        return shutil.disk_usage(path.parent).free < WAL_INDEX_BYTES
    except OSError:
        return False


def _kind_of(error: Exception) -> str | None:
    if isinstance(error, OSError):
        if error.errno in descriptors.SHORTAGES:
            return SHORT
        return KIND_OF_ERRNO.get(error.errno or 0, FAILING)
    if isinstance(error, sqlite3.Error):
        code: int = getattr(error, "sqlite_errorcode", 0)
        return BROKEN if code in UNREADABLE_CODES else KIND_OF_CODE.get(code & PRIMARY_CODE_MASK)
    return None
