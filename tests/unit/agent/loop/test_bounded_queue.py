"""Queues with an end: one cuts its reader off there, the other lets the oldest make room."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.exits import AgentError
from agent.loop.bounded_queue import BoundedQueue, LossyQueue
from tests.support.patience import GIVE_UP_S


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(GIVE_UP_S):
            await test()

    asyncio.run(within())


def test_who_falls_behind_reads_what_waits_and_is_cut_off() -> None:
    async def test() -> None:
        closed: list[str] = []
        queue: BoundedQueue[int] = BoundedQueue(lambda: closed.append("once"), waiting_max=2)
        assert [queue.put(number) for number in range(4)] == [True, True, False, True]
        assert closed == ["once"]
        assert [await anext(queue), await anext(queue)] == [0, 1]
        with pytest.raises(AgentError, match="more than 2 events waited"):
            await anext(queue)

    run(test)


def test_bytes_count_as_well_and_what_is_read_makes_room() -> None:
    async def test() -> None:
        queue: BoundedQueue[int] = BoundedQueue(lambda: None, bytes_max=10)
        assert queue.put(0, 11), "one at least is taken, whatever its size"
        assert await anext(queue) == 0
        assert queue.put(1, 6)
        assert queue.put(2, 4)
        assert await anext(queue) == 1
        assert queue.put(3, 6)
        assert not queue.put(4, 1)
        assert [await anext(queue), await anext(queue)] == [2, 3]
        with pytest.raises(AgentError, match="more than 10 bytes of events waited"):
            await anext(queue)

    run(test)


def test_the_oldest_make_room_and_are_counted() -> None:
    async def test() -> None:
        queue: LossyQueue[int] = LossyQueue(waiting_max=3)
        assert [queue.put(number) for number in range(5)] == [True, True, True, False, False]
        assert queue.extend([5, 6]) == 2
        assert await queue.wait() == 4
        assert queue.pop() == 4
        assert await queue.wait() == 0, "told once"
        assert await queue.drain() == (0, [5, 6])

    run(test)


def test_by_their_bytes_the_oldest_make_room_too_but_the_newest_stays() -> None:
    async def test() -> None:
        queue: LossyQueue[int] = LossyQueue(size_of=int, bytes_max=10)
        assert queue.extend([4, 5]) == 0
        assert not queue.put(3)
        assert queue.extend([1, 2, 11]) == 4
        assert await queue.wait() == 5
        assert queue.pop() == 11
        assert queue.extend([5, 5]) == 0, "what was taken counts no more"
        assert await queue.drain() == (0, [5, 5])
        assert queue.put(10)

    run(test)


def test_more_at_once_than_there_is_room_for_leaves_the_newest() -> None:
    async def test() -> None:
        queue: LossyQueue[int] = LossyQueue(waiting_max=3)
        assert queue.put(-1)
        assert queue.extend(range(10)) == 8
        assert await queue.drain() == (8, [7, 8, 9])

    run(test)


@pytest.mark.parametrize("empty", ["pop", "drain"])
def test_an_empty_queue_is_waited_for(empty: str) -> None:
    async def test() -> None:
        queue: LossyQueue[int] = LossyQueue()
        queue.put(1)
        if empty == "pop":
            queue.pop()
        else:
            await queue.drain()
        waiting = asyncio.create_task(queue.drain())
        assert queue.extend([]) == 0
        await asyncio.sleep(0)
        assert not waiting.done()
        queue.put(2)
        assert await waiting == (0, [2])

    run(test)
