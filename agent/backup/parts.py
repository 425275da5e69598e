"""A backup as a file: a line that says what it is, then parts, each behind a mark and a digest.

::

    covey-backup 1 {"id", "covey", "name", "begun_at", "sealed"}     one line of JSON
    BLAKE2b of that line                                             one line
    mark (8) | kind (1) | number (4) | size (4) | digest (16) | body     as often as there is more

A part's digest covers the id of the backup, so no part of another one fits, its kind, its number
and its body as it lies there, sealed or not: a file is verified without the key to it. Bodies are
packed (zlib), then sealed if the backup is (``backup_seal.py``). The last part counts those before
it and has the digest of their digests; without it the file ends too soon.

Parts are found by their marks where what is before them is damaged. So damage costs the part that
it is in, and what is readable can be told exactly. A part of a kind that this version does not know
is verified, and told of.
"""

import hashlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import msgspec

from agent.backup.backup_seal import BackupKey, SealTerms
from agent.exits import NO, NOT_FOUND, NOT_PERMITTED, AgentError

FORM = "covey-backup 1"
MARK = b"\xc1\x8bpart\r\n"
HEAD = struct.Struct(">8sBII16s")
LINE_BYTES_MAX = 4096
BODY_BYTES_MAX = 16 * 1024 * 1024
"""Packed and unpacked: whatever a file says, one part of it is in memory."""
DIGEST_BYTES = 16
ID_BYTES = 16

AGREED, REGISTRY, KEYS, END = 1, 2, 3, 255
"""Kinds of parts: a piece of the control plane's snapshot, who belonged (to be read by people),
a page of shared keys, and the last one."""
KINDS = frozenset({AGREED, REGISTRY, KEYS, END})


class BackupHeader(msgspec.Struct, frozen=True):
    """What a file says of itself. Times are of the clock of the node where it was made."""

    id: str
    covey: str
    name: str
    begun_at: str
    sealed: SealTerms | None = None


class BackupEnd(msgspec.Struct, frozen=True):
    """What the last part says of those before it. ``is_whole``: no owners were missing."""

    parts: int
    keys: int
    versions: int
    is_whole: bool
    finished_at: str
    digest: bytes


class Part(NamedTuple):
    """A part that is as it was written; ``body`` is None where it is sealed and no key was given.

    ``start`` and ``end`` are where it lies in the file.
    """

    kind: int
    number: int
    start: int
    end: int
    digest: bytes
    body: bytes | None


class DamagedPlace(NamedTuple):
    """Bytes from ``start`` up to ``end`` that are no part, or none as it was written."""

    start: int
    end: int


def write_header(file: BinaryIO, header: BackupHeader) -> None:
    """Begin a file. Raises OSError."""
    line = f"{FORM} ".encode() + msgspec.json.encode(header) + b"\n"
    file.write(line + _line_digest(line))


def _line_digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=32).hexdigest().encode() + b"\n"


class UnfinishedBackup:
    """Appends parts to a file that has a header, and parts with these digests."""

    def __init__(
        self,
        file: BinaryIO,
        header: BackupHeader,
        key: BackupKey | None,
        digests: Sequence[bytes] = (),
    ) -> None:
        self._file = file
        self._id = bytes.fromhex(header.id)
        self._key = key
        self.number = len(digests)
        self._digests = list(digests)

    def write(self, kind: int, body: bytes) -> None:
        """Append a part. Raises OSError."""
        assert len(body) <= BODY_BYTES_MAX, "a part is no larger than a reader takes"
        self.number += 1
        data = zlib.compress(body, 1)
        if self._key is not None:
            data = self._key.close(_place(self._id, kind, self.number), data)
        digest = _digest(self._id, kind, self.number, data)
        self._digests.append(digest)
        self._file.write(HEAD.pack(MARK, kind, self.number, len(data), digest) + data)

    def end(self, keys: int, versions: int, finished_at: str, *, is_whole: bool) -> None:
        """Write the last part. Raises OSError."""
        digest = digest_of(self._digests)
        told = BackupEnd(self.number, keys, versions, is_whole, finished_at, digest)
        self.write(END, msgspec.msgpack.encode(told))


def _place(backup: bytes, kind: int, number: int) -> bytes:
    return backup + struct.pack(">BI", kind, number)


def _digest(backup: bytes, kind: int, number: int, data: bytes) -> bytes:
    place = _place(backup, kind, number)
    return hashlib.blake2b(place + data, digest_size=DIGEST_BYTES).digest()


class BackupFile:
    """A backup that is being read. A context manager; raises AgentError for what is none."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                size_bytes = os.fstat(file.fileno()).st_size
                if not size_bytes:
                    raise _no_backup(path)
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_PERMITTED
            raise AgentError(f"{path}: {error.strerror}", "is it the right file?", status) from None
        except ValueError:
            raise _no_backup(path) from None
        self.size_bytes = size_bytes
        try:
            self.header, self.begin = self._read_header(path)
        except BaseException:
            self.data.close()
            raise
        self._id = bytes.fromhex(self.header.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.data.close()

    def _read_header(self, path: Path) -> tuple[BackupHeader, int]:
        first_end = self.data.find(b"\n", 0, LINE_BYTES_MAX) + 1
        line = self.data[:first_end]
        form = FORM.encode()
        if not line.startswith(form.rpartition(b" ")[0]):
            raise _no_backup(path)
        if not line.startswith(form + b" "):
            raise AgentError(
                f"{path} was made by a later version; nothing was changed", "update this agent", NO
            )
        second = _line_digest(line)
        end = first_end + len(second)
        if self.data[first_end:end] != second:
            raise AgentError(
                f"the first line of {path} is damaged; nothing was changed",
                "nothing of it can be believed without; take another copy of the file",
                NO,
            )
        try:
            header = msgspec.json.decode(line[len(form) :], type=BackupHeader)
            is_ours = len(bytes.fromhex(header.id)) == ID_BYTES
        except (msgspec.DecodeError, RecursionError, ValueError):
            is_ours = False
        if not is_ours:
            raise _no_backup(path)
        return header, end

    def read(self, key: BackupKey | None = None) -> Iterator[Part | DamagedPlace]:
        """Yield what is in the file, in its order. Raises WrongKey."""
        at = self.begin
        while at < self.size_bytes:
            part = self._part(at, key)
            if part is None:
                start, at = at, self._next(at + 1, key)
                yield DamagedPlace(start, at)
            else:
                yield part
                at = part.end

    def _next(self, at: int, key: BackupKey | None) -> int:
        """Return where the next part that is whole begins, or the end."""
        while (at := self.data.find(MARK, at)) >= 0:
            if self._part(at, key) is not None:
                return at
            at += 1
        return self.size_bytes

    def _part(self, at: int, key: BackupKey | None) -> Part | None:
        if at + HEAD.size > self.size_bytes:
            return None
        mark, kind, number, size, digest = HEAD.unpack_from(self.data, at)
        end = at + HEAD.size + size
        if mark != MARK or size > BODY_BYTES_MAX or end > self.size_bytes:
            return None
        data = self.data[at + HEAD.size : end]
        if _digest(self._id, kind, number, data) != digest:
            return None
        if self.header.sealed is not None:
            if key is None:
                return Part(kind, number, at, end, digest, None)
            data = key.open(_place(self._id, kind, number), data)
        return Part(kind, number, at, end, digest, _unpacked(data))


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(data, BODY_BYTES_MAX)
    except zlib.error:
        body = b""
    if not unpacker.eof:
        raise AgentError(
            "a part of this backup is as it was written, and was never one; nothing was changed",
            "this is no backup that `covey backup create` made",
            NO,
        )
    return body


def digest_of(digests: Iterable[bytes]) -> bytes:
    """Return what the last part has of the digests of those before it."""
    joined = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for digest in digests:
        joined.update(digest)
    return joined.digest()


def _no_backup(path: Path) -> AgentError:
    return AgentError(
        f"{path} is no backup of a covey; nothing was changed",
        "`covey backup create` makes one",
        NO,
    )
