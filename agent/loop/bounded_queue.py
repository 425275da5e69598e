"""A bounded queue of events for one reader, who may be slower than the events.

Events do not wait for their readers: the protocol that emits them has deadlines. So each reader
has a queue with an end. One that falls behind by more than that is told so, after it has read
what it has: it can ask again and start from a fresh state, which a reader that silently lost
something could not.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from agent import exits
from agent.exits import AgentError

WAITING_MAX = 1024

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """``async for event in subscription``; end it with ``close``.

    ``on_close`` is called once, when no more events are wanted.
    """

    def __init__(self, on_close: Callable[[], None], waiting_max: int = WAITING_MAX) -> None:
        self._queue: asyncio.Queue[T | None] = asyncio.Queue()
        self._on_close = on_close
        self._waiting_max = waiting_max
        self._failure: Exception | None = None
        self._is_closed = False

    def put(self, event: T) -> bool:
        """Queue an event; False when the reader has fallen too far behind, and is cut off."""
        if self._is_closed:
            return True
        if self._queue.qsize() >= self._waiting_max:
            self.fail(
                AgentError(
                    f"more than {self._waiting_max} events waited to be read; later ones are lost.",
                    hint="Read faster, or watch fewer keys; then start again from a fresh list.",
                    status=exits.UNHEALTHY,
                )
            )
            return False
        self._queue.put_nowait(event)
        return True

    def fail(self, error: Exception) -> None:
        """Let the reader have what waits, and then this error."""
        self._failure = self._failure or error
        self.close()

    def close(self) -> None:
        """Take no more events; the reader gets what waits, then the end. Harmless when repeated."""
        if not self._is_closed:
            self._is_closed = True
            self._queue.put_nowait(None)
            self._on_close()

    def __aiter__(self) -> "BoundedQueue[T]":
        return self

    async def __anext__(self) -> T:
        event = await self._queue.get()
        if event is not None:
            return event
        self._queue.put_nowait(None)  # for whoever asks again
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration
