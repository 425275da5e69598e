"""Files by their names: put, read, list, look at, move and remove.

A name is one record. It is written when all blocks of the file are safe, so that a file is seen as
a whole or not at all; whoever reads the file of before goes on with it for a minute, and is told
when it is gone by then. To move is to write the new name and to delete the old one: if this agent
ends in between, both stand for the same file, and `is_shared` sees to it that neither takes the
blocks of the other away. Who replaced or removed the file and had looked before it was moved does
not know that: so a move leaves a **mark** among the uploads first, for longer than anybody takes
from such a look to taking blocks away, and whoever does takes none of a file that has a mark, is
being gone on with, or has its name again.

Of two that write one name at once the later counts, by the rule for all keys (``gossip/kv``).
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import msgspec

from agent.blocks.file_reader import FileReader
from agent.blocks.file_writer import FileWriter, OtherContent
from agent.blocks.transfers import Transfers
from agent.cluster.kv import Kv
from agent.exits import NO, NOT_FOUND, UNHEALTHY, USAGE, AgentError
from agent.loop import watched
from gossip.bodies.block_limits import BLOCK_BYTES, BLOCKS_MAX, FILE_ID_BYTES
from gossip.bodies.file_records import (
    FILE_PREFIX,
    UPLOAD_PREFIX,
    BlockName,
    FileRecord,
    UploadRecord,
    decode_record,
    encode,
    file_key,
    file_of_upload,
    upload_key,
)
from gossip.core.errors import Malformed
from gossip.kv.requests import GetResult, PutResult, Value

COLLECT_AFTER_S = 60.0
"""Whoever reads a file that was replaced or removed has so long to finish."""
MOVE_MARK_S = 4 * COLLECT_AFTER_S
"""A look that a move does not know of is this old at most when blocks are taken away after it."""
SIGN_OF_LIFE_S = 3600.0
"""So often an upload says that it goes on; one that says nothing for a day is given up."""
COLLECTED_AT_ONCE = 8
UPLOADS_MAX = 4
"""So many files are written at a time; each takes some 4 MiB of memory."""
UPLOADS_LISTED_MAX = 1000
LISTED = "`covey file ls` shows all"


MOVING = UploadRecord("")
"""Stands for a file that gets another name. No upload is without a name."""


class NamedFile(NamedTuple):
    """A name with the file that it stands for."""

    name: str
    record: FileRecord


class Upload(NamedTuple):
    """A file that is being written, or was broken off: by its id it can be gone on with."""

    file: bytes
    record: UploadRecord
    digests: list[bytes]
    """Of the blocks from the first on that are safe."""


class FilePage(NamedTuple):
    """Some names, in their order, and after which one to go on; "" at the end."""

    files: list[NamedFile]
    next: str
    outcome: str


class Files:
    """The files of the covey, through this node."""

    def __init__(self, kv: Kv, transfers: Transfers, bytes_max: int, counts: Counter[str]) -> None:
        """``bytes_max``: of one file."""
        self.reader = FileReader(kv, transfers)
        self._kv, self._transfers, self._counts = kv, transfers, counts
        self._bytes_max = min(bytes_max, BLOCKS_MAX * BLOCK_BYTES)
        self._writing = 0
        self._tasks = watched.TaskSet()

    async def stop(self) -> None:
        """Collect nothing any more; what is left is found later."""
        await self._tasks.stop()

    # Looking

    async def find(self, name: str) -> FileRecord:
        """Return the file that a name stands for. Raises AgentError, InvalidRequest."""
        _, records = await self._look(name)
        if not records:
            raise AgentError(f"there is no file {name!r}", LISTED, NOT_FOUND)
        return records[0]

    async def _look(self, name: str) -> tuple[GetResult, list[FileRecord]]:
        result = await self._kv.get(file_key(name))
        if result.outcome != "ok":
            raise AgentError(
                f"only {result.answered} of {result.needed} owners of the name {name!r} answered",
                "try again when more of them are back",
                UNHEALTHY,
            )
        return result, self.records(result.values)

    def records(self, values: Iterable[Value]) -> list[FileRecord]:
        """Return the files that the values of a name stand for, the one that counts first."""
        return list(_records(values))

    def read(self, record: FileRecord, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield a range of a file's bytes; errors come in the midst of it. Raises AgentError."""
        return self.reader.read(record.file, start, end)

    async def page(self, prefix: str = "", after: str = "", limit: int = 100) -> FilePage:
        """Return a page of the names that begin with a prefix."""
        page = await self._kv.list(
            FILE_PREFIX + prefix, after=FILE_PREFIX + after if after else "", limit=limit
        )
        files = [
            NamedFile(entry.key.removeprefix(FILE_PREFIX), record)
            for entry in page.entries
            for record in self.records(entry.values)[:1]
        ]
        return FilePage(files, page.next.removeprefix(FILE_PREFIX), page.outcome)

    # Writing

    async def put(
        self,
        name: str,
        parts: AsyncIterator[bytes],
        *,
        mark: str = "",
        upload: Upload | None = None,
    ) -> FileRecord:
        """Make all that comes the file of a name. Raises AgentError, InvalidRequest.

        ``upload``: what to go on with; ``parts`` begin behind its blocks then. ``mark``: what an
        upload is found by again.
        """
        file_key(name)
        if self._writing >= UPLOADS_MAX:
            raise AgentError(
                f"{UPLOADS_MAX} files are being written through this agent already",
                "wait for one of them, or write through another",
                UNHEALTHY,
            )
        self._writing += 1
        try:
            return await self._put(name, parts, mark, upload)
        finally:
            self._writing -= 1

    async def _put(
        self, name: str, parts: AsyncIterator[bytes], mark: str, upload: Upload | None
    ) -> FileRecord:
        file = upload.file if upload else secrets.token_bytes(FILE_ID_BYTES)
        under_way = UploadRecord(name, upload.record.mark if upload else mark)
        _check(await self._kv.put(upload_key(file), encode(under_way)), name)
        before = upload.digests if upload else []
        writer = FileWriter(
            self._kv, self._transfers, file, before, self._bytes_max, is_new=upload is None
        )
        try:
            written = await writer.write(self._living(file, under_way, parts))
        except OtherContent:
            await self.end_upload(file)
            raise
        await self._check_goes_on(file, name)
        now_ms = time.time_ns() // 1_000_000
        record = FileRecord(file, written.size_bytes, written.digest, now_ms)
        await self._name(name, record)
        await self.end_upload(file)
        self._counts["files/written"] += 1
        return record

    async def _living(
        self, file: bytes, under_way: UploadRecord, parts: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Yield what comes, and say now and then that it goes on. Raises AgentError."""
        now = asyncio.get_running_loop().time
        said_at = now()
        async for part in parts:
            yield part
            if now() - said_at >= SIGN_OF_LIFE_S:
                said_at = now()
                await self._check_goes_on(file, under_way.name)
                with suppress(AgentError):  # there are more to come
                    await self._kv.put(upload_key(file), encode(under_way))

    async def _check_goes_on(self, file: bytes, name: str) -> None:
        """Raise AgentError if blocks of an upload may be gone already, as it was given up."""
        found = await self._kv.get(upload_key(file))
        if found.outcome == "ok" and not found.values:
            raise AgentError(
                f"this upload of {name!r} was ended meanwhile: by another put that went on with "
                "it, or since it gave no sign of life for a day; nothing was named by it",
                "look with `covey file stat`, or put the file again",
                NO,
            )

    async def _name(self, name: str, record: FileRecord) -> None:
        """Have a name stand for a file, in place of all that it stood for."""
        before, replaced = await self._look(name)
        put = await self._kv.put(file_key(name), encode(record), context=before.context)
        _check(put, name)
        self._collect_later(name, (each for each in replaced if each.file != record.file))

    async def uploads(self, mark: str, is_meant: Callable[[str], bool]) -> list[Upload]:
        """Return the uploads with a mark that were not ended, and whose names are meant."""
        page = await self._kv.list(UPLOAD_PREFIX, limit=UPLOADS_LISTED_MAX)
        found: list[Upload] = []
        for entry in page.entries:
            if (file := file_of_upload(entry.key)) is None:
                continue
            for value in entry.values:
                try:
                    record = decode_record(value.data, UploadRecord)
                except Malformed:
                    continue
                if record.name and record.mark == mark and is_meant(record.name):
                    found.append(Upload(file, record, await self._digests(file)))
        return found

    async def end_upload(self, file: bytes) -> None:
        """Forget that a file is being written. Its blocks stay, for whoever they belong to now."""
        await self._kv.delete(upload_key(file))

    async def _digests(self, file: bytes) -> list[bytes]:
        """Return the digests of the whole blocks of a file that are safe, from the first on."""
        digests: list[bytes] = []
        while len(digests) < BLOCKS_MAX:
            record = await self.reader.record(BlockName(file, len(digests)))
            if record is None or record.size_bytes != BLOCK_BYTES:
                break
            digests.append(record.digest)
        return digests

    # Names

    async def remove(self, name: str) -> FileRecord:
        """Remove a file. Raises AgentError, InvalidRequest."""
        before, records = await self._look(name)
        if not records:
            raise AgentError(f"there is no file {name!r}", LISTED, NOT_FOUND)
        _check(await self._kv.delete(file_key(name), context=before.context), name)
        self._collect_later(name, records)
        self._counts["files/removed"] += 1
        return records[0]

    async def move(self, old: str, new: str) -> FileRecord:
        """Give a file another name; what that one stood for is replaced. Raises AgentError."""
        if old == new:
            raise AgentError("both names are the same; nothing was done", "", USAGE)
        file_key(new)
        before, records = await self._look(old)
        if not records:
            raise AgentError(f"there is no file {old!r}", LISTED, NOT_FOUND)
        shared = msgspec.structs.replace(records[0], is_shared=True)
        _check(await self._kv.put(upload_key(shared.file), encode(MOVING)), old)
        self._tasks.start("move-mark", partial(self._end_mark, shared.file))
        marked = await self._kv.put(file_key(old), encode(shared), context=before.context)
        _check(marked, old)
        await self._name(new, shared)
        _check(await self._kv.delete(file_key(old), context=marked.context), old)
        self._counts["files/moved"] += 1
        return shared

    # Blocks that nobody needs any more

    async def _end_mark(self, file: bytes) -> None:
        await asyncio.sleep(MOVE_MARK_S)
        with suppress(AgentError):  # what is left of it ends as an upload does
            await self.end_upload(file)

    def _collect_later(self, name: str, records: Iterable[FileRecord]) -> None:
        """Take away the blocks of files that a name has stood for."""
        for record in records:
            if not record.is_shared:
                self._tasks.start("block-collect", partial(self._collect, name, record))

    async def _collect(self, name: str, record: FileRecord) -> None:
        await asyncio.sleep(COLLECT_AFTER_S)
        with suppress(AgentError):  # what is left is found later
            if await self._is_wanted(name, record):
                self._counts["blocks/not_collected"] += 1
                return
            numbers = range(record.blocks)
            await self.delete_blocks(BlockName(record.file, number) for number in numbers)

    async def _is_wanted(self, name: str, record: FileRecord) -> bool:
        """Tell whether a file may have a name in spite of all. Raises AgentError."""
        mark = await self._kv.get(upload_key(record.file))
        _, now_named = await self._look(name)
        is_named = any(each.file == record.file for each in now_named)
        return mark.outcome != "ok" or bool(mark.values) or is_named

    async def delete_blocks(self, names: Iterable[BlockName]) -> None:
        """Delete the records of blocks; their bodies go where these go."""
        places = asyncio.Semaphore(COLLECTED_AT_ONCE)

        async def delete(name: BlockName) -> None:
            async with places:
                await self._kv.delete(name.key)
                self._counts["blocks/collected"] += 1

        await asyncio.gather(*map(delete, names))


def _records(values: Iterable[Value]) -> Iterable[FileRecord]:
    for value in values:
        try:
            yield decode_record(value.data, FileRecord)
        except Malformed:
            continue


def _check(result: PutResult, name: str) -> None:
    if result.outcome != "ok":
        raise AgentError(
            f"indeterminate: {result.acks} of {result.needed} owners are known to have what was "
            f"written of {name!r} on disk; it may spread, or not",
            "look with `covey file stat`, or repeat the command: it does no harm",
            UNHEALTHY,
        )
