"""Puts members through to each other that do not reach each other.

One of them has IPv4 alone and the other IPv6, or a firewall is between the two.

Whoever asks opens a stream to us that says by ALPN that it wants this (``tls.py``), and names a
member. We open a TCP connection to that member, and from then on pass bytes, both ways, until one
side ends. What passes is a TLS handshake between the two and what follows it: each sees the other's
certificate as ever, and we see what a router sees. So a relay can delay and cut, and neither read
nor forge.

Two things keep it from being a way into a network for others. Both ends are members of the covey by
the registry; and we connect only to where we have just seen that member ourselves, by its
certificate, whatever addresses anybody tells. And it is bounded: so many pairs in all and for each
asker, and no more bytes in memory than a small buffer for each direction.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

from agent.net.framing import framed, read_frame
from agent.net.relay_messages import BYTES_MAX, CODEC, RelayAnswer, RelayAsk
from gossip.core.errors import Malformed, RemoteError
from gossip.core.ids import NodeId

ASK_S = 5.0
JOINED_EACH_MAX, JOINED_MAX = 32, 128
"""Streams joined at a time, for each asker and for all; each takes two file descriptors."""
CHUNK_BYTES = 16 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """Puts members through to each other, as the member in the middle."""

    def __init__(
        self,
        connect: Callable[[NodeId], Awaitable[Connection]],
        may_join: Callable[[NodeId, NodeId], bool],
        counts: Counter[str],
    ) -> None:
        """``connect`` opens a bare TCP connection to where a member was proved to be."""
        self.joined: Counter[NodeId] = Counter()
        """How many streams are joined, or about to be, by who asked."""
        self._connect, self._may_join = connect, may_join
        self._counts = counts

    async def serve(
        self, asker: NodeId, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one asker until either side ends. Raises OSError, EOFError and RemoteError."""
        async with asyncio.timeout(ASK_S):
            ask = CODEC.decode(await read_frame(reader, BYTES_MAX))
        if not isinstance(ask, RelayAsk):
            raise Malformed("not what a relay is asked")
        if asker == ask.target or not self._may_join(asker, ask.target):
            await self._refuse("refused", writer)
        elif self.joined[asker] >= JOINED_EACH_MAX or self.joined.total() >= JOINED_MAX:
            await self._refuse("no_place", writer)
        else:
            self.joined[asker] += 1
            try:
                await self._put_through(ask.target, reader, writer)
            finally:
                self.joined[asker] -= 1
                self.joined += Counter()  # forgets who has none

    async def _refuse(self, reason: str, writer: asyncio.StreamWriter) -> None:
        self._counts[f"relayed_streams/{reason}"] += 1
        writer.write(framed(CODEC.encode(RelayAnswer(is_through=False))))
        await writer.drain()

    async def _put_through(
        self, target: NodeId, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            there = await self._connect(target)
        except (OSError, RemoteError):
            await self._refuse("not_reached", writer)
            return
        try:
            self._counts["relayed_streams/joined"] += 1
            writer.write(framed(CODEC.encode(RelayAnswer(is_through=True))))
            await writer.drain()
            await _join((reader, writer), there)
        finally:
            there[1].close()


async def _join(one: Connection, other: Connection) -> None:
    """Pass bytes both ways until one side ends."""
    passing = [
        asyncio.create_task(_pass(one[0], other[1]), name="relay-there"),
        asyncio.create_task(_pass(other[0], one[1]), name="relay-back"),
    ]
    try:
        done, _ = await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()
