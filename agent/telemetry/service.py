"""Telemetry as the agent offers it: accept readings, look back at them, follow them.

Everything here stands on the outbox. Followers get what was accepted, in order, as soon as it is
on disk. Each has a bounded queue: one that reads too slowly loses the oldest in it and is told
how many, because neither the agent's memory nor the acceptance of new readings may depend on
somebody's terminal.
"""

import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import translate
from itertools import chain

import msgspec

from agent.config.settings import TelemetrySettings
from agent.loop.bounded_queue import LossyQueue
from agent.store.database import Database
from agent.telemetry.dead_letter_sql import LetterBounds
from agent.telemetry.dead_letters import Choice, DeadLetter, MoveResult
from agent.telemetry.eviction_rules import EvictionRules, WaitingBounds
from agent.telemetry.outbox import Accepted, Outbox, OutboxStats, Receipt
from agent.telemetry.timekeeping import Timekeeper
from edge_apps.reading import Checked, Reading
from gossip.core.ids import Boot, NodeId

FOLLOWER_READINGS_MAX = 10_000


def _texts_size(numbered: tuple[int, Reading]) -> int:
    """Return about how many bytes the texts of a reading take; all else is small."""
    reading = numbered[1]
    value = len(reading.value) if isinstance(reading.value, str) else 0
    return len(reading.sensor) + value + sum(map(len, chain.from_iterable(reading.tags.items())))


class Overrun(msgspec.Struct, frozen=True):
    """Told to a follower in place of readings that it was too slow to take."""

    missed: int


async def open_outbox(
    database: Database, node: NodeId, boot: Boot, limits: TelemetrySettings, timekeeper: Timekeeper
) -> Outbox:
    """Open the outbox on a database that was opened with OUTBOX_MIGRATIONS."""
    return await Outbox.open(
        database,
        node,
        boot,
        bounds=WaitingBounds(
            limits.waiting_max, limits.waiting_bytes_max, limits.waiting_age_max_s
        ),
        rules=EvictionRules(limits.bulk, limits.alarms, limits.drop),
        keep_delivered=limits.keep_delivered,
        timekeeper=timekeeper,
        letter_bounds=LetterBounds(limits.dead_letters_max, limits.dead_letters_bytes_max),
    )


class Telemetry:
    """The readings of this node, for the API, the apps and the command line."""

    def __init__(self, outbox: Outbox) -> None:
        self.counts: Counter[str] = Counter()
        self._outbox = outbox

    async def accept(self, readings: Sequence[Checked]) -> Receipt:
        """Put readings on disk, all or none. Raises as ``Outbox.accept`` does."""
        return await self._outbox.accept(readings)

    async def recent(self, pattern: str = "*", limit: int = 100) -> list[Accepted]:
        """Return the newest readings of matching sensors, oldest first."""
        return await self._outbox.recent(pattern, limit)

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return the newest readings that were given up, and why."""
        return self._outbox.dead_letters(limit)

    async def list_letters(self, choice: Choice, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters that are meant, oldest first."""
        return await self._outbox.list_letters(choice, limit)

    async def replay(self, choice: Choice) -> MoveResult:
        """Have dead letters wait for the broker again. Raises StorageError."""
        return await self._outbox.replay(choice)

    async def drop_letters(self, choice: Choice) -> MoveResult:
        """Delete dead letters for good. Raises StorageError."""
        return await self._outbox.drop_letters(choice)

    def stats(self) -> OutboxStats:
        """Return the outbox in numbers."""
        return self._outbox.stats()

    def follow(self, pattern: str = "*") -> "Following":
        """Return what is accepted from now on, for sensors that match the glob; close it."""
        return Following(pattern, self._outbox, self.counts)


class Following:
    """The readings of one follower, as an asynchronous iterator over a bounded queue."""

    def __init__(self, pattern: str, outbox: Outbox, counts: Counter[str]) -> None:
        self._matches = re.compile(translate(pattern)).match
        self._matches_all = not pattern.strip("*") and bool(pattern)
        self._as_accepted = outbox.as_accepted
        self._counts = counts
        self._queue: LossyQueue[tuple[int, Reading]] = LossyQueue(
            FOLLOWER_READINGS_MAX, _texts_size
        )
        self._stop = outbox.subscribe(self._on_accepted)

    def _on_accepted(self, first: int, readings: Sequence[Reading]) -> None:
        """Queue what matches; called by the outbox after a commit."""
        numbered = enumerate(readings, first)
        self._queue.extend(
            [each for each in numbered if self._matches_all or self._matches(each[1].sensor)]
        )

    def __aiter__(self) -> "Following":
        return self

    async def __anext__(self) -> Accepted | Overrun:
        """Wait for the next one; first of all say how many were missed in front of it."""
        if missed := await self._queue.wait():
            self._counts["followed_readings/missed"] += missed
            return Overrun(missed)
        position, reading = self._queue.pop()
        return self._as_accepted(position, reading)

    async def aclose(self) -> None:
        """Take no more."""
        self._stop()
