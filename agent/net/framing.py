"""Frames on a stream: a four-byte length (big-endian), then that many bytes.

The length comes from the other side, so it is looked at before anything is reserved for it, and
bytes are gathered as they arrive: announcing a gibibyte costs the sender its connection and us
nothing.
"""

import asyncio

from gossip.core.errors import LimitExceeded, Malformed
from gossip.core.tuning import FRAME_BYTES_MAX

LENGTH_BYTES = 4
READ_BYTES = 64 * 1024
"""As many at a time."""


async def read_frame(reader: asyncio.StreamReader, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """Return the next frame.

    Raises Malformed for a length that is zero or too large, ``asyncio.IncompleteReadError`` and
    OSError when the stream ends.
    """
    size = int.from_bytes(await reader.readexactly(LENGTH_BYTES))
    if not 0 < size <= bytes_max:
        raise _no_frame(size, bytes_max)
    return await reader.readexactly(size)


class ArrivingFrames:
    """Reads frames as they come: all that have arrived at a time."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._unread = bytearray()

    async def read(self) -> list[bytes]:
        """Return the frames that are there, at least one. Raises as ``read_frame`` does."""
        while not (frames := self._whole()):
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise asyncio.IncompleteReadError(bytes(self._unread), None)
            self._unread += data
        return frames

    def _whole(self) -> list[bytes]:
        """Take out the frames that are whole. Raises Malformed once those before are taken."""
        frames: list[bytes] = []
        unread, at = self._unread, 0
        while len(unread) >= at + LENGTH_BYTES:
            size = int.from_bytes(unread[at : at + LENGTH_BYTES])
            if not 0 < size <= FRAME_BYTES_MAX:
                if frames:
                    break
                raise _no_frame(size, FRAME_BYTES_MAX)
            end = at + LENGTH_BYTES + size
            if len(unread) < end:
                break
            frames.append(bytes(unread[at + LENGTH_BYTES : end]))
            at = end
        del unread[:at]
        return frames


def _no_frame(size_bytes: int, bytes_max: int) -> Malformed:
    return Malformed(f"a frame of {size_bytes} bytes, where 1 to {bytes_max} are allowed")


def framed(data: bytes) -> bytes:
    """Return the frame with its length. Raises LimitExceeded."""
    if not 0 < len(data) <= FRAME_BYTES_MAX:
        raise LimitExceeded(f"a frame has 1 to {FRAME_BYTES_MAX} bytes, not {len(data)}")
    return len(data).to_bytes(LENGTH_BYTES) + data
