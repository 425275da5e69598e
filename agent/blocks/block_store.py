"""The bodies of blocks on this device: one file each, written once.

A body is written under another name, synced, renamed, and its directory synced: what has its name
is whole, and survives a power cut. Its header says of which block it is and has its checksum, which
is looked at whenever it is read: a disk may return what nobody wrote. What does not fit is set
aside as ``NAME.damaged``, counted, and is no body any more; other owners have it.

All that touches the disk runs in two threads of its own.
"""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from agent.blocks.block_refused import DAMAGED, DISK, FULL, MISSING, BlockRefused
from agent.files.directories import make_directory
from agent.files.private_files import DIRECTORY_MODE, FILE_MODE, sync_directory
from gossip.bodies.block_limits import BLOCKS_MAX, DIGEST_BYTES, FILE_ID_BYTES
from gossip.bodies.file_records import INDEX_DIGITS, BlockName, digest_of

MAGIC = b"COVEYB01"
INDEX_BYTES, SIZE_BYTES = 4, 4
HEADER_BYTES = len(MAGIC) + FILE_ID_BYTES + INDEX_BYTES + SIZE_BYTES + DIGEST_BYTES
NEW, ASIDE = ".new", ".damaged"
DAMAGED_KEPT = 8
"""So many bodies that were set aside are kept, for whoever wants to know what became of them."""
FREE_SHARE_MIN = 0.05
"""Of the file system: that much is left to all that must be written for the device to go on."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
THREADS = 2

T = TypeVar("T")


class StoredBlock(NamedTuple):
    """A body that is here: how large it is, and since when by the wall clock."""

    size_bytes: int
    since_s: float


class BlockStore:
    """Manages the directory of bodies; nothing else may write there."""

    def __init__(self, directory: Path, bytes_max: int, counts: Counter[str]) -> None:
        """``bytes_max``: of all bodies together."""
        self.bytes_max = bytes_max
        self.used_bytes = 0
        self._arriving_bytes = 0
        """What the bodies that are being written will add."""
        self.on_stored: Callable[[BlockName], None] = lambda _name: None
        """Called when a body is here, whole and on the disk."""
        self.on_damaged: Callable[[BlockName], None] = lambda _name: None
        """Called when a body was found to be no good, and is gone."""
        self._directory = directory
        self._counts = counts
        self._files: dict[bytes, dict[int, StoredBlock]] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blocks")

    async def open(self) -> None:
        """Look at what is there. Raises BlockRefused."""
        for name, holding in await self._do(self._load):
            self._take_in(name, holding)

    def close(self) -> None:
        """Wait for what is being written."""
        self._threads.shutdown()

    async def _do(self, work: Callable[[], T]) -> T:
        """Do something in a thread. Raises BlockRefused."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            raise BlockRefused(FULL if error.errno in NO_ROOM else DISK, str(error)) from None

    # What is here

    def __contains__(self, name: BlockName) -> bool:
        return name.number in self._files.get(name.file, {})

    def __iter__(self) -> Iterator[BlockName]:
        for file, blocks in self._files.items():
            yield from (BlockName(file, number) for number in blocks)

    def __len__(self) -> int:
        return sum(map(len, self._files.values()))

    def stored(self, name: BlockName) -> StoredBlock | None:
        """Return what is known of a body; None if it is not here."""
        return self._files.get(name.file, {}).get(name.number)

    def held(self, file: bytes) -> bytes:
        """Return one bit for each block of a file, set for those that are here."""
        bits = sum(1 << index for index in self._files.get(file, {}))
        return bits.to_bytes(-(-bits.bit_length() // 8), "little")

    def _take_in(self, name: BlockName, holding: StoredBlock) -> None:
        self._forget(name)
        self._files.setdefault(name.file, {})[name.number] = holding
        self.used_bytes += holding.size_bytes

    def _forget(self, name: BlockName) -> None:
        blocks = self._files.get(name.file, {})
        if (holding := blocks.pop(name.number, None)) is not None:
            self.used_bytes -= holding.size_bytes
        if not blocks:
            self._files.pop(name.file, None)

    # Bodies

    async def put(self, name: BlockName, body: bytes | bytearray, digest: bytes) -> None:
        """Keep a body; it is on the disk when this returns. Raises BlockRefused."""
        more = self._more(name, len(body))
        self._arriving_bytes += max(0, more)
        try:
            holding = await self._do(lambda: self._write(name, body, digest))
        finally:
            self._arriving_bytes -= max(0, more)
        self._take_in(name, holding)
        self._counts["blocks/stored"] += 1
        self.on_stored(name)

    def _more(self, name: BlockName, size_bytes: int) -> int:
        """Return how much more is used with a body of this size. Raises BlockRefused."""
        replaced = self.stored(name)
        more = size_bytes - (replaced.size_bytes if replaced else 0)
        if more > 0 and self.used_bytes + self._arriving_bytes + more > self.bytes_max:
            raise BlockRefused(FULL, "the directory of blocks is as large as it may be")
        return more

    async def check_room(self, name: BlockName, size_bytes: int) -> None:
        """Raise BlockRefused unless there is room for a body of this size, here and on the disk."""
        self._more(name, size_bytes)
        await self._do(lambda: self._check_disk(size_bytes))

    async def read(self, name: BlockName, digest: bytes | None = None) -> bytes:
        """Return a body that fits its checksum, and ``digest`` where one is given.

        One that does not is set aside: others have it. Raises BlockRefused.
        """
        if name not in self:
            raise BlockRefused(MISSING)
        try:
            return await self._do(lambda: self._read(name, digest))
        except BlockRefused as refused:
            if refused.reason == DAMAGED:
                await self._set_aside(name)
            raise

    async def remove(self, name: BlockName) -> None:
        """Let go of a body; harmless if it is not here. Raises BlockRefused."""
        self._forget(name)
        await self._do(lambda: self._path(name).unlink(missing_ok=True))
        self._counts["blocks/removed"] += 1

    async def _set_aside(self, name: BlockName) -> None:
        if name not in self:
            return  # somebody else has read it at the same time
        self._forget(name)
        self._counts["blocks/damaged"] += 1
        with suppress(BlockRefused):
            await self._do(lambda: self._rename_aside(name))
        self.on_damaged(name)

    # In threads

    def _path(self, name: BlockName) -> Path:
        return self._directory / f"{name.file.hex()}-{name.number:0{INDEX_DIGITS}x}"

    def _load(self) -> list[tuple[BlockName, StoredBlock]]:
        make_directory(self._directory, DIRECTORY_MODE)
        found: list[tuple[BlockName, StoredBlock]] = []
        for entry in os.scandir(self._directory):
            if entry.name.endswith(NEW):
                Path(entry.path).unlink()
            elif (name := _name_of(entry.name)) is not None:
                about = entry.stat(follow_symlinks=False)
                size_bytes = max(0, about.st_size - HEADER_BYTES)
                found.append((name, StoredBlock(size_bytes, about.st_mtime)))
        return found

    def _check_disk(self, size_bytes: int) -> None:
        room = os.statvfs(self._directory)
        least = FREE_SHARE_MIN * room.f_blocks * room.f_frsize
        if room.f_bavail * room.f_frsize - size_bytes < least:
            raise BlockRefused(FULL, "the file system is nearly full")

    def _write(self, name: BlockName, body: bytes | bytearray, digest: bytes) -> StoredBlock:
        if digest_of(body) != digest:
            raise BlockRefused(DAMAGED, "it does not fit its checksum")
        self._check_disk(len(body))
        path = self._path(name)
        fresh = path.with_name(f"{path.name}.{os.urandom(4).hex()}{NEW}")
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
            with os.fdopen(handle, "wb", buffering=0) as file:
                _write_all(file.fileno(), _header(name, len(body), digest))
                _write_all(file.fileno(), body)
                os.fsync(file.fileno())
                since_s = os.fstat(file.fileno()).st_mtime
            fresh.rename(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        sync_directory(self._directory)
        return StoredBlock(len(body), since_s)

    def _read(self, name: BlockName, wanted: bytes | None) -> bytes:
        try:
            data = self._path(name).read_bytes()
        except OSError as error:
            # A sector that cannot be read is damage like another; others have the body.
            raise BlockRefused(DAMAGED, str(error)) from None
        head, body = data[:HEADER_BYTES], data[HEADER_BYTES:]
        digest = digest_of(body)
        if head != _header(name, len(body), digest) or wanted not in (None, digest):
            raise BlockRefused(DAMAGED, "it does not fit its checksum")
        return body

    def _rename_aside(self, name: BlockName) -> None:
        path = self._path(name)
        path.replace(path.with_name(path.name + ASIDE))
        kept = sorted(self._directory.glob(f"*{ASIDE}"), key=lambda each: each.stat().st_mtime)
        for old in kept[:-DAMAGED_KEPT]:
            old.unlink()


def _header(name: BlockName, size_bytes: int, digest: bytes) -> bytes:
    index, size = name.number.to_bytes(INDEX_BYTES), size_bytes.to_bytes(SIZE_BYTES)
    return MAGIC + name.file + index + size + digest


def _write_all(handle: int, data: bytes | bytearray) -> None:
    with memoryview(data) as view:
        at = 0
        while at < len(view):
            at += os.write(handle, view[at:])


def _name_of(text: str) -> BlockName | None:
    """Return of which block a file is by its name; None for what is none of ours."""
    file, _, index = text.partition("-")
    try:
        name = BlockName(bytes.fromhex(file), int(index, 16))
    except ValueError:
        return None
    is_whole = len(file) == 2 * FILE_ID_BYTES and len(index) == INDEX_DIGITS
    return name if is_whole and name.number < BLOCKS_MAX else None
