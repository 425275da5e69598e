"""Requests to members: whose reply is taken, when one is asked again, when nobody waits."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.loop.rpc import PendingReplies
from tests.support.patience import GIVE_UP_S

PEER, OTHER, NUMBER = 7, 8, 3


def run(test: Callable[[PendingReplies[str]], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(GIVE_UP_S):
            await test(PendingReplies())

    asyncio.run(within())


def test_a_reply_reaches_whoever_asked() -> None:
    async def test(pending: PendingReplies[str]) -> None:
        one = asyncio.create_task(pending.request(PEER, NUMBER, lambda: None, GIVE_UP_S))
        two = asyncio.create_task(pending.request(PEER, NUMBER + 1, lambda: None, GIVE_UP_S))
        await asyncio.sleep(0)
        assert pending.receive(PEER, NUMBER + 1, "second")
        assert pending.receive(PEER, NUMBER, "first")
        assert (await one, await two) == ("first", "second")

    run(test)


def test_the_reply_may_come_while_the_request_is_being_sent() -> None:
    async def test(pending: PendingReplies[str]) -> None:
        def send() -> None:
            pending.receive(PEER, NUMBER, "at once")

        assert await pending.request(PEER, NUMBER, send, GIVE_UP_S) == "at once"

    run(test)


def test_nobody_answers_for_another_and_nobody_twice() -> None:
    async def test(pending: PendingReplies[str]) -> None:
        asked = asyncio.create_task(pending.request(PEER, NUMBER, lambda: None, GIVE_UP_S))
        await asyncio.sleep(0)
        assert not pending.receive(OTHER, NUMBER, "false")
        assert not pending.receive(PEER, NUMBER + 1, "unasked")
        assert pending.receive(PEER, NUMBER, "true")
        assert not pending.receive(PEER, NUMBER, "changed my mind")
        assert await asked == "true"
        assert not pending.receive(PEER, NUMBER, "late")

    run(test)


def test_a_lost_request_is_sent_again() -> None:
    async def test(pending: PendingReplies[str]) -> None:
        sent = 0

        def send() -> None:
            nonlocal sent
            sent += 1
            if sent == 3:
                pending.receive(PEER, NUMBER, "heard you")

        assert await pending.request(PEER, NUMBER, send, GIVE_UP_S, again_s=0.001) == "heard you"
        assert sent == 3

    run(test)


def test_a_request_without_repetition_is_sent_once() -> None:
    async def test(pending: PendingReplies[str]) -> None:
        sent: list[int] = []
        with pytest.raises(TimeoutError):
            await pending.request(PEER, NUMBER, lambda: sent.append(1), 0.02)
        assert len(sent) == 1

    run(test)


def test_after_silence_nobody_waits_any_more_and_the_number_is_free() -> None:
    async def test(pending: PendingReplies[str]) -> None:
        with pytest.raises(TimeoutError):
            await pending.request(PEER, NUMBER, lambda: None, 0.0)
        assert not pending.receive(PEER, NUMBER, "late")
        again = asyncio.create_task(pending.request(PEER, NUMBER, lambda: None, GIVE_UP_S))
        await asyncio.sleep(0)
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        assert not pending.receive(PEER, NUMBER, "to nobody")

    run(test)
