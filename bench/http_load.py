"""Clients that ask one after the other over connections that stay open, in a process of their own.

The same code asks every contender, so what the clients cost is the same on both sides. A client has
one connection to one node and sends its next request when the answer is there.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

Address = tuple[str, int]
Request = Callable[[int, int], bytes]
"""(client, how many it has asked) -> the request as it goes over the wire."""

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
GOOD = b"HTTP/1.1 2"
WARM_UP_S = 1.0
ANSWER_S = 30.0


class Load(NamedTuple):
    """What came of it."""

    per_s: float
    p50_ms: float
    p99_ms: float
    done: int
    failed: int


class RefusedError(Exception):
    """A node answered, with something else than success."""


def http(method: str, path: str, body: bytes = b"", token: str = "") -> bytes:
    """Return a request as it goes over the wire."""
    head = [f"{method} {path} HTTP/1.1", "host: bench", f"content-length: {len(body)}"]
    if body:
        head.append("content-type: application/json")
    if token:
        head.append(f"authorization: Bearer {token}")
    return "\r\n".join(head).encode() + HEAD_END + body


class Connection:
    """One connection that stays open."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def open(self) -> None:
        """Connect. Raises OSError."""
        self._reader, self._writer = await asyncio.open_connection(*self._address)

    async def ask(self, request: bytes) -> bytes:
        """Send a request; return the body of the answer. Raises RefusedError, OSError."""
        self._writer.write(request)
        head = await self._reader.readuntil(HEAD_END)
        at = head.lower().find(LENGTH)
        if at < 0:
            raise RefusedError(f"an answer without a length: {head[:200]!r}")
        size = int(head[at + len(LENGTH) : head.index(b"\r\n", at)])
        body = await self._reader.readexactly(size)
        if not head.startswith(GOOD):
            raise RefusedError(f"{head.split(b' ', 2)[1].decode()}: {body[:200]!r}")
        return body

    def close(self) -> None:
        """Close it at once."""
        self._writer.transport.abort()


async def ask_once(address: Address, request: bytes, within_s: float = ANSWER_S) -> bytes:
    """Ask one question on a connection of its own. Raises OSError, RefusedError, EOFError."""
    connection = Connection(address)
    async with asyncio.timeout(within_s):
        await connection.open()
        try:
            return await connection.ask(request)
        finally:
            connection.close()


async def ask_each(
    addresses: Sequence[Address], request: Callable[[int], bytes], count: int, clients: int = 64
) -> None:
    """Ask so many questions once each, spread over the nodes. Raises RefusedError, OSError."""

    async def client(number: int) -> None:
        connection = Connection(addresses[number % len(addresses)])
        await connection.open()
        for each in range(number, count, clients):
            await connection.ask(request(each))
        connection.close()

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))


def measure(addresses: Sequence[Address], request: Request, clients: int, seconds: float) -> Load:
    """Let so many clients ask, spread over the nodes, for so long after a short warm-up."""
    return asyncio.run(_measure(addresses, request, clients, seconds))


async def _measure(
    addresses: Sequence[Address], request: Request, clients: int, seconds: float
) -> Load:
    start = time.monotonic() + WARM_UP_S
    took: list[float] = []
    failed = 0

    async def client(number: int) -> None:
        nonlocal failed
        connection = Connection(addresses[number % len(addresses)])
        await connection.open()
        asked = 0
        while (begun := time.monotonic()) < start + seconds:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await connection.ask(request(number, asked))
            except RefusedError:
                failed += 1
                continue
            finally:
                asked += 1
            if begun >= start:
                took.append(time.monotonic() - begun)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    if len(took) < 2:
        raise RuntimeError(f"{len(took)} requests were answered, {failed} were refused")
    cuts = statistics.quantiles(took, n=100)
    return Load(len(took) / seconds, 1000 * cuts[49], 1000 * cuts[98], len(took), failed)
