"""What the wall clock says is judged, and its steps are told apart from its running."""

import asyncio

import pytest

from agent.loop.periodic import rest_s
from agent.system.wall_clock import EARLIEST_S, ClockStep, WallClock, date, flaw
from tests.support.patience import GIVE_UP_S

DAY_S = 86400.0
FROM, UNTIL = EARLIEST_S + 10 * DAY_S, EARLIEST_S + 100 * DAY_S


@pytest.mark.parametrize("now_s", [FROM, FROM + 1, UNTIL - 1, UNTIL])
def test_within_the_certificate_it_can_be_right(now_s: float) -> None:
    assert flaw(now_s, FROM, UNTIL) is None


@pytest.mark.parametrize(
    ("now_s", "says"),
    [
        (0.0, "clock says 1970-01-01 00:00 UTC, and this node's certificate is valid from 2026-01"),
        (FROM - 2 * DAY_S, "clock says 2026-01-09"),
        (-1e300, "s after 1970"),
        (UNTIL + 1, "to 2026-04-11"),
        (1e300, "s after 1970"),
    ],
)
def test_outside_it_cannot(now_s: float, says: str) -> None:
    lack = flaw(now_s, FROM, UNTIL)
    assert lack is not None
    assert says in lack.message
    assert "timedatectl" in lack.hint
    assert ("too old" in lack.hint) is (now_s > UNTIL)


def test_no_covey_is_older_than_covey() -> None:
    assert flaw(EARLIEST_S) is None
    lack = flaw(EARLIEST_S - 1)
    assert lack is not None
    assert "Covey is younger" in lack.message
    assert flaw(EARLIEST_S - 1, valid_from=0.0, valid_until=UNTIL) is not None


class Device:
    """Two clocks: one that anybody sets, one that nobody does."""

    def __init__(self) -> None:
        self.wall_s, self.up_s = EARLIEST_S, 50.0
        self.clock = WallClock(lambda: self.wall_s, lambda: self.up_s)

    def passes(self, seconds: float, rate: float = 1.0) -> None:
        self.up_s += seconds
        self.wall_s += seconds * rate


def test_time_that_passes_is_no_step() -> None:
    device = Device()
    for seconds, rate in ((1.0, 1.0), (3600.0, 1.0), (1.0, 1.0833), (1.0, 0.9167), (0.0, 1.0)):
        device.passes(seconds, rate)
        assert device.clock.sample() is None
    assert device.clock.last_step is None


@pytest.mark.parametrize("by_s", [0.6, -0.6, 3600.0, -3600.0, 1.7e9, -1.7e9])
def test_a_step_is_told_once(by_s: float) -> None:
    device = Device()
    device.passes(1.0)
    device.wall_s += by_s
    step = device.clock.sample()
    assert step is not None
    assert step == device.clock.last_step
    assert step.at == 51.0
    assert step.by_s == pytest.approx(by_s, abs=1e-3)
    assert device.clock.sample() is None


def test_followers_hear_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.system.wall_clock.LOOK_S", 0.001)
    device = Device()
    heard: list[ClockStep] = []

    async def story() -> None:
        following = asyncio.create_task(device.clock.follow(heard.append))
        for by_s in (5.0, -7.0):
            await asyncio.sleep(0)
            device.wall_s += by_s
            while len(heard) < 1 + (by_s < 0):  # noqa: ASYNC110
                await asyncio.sleep(0)
        following.cancel()

    asyncio.run(asyncio.wait_for(story(), GIVE_UP_S))
    assert [round(step.by_s) for step in heard] == [5, -7]


def test_waiting_ends_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.system.wall_clock.LOOK_S", 0.0)
    device = Device()
    device.wall_s = 0.0

    async def story() -> None:
        waiting = asyncio.create_task(device.clock.until_plausible(FROM, UNTIL))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        device.wall_s = FROM + 1
        await waiting

    asyncio.run(asyncio.wait_for(story(), GIVE_UP_S))


def test_any_number_has_a_date() -> None:
    assert date(0.0) == "1970-01-01 00:00 UTC"
    assert date(float("inf")) == "inf s after 1970"


def test_who_looks_at_times_looks_together() -> None:
    """Wherever they begin, those who look every second and every other meet at each even one."""
    ends = set()
    for began_s in (0.0, 0.3, 0.999, 1.2, 1.95):
        now_s = began_s
        while now_s < 9.5:
            now_s += rest_s(now_s, 1.0)
        ends.add(round(now_s, 6))
        assert round(began_s + rest_s(began_s, 2.0), 6) in (2.0, 4.0)
    assert ends == {10.0}
    assert rest_s(3.9999, 1.0) == pytest.approx(1.0001), "fired early: this moment is over"
