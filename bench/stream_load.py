"""Clients that share connections: many of them under way on one stream to each node.

So do etcd's own clients, over gRPC; over HTTP/1.1 each client has a connection. What is asked, how
many wait for an answer at once, and what is counted are as in ``http_load.py``.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence

from bench.http_load import ANSWER_S, WARM_UP_S, Address, Load, RefusedError
from edge_apps.kv_frames import (
    ANSWER_BYTES_MAX,
    PATH,
    PROTOCOL,
    Answer,
    ArrivingMessages,
    Ask,
    Failed,
    decode_answer,
    framed,
)

READ_BYTES = 64 * 1024
Question = Callable[[int, int, int], Ask]
"""(number, client, how many it has asked) -> what to ask."""


class Stream:
    """One stream of shared keys, and who waits for what on it."""

    def __init__(self, address: Address, token: str) -> None:
        self._address, self._token = address, token
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._unsent: list[bytes] = []
        self._number = 0

    async def open(self) -> None:
        """Connect, and upgrade. Raises OSError, RefusedError."""
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        head = (
            f"GET {PATH} HTTP/1.1\r\nhost: bench\r\nconnection: upgrade\r\nupgrade: {PROTOCOL}\r\n"
            f"authorization: Bearer {self._token}\r\n\r\n"
        )
        self._writer.write(head.encode())
        answer = await self._reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in answer[:20]:
            raise RefusedError(answer[:200].decode(errors="replace"))
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        arriving = ArrivingMessages(ANSWER_BYTES_MAX)
        while data := await self._reader.read(READ_BYTES):
            arriving.feed(data)
            while (message := arriving.take()) is not None:
                answer = decode_answer(message)
                self._waiting.pop(answer.number).set_result(answer)

    async def ask(self, make: Callable[[int], Ask]) -> None:
        """Ask, together with all who ask in this turn of the loop. Raises RefusedError."""
        self._number += 1
        loop = asyncio.get_running_loop()
        future = self._waiting[self._number] = loop.create_future()
        if not self._unsent:
            loop.call_soon(self._send)
        self._unsent.append(framed(make(self._number)))
        answer = await future
        if isinstance(answer, Failed):
            raise RefusedError(f"{answer.status}: {answer.message}")

    def _send(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        self._writer.write(data)

    def close(self) -> None:
        """Close it at once."""
        self._reading.cancel()
        self._writer.transport.abort()


def measure_streams(
    addresses: Sequence[Address], token: str, question: Question, clients: int, seconds: float
) -> Load:
    """Let so many clients ask over a stream to each node, for so long after a short warm-up."""
    return asyncio.run(_measure(addresses, token, question, clients, seconds))


async def _measure(
    addresses: Sequence[Address], token: str, question: Question, clients: int, seconds: float
) -> Load:
    streams = [Stream(address, token) for address in addresses]
    for stream in streams:
        await stream.open()
    start = time.monotonic() + WARM_UP_S
    took: list[float] = []
    failed = 0

    async def client(who: int) -> None:
        nonlocal failed
        stream, asked = streams[who % len(streams)], 0
        while (begun := time.monotonic()) < start + seconds:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await stream.ask(lambda number, asked=asked: question(number, who, asked))
            except RefusedError:
                failed += 1
                continue
            finally:
                asked += 1
            if begun >= start:
                took.append(time.monotonic() - begun)

    async with asyncio.TaskGroup() as group:
        for who in range(clients):
            group.create_task(client(who))
    for stream in streams:
        stream.close()
    if len(took) < 2:
        raise RuntimeError(f"{len(took)} questions were answered, {failed} were refused")
    cuts = statistics.quantiles(took, n=100)
    return Load(len(took) / seconds, 1000 * cuts[49], 1000 * cuts[98], len(took), failed)
