"""Requests to members by frames, and the replies that belong to them.

A frame says nothing about what becomes of it: it may be lost with its stream, and the member that
answers may do so late, twice, or to what nobody asked. So a request carries a number, and its reply
is taken from that member alone, once, and while somebody waits for it.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from gossip.core.ids import NodeId

R = TypeVar("R")


class PendingReplies(Generic[R]):
    """Manages the requests that wait for a reply, by the member asked and their number."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[NodeId, int], asyncio.Future[R]] = {}

    async def request(
        self,
        peer: NodeId,
        number: int,
        send: Callable[[], object],
        timeout_s: float,
        again_s: float | None = None,
    ) -> R:
        """Send a request, every ``again_s`` if given, until the reply is there; return it.

        Raises TimeoutError when there is none after ``timeout_s``.
        """
        assert (peer, number) not in self._waiting, "a request has a number of its own"
        reply: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting[peer, number] = reply
        try:
            async with asyncio.timeout(timeout_s):
                while not reply.done():
                    send()
                    await asyncio.wait([reply], timeout=again_s)
            return reply.result()
        finally:
            del self._waiting[peer, number]

    def receive(self, peer: NodeId, number: int, reply: R) -> bool:
        """Hand a reply to whoever waits for it; False when nobody does, or does any more."""
        waiting = self._waiting.get((peer, number))
        if waiting is None or waiting.done():
            return False
        waiting.set_result(reply)
        return True
