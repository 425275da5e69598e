"""Telemetry: followers get what was accepted, in order, and hear of what they missed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from agent.store.database import Database
from agent.telemetry.outbox import Accepted, Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.service import Overrun, Telemetry
from agent.telemetry.timekeeping import Timekeeper
from tests.support.patience import GIVE_UP_S
from tests.support.readings import checked

NOW_NS = 1_700_000_000_000_000_000


async def next_reading(following: AsyncIterator[Accepted | Overrun]) -> Accepted:
    item = await anext(following)
    assert isinstance(item, Accepted)
    return item


def run(path: Path, scenario: Callable[[Telemetry], Awaitable[Any]]) -> None:
    async def main() -> None:
        database = await Database.open(path / "telemetry.db", OUTBOX_MIGRATIONS)
        outbox = await Outbox.open(database, 1, 1 << 32, timekeeper=Timekeeper(lambda: NOW_NS))
        async with asyncio.timeout(GIVE_UP_S):
            await scenario(Telemetry(outbox))
        await outbox.close()
        await database.close()

    asyncio.run(main())


async def accept(telemetry: Telemetry, *values: int, sensor: str = "a/t") -> None:
    await telemetry.accept([checked(sensor, value) for value in values])


def test_followers_get_matching_readings_with_ids_and_times(tmp_path: Path) -> None:
    async def scenario(telemetry: Telemetry) -> None:
        async with aclosing(telemetry.follow("a/*")) as following:
            first = asyncio.ensure_future(next_reading(following))
            await asyncio.sleep(0)
            await accept(telemetry, 0, sensor="b/t")
            await accept(telemetry, 1, 2)
            await accept(telemetry, 3)
            got = [await first, await next_reading(following), await next_reading(following)]
        assert [item.reading.value for item in got] == [1, 2, 3]
        assert [item.reading.time_ns for item in got] == [NOW_NS] * 3
        assert [item.id for item in got] == [item.id for item in await telemetry.recent("a/*")]

    run(tmp_path, scenario)


def test_a_slow_follower_loses_the_oldest_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.telemetry.service.FOLLOWER_READINGS_MAX", 3)

    async def scenario(telemetry: Telemetry) -> None:
        async with aclosing(telemetry.follow()) as following:
            first = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0)
            await accept(telemetry, *range(10))
            assert await first == Overrun(7)
            got = [await next_reading(following) for _ in range(3)]
            assert [item.reading.value for item in got] == [7, 8, 9]
            await accept(telemetry, 10)
            assert (await next_reading(following)).reading.value == 10
        assert telemetry.counts["followed_readings/missed"] == 7
        assert telemetry.stats().waiting == 11, "the outbox is not disturbed"

    run(tmp_path, scenario)


def test_a_closed_follower_is_forgotten(tmp_path: Path) -> None:
    async def scenario(telemetry: Telemetry) -> None:
        async with aclosing(telemetry.follow()) as following:
            first = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0)
            await accept(telemetry, 1)
            await first
            assert len(telemetry._outbox._listeners) == 1
        assert telemetry._outbox._listeners == []

    run(tmp_path, scenario)


def test_dead_letters_and_stats_pass_through(tmp_path: Path) -> None:
    async def scenario(telemetry: Telemetry) -> None:
        await accept(telemetry, 1, 2)
        await telemetry._outbox.dead_letter(1, "no")
        assert [letter.reason for letter in telemetry.dead_letters()] == ["no"]
        stats = telemetry.stats()
        assert (stats.waiting, stats.dead_letters, stats.oldest_time_ns) == (1, 1, NOW_NS)

    run(tmp_path, scenario)
