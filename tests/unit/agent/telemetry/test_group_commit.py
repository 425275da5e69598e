"""Readings on their way to the disk: what comes while others are written is written together."""

import asyncio

from agent.telemetry.group_commit import GroupCommit
from agent.telemetry.outbox_sql import Row
from edge_apps.reading import Reading

CALLS = [([(n, "t", b"")] * n, [Reading("t", n)] * n) for n in (1, 2, 3)]


def test_what_comes_while_others_are_written_is_written_together_and_in_order() -> None:
    written: list[tuple[list[Row], list[Reading]]] = []

    async def scenario() -> list[int]:
        is_writing, may_end = asyncio.Event(), asyncio.Event()

        async def store(rows: list[Row], readings: list[Reading]) -> int:
            first = 1 + sum(len(before) for before, _ in written)
            written.append((rows, readings))
            is_writing.set()
            await may_end.wait()
            return first

        arrivals = GroupCommit(store)
        puts = [asyncio.create_task(arrivals.put(*CALLS[0]))]
        await is_writing.wait()
        puts += [asyncio.create_task(arrivals.put(*call)) for call in CALLS[1:]]
        await asyncio.sleep(0)
        may_end.set()
        return await asyncio.gather(*puts)

    assert asyncio.run(scenario()) == [1, 2, 4]
    (_, second), (_, third) = CALLS[1:]
    assert [readings for _, readings in written] == [CALLS[0][1], second + third]


def test_what_comes_alone_is_not_copied() -> None:
    rows, readings = CALLS[1]
    written: list[bool] = []

    async def store(handed: list[Row], told: list[Reading]) -> int:
        written.append(handed is rows and told is readings)  # it may be a hundred thousand
        return 7

    async def scenario() -> int:
        return await GroupCommit(store).put(rows, readings)

    assert asyncio.run(scenario()) == 7
    assert written == [True]
