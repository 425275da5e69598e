"""Frames on a stream: a four-byte length (big-endian), then that many bytes.

The length comes from the other side, so it is looked at before anything is reserved for it, and
bytes are gathered as they arrive: announcing a gibibyte costs the sender its connection and us
nothing.
"""

import asyncio

from gossip.core.errors import LimitExceeded, Malformed
from gossip.core.tuning import FRAME_BYTES_MAX

LENGTH_BYTES = 4


async def read_frame(reader: asyncio.StreamReader, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """Return the next frame.

    Raises Malformed for a length that is zero or too large, ``asyncio.IncompleteReadError`` and
    OSError when the stream ends.
    """
    size = int.from_bytes(await reader.readexactly(LENGTH_BYTES))
    if not 0 < size <= bytes_max:
        raise Malformed(f"a frame of {size} bytes, where 1 to {bytes_max} are allowed")
    return await reader.readexactly(size)


def framed(data: bytes) -> bytes:
    """Return the frame with its length. Raises LimitExceeded."""
    if not 0 < len(data) <= FRAME_BYTES_MAX:
        raise LimitExceeded(f"a frame has 1 to {FRAME_BYTES_MAX} bytes, not {len(data)}")
    return len(data).to_bytes(LENGTH_BYTES) + data
