"""Makes blocks of a stream of bytes, and has each on most of its owners' disks.

Two blocks are under way while a third fills: so much memory an upload takes, however long it is.
The record of a block is written once its body is safe. So whatever blocks have records can be gone
on from, when an upload breaks off. A block never gets another content: owners that have its body
keep it, and who asks them does not say which one is meant.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from agent.blocks.file_reader import FileReader
from agent.blocks.transfers import Transfers
from agent.cluster.kv import Kv
from agent.exits import NO, UNHEALTHY, USAGE, AgentError
from gossip.bodies.block_limits import BLOCK_BYTES
from gossip.bodies.file_records import BlockName, BlockRecord, digest_of, encode

UNDER_WAY_MAX = 2
RECORD_S = 10.0
RECORD_TRIES = 3


class Written(NamedTuple):
    """What a stream has become: the digests of its blocks, and how long it is."""

    digests: list[bytes]
    size_bytes: int

    @property
    def digest(self) -> bytes:
        """The digest of the whole: of the digests of its blocks."""
        return digest_of(b"".join(self.digests))


class OtherContent(AgentError):
    """An upload is gone on with, with other bytes than it began with."""

    def __init__(self, name: BlockName) -> None:
        super().__init__(
            f"block {name.number} of this upload has other bytes already; the upload was given up,"
            " and nothing of it is visible",
            "put the file again: it begins anew",
            NO,
        )


class FileWriter:
    """Writes the blocks of one file, from block ``first`` on."""

    def __init__(
        self,
        kv: Kv,
        transfers: Transfers,
        file: bytes,
        before: list[bytes],
        bytes_max: int,
        *,
        is_new: bool,
    ) -> None:
        """``before``: the digests of the blocks that are written already, all of full size.

        ``is_new``: there can be no others.
        """
        self._reader, self._is_new = FileReader(kv, transfers), is_new
        self._kv, self._transfers, self._file = kv, transfers, file
        self._digests = list(before)
        self._bytes_max = bytes_max
        self._places = asyncio.Semaphore(UNDER_WAY_MAX)

    async def write(self, parts: AsyncIterator[bytes]) -> Written:
        """Write all that comes. Raises AgentError; what is written stays, to go on from."""
        broken_off: AgentError | None = None
        try:
            async with asyncio.TaskGroup() as blocks:
                try:
                    size_bytes = await self._fill(parts, blocks)
                except AgentError as error:
                    broken_off = error  # what is under way is still worth its end
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        if broken_off is not None:
            raise broken_off
        return Written(self._digests, size_bytes)

    async def _fill(self, parts: AsyncIterator[bytes], blocks: asyncio.TaskGroup) -> int:
        """Begin each block as soon as it is whole, the last at the end; return how much it was."""
        size_bytes = len(self._digests) * BLOCK_BYTES
        filling = bytearray()
        async for part in parts:
            size_bytes += len(part)
            if size_bytes > self._bytes_max:
                raise _too_large(self._bytes_max)
            filling += part
            while len(filling) >= BLOCK_BYTES:
                with memoryview(filling) as view:
                    body = bytes(view[:BLOCK_BYTES])
                del filling[:BLOCK_BYTES]
                await self._begin(blocks, body)
        if filling:
            await self._begin(blocks, bytes(filling))
        return size_bytes

    async def _begin(self, blocks: asyncio.TaskGroup, body: bytes) -> None:
        await self._places.acquire()
        digest = await asyncio.to_thread(digest_of, body)
        name = BlockName(self._file, len(self._digests))
        self._digests.append(digest)
        blocks.create_task(self._write(name, body, digest), name="block-write")

    async def _write(self, name: BlockName, body: bytes, digest: bytes) -> None:
        try:
            there = None if self._is_new else await self._reader.record(name)
            if there is not None and there.digest != digest:
                raise OtherContent(name)
            await self._transfers.store(name, body, digest)
            await self._record(name, BlockRecord(len(body), digest))
        finally:
            self._places.release()

    async def _record(self, name: BlockName, record: BlockRecord) -> None:
        """Write a block's record; twice is the same as once."""
        for _ in range(RECORD_TRIES):
            result = await self._kv.put(name.key, encode(record), timeout_s=RECORD_S)
            if result.outcome == "ok":
                return
        raise AgentError(
            "too few owners have the record of a block on disk; nothing of the file is visible",
            "try again when more of them are back: it goes on from there",
            UNHEALTHY,
        )


def _too_large(bytes_max: int) -> AgentError:
    return AgentError(
        f"a file may have at most {bytes_max} bytes; nothing of it is visible",
        "split it, or set `[files] file_bytes_max` on the agent that it is written through",
        USAGE,
    )
