"""Waiting: what an agent says of what it lacks."""

import asyncio

import pytest

from agent.loop.watched import Watch
from agent.readiness import Lack
from agent.runtime.waiting import Waiting
from agent.system.systemd import Notifier


def test_what_is_lacking_still_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """What is tried again and again, on a disk that stays full, writes no line each time."""
    caplog.set_level("WARNING")

    async def at_once() -> None:
        return

    async def scenario() -> None:
        waiting = Waiting(Notifier({}), Watch())
        full, late = Lack("the disk is full", "make room"), Lack("the clock is off", "set it")
        for lack in (full, full, full, late, full):
            await waiting.without(lack, at_once())

    asyncio.run(scenario())
    said = [record.message for record in caplog.records]
    assert said == ["the disk is full; make room", "the clock is off; set it", *said[:1]]
