"""Makes room in a full outbox, by the rules; and drops what has become too old.

Evicted is the oldest of the least class that may be dropped, never what is in flight, and never the
newest reading, whose row says which positions were given. A step evicts what is needed and at most
a hundredth of the bound more, so that a full outbox does not search at each reading.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from functools import partial
from typing import NamedTuple

from agent.store.database import Database
from agent.telemetry import eviction_sql as sql
from agent.telemetry.delivery_progress import DeliveryProgress
from agent.telemetry.eviction_rules import (
    AGE,
    FULL,
    KINDS,
    EvictionRules,
    SensorClass,
    WaitingBounds,
)
from agent.telemetry.outbox_sql import StoredRow, rows_after, sound_reading
from agent.telemetry.timekeeping import CORRECTED, Judge, Timekeeper

STRETCH = 500
EVICTED_AT_ONCE = 1_000
AGED_LOOKED_AT_MAX, AGED_STRETCH = 10_000, 100
SWEEP_S = 10.0
NS_PER_S = 1_000_000_000

Chosen = list[sql.Candidate]


class Need(NamedTuple):
    """How much is missing for new readings."""

    readings: int
    size_bytes: int

    @property
    def is_met(self) -> bool:
        """Whether there is room."""
        return self.readings <= 0 and self.size_bytes <= 0


class OutboxRoom:
    """How much waits in one outbox, and what is evicted from it."""

    def __init__(
        self,
        database: Database,
        counts: Counter[str],
        timekeeper: Timekeeper,
        bounds: WaitingBounds,
        rules: EvictionRules,
    ) -> None:
        self.bounds, self.rules = bounds, rules
        self.dropped: dict[str, int] = {}
        """How many were dropped over the life of the file, by class and reason."""
        self.going: set[int] = set()
        """Positions that are being evicted."""
        self.size_bytes = 0
        self.is_held: Callable[[int], bool] = lambda _position: False
        """Tells what the uplink has in its hands."""
        self._database, self._counts, self._timekeeper = database, counts, timekeeper
        self._progress = DeliveryProgress()
        self._turn = asyncio.Lock()
        self._looked_to = dict.fromkeys(SensorClass, 0)

    def load(self, progress: DeliveryProgress, dropped: dict[str, int], size_bytes: int) -> None:
        """Take over what is on disk."""
        self._progress, self.dropped, self.size_bytes = progress, dropped, size_bytes

    @property
    def dropped_total(self) -> int:
        """How many readings were dropped, over the life of the file."""
        return sum(self.dropped.get(kind, 0) for kind in KINDS)

    async def make(
        self, sensors: Collection[str], missing: Callable[[], Need], last: Callable[[], int]
    ) -> bool:
        """Evict until nothing is missing for readings of these sensors; tell whether that is so.

        Raises StorageError.
        """
        classes = self.rules.giving_way_to(sensors)
        async with self._turn:
            while not (need := missing()).is_met:
                plan = {each: found async for each, found in self._plan(classes, need, last())}
                going = [each for found in plan.values() for each in found]
                if not _is_enough(going, need):
                    return False
                for each, found in plan.items():
                    for start in range(0, len(found), EVICTED_AT_ONCE):
                        part = [
                            one
                            for one in found[start : start + EVICTED_AT_ONCE]
                            if not self.is_held(one.position)
                        ]
                        await self._evict(part, f"{each.word}_{FULL}")
        return True

    async def _plan(
        self, classes: Iterable[SensorClass], need: Need, last: int
    ) -> AsyncIterator[tuple[SensorClass, Chosen]]:
        """Yield what is to go of each class, until it is enough: nothing goes in vain."""
        for each in classes:
            if need.is_met:
                return
            found = await self._oldest_of(each, need, last)
            yield each, found
            size_bytes = sum(one.size_bytes for one in found)
            need = Need(need.readings - len(found), need.size_bytes - size_bytes)

    async def _oldest_of(self, wanted: SensorClass, need: Need, last: int) -> Chosen:
        """Return the oldest of a class that may go, as many as are needed and some more."""
        readings = max(need.readings, 1) + min(EVICTED_AT_ONCE, self.bounds.readings_max // 100)
        found: Chosen = []
        size_bytes = 0
        after = max(self._looked_to[wanted], self._progress.cursor)
        clean = True  # whether nothing of the class was seen so far
        while stretch := self._database.read(partial(sql.candidates, after, STRETCH)):
            for each in stretch:
                if self.rules.class_of(each.sensor) is wanted and self._is_waiting(each.position):
                    clean = False
                    if each.position < last and not self.is_held(each.position):
                        found.append(each)
                        size_bytes += each.size_bytes
                    if len(found) >= readings and size_bytes >= need.size_bytes:
                        return found
                elif clean:
                    self._looked_to[wanted] = each.position
            after = stretch[-1].position
            await asyncio.sleep(0)
        return found

    def _is_waiting(self, position: int) -> bool:
        return position not in self.going and not self._progress.is_settled(position)

    async def drop_aged(self, last: int) -> int:
        """Drop what is too old of the readings that wait longest; return how many.

        Only while the clock is kept right, and only what it has timed right or its source timed: a
        clock that is set must not cost a reading. Raises StorageError.
        """
        judge = self._timekeeper.judge()
        if not self.bounds.age_max_s or judge.mark or not judge.is_plausible:
            return 0
        oldest_ns = self._timekeeper.wall_ns() - int(self.bounds.age_max_s * NS_PER_S)
        count = 0
        async with self._turn:
            after, looked_at = self._progress.cursor, 0
            while looked_at < AGED_LOOKED_AT_MAX:
                stretch = self._database.read(partial(rows_after, after, AGED_STRETCH))
                if not stretch:
                    break
                aged = [row for row in stretch if self._is_aged(row, judge, oldest_ns)]
                count += await self._evict_by_class(aged, last)
                after, looked_at = stretch[-1][0], looked_at + len(stretch)
                await asyncio.sleep(0)
        return count

    def _is_aged(self, row: StoredRow, judge: Judge, oldest_ns: int) -> bool:
        held = sound_reading(row)
        if held is None or self.rules.class_of(held.reading.sensor) not in self.rules.dropped:
            return False
        reading, mark = judge(held.reading, held.kernel, is_kept=held.is_kept)
        return mark in ("", CORRECTED) and reading.time_ns < oldest_ns

    async def _evict_by_class(self, aged: Iterable[StoredRow], last: int) -> int:
        count = 0
        free = [row for row in aged if row[0] < last and not self.is_held(row[0])]
        for each in self.rules.dropped:
            found = [
                sql.Candidate(row[0], row[2], sql.size_of(row[2], row[3]))
                for row in free
                if self.rules.class_of(row[2]) is each
            ]
            count += await self._evict(found, f"{each.word}_{AGE}")
        return count

    async def _evict(self, found: Chosen, kind: str) -> int:
        """Evict on disk, then here; return how many. Meanwhile nobody sends them."""
        sizes = {
            each.position: each.size_bytes for each in found if self._is_waiting(each.position)
        }
        positions = list(sizes)
        if not positions:
            return 0
        self.going.update(positions)
        try:
            blocks = self._progress.evicted.with_more(positions)
            await self._database.write(partial(sql.evict, positions, blocks, kind))
        finally:
            self.going.difference_update(positions)
        self._progress.evict(positions, blocks)
        self.size_bytes -= sum(sizes.values())
        self.dropped[kind] = self.dropped.get(kind, 0) + len(positions)
        self._counts[f"readings_dropped/{kind}"] += len(positions)
        return len(positions)


def _is_enough(going: Chosen, need: Need) -> bool:
    size_bytes = sum(each.size_bytes for each in going)
    return len(going) >= need.readings and size_bytes >= need.size_bytes
