"""Readings on their way to the disk: those that come while others are written share the next write.

A savepoint, a look at what was last and a turn of the loop cost as much as ten readings. Each call
still is all or none: what is handed in was checked, so only the disk can fail, and that fails the
whole transaction.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import NamedTuple

from agent.loop import watched
from agent.telemetry.outbox_sql import Row
from edge_apps.reading import Reading

Store = Callable[[list[Row], list[Reading]], Awaitable[int]]


class Arrival(NamedTuple):
    """What one call handed in, and who waits for the position of the first."""

    rows: list[Row]
    readings: list[Reading]
    first: asyncio.Future[int]


class GroupCommit:
    """Hands to ``store``, one after the other, all that came in the meantime."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[Arrival] = []
        self._storing: asyncio.Task[None] | None = None

    async def put(self, rows: list[Row], readings: list[Reading]) -> int:
        """Return the position of the first when all are stored. Raises what storing raises.

        Whoever waits may give up; the readings are stored all the same.
        """
        arrival = Arrival(rows, readings, asyncio.get_running_loop().create_future())
        self._waiting.append(arrival)
        if self._storing is None or self._storing.done():
            self._storing = watched.start("outbox-accept", self._keep_storing)
        return await arrival.first

    async def ended(self) -> None:
        """Wait until nothing is on its way."""
        if self._storing is not None:
            await asyncio.wait([self._storing])

    async def _keep_storing(self) -> None:
        while self._waiting:
            arrivals, self._waiting = self._waiting, []
            try:
                position = await self._store(*_together(arrivals))
            except Exception as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
                _fail(arrivals, error)
            else:
                _succeed(arrivals, position)


def _together(arrivals: list[Arrival]) -> tuple[list[Row], list[Reading]]:
    if len(arrivals) == 1:  # which may be large
        return arrivals[0].rows, arrivals[0].readings
    return (
        [*chain.from_iterable(each.rows for each in arrivals)],
        [*chain.from_iterable(each.readings for each in arrivals)],
    )


def _succeed(arrivals: list[Arrival], position: int) -> None:
    for _, readings, first in arrivals:
        if not first.done():  # whoever waited was cancelled
            first.set_result(position)
        position += len(readings)


def _fail(arrivals: list[Arrival], error: Exception) -> None:
    for arrival in arrivals:
        if not arrival.first.done():
            arrival.first.set_exception(error)
