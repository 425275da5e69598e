"""A stream to a member that we cannot dial, through one that can: our side of ``relay.py``.

TLS in TLS: the outer connection is ours with the relay, the inner one ours with the target.
"""

import asyncio
import ssl

from agent.net.framing import framed, read_frame
from agent.net.relay_messages import BYTES_MAX, CODEC, RelayAnswer, RelayAsk, RelayMessage
from gossip.core.ids import NodeId

ANSWER_S = 10.0
"""The relay dials in its turn, and several addresses if need be."""
HANDSHAKE_S = 5.0
READ_BUFFER_BYTES = 32 * 1024
SHUTDOWN_S = 2.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NotPutThrough(OSError):
    """The relay does not reach the target, or does not want to."""


class InnerProtocol(asyncio.StreamReaderProtocol):
    """Reads what is inside; holds on to what is around it, which closes when it is forgotten."""

    def __init__(self, reader: asyncio.StreamReader, outer: asyncio.StreamWriter) -> None:
        super().__init__(reader)
        self.outer = outer


async def through(outer: Connection, target: NodeId, context: ssl.SSLContext) -> Connection:
    """Ask a relay for the target, and shake hands with whoever is there; who is for the caller.

    Raises OSError, EOFError and RemoteError; then ``outer`` is closed.
    """
    reader, writer = outer
    try:
        writer.write(framed(CODEC.encode(RelayAsk(target))))
        async with asyncio.timeout(ANSWER_S):
            answer = CODEC.decode(await read_frame(reader, BYTES_MAX))
        _expect_through(answer)
        async with asyncio.timeout(HANDSHAKE_S):
            return await _wrapped(writer, context)
    except BaseException:
        writer.transport.abort()
        raise


def _expect_through(answer: RelayMessage | None) -> None:
    if not isinstance(answer, RelayAnswer) or not answer.is_through:
        raise NotPutThrough("the relay does not reach it")


async def _wrapped(outer: asyncio.StreamWriter, context: ssl.SSLContext) -> Connection:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=READ_BUFFER_BYTES)
    protocol = InnerProtocol(reader, outer)
    transport = await loop.start_tls(
        outer.transport,
        protocol,
        context,
        server_hostname="",
        ssl_shutdown_timeout=SHUTDOWN_S,
    )
    assert transport is not None, "it returns what it made, or raises"
    protocol.connection_made(transport)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
