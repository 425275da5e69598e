"""Between a TLS connection and a stream: what arrives is read into one buffer that all share.

For a protocol without a buffer of its own, asyncio and uvloop take a new one of 256 KiB for each
read, however little has come, and malloc has its pages mapped and unmapped (``agent/system/heap``):
several times what it costs to decrypt a small frame.
"""

import asyncio

BUFFER = memoryview(bytearray(64 * 1024))
"""It is filled and emptied in one go, on the one loop, so that nobody else comes in between."""


class StreamProtocol(asyncio.BufferedProtocol):
    """Feeds a ``StreamReader``, by way of the protocol that a ``StreamWriter`` knows."""

    def __init__(self, inner: asyncio.StreamReaderProtocol) -> None:
        self._inner = inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._inner.connection_lost(exc)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return where to put what has come."""
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take it out."""
        self._inner.data_received(bytes(BUFFER[:nbytes]))

    def eof_received(self) -> bool | None:
        """Take in that no more comes."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Have whoever drains wait."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Let it go on."""
        self._inner.resume_writing()
