"""Bounded queues for one reader each, who may be slower than what it reads.

Events do not wait for their readers: the protocol that emits them has deadlines, and neither the
agent's memory nor its timing may depend on somebody's terminal. So each reader has a queue with an
end, and what happens there is one of two things. ``BoundedQueue`` cuts a reader off that falls
behind, after it has read what it has: it can ask again and start from a fresh state, which a reader
that silently lost something could not. ``LossyQueue`` lets the oldest make room, and says how many
were lost before the next: right where each stands for itself, as lines and readings do.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from agent import exits
from agent.exits import AgentError

WAITING_MAX = 1024

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """A queue that ends when its reader is too slow: ``async for`` it, end it with ``close``.

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


class LossyQueue(Generic[T]):
    """A queue in which the oldest make room, and which counts what it lost."""

    def __init__(self, waiting_max: int = WAITING_MAX) -> None:
        assert waiting_max > 0, "a queue without room loses everything"
        self._queue: deque[T] = deque(maxlen=waiting_max)
        self._waiting_max = waiting_max
        self._missed = 0
        self._something = asyncio.Event()

    def put(self, one: T) -> bool:
        """Queue one; False when the oldest was lost for it."""
        return self.extend([one]) == 0

    def extend(self, more: Collection[T]) -> int:
        """Queue all of these; return how many of the oldest were lost for them."""
        lost = max(0, len(self._queue) + len(more) - self._waiting_max)
        self._missed += lost
        self._queue.extend(more)
        if more:
            self._something.set()
        return lost

    async def wait(self) -> int:
        """Wait for something; return how many were lost before it, which are then forgotten."""
        await self._something.wait()
        missed, self._missed = self._missed, 0
        return missed

    def pop(self) -> T:
        """Return the oldest; there is one after ``wait``."""
        one = self._queue.popleft()
        if not self._queue:
            self._something.clear()
        return one

    async def drain(self) -> tuple[int, list[T]]:
        """Wait for something; return how many were lost before it, and all that waits."""
        missed = await self.wait()
        taken = list(self._queue)
        self._queue.clear()
        self._something.clear()
        return missed, taken
