"""Notices who takes nothing of an answer: waiting for it would hold a connection without end."""

import asyncio
from collections import Counter

CHECK_S = 5.0
UNREAD_S = 20.0
"""Who takes nothing of an answer for so long has its connection closed."""


class UnreadAnswer:
    """What one connection has yet to take, and since when it has taken nothing."""

    def __init__(self, transport: asyncio.Transport, counts: Counter[str]) -> None:
        self._transport = transport
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._left_bytes = 0
        self._since_s = 0.0  # since when nothing was taken, as far as was looked
        self._next: asyncio.TimerHandle | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether nothing of it was taken from one look to the next, and up to now."""
        waited_s = self._loop.time() - self._since_s
        return (
            self._next is not None and waited_s >= CHECK_S and self._waiting() >= self._left_bytes
        )

    def watch(self) -> None:
        """Look again and again for as long as something waits. To be called after a write."""
        if self._next is None and self._waiting():
            self._left_bytes, self._since_s = self._waiting(), self._loop.time()
            self._next = self._loop.call_later(CHECK_S, self._check)

    def end(self) -> None:
        """Look no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _waiting(self) -> int:
        return self._transport.get_write_buffer_size()

    def _check(self) -> None:
        self._next = None
        left_bytes, now = self._waiting(), self._loop.time()
        if not left_bytes:
            return
        if left_bytes < self._left_bytes:  # whatever was added, something was taken
            self._since_s = now
        self._left_bytes = left_bytes
        if now - self._since_s < UNREAD_S:
            self._next = self._loop.call_later(CHECK_S, self._check)
            return
        self._counts["api_connections/unread"] += 1
        self._transport.abort()
