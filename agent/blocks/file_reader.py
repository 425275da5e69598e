"""Makes a stream of bytes of the blocks of a file: the whole, or a range.

The next block is fetched while one is being sent. Each part that leaves is of a block that fits
the checksum in its record.
"""

import asyncio
from collections.abc import AsyncIterator

from agent.blocks.transfers import Transfers
from agent.cluster.kv import Kv
from agent.exits import NOT_FOUND, UNHEALTHY, AgentError
from gossip.bodies.block_limits import BLOCK_BYTES
from gossip.bodies.file_records import BlockName, BlockRecord, decode_record
from gossip.core.errors import Malformed

PART_BYTES = 256 * 1024


class FileReader:
    """Reads files by their ids."""

    def __init__(self, kv: Kv, transfers: Transfers) -> None:
        self._kv, self._transfers = kv, transfers

    async def record(self, name: BlockName) -> BlockRecord | None:
        """Return what is known of a block; None for one that is not there. Raises AgentError."""
        result = await self._kv.get(name.key)
        if result.outcome != "ok":
            raise AgentError(
                "too few owners of a block's record answered",
                "try again when more of them are back",
                UNHEALTHY,
            )
        for value in result.values:
            try:
                return decode_record(value.data, BlockRecord)
            except Malformed:
                continue  # no version of ours wrote it: an older value may be one
        return None

    async def read(self, file: bytes, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a file from ``start`` up to ``end``. Raises AgentError."""
        following: asyncio.Task[bytes] | None = None
        try:
            for at in range(start - start % BLOCK_BYTES, end, BLOCK_BYTES):
                task = following or self._begin(file, at, start, end)
                following = None
                body = await task
                if at + BLOCK_BYTES < end:
                    following = self._begin(file, at + BLOCK_BYTES, start, end)
                for cut in range(0, len(body), PART_BYTES):
                    yield body[cut : cut + PART_BYTES]
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    def _begin(self, file: bytes, at: int, start: int, end: int) -> asyncio.Task[bytes]:
        name = BlockName(file, at // BLOCK_BYTES)
        span = max(0, start - at), min(BLOCK_BYTES, end - at)
        return asyncio.create_task(self._body(name, *span), name="block-read")

    async def _body(self, name: BlockName, start: int, end: int) -> bytes:
        record = await self.record(name)
        if record is None or record.size_bytes < end:
            raise AgentError(
                f"block {name.number} is gone: the file was replaced or removed while it was read",
                "read it again: its name shows what there is now",
                NOT_FOUND,
            )
        return await self._transfers.body(name, record, start, end)
