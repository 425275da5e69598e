"""A note beside a database of how much was committed, by which a start can tell what is missing.

SQLite takes the first frame of the write-ahead log whose checksum is wrong for the end of the
log: one wrong byte, and all commits behind it never happened. That is right after a power cut and
silent about a worn card. So after each commit this file is told how many frames the log has, and
two numbers of the store's own (the outbox: the last position, and how far delivery has come).

A start compares. If the kernel still runs that ran then, what is missing was lost on the disk. If
not, there may have been a power cut, which takes what was not synced: then only those frames are
missed that were seen to be synced, in the same life of the log.

The note is written with one ``pwrite`` and never synced: it may be older than the database, and
then misses nothing. Two slots take turns, each with a checksum: a torn one leaves the other.

What SQLite knows of its log stands at the start of the file ``-shm``
(https://sqlite.org/walformat.html, section 2.1).
"""

import contextlib
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import NamedTuple

from agent.system import descriptors

WAL_INDEX_VERSION = 3007000
WAL_INDEX_HEADER_BYTES = 136
FRAMES_AT, SALTS_AT, BACKFILLED_AT = 16, 32, 96
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SLOT_BYTES = 512
_NOTE = struct.Struct("<8s16sQ8sIII8sqq")
MAGIC = b"CVYTAIL1"


class Log(NamedTuple):
    """A write-ahead log: which life of it, how many frames, and how many are in the file too."""

    salts: bytes
    frames: int
    backfilled: int


class CommitNote(NamedTuple):
    """What was noted after a commit. ``number`` grows with each note."""

    kernel: bytes
    number: int
    log: Log
    synced_frames: int
    synced_salts: bytes
    last: int
    cursor: int

    def misses(self, found: Log | None, kernel: bytes) -> bool:
        """Tell whether frames were in the log that are not in the one that was found."""
        known, same = self.log, found is not None and found.salts == self.log.salts
        if self.kernel == kernel:
            there = found.frames if same and found else known.backfilled
            return there < known.frames
        if not same or found is None or self.synced_salts != found.salts:
            return False
        return found.frames < self.synced_frames


NO_LOG = Log(bytes(8), 0, 0)


def decode_log(head: bytes) -> Log | None:
    """Return what the head of a ``-shm`` file says of its log; None if it says nothing."""
    if len(head) < WAL_INDEX_HEADER_BYTES or _u32(head, 0) != WAL_INDEX_VERSION:
        return None
    salts = head[SALTS_AT : SALTS_AT + 8]
    return Log(salts, _u32(head, FRAMES_AT), _u32(head, BACKFILLED_AT))


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("=I", data, at)[0])


def running_kernel() -> bytes:
    """Return what names this run of the kernel; it is another one after a power cut.

    Raises OSError when there is no file descriptor: a name that is not known would be taken for
    that of another kernel, and a sound file for one that lost commits.
    """
    try:
        return bytes.fromhex(BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError) as error:
        if getattr(error, "errno", 0) in descriptors.SHORTAGES:
            raise
        return bytes(16)


class CommitTail:
    """The notes of one database. ``found`` is the newest that was there when it was opened.

    Between ``watch`` and ``release`` the database is open. SQLite's locks on the file ``-shm`` are
    the process's (fcntl(2)), and closing any handle of it would drop them: so there is one, which
    is closed after SQLite's own.
    """

    def __init__(self, path: Path) -> None:
        self.kernel = running_kernel()
        self._database = path
        self._lock = threading.Lock()
        self._synced = NO_LOG
        self._number, self._numbers = 0, (0, 0)
        self._index: int | None = None
        self._handle = os.open(f"{path}.tail", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        slots = (os.pread(self._handle, _NOTE.size + 4, at) for at in (0, SLOT_BYTES))
        notes = [note for data in slots if (note := _decode(data)) is not None]
        self.found = max(notes, key=lambda note: note.number, default=None)
        if self.found is not None:
            self._number, self._numbers = self.found.number, (self.found.last, self.found.cursor)

    def watch(self) -> None:
        """Look at the log from now on: SQLite has opened it."""
        assert self._index is None, "released before it is watched again"
        with contextlib.suppress(FileNotFoundError):  # a file system on which SQLite has no log
            self._index = os.open(f"{self._database}-shm", os.O_RDONLY | os.O_CLOEXEC)

    def release(self) -> None:
        """Look at it no longer: SQLite has closed it."""
        if self._index is not None:
            os.close(self._index)
        self._index = None

    def log(self) -> Log | None:
        """Return how long the log is now; None where that is not known."""
        if self._index is None:
            return None
        return decode_log(os.pread(self._index, WAL_INDEX_HEADER_BYTES, 0))

    def misses(self) -> bool:
        """Tell whether the log, as it was found, lacks frames that were noted."""
        return self.found is not None and self.found.misses(self.log(), self.kernel)

    def record(self, numbers: tuple[int, int] | None = None) -> None:
        """Note how long the log is now. An error of the disk is not one of the commit."""
        with self._lock:
            self._numbers = numbers or self._numbers
            log = self.log()
            if log is not None:
                self._write(log)

    def synced(self, log: Log | None, numbers: tuple[int, int] | None = None) -> None:
        """Note that the log was synced when it looked like this."""
        self._synced = log or NO_LOG
        self.record(numbers)

    def latest(self) -> CommitNote:
        """Return what was noted last, or would be."""
        log, synced = self.log() or NO_LOG, self._synced
        return CommitNote(
            self.kernel, self._number, log, synced.frames, synced.salts, *self._numbers
        )

    def _write(self, log: Log) -> None:
        self._number += 1
        data = _NOTE.pack(
            MAGIC, self.kernel, self._number, *log, self._synced.frames, self._synced.salts,
            *self._numbers,
        )  # fmt: skip
        data += zlib.crc32(data).to_bytes(4)
        try:
            os.pwrite(self._handle, data, SLOT_BYTES * (self._number % 2))
        except OSError:
            return  # the next start then believes what it finds, as it would without a note

    def close(self) -> None:
        """Close the files; after SQLite has closed its own."""
        self.release()
        os.close(self._handle)


def _decode(data: bytes) -> CommitNote | None:
    if len(data) < _NOTE.size + 4 or zlib.crc32(data[:-4]).to_bytes(4) != data[-4:]:
        return None
    magic, kernel, number, salts, frames, backfilled, synced, synced_salts, last, cursor = (
        _NOTE.unpack(data[:-4])
    )
    if magic != MAGIC:
        return None
    log = Log(salts, frames, backfilled)
    return CommitNote(kernel, number, log, synced, synced_salts, last, cursor)
