"""Dead letters: readings that were given up, kept with the reason until somebody decides.

They block nobody and are sent to nobody. Who has mended what was wrong *replays* them: each goes
back into the outbox behind all that waits, under the id that it always had, and out of the dead
letters in the same transaction. Who does not want them *drops* them. Nobody has to: beyond a
number and a size, the oldest are forgotten. All three are counted, over the life of the file.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import translate
from functools import partial

import msgspec

from agent.loop.slices import collect
from agent.store.database import Database
from agent.telemetry import dead_letter_sql as sql
from agent.telemetry.dead_letter_sql import REASONS, LetterBounds, LetterTotals
from agent.telemetry.delivery_progress import DeliveryProgress
from agent.telemetry.outbox_sql import read_body
from edge_apps.reading import Reading

AT_ONCE = 100
"""So many are moved by one transaction, or looked at in one go."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A reading that was given up, why, and when (Unix time in nanoseconds)."""

    id: str
    reading: Reading
    reason: str
    buried_at_ns: int


class Choice(msgspec.Struct, frozen=True):
    """Which letters are meant: those that fit all three. Globs, in which ``*`` matches ``/`` too.

    Without ids, whatever the id is.
    """

    ids: frozenset[str] = frozenset()
    sensor: str = "*"
    reason: str = "*"

    def matching(self, labels: Sequence[sql.Label]) -> list[int]:
        """Return the numbers of those that are meant."""
        sensor = re.compile(translate(self.sensor)).match
        reason = re.compile(translate(self.reason)).match
        return [
            number
            for number, reading_id, of_sensor, why in labels
            if (not self.ids or reading_id in self.ids) and sensor(of_sensor) and reason(why)
        ]


ALL = Choice()


class MoveResult(msgspec.Struct, frozen=True):
    """What became of letters that were replayed or dropped.

    ``damaged`` were not as they were written, and are gone; ``left`` fit the choice and are still
    there, because no more may wait.
    """

    moved: int
    damaged: int
    left: int


class DeadLetters:
    """The dead letters of one outbox, and what became of those of before."""

    def __init__(self, database: Database, counts: Counter[str], bounds: LetterBounds) -> None:
        self.totals = LetterTotals()
        self.bounds = bounds
        self._database = database
        self._counts = counts

    async def bury(self, letter: sql.DeadLetterRow, after: DeliveryProgress) -> None:
        """Set a reading aside and save the progress that this makes. Raises StorageError."""
        self.note(await self._database.write(partial(sql.bury, letter, after, self.bounds)))

    def note(self, now: LetterTotals) -> None:
        """Take new totals over, and count what changed."""
        before, self.totals = self.totals, now
        for name in ("buried", *REASONS):
            if more := getattr(now, name) - getattr(before, name):
                self._counts[f"dead_letters/{name}"] += more

    def newest(self, limit: int) -> list[DeadLetter]:
        """Return the newest, oldest first."""
        labels = self._database.read(partial(sql.newest_labels, 2**63 - 1, limit))
        return list(self._read([number for number, *_ in labels]))

    async def list(self, choice: Choice, limit: int) -> list[DeadLetter]:
        """Return the newest that are meant, oldest first."""
        numbers = (await collect(self._newest(choice, limit)))[:limit]
        return await collect(self._read(numbers))

    def _newest(self, choice: Choice, limit: int) -> Iterator[int]:
        before, labels = 2**63 - 1, [(0, "", "", "")]
        while labels and limit > 0:
            labels = self._database.read(partial(sql.newest_labels, before, AT_ONCE))
            for number in choice.matching(labels):
                limit -= 1
                yield number
            if labels:
                before = labels[-1][0]

    def _read(self, numbers: Sequence[int]) -> Iterator[DeadLetter]:
        """Yield letters, oldest first."""
        ordered = sorted(numbers)
        for start in range(0, len(ordered), AT_ONCE):
            part = ordered[start : start + AT_ONCE]
            for row in self._database.read(partial(sql.letters, part)):
                _, reading_id, time_ns, sensor, body, reason, at_ns, _ = row
                held = read_body(time_ns, sensor, body)
                yield DeadLetter(reading_id, held.reading, reason, at_ns)

    async def chosen(self, choice: Choice) -> Sequence[int]:
        """Return the numbers of all that are meant and are here now, oldest first.

        What dies again while they are replayed is not among them.
        """
        return await collect(self._numbers(choice, self._database.read(sql.last_number)))

    def _numbers(self, choice: Choice, until: int) -> Iterator[int]:
        after = 0
        while labels := self._database.read(partial(sql.labels, after, until, AT_ONCE)):
            yield from choice.matching(labels)
            after = labels[-1][0]

    async def drop(self, choice: Choice) -> MoveResult:
        """Delete all that are meant, for good. Raises StorageError; those of before are gone."""
        numbers = await self.chosen(choice)
        before = self.totals.dropped
        for start in range(0, len(numbers), AT_ONCE):
            part = numbers[start : start + AT_ONCE]
            self.note(await self._database.write(partial(sql.drop, part)))
        return MoveResult(self.totals.dropped - before, 0, 0)
