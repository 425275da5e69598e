"""The outbox: readings that were accepted and have not yet reached the broker.

Accepting is a promise. ``accept`` returns when the readings are committed to ``telemetry.db``;
from then on they leave the outbox in three ways only, and all are recorded: the broker has
acknowledged them, or they became dead letters with a reason (``dead_letters.py``), from which they
may come back under the same ids. A full outbox
refuses new readings and says so, because whoever holds them can still act, unless the rules say
what may be evicted for them (``outbox_room.py``).

What the promise survives is what the database survives (see ``database.py``): the end of the
process at any moment costs nothing; a power cut may cost what was accepted in the last second.
Progress is saved a quarter of a second after an acknowledgement at the latest; a crash in
between delivers those readings once more, under the same ids.

An id is ``<node>-<boot>-<sequence>``: which node took the reading, in which of its lives, the
how-manieth of that life. It is unique for ever, and a receiver that remembers ids stores each
reading once. Readings leave in the order of their acceptance, earlier lives first.

Flash may return other bytes than were written. A reading whose checksum is wrong is lost: it is
counted as exactly that, and delivery goes on behind it. Where readings are missing, the file
itself is damaged; it is replaced by one with all that can be read (``salvage.py``), and only what
is missing then is lost. ``losses`` has the positions, the log the ids.
"""

import asyncio
import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import msgspec

from agent.exits import UNHEALTHY, AgentError
from agent.loop import watched
from agent.loop.slices import collect
from agent.store.database import Database
from agent.store.errors import StorageError
from agent.store.ranges import Range, format_ranges, joined, size, without
from agent.telemetry import dead_letter_sql
from agent.telemetry import outbox_sql as rows
from agent.telemetry.dead_letter_sql import LetterBounds, LetterTotals
from agent.telemetry.dead_letters import AT_ONCE, Choice, DeadLetter, DeadLetters, MoveResult
from agent.telemetry.delivery_progress import DeliveryProgress
from agent.telemetry.eviction_rules import EvictionRules, WaitingBounds
from agent.telemetry.eviction_sql import bytes_between, size_of
from agent.telemetry.group_commit import GroupCommit
from agent.telemetry.outbox_room import SWEEP_S, Need, OutboxRoom
from agent.telemetry.timekeeping import Moment, Timekeeper
from edge_apps.reading import BadReading, Checked, Reading
from gossip.core.ids import Boot, NodeId, format_node_id

SAVE_DELAY_S = 0.25
SAVE_RETRY_S = 5.0
# How many of the newest readings a look back searches, and how many of them in one go: the
# search runs on the event loop.
RECENT_SEARCHED_MAX, RECENT_STRETCH = 50_000, 500
PREPARED_AT_ONCE = 20  # some 10 µs; 1 ms where each has 64 long tags

Listener = Callable[[int, Sequence[Reading]], None]

log = logging.getLogger(__name__)


class OutboxFullError(AgentError):
    """As many readings wait as the outbox may hold; none of the new ones was accepted."""


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """A reading in the outbox. ``position`` orders readings within this outbox only.

    ``clock`` is what is to be doubted of its time (``agent/telemetry/timekeeping.py``), mostly
    nothing.
    """

    position: int
    id: str
    reading: Reading
    clock: str = ""


class Receipt(msgspec.Struct, frozen=True):
    """What was accepted: ``count`` readings, with consecutive ids from ``first`` to ``last``."""

    count: int
    first: str
    last: str


class OutboxStats(msgspec.Struct, frozen=True):
    """The outbox in numbers. ``delivered``, ``dead_letters`` and ``lost`` count its whole life.

    ``lost`` readings were accepted, and then damaged on the disk before they were delivered.
    A reading that was replayed and delivered counts in ``dead_letters`` and in ``delivered``.
    ``oldest_time_ns`` is the time of the oldest waiting reading, None when none waits.
    """

    waiting: int
    waiting_max: int
    delivered: int
    dead_letters: int
    lost: int
    oldest_time_ns: int | None
    letters: LetterTotals = LetterTotals()
    waiting_bytes: int = 0
    waiting_bytes_max: int = 0
    dropped: dict[str, int] = {}


class Outbox:
    """The readings of one node on one database; make it with ``await Outbox.open(...)``."""

    def __init__(
        self,
        database: Database,
        node: NodeId,
        *,
        bounds: WaitingBounds,
        keep_delivered: int,
        timekeeper: Timekeeper,
        letter_bounds: LetterBounds,
        rules: EvictionRules,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.waiting_max = bounds.readings_max
        self.room = OutboxRoom(database, self.counts, timekeeper, bounds, rules)
        self.keep_delivered = keep_delivered
        self._database = database
        self._node = format_node_id(node)
        self._timekeeper = timekeeper
        self._progress = DeliveryProgress()
        self._boots: list[rows.Life] = []
        self._last = 0  # the position that was accepted last
        self._accepting = self._accepting_bytes = 0  # on their way to the disk
        self._passed = 0  # the cursor up to which bytes are no more counted as waiting
        self._arrivals = GroupCommit(self._store)
        self._order = asyncio.Lock()  # one at a time gives positions
        self._letters = DeadLetters(database, self.counts, letter_bounds)
        self._lost = 0
        self._unrecorded: list[Range] = []  # lost, and not yet among the losses on disk
        self._sought: list[Range] = []  # missing, and looked for in the whole file
        self._unsaved = False
        self._saver: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
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
        timekeeper: Timekeeper | None = None,
        letter_bounds: LetterBounds | None = None,
        bounds: WaitingBounds | None = None,
        rules: EvictionRules | None = None,
    ) -> "Outbox":
        """Take up where the last life ended. ``database`` was opened with OUTBOX_MIGRATIONS."""
        outbox = cls(
            database,
            node,
            bounds=bounds or WaitingBounds(waiting_max),
            rules=rules or EvictionRules(),
            keep_delivered=keep_delivered,
            timekeeper=timekeeper or Timekeeper(),
            letter_bounds=letter_bounds or LetterBounds(),
        )
        # In the writer's thread: where it meets damage, it is done again on the new file.
        gone, stored = await database.write(partial(rows.begin_life, boot, database.noted))
        outbox._load(stored)
        outbox._letters.totals = await database.write(dead_letter_sql.recount)
        if gone:
            outbox._report_lost(gone, "commits were lost on the disk, or in a power cut")
        if stored.has_spare_room:
            outbox._save_soon()  # which gives it back, in steps
        database.on_rebuilt = outbox._on_rebuilt
        if outbox.room.bounds.age_max_s:
            outbox._sweeper = watched.start("outbox-age", outbox._keep_dropping_aged)
        return outbox

    def _load(self, stored: rows.Stored) -> None:
        """Take over what is on disk; what was delivered and not yet saved stays delivered."""
        before = self._progress
        self._unrecorded = [
            part for each in self._unrecorded for part in without(each, stored.losses)
        ]
        self._progress = stored.progress
        passed = stored.progress.cursor
        self._progress.lose(self._unrecorded)
        self._progress.settle([*range(self._progress.cursor + 1, before.cursor + 1)])
        self._progress.settle(before.beyond)
        self._last = max(self._last, stored.last)
        self._boots = stored.boots
        self._lost = stored.lost + size(self._unrecorded)
        self._passed = passed
        self.room.load(self._progress, stored.dropped, stored.size_bytes)

    def _on_rebuilt(self) -> None:
        """Go on with a file that was made of a damaged one; whoever waits for readings looks."""
        before = self._lost
        self._load(self._database.read(rows.stored))
        self._letters.note(self._database.read(dead_letter_sql.totals))
        self.counts["readings_lost/damaged"] += self._lost - before
        for listener in tuple(self._listeners):
            listener(self._last + 1, ())

    # ---- in -------------------------------------------------------------------------------------

    async def accept(self, readings: Sequence[Checked]) -> Receipt:
        """Put readings on disk, all or none of them, and return their ids.

        Raises BadReading when there are none, OutboxFullError, StorageError.
        """
        if not readings:
            raise BadReading("no readings: send at least one")
        stored: list[rows.Row] = []
        timed: list[Reading] = []
        await collect(_prepare(readings, self._timekeeper.now(), stored, timed))
        size_bytes = sum(size_of(sensor, body) for _, sensor, body in stored)
        await self._find_room(timed, size_bytes)
        self._accepting += len(readings)
        self._accepting_bytes += size_bytes
        first = await self._arrivals.put(stored, timed)
        return Receipt(len(readings), self.id_of(first), self.id_of(first + len(readings) - 1))

    async def _find_room(self, readings: Sequence[Reading], size_bytes: int) -> None:
        """Return when there is room. Raises OutboxFullError, StorageError."""

        def missing() -> Need:
            waits, most = self.waiting + self._accepting + len(readings), self.room.bounds
            fills = self.room.size_bytes + self._accepting_bytes + size_bytes
            too_large = fills - most.bytes_max if most.bytes_max else 0
            return Need(waits - self.waiting_max, too_large)

        if missing().is_met:
            return
        most = self.room.bounds
        is_hopeless = len(readings) > self.waiting_max or 0 < most.bytes_max < size_bytes
        sensors = {reading.sensor for reading in readings}
        if not is_hopeless and await self.room.make(sensors, missing, lambda: self._last):
            self._save_soon()
            return
        self.counts["readings_refused/outbox_full"] += len(readings)
        if is_hopeless:
            raise OutboxFullError(
                f"These are more than an outbox of at most {self.waiting_max} readings"
                f"{f' and {most.bytes_max} bytes' * bool(most.bytes_max)} ever takes at once.",
                hint="None of them was accepted. Send fewer at a time, or raise waiting_max and "
                "waiting_bytes_max in [telemetry].",
                status=UNHEALTHY,
            )
        size_told = f", in {self.room.size_bytes} of {most.bytes_max} bytes" * bool(most.bytes_max)
        raise OutboxFullError(
            f"The outbox is full: {self.waiting} readings wait, {self.waiting_max} may{size_told}.",
            hint="None of the new readings was accepted. See `covey outbox` for the uplink's "
            "last error; [telemetry] says how many may wait, and which of them may be dropped.",
            status=UNHEALTHY,
        )

    async def _store(self, stored: list[rows.Row], readings: list[Reading]) -> int:
        """Commit what has arrived and tell of it; return the position of the first."""
        try:
            async with self._order:
                first = await self._database.write(partial(rows.insert, stored, self._last + 1))
        finally:
            size_bytes = sum(size_of(sensor, body) for _, sensor, body in stored)
            self._accepting -= len(stored)
            self._accepting_bytes -= size_bytes
        self.room.size_bytes += size_bytes
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
        """Return up to ``limit`` unsettled readings behind position ``after``, in order.

        Fewer, or none, while a damaged file is being replaced: a listener hears when that is over.
        """
        after = max(after, self._progress.cursor)
        wanted = limit + len(self._progress.beyond)
        try:
            found = self._database.read(partial(rows.rows_after, after, wanted))
        except StorageError:
            if self._database.is_rebuilding:
                return []
            raise
        ends = after + wanted if len(found) == wanted else self._last
        waiting = self._sound(self._before_gap(found, after, ends))
        unsettled = (each for each in waiting if self.is_waiting(each.position))
        return [each for each, _ in zip(unsettled, range(limit), strict=False)]

    def _before_gap(
        self, found: list[rows.StoredRow], after: int, end: int
    ) -> list[rows.StoredRow]:
        """Return the rows up to the first that is missing and should be there.

        The file is damaged then, and may still have it. What was looked for in vain is lost.
        """
        if found and found[-1][0] == after + len(found) >= end:
            return found
        expected = after + 1
        positions = [*(row[0] for row in found), end + 1]
        for index, position in enumerate(positions):
            if missing := self._progress.missing_in((expected, position - 1)):
                if all(not without(each, self._sought) for each in missing):
                    self._lose(missing, "they are nowhere in the file")
                else:
                    self._sought = joined([*self._sought, *missing])
                    self._database.suspect(f"the readings at {format_ranges(missing)} are missing")
                    return found[:index]
            expected = max(expected, position + 1)
        return found

    def _sound(self, found: Sequence[rows.StoredRow]) -> list[Accepted]:
        """Return the readings that are as they were written; the others are lost."""
        readings = [(row[0], rows.sound_reading(row)) for row in found]
        bad = [(position, position) for position, reading in readings if reading is None]
        if gone := [each for each in bad if not self._progress.is_settled(each[0])]:
            self._lose(joined(gone), "they are not as they were written")
        judge = self._timekeeper.judge()
        return [
            Accepted(
                at,
                each.id or self.id_of(at),
                *judge(each.reading, each.kernel, is_kept=each.is_kept),
            )
            for at, each in readings
            if each is not None
        ]

    def as_accepted(self, position: int, reading: Reading) -> Accepted:
        """Return what was just accepted as ``recent`` would, without asking the disk."""
        judge = self._timekeeper.judge()
        judged = judge(reading, judge.kernel, is_kept=True)
        return Accepted(position, self.id_of(position), *judged)

    def _lose(self, gone: Sequence[Range], why: str) -> None:
        """Go on without readings that are lost; soon noted on disk."""
        self._progress.lose(gone)
        self._lost += size(gone)
        self._unrecorded += gone
        self._report_lost(gone, why)
        self._save_soon()

    def _report_lost(self, gone: Sequence[Range], why: str) -> None:
        self.counts["readings_lost/damaged"] += size(gone)
        first, last = gone[0][0], gone[-1][1]
        log.error(
            "%d readings were lost on the disk (%s): positions %s, ids %s to %s. All others wait.",
            size(gone), why, format_ranges(gone), self.id_of(first), self.id_of(last),
        )  # fmt: skip

    def is_waiting(self, position: int) -> bool:
        """Tell whether a reading is to be sent: neither settled, nor about to be evicted."""
        return position not in self.room.going and not self._progress.is_settled(position)

    def delivered(self, positions: Iterable[int]) -> None:
        """Note that the broker has these readings; saved within a quarter of a second."""
        before = self._progress.settled
        self._progress.settle(positions)
        self.counts["readings/delivered"] += self._progress.settled - before
        self._save_soon()

    async def dead_letter(self, position: int, reason: str) -> None:
        """Give a reading up: keep it as a dead letter and go on without it.

        Raises StorageError; the reading then goes on waiting.
        """
        if self._progress.is_settled(position):
            return
        if self._unrecorded:
            await self._save()
        after = DeliveryProgress(self._progress.cursor, self._progress.encoded_beyond())
        after.settle([position])
        now_ns = self._timekeeper.wall_ns()
        letter = dead_letter_sql.DeadLetterRow(position, self.id_of(position), reason, now_ns)
        await self._letters.bury(letter, after)
        self._progress.settle([position])
        self._save_soon()

    async def replay(self, choice: Choice) -> MoveResult:
        """Have dead letters wait for the broker again, behind all others, under their ids.

        As many as may wait. Raises StorageError; those of before wait then, the others stay dead.
        """
        numbers = list(await self._letters.chosen(choice))
        moved, before = 0, self._letters.totals.damaged
        while numbers:
            room = min(AT_ONCE, self.waiting_max - self.waiting - self._accepting)
            if room <= 0:
                break
            part, numbers = numbers[:room], numbers[room:]
            moved += await self._replay(part)
        return MoveResult(moved, self._letters.totals.damaged - before, len(numbers))

    async def _replay(self, numbers: Sequence[int]) -> int:
        """Replay a few at once; return how many of them were still there."""
        self._accepting += len(numbers)
        try:
            async with self._order:
                replay = partial(dead_letter_sql.replay, numbers, self._last + 1)
                first, count, now = await self._database.write(replay)
        finally:
            self._accepting -= len(numbers)
        self._letters.note(now)
        if count:
            between = partial(bytes_between, first - 1, first + count - 1)
            self.room.size_bytes += self._database.read(between)
            life, behind = self._life_at(first), first + count
            self._boots.append(rows.Life(behind, life.boot, life.sequence_of(first)))
            self._last = max(self._last, behind - 1)
        for listener in tuple(self._listeners):
            listener(first, ())
        return count

    async def drop_letters(self, choice: Choice) -> MoveResult:
        """Delete dead letters for good. Raises StorageError."""
        return await self._letters.drop(choice)

    # ---- questions ------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many readings are on disk and not settled."""
        return self._last - self._progress.settled

    def id_of(self, position: int) -> str:
        """Return the id of the reading at a position."""
        life = self._life_at(position)
        return f"{self._node}-{life.boot:016x}-{life.sequence_of(position)}"

    def _life_at(self, position: int) -> rows.Life:
        life = self._boots[-1]
        if position < life.first_position:
            index = bisect_right(self._boots, position, key=lambda life: life.first_position) - 1
            life = self._boots[max(index, 0)]
        return life

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
            for accepted in self._sound(self._database.read(query)):
                limit -= 1
                yield accepted

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return the newest dead letters, oldest first."""
        return self._letters.newest(limit)

    async def list_letters(self, choice: Choice, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters that are meant, oldest first."""
        return await self._letters.list(choice, limit)

    def stats(self) -> OutboxStats:
        """Return the outbox in numbers."""
        oldest = self.batch(1)
        return OutboxStats(
            waiting=self.waiting,
            waiting_max=self.waiting_max,
            delivered=self._progress.settled
            - self._letters.totals.buried
            - self._lost
            - self.room.dropped_total,
            dead_letters=self._letters.totals.buried,
            lost=self._lost,
            oldest_time_ns=oldest[0].reading.time_ns if oldest else None,
            letters=self._letters.totals,
            waiting_bytes=self.room.size_bytes,
            waiting_bytes_max=self.room.bounds.bytes_max,
            dropped={kind: count for kind, count in self.room.dropped.items() if count},
        )

    def losses(self) -> list[Range]:
        """Return the positions of readings that were lost on the disk, as ranges."""
        return joined([*self._database.read(rows.losses), *self._unrecorded])

    # ---- progress -------------------------------------------------------------------------------

    async def _keep_dropping_aged(self) -> None:
        """Drop what has become too old, from time to time, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                if await self.room.drop_aged(self._last):
                    self._save_soon()
            except StorageError as error:
                log.info("What is too old stays for now: %s", error)

    async def close(self) -> None:
        """Wait for what was handed in, and save the progress. The database stays open."""
        await self._arrivals.ended()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
        while self._unsaved:
            await self._save()

    def _save_soon(self) -> None:
        self._unsaved = True
        if self._saver is None or self._saver.done():
            self._saver = watched.start("outbox-progress", self._keep_saving)

    async def _keep_saving(self) -> None:
        """Save until all is saved. That the disk takes nothing is said once, until it does."""
        is_told = False
        while self._unsaved:
            await asyncio.sleep(SAVE_DELAY_S)
            try:
                await self._save()
                is_told = False
            except StorageError as error:
                self.counts["progress_saves/failed"] += 1
                if not is_told:
                    log.warning("Delivery goes on, but its progress is not saved: %s", error)
                is_told = True
                self._unsaved = True
                await asyncio.sleep(SAVE_RETRY_S)

    async def _save(self) -> None:
        """Write the cursor, and delete what is delivered and no longer kept."""
        self._unsaved = False
        now = DeliveryProgress(self._progress.cursor, self._progress.encoded_beyond())
        gone = tuple(self._unrecorded)
        now_ns = self._timekeeper.wall_ns()
        keep, before = self.keep_delivered, self._passed
        save = partial(rows.save_progress, now, gone, now_ns, keep, before)
        has_more, passed_bytes = await self._database.write(save)
        if has_more:
            self._unsaved = True  # there is more to delete than one transaction should
        if self._passed == before:  # else the file was made anew meanwhile, and counted as it is
            self._passed = max(before, now.cursor)
            self.room.size_bytes -= passed_bytes
        self._unrecorded = [each for each in self._unrecorded if each not in gone]


def _prepare(
    readings: Sequence[Checked], now: Moment, stored: list[rows.Row], timed: list[Reading]
) -> Iterator[None]:
    """Add readings to both lists, with a time, in steps.

    In groups: to look at a clock behind each would cost as much as to encode it.
    """
    for start in range(0, len(readings), PREPARED_AT_ONCE):
        group = [now.timed(reading) for reading in readings[start : start + PREPARED_AT_ONCE]]
        timed += group
        stored += [rows.row(reading, now.stamp) for reading in group]
        yield
