"""The outbox: readings that were accepted and have not yet reached the broker.

Accepting is a promise. ``accept`` returns when the readings are committed to ``telemetry.db``;
from then on they leave the outbox in two ways only, and both are recorded: the broker has
acknowledged them, or they became dead letters with a reason. Nothing is dropped to make room:
a full outbox refuses the new readings and says so, because whoever holds them can still act.

What the promise survives is what the database survives (see ``database.py``): the end of the
process at any moment costs nothing; a power cut may cost what was accepted in the last second.
Progress is saved a quarter of a second after an acknowledgement at the latest; a crash in
between delivers those readings once more, under the same ids.

An id is ``<node>-<boot>-<sequence>``: which node took the reading, in which of its lives, the
how-manieth of that life. It is unique for ever, and a receiver that remembers ids stores each
reading once. Readings leave in the order of their acceptance, earlier lives first.
"""

import asyncio
import logging
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import msgspec

from agent.exits import UNHEALTHY, AgentError
from agent.slices import collect
from agent.store import outbox_rows as rows
from agent.store.database import Database
from agent.store.failures import StorageError
from agent.store.progress import Progress
from edge_apps.reading import UNTIMED, BadReading, Reading, check
from gossip.ids import Boot, NodeId, format_node_id

SAVE_DELAY_S = 0.25
SAVE_RETRY_S = 5.0
# How many of the newest readings a look back searches, and how many of them in one go: the
# search runs on the event loop.
RECENT_SEARCHED_MAX, RECENT_STRETCH = 50_000, 500

Listener = Callable[[int, Sequence[Reading]], None]

log = logging.getLogger(__name__)


class OutboxFullError(AgentError):
    """As many readings wait as the outbox may hold; none of the new ones was accepted."""


class Accepted(msgspec.Struct, frozen=True):
    """A reading in the outbox. ``position`` orders readings within this outbox only."""

    position: int
    id: str
    reading: Reading


class Receipt(msgspec.Struct, frozen=True):
    """What was accepted: ``count`` readings, with consecutive ids from ``first`` to ``last``."""

    count: int
    first: str
    last: str


class DeadLetter(msgspec.Struct, frozen=True):
    """A reading that was given up, why, and when (Unix time in nanoseconds)."""

    id: str
    reading: Reading
    reason: str
    buried_at_ns: int


class OutboxStats(msgspec.Struct, frozen=True):
    """The outbox in numbers. ``delivered`` and ``dead_letters`` count its whole life.

    ``oldest_time_ns`` is the time of the oldest waiting reading, None when none waits.
    """

    waiting: int
    waiting_max: int
    delivered: int
    dead_letters: int
    oldest_time_ns: int | None


class Outbox:
    """The readings of one node on one database; make it with ``await Outbox.open(...)``."""

    def __init__(
        self,
        database: Database,
        node: NodeId,
        *,
        waiting_max: int,
        keep_delivered: int,
        wall_ns: Callable[[], int],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.waiting_max = waiting_max
        self.keep_delivered = keep_delivered
        self._database = database
        self._node = format_node_id(node)
        self._wall_ns = wall_ns
        self._progress = Progress()
        self._boots: list[tuple[int, Boot]] = []
        self._last = 0  # the position that was accepted last
        self._accepting = 0  # readings on their way to the disk
        self._dead = 0
        self._unsaved = False
        self._saver: asyncio.Task[None] | None = None
        self._listeners: list[Listener] = []

    @classmethod
    async def open(
        cls,
        database: Database,
        node: NodeId,
        boot: Boot,
        *,
        waiting_max: int = 1_000_000,
        keep_delivered: int = 10_000,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> "Outbox":
        """Take up where the last life ended. ``database`` was opened with OUTBOX_MIGRATIONS."""
        outbox = cls(
            database,
            node,
            waiting_max=waiting_max,
            keep_delivered=keep_delivered,
            wall_ns=wall_ns,
        )
        await database.write(partial(rows.begin_life, boot))
        outbox._boots = database.read(rows.boots)
        outbox._last = database.read(rows.next_position) - 1
        outbox._progress = database.read(rows.progress)
        outbox._dead = database.read(rows.buried)
        return outbox

    # ---- in -------------------------------------------------------------------------------------

    async def accept(self, readings: Sequence[Reading]) -> Receipt:
        """Put readings on disk, all or none of them, and return their ids.

        Raises BadReading for one that breaks a rule, OutboxFullError, StorageError.
        """
        if not readings:
            raise BadReading("no readings: send at least one")
        if self.waiting + self._accepting + len(readings) > self.waiting_max:
            self.counts["readings_refused/outbox_full"] += len(readings)
            raise OutboxFullError(
                f"The outbox is full: {self.waiting} readings wait, {self.waiting_max} may.",
                hint="None of the new readings was accepted. See `covey outbox` for the uplink's "
                "last error, or raise waiting_max in [telemetry].",
                status=UNHEALTHY,
            )
        self._accepting += len(readings)
        try:
            now_ns = self._wall_ns()
            timed = await collect(_with_time(check(reading), now_ns) for reading in readings)
            stored = await collect(map(rows.row, timed))
        except BaseException:
            self._accepting -= len(readings)
            raise
        # Whoever waits may give up; the readings are committed, and counted, all the same.
        first = await asyncio.shield(asyncio.ensure_future(self._store(stored, timed)))
        return Receipt(len(stored), self.id_of(first), self.id_of(first + len(stored) - 1))

    async def _store(self, stored: list[rows.Row], readings: Sequence[Reading]) -> int:
        try:
            first = await self._database.write(partial(rows.insert, stored))
        finally:
            self._accepting -= len(stored)
        self._last = max(self._last, first + len(stored) - 1)
        self.counts["readings/accepted"] += len(stored)
        for listener in tuple(self._listeners):
            listener(first, readings)
        return first

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener(first_position, readings)`` after each commit; return how to stop."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    # ---- out ------------------------------------------------------------------------------------

    def batch(self, limit: int, after: int = 0) -> list[Accepted]:
        """Return up to ``limit`` unsettled readings behind position ``after``, in order."""
        after = max(after, self._progress.cursor)
        query = partial(rows.rows_after, after, limit + len(self._progress.beyond))
        found = self._database.read(query)
        waiting = (row for row in found if not self._progress.is_settled(row[0]))
        return [self._accepted(row) for row, _ in zip(waiting, range(limit), strict=False)]

    def delivered(self, positions: Iterable[int]) -> None:
        """Note that the broker has these readings; saved within a quarter of a second."""
        before = self._progress.settled
        self._progress.settle(positions)
        self.counts["readings/delivered"] += self._progress.settled - before
        self._save_soon()

    async def bury(self, position: int, reason: str) -> None:
        """Give a reading up: keep it as a dead letter and go on without it.

        Raises StorageError; the reading then goes on waiting.
        """
        if self._progress.is_settled(position):
            return
        after = Progress(self._progress.cursor, self._progress.encoded_beyond())
        after.settle([position])
        letter = rows.Burial(position, self.id_of(position), reason, self._wall_ns())
        forgotten = await self._database.write(partial(rows.bury, letter, after))
        self._progress.settle([position])
        self._dead += 1
        self.counts["dead_letters/buried"] += 1
        self.counts["dead_letters/forgotten"] += forgotten
        self._save_soon()

    # ---- questions ------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many readings are on disk and not settled."""
        return self._last - self._progress.settled

    def id_of(self, position: int) -> str:
        """Return the id of the reading at a position."""
        index = bisect_right(self._boots, position, key=lambda life: life[0]) - 1
        first, boot = self._boots[max(index, 0)]
        return f"{self._node}-{boot:016x}-{position - first + 1}"

    async def recent(self, pattern: str = "*", limit: int = 100) -> list[Accepted]:
        """Return the newest readings of matching sensors that are still here, oldest first.

        ``pattern`` is a glob in which ``*`` also matches ``/``. Delivered readings are kept for
        such looks back; the newest 50,000 are searched, in slices.
        """
        newest = await collect(self._newest(pattern, limit))
        return newest[::-1]

    def _newest(self, pattern: str, limit: int) -> Iterator[Accepted]:
        """Yield what ``recent`` finds, the newest first, from one short stretch after another."""
        last, end = self._last, max(0, self._last - RECENT_SEARCHED_MAX)
        for high in range(last, end, -RECENT_STRETCH):
            if limit <= 0:
                return
            after = max(end, high - RECENT_STRETCH)
            query = partial(rows.recent_rows, pattern, limit, after, high)
            for row in self._database.read(query):
                limit -= 1
                yield self._accepted(row)

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return the newest dead letters, oldest first."""
        found = self._database.read(partial(rows.dead_letters, limit))
        return [
            DeadLetter(reading_id, rows.reading(row), reason, at_ns)
            for row, reading_id, reason, at_ns in reversed(found)
        ]

    def stats(self) -> OutboxStats:
        """Return the outbox in numbers."""
        oldest = self.batch(1)
        return OutboxStats(
            waiting=self.waiting,
            waiting_max=self.waiting_max,
            delivered=self._progress.settled - self._dead,
            dead_letters=self._dead,
            oldest_time_ns=oldest[0].reading.time_ns if oldest else None,
        )

    # ---- progress -------------------------------------------------------------------------------

    async def close(self) -> None:
        """Save the progress. The database is closed by whoever opened it."""
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
        while self._unsaved:
            await self._save()

    def _save_soon(self) -> None:
        self._unsaved = True
        if self._saver is None or self._saver.done():
            self._saver = asyncio.create_task(self._keep_saving())

    async def _keep_saving(self) -> None:
        while self._unsaved:
            await asyncio.sleep(SAVE_DELAY_S)
            try:
                await self._save()
            except StorageError as error:
                self.counts["progress_saves/failed"] += 1
                log.warning("Delivery goes on, but its progress was not saved: %s", error)
                self._unsaved = True
                await asyncio.sleep(SAVE_RETRY_S)

    async def _save(self) -> None:
        """Write the cursor, and delete what is delivered and no longer kept."""
        self._unsaved = False
        now = Progress(self._progress.cursor, self._progress.encoded_beyond())
        save = partial(rows.save_progress, now, self.keep_delivered)
        if await self._database.write(save):
            self._unsaved = True  # there is more to delete than one transaction should

    def _accepted(self, row: rows.StoredRow) -> Accepted:
        return Accepted(row[0], self.id_of(row[0]), rows.reading(row))


def _with_time(reading: Reading, now_ns: int) -> Reading:
    """Give a reading that came without a time that of its acceptance."""
    if reading.time_ns != UNTIMED:
        return reading
    return msgspec.structs.replace(reading, time_ns=now_ns)
