"""Slices: long work in turns of the loop, and one budget for all who work."""

import asyncio
from collections.abc import Iterator

import pytest

from agent.loop.slices import SLICE_S, collect, slices

ITEM_S = SLICE_S / 3.9
PER_TURN = 4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("agent.loop.slices.time.perf_counter", lambda: now[0])
    return now


def work(clock: list[float], count: int, done: list[int] | None = None) -> Iterator[int]:
    """Yield numbers, each of which costs a quarter of a slice."""
    for number in range(count):
        clock[0] += ITEM_S
        if done is not None:
            done.append(number)
        yield number


async def count_turns(turns: list[int]) -> None:
    while True:
        turns[0] += 1
        await asyncio.sleep(0)


async def done_in_each_turn(clock: list[float], workers: int, items: int) -> list[int]:
    """Let so many work at once; return how many items were worked off in each turn of the loop."""
    done: list[int] = []
    tasks = [asyncio.ensure_future(collect(work(clock, items, done))) for _ in range(workers)]
    seen, each = 0, []
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        each.append(len(done) - seen)
        seen = len(done)
    assert [task.result() for task in tasks] == [list(range(items))] * workers
    return each


@pytest.mark.parametrize("workers", [1, 3, 64])
def test_a_turn_has_one_slice_whoever_works(clock: list[float], workers: int) -> None:
    each = asyncio.run(done_in_each_turn(clock, workers, 10))
    assert max(each) <= PER_TURN
    assert sum(each) == 10 * workers


def test_what_is_short_takes_no_turn(clock: list[float]) -> None:
    async def main() -> int:
        turns = [0]
        counting = asyncio.ensure_future(count_turns(turns))
        assert await collect(work(clock, 3)) == [0, 1, 2]
        assert await collect([]) == []
        counting.cancel()
        return turns[0]

    assert asyncio.run(main()) == 0


def test_an_item_that_is_too_long_is_a_slice_of_its_own(clock: list[float]) -> None:
    def long() -> Iterator[int]:
        for number in range(3):
            clock[0] += 10 * SLICE_S
            yield number

    async def main() -> list[list[int]]:
        return [taken async for taken in slices(long())]

    assert [taken for taken in asyncio.run(main()) if taken] == [[0], [1], [2]]


def test_what_the_work_raises_comes_out_and_the_budget_is_whole_again(clock: list[float]) -> None:
    def failing() -> Iterator[int]:
        yield from work(clock, 2)
        raise ValueError("no")

    async def main() -> None:
        with pytest.raises(ValueError, match="no"):
            await collect(failing())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await collect(work(clock, 2)) == [0, 1]

    asyncio.run(main())
