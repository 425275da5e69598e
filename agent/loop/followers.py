"""One reader of something that does not wait for its readers.

The queue of a reader has an end. When it is full, the oldest makes room, and the reader is told how
many it missed before it gets the next: neither the agent's memory nor its timing may depend on
somebody's terminal.
"""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

WAITING_MAX = 1024


class Follower(Generic[T]):
    """A bounded queue that counts what it lost."""

    def __init__(self, waiting_max: int = WAITING_MAX) -> None:
        assert waiting_max > 0, "a queue without room loses everything"
        self._waiting_max = waiting_max
        self._queue: deque[T] = deque()
        self._missed = 0
        self._something = asyncio.Event()

    def put(self, one: T) -> bool:
        """Queue one; False when the oldest was lost for it."""
        is_full = len(self._queue) >= self._waiting_max
        if is_full:
            self._queue.popleft()
            self._missed += 1
        self._queue.append(one)
        self._something.set()
        return not is_full

    async def drain(self) -> tuple[int, list[T]]:
        """Wait for something; return how many were missed before it, and all that waits."""
        await self._something.wait()
        self._something.clear()
        missed, self._missed = self._missed, 0
        taken = list(self._queue)
        self._queue.clear()
        return missed, taken
