"""Reads the rows of a SQLite file without SQLite: from whatever pages are still pages.

SQLite finds a row by following pages from the root: one damaged page in between, and all below it
are out of reach; a damaged header, and everything is. But each leaf page describes itself, so
here every page of a file is looked at in turn, and of those that look like one, each cell is read.
Most of what is read from a damaged page is noise, and pages that were freed hold rows that were
deleted: the caller has to know its rows by their checksums, and when they were written.

The write-ahead log is read the same way, frame by frame. Where SQLite stops at the first frame
whose checksum is wrong, the pages behind it are taken too: each stands for itself.

Source: https://sqlite.org/fileformat2.html, sections 1.5, 1.6, 2.1 and 4.1. All our files have
pages of 4,096 bytes with none of them reserved, which is SQLite's default.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

PAGE_BYTES = 4096
FILE_HEADER_BYTES = 100
WAL_HEADER_BYTES, FRAME_HEADER_BYTES, SALTS_AT = 32, 24, 16
SIZE_AT = 28
TABLE_LEAF, INDEX_LEAF, INDEX_INTERIOR = 0x0D, 0x0A, 0x02
HEADER_BYTES = {TABLE_LEAF: 8, INDEX_LEAF: 8, INDEX_INTERIOR: 12}
ROW_BYTES_MAX = 16 * 1024 * 1024
INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
FLOAT, ZERO, ONE, FIRST_BLOB = 7, 8, 9, 12

_LOCAL_MIN = (PAGE_BYTES - 12) * 32 // 255 - 23
_LOCAL_MAX = {
    TABLE_LEAF: PAGE_BYTES - 35,
    INDEX_LEAF: (PAGE_BYTES - 12) * 64 // 255 - 23,
    INDEX_INTERIOR: (PAGE_BYTES - 12) * 64 // 255 - 23,
}

Cell = tuple[int, tuple[int | float | str | bytes | None, ...]]
"""The number of the row (0 in an index), and its values."""


class Pages:
    """The pages of a database file and its write-ahead log, each as it was written last.

    ``salts`` are those of the log's life, as far as they are known from elsewhere.
    Read page by page: a file may be larger than the memory, and a page may be unreadable.
    """

    def __init__(self, path: Path, wal: Path, salts: bytes = b"") -> None:
        self._file, self._file_bytes = _open(path)
        self._wal, self._wal_bytes = _open(wal)
        self._sizes: list[int] = []
        self._frames = self._read_frames(salts or _read(self._wal, 8, SALTS_AT))

    def close(self) -> None:
        """Close both files."""
        for handle in (self._file, self._wal):
            if handle is not None:
                os.close(handle)

    def _read_frames(self, salts: bytes) -> dict[int, list[int]]:
        """Return for each page in the log where its committed images begin, newest last."""
        committed: dict[int, list[int]] = {}
        under_way: list[tuple[int, int]] = []
        step = FRAME_HEADER_BYTES + PAGE_BYTES
        for at in range(WAL_HEADER_BYTES, self._wal_bytes - step + 1, step):
            head = _read(self._wal, FRAME_HEADER_BYTES, at)
            if len(head) < FRAME_HEADER_BYTES or head[8:16] != salts:
                continue  # left over from an earlier life of the log, or damaged
            number, size = struct.unpack_from(">II", head)
            under_way.append((number, at + FRAME_HEADER_BYTES))
            if size:  # the last frame of a commit, and how many pages the file then has
                self._sizes.append(size)
                for page, image in under_way:
                    committed.setdefault(page, []).append(image)
                under_way = []
        return committed

    def images(self, number: int) -> Iterator[bytes]:
        """Yield the images of a page, the first being 1, from the newest to the oldest."""
        for at in reversed(self._frames.get(number, [])):
            yield _read(self._wal, PAGE_BYTES, at)
        yield _read(self._file, PAGE_BYTES, (number - 1) * PAGE_BYTES)

    def cells(self, *, older: bool) -> Iterator[Cell]:
        """Yield what can be read as a cell, from all pages that look like leaves or indices.

        ``older``: behind each page's newest image, those before it, for rows that never change.
        """
        for number in self._numbers(older=older):
            for image in self.images(number):
                yield from self._cells_of(image.ljust(PAGE_BYTES, b"\0"), number)
                if not older:
                    break

    def _numbers(self, *, older: bool) -> list[int]:
        """Return which pages to read; without the older, those that the file had at the end.

        That number stands with the last commit in the log, and in the header, either of which may
        be what was damaged. Without a log, the file is as long as it should be.
        """
        pages = -(-self._file_bytes // PAGE_BYTES)
        numbers = sorted({*range(1, pages + 1), *self._frames})
        told = _read_u32(next(self.images(1)), SIZE_AT)
        if older or not self._sizes:
            return numbers
        size = max(told, self._sizes[-1])
        return [each for each in numbers if each <= size]

    def _cells_of(self, page: bytes, number: int) -> Iterator[Cell]:
        start = FILE_HEADER_BYTES if number == 1 else 0
        kind = page[start]
        if kind not in HEADER_BYTES:
            return
        first = start + HEADER_BYTES[kind]
        count = min(struct.unpack_from(">H", page, start + 3)[0], (PAGE_BYTES - first) // 2)
        for (at,) in struct.iter_unpack(">H", page[first : first + 2 * count]):
            try:
                yield self._cell(page, kind, at)
            except (IndexError, ValueError, struct.error):
                continue  # noise where a cell should be

    def _cell(self, page: bytes, kind: int, at: int) -> Cell:
        """Read one cell. Raises IndexError, ValueError or struct.error where there is none."""
        rowid = 0
        if kind == INDEX_INTERIOR:
            at += 4
        size, at = varint(page, at)
        if kind == TABLE_LEAF:
            rowid, at = varint(page, at)
        if size > ROW_BYTES_MAX:
            raise ValueError("no row of ours is that large")
        local = _local_bytes(size, kind)
        payload = page[at : at + local]
        if local < size:
            (overflow,) = struct.unpack_from(">I", page, at + local)
            payload += self._overflow(overflow, size - local)
        return rowid, values(payload)

    def _overflow(self, number: int, wanted: int) -> bytes:
        """Follow a chain of pages that hold the rest of a row."""
        found = bytearray()
        while number and len(found) < wanted:
            page = next(self.images(number))
            (number,) = struct.unpack_from(">I", page)
            found += page[4:]
        return bytes(found[:wanted])


def _read_u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0]) if len(data) >= at + 4 else 0


def _open(path: Path) -> tuple[int | None, int]:
    """Return a handle and how many bytes there are; None and 0 where there is no file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, 0
    return handle, os.fstat(handle).st_size


def _read(handle: int | None, size: int, at: int) -> bytes:
    """Read, and take for empty what the disk does not give."""
    try:
        return os.pread(handle, size, at) if handle is not None else b""
    except OSError:
        return b""


def _local_bytes(size: int, kind: int) -> int:
    """Return how many bytes of a row lie in its own page."""
    if size <= _LOCAL_MAX[kind]:
        return size
    fitting = _LOCAL_MIN + (size - _LOCAL_MIN) % (PAGE_BYTES - 4)
    return fitting if fitting <= _LOCAL_MAX[kind] else _LOCAL_MIN


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins here, of 64 bits with a sign, and where it ends."""
    number = 0
    for index in range(8):
        byte = data[at + index]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, at + index + 1
    number = number << 8 | data[at + 8]
    return number - (1 << 64) if number >> 63 else number, at + 9


def values(payload: bytes) -> tuple[int | float | str | bytes | None, ...]:
    """Return the values of a row. Raises IndexError or ValueError for what is none."""
    end, at = varint(payload, 0)
    body, found = end, []
    while at < end:
        kind = payload[at]
        kind, at = (kind, at + 1) if kind < 0x80 else varint(payload, at)
        value, body = _value(payload, kind, body)
        found.append(value)
    if body != len(payload):
        raise ValueError("the values are not as long as the row")
    return tuple(found)


def _value(payload: bytes, kind: int, at: int) -> tuple[int | float | str | bytes | None, int]:
    """Return the value of a serial type that begins here, and where it ends."""
    if kind in INTEGER_BYTES:
        end = at + INTEGER_BYTES[kind]
        return int.from_bytes(payload[at:end], signed=True), end
    if kind == FLOAT:
        return struct.unpack_from(">d", payload, at)[0], at + 8
    if kind in (ZERO, ONE):
        return kind - ZERO, at
    if kind >= FIRST_BLOB:
        end = at + (kind - FIRST_BLOB) // 2
        data = payload[at:end]
        return str(data, "utf-8") if kind % 2 else data, end
    if kind == 0:
        return None, at
    raise ValueError("no type of ours")
