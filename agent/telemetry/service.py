"""Telemetry as the agent offers it: accept readings, look back at them, follow them.

Everything here stands on the outbox. Followers get what was accepted, in order, as soon as it is
on disk. Each has a bounded queue: one that reads too slowly loses the oldest in it and is told
how many, because neither the agent's memory nor the acceptance of new readings may depend on
somebody's terminal.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Sequence
from fnmatch import fnmatchcase

import msgspec

from agent.store.outbox import Accepted, DeadLetter, Outbox, OutboxStats, Receipt
from edge_apps.reading import Reading

FOLLOWER_READINGS_MAX = 10_000


class Overrun(msgspec.Struct, frozen=True):
    """Told to a follower in place of readings that it was too slow to take."""

    missed: int


class Telemetry:
    """The readings of this node, for the API, the apps and the command line."""

    def __init__(self, outbox: Outbox) -> None:
        self.counts: Counter[str] = Counter()
        self._outbox = outbox

    async def accept(self, readings: Sequence[Reading]) -> Receipt:
        """Put readings on disk, all or none. Raises BadReading, OutboxFullError, StorageError."""
        return await self._outbox.accept(readings)

    def recent(self, pattern: str = "*", limit: int = 100) -> list[Accepted]:
        """Return the newest readings of matching sensors, oldest first."""
        return self._outbox.recent(pattern, limit)

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return the newest readings that were given up, and why."""
        return self._outbox.dead_letters(limit)

    def stats(self) -> OutboxStats:
        """Return the outbox in numbers."""
        return self._outbox.stats()

    async def follow(self, pattern: str = "*") -> AsyncGenerator[Accepted | Overrun, None]:
        """Yield what is accepted from the first ``anext`` on, for sensors that match the glob.

        Stop by closing the iterator (``contextlib.aclosing``).
        """
        follower = _Follower(pattern)
        stop = self._outbox.subscribe(follower.take)
        try:
            while True:
                for missed, position, reading in await follower.drain():
                    if missed:
                        self.counts["followed_readings/missed"] += missed
                        yield Overrun(missed)
                    yield Accepted(position, self._outbox.id_of(position), reading)
        finally:
            stop()


class _Follower:
    """The bounded queue of one follower."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._queue: deque[tuple[int, Reading]] = deque(maxlen=FOLLOWER_READINGS_MAX)
        self._missed = 0
        self._something = asyncio.Event()

    def take(self, first: int, readings: Sequence[Reading]) -> None:
        """Queue what matches; called by the outbox after a commit."""
        for position, reading in enumerate(readings, first):
            if fnmatchcase(reading.sensor, self._pattern):
                self._missed += len(self._queue) == FOLLOWER_READINGS_MAX
                self._queue.append((position, reading))
                self._something.set()

    async def drain(self) -> list[tuple[int, int, Reading]]:
        """Wait for something, and return all of it; the first says how many were missed."""
        await self._something.wait()
        self._something.clear()
        missed, self._missed = self._missed, 0
        taken = [(0, position, reading) for position, reading in self._queue]
        self._queue.clear()
        return [(missed, *taken[0][1:]), *taken[1:]]
