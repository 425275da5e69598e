"""The survey: whoever can be reached is asked twice before it counts as silent."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from agent.doctor import survey as surveying
from agent.doctor.doctor import Doctor
from agent.doctor.messages import CODEC, NodeView, ViewRequest
from agent.doctor.survey import Survey
from agent.net.dial_test import DialOutcome, DialTest
from gossip.core.machine import Address

ME, BOB, CY = 1, 2, 3
NOW_S = 1_000.0


class FakeDriver:
    """A node with two others, each of which answers as it is told to; ``now_s`` is the clock."""

    def __init__(self, answers: Callable[[int, int], int | None]) -> None:
        """``answers`` has the clock, in ms, with which a node answers its n-th question."""
        members = [SimpleNamespace(id=each, name=f"n{each}") for each in (ME, BOB, CY)]
        swim = SimpleNamespace(members=SimpleNamespace(live=members))
        tuning = SimpleNamespace(probe_interval_s=1.0)
        self.node: Any = SimpleNamespace(swim=swim, settings=SimpleNamespace(me=ME, tuning=tuning))
        self.asked = {BOB: 0, CY: 0}
        self._answers = answers
        self.survey = Survey(self)  # type: ignore[arg-type]
        self.survey.view = lambda number: NodeView(number, 0, ())  # type: ignore[method-assign]

    def send_frame(self, data: bytes, to: int) -> None:
        message = CODEC.decode_known(data)
        assert isinstance(message, ViewRequest)
        self.asked[to] += 1
        clock_ms = self._answers(to, self.asked[to])
        if clock_ms is not None:
            reply = CODEC.encode(NodeView(message.number, clock_ms, ()))
            asyncio.get_running_loop().call_soon(self.survey.receive_frame, reply, to)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANSWERS_S", "SECOND_ANSWERS_S"):
        monkeypatch.setattr(surveying, name, 0.5)
    monkeypatch.setattr(surveying, "AGAIN_S", 0.01)


def test_whose_first_answers_are_lost_tells_its_view_when_asked_once_more() -> None:
    first = True
    driver = FakeDriver(lambda node, _nth: None if node == CY and first else 0)

    async def scenario() -> None:
        nonlocal first
        told = await driver.survey.run()
        assert told.views.keys() == told.clocks_s.keys() == {ME, BOB}
        assert driver.asked[CY] > 1, "a frame may be lost"
        assert await driver.survey.ask_again(told, ()) is told
        first, before = False, driver.asked[BOB]
        again = await driver.survey.ask_again(told, [CY])
        assert again.views.keys() == again.clocks_s.keys() == {ME, BOB, CY}
        assert again.asked == told.asked
        assert driver.asked[BOB] == before, "who has answered is left alone"

    asyncio.run(scenario())


def test_an_answer_that_comes_late_accuses_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the time between question and answer may explain is no difference."""
    times = iter([NOW_S, *[NOW_S + 5.0] * 10])
    monkeypatch.setattr("agent.doctor.survey.time.time", lambda: next(times))
    clocks_ms = {BOB: round((NOW_S + 4.5) * 1000), CY: round((NOW_S + 65.0) * 1000)}
    driver = FakeDriver(lambda node, _nth: clocks_ms[node])

    async def scenario() -> None:
        told = await driver.survey.run()
        assert told.clocks_s == {ME: 0.0, BOB: 0.0, CY: 60.0}

    asyncio.run(scenario())


def test_the_doctor_dials_the_silent_and_asks_those_again_that_can_be_reached() -> None:
    """A covey that has just started, or is busy, answers late: that blocks no stream."""
    is_busy = True
    driver: Any = FakeDriver(lambda _node, _nth: None if is_busy else 0)

    async def try_stream(node: int) -> DialTest:
        nonlocal is_busy
        is_busy = False
        outcome = DialOutcome.OPEN if node == BOB else DialOutcome.REFUSED
        return DialTest(Address("10.0.0.2", 7748), outcome)

    driver.try_stream = try_stream
    parts: Any = SimpleNamespace(driver=driver, identity=SimpleNamespace(node_id=ME))
    doctor = Doctor(driver.survey, SimpleNamespace(config=None), parts)  # type: ignore[arg-type]
    told, trials = asyncio.run(doctor._ask_members())
    assert told.views.keys() == {ME, BOB}, "who refuses is not waited for again"
    assert {node: trial.outcome for node, trial in trials.items()} == {
        BOB: DialOutcome.OPEN,
        CY: DialOutcome.REFUSED,
    }
