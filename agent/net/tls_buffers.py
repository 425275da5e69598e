"""Tells asyncio's TLS how much to read at once, which is what each connection takes for it.

asyncio makes a buffer of 256 KiB for each connection, all of it filled with zeros, and so in
memory for as long as the stream is open; a member of ten has some eighteen streams. A record of
TLS has at most 16 KiB (RFC 8446, 5.1). uvloop's buffers are touched only where they are used.
"""

from asyncio.sslproto import SSLProtocol

READ_BYTES = 32 * 1024
"""A whole record that comes in pieces, and what has come of the next."""


def keep_small() -> None:
    """Set it for all connections of this process that begin from here on."""
    SSLProtocol.max_size = READ_BYTES
