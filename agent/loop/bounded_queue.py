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
WAITING_BYTES_MAX = 8 * 2**20

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """A queue that ends when its reader is too slow: ``async for`` it, end it with ``close``.

    ``on_close`` is called once, when no more events are wanted. So many events may wait, and so
    many bytes of them, of those whose size ``put`` is told.
    """

    def __init__(
        self,
        on_close: Callable[[], None],
        waiting_max: int = WAITING_MAX,
        bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        self._queue: asyncio.Queue[tuple[T, int] | None] = asyncio.Queue()
        self._on_close = on_close
        self._waiting_max, self._bytes_max = waiting_max, bytes_max
        self._waiting_bytes = 0
        self._failure: Exception | None = None
        self._is_closed = False

    def put(self, event: T, size_bytes: int = 0) -> bool:
        """Queue an event; False when the reader has fallen too far behind, and is cut off.

        An event that is larger than all that may wait is taken by a reader for whom nothing waits.
        """
        if self._is_closed:
            return True
        waiting_bytes = self._waiting_bytes + size_bytes
        if self._queue.qsize() >= self._waiting_max:
            self._cut_off(f"{self._waiting_max} events")
            return False
        if waiting_bytes > self._bytes_max and self._queue.qsize():
            self._cut_off(f"{self._bytes_max} bytes of events")
            return False
        self._waiting_bytes = waiting_bytes
        self._queue.put_nowait((event, size_bytes))
        return True

    def _cut_off(self, what: str) -> None:
        self.fail(
            AgentError(
                f"more than {what} waited to be read; later ones are lost.",
                hint="Read faster, or watch fewer keys; then start again from a fresh list.",
                status=exits.UNHEALTHY,
            )
        )

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
        waited = await self._queue.get()
        if waited is not None:
            event, size_bytes = waited
            self._waiting_bytes -= size_bytes
            return event
        self._queue.put_nowait(None)  # for whoever asks again
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration


class LossyQueue(Generic[T]):
    """A queue in which the oldest make room, and which counts what it lost.

    So many may wait, and so many bytes of them, where ``size_of`` says how many one has; but always
    the newest.
    """

    def __init__(
        self,
        waiting_max: int = WAITING_MAX,
        size_of: Callable[[T], int] = lambda _one: 0,
        bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        assert waiting_max > 0, "a queue without room loses everything"
        self._queue: deque[T] = deque()
        self._size_of = size_of
        self._waiting_max, self._bytes_max = waiting_max, bytes_max
        self._waiting_bytes = 0
        self._missed = 0
        self._something = asyncio.Event()

    def put(self, one: T) -> bool:
        """Queue one; False when the oldest was lost for it."""
        return self.extend([one]) == 0

    def extend(self, more: Collection[T]) -> int:
        """Queue all of these; return how many of the oldest were lost for them."""
        self._queue.extend(more)
        self._waiting_bytes += sum(map(self._size_of, more))
        lost = 0
        while len(self._queue) > self._waiting_max or (
            self._waiting_bytes > self._bytes_max and len(self._queue) > 1
        ):
            self._take()
            lost += 1
        self._missed += lost
        if more:
            self._something.set()
        return lost

    def _take(self) -> T:
        one = self._queue.popleft()
        self._waiting_bytes -= self._size_of(one)
        return one

    async def wait(self) -> int:
        """Wait for something; return how many were lost before it, which are then forgotten."""
        await self._something.wait()
        missed, self._missed = self._missed, 0
        return missed

    def pop(self) -> T:
        """Return the oldest; there is one after ``wait``."""
        one = self._take()
        if not self._queue:
            self._something.clear()
        return one

    async def drain(self) -> tuple[int, list[T]]:
        """Wait for something; return how many were lost before it, and all that waits."""
        missed = await self.wait()
        taken = list(self._queue)
        self._queue.clear()
        self._waiting_bytes = 0
        self._something.clear()
        return missed, taken
