"""The SDK: schedule, publisher, context, harness; all in virtual time."""

import logging
import random
from collections.abc import Sequence
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import msgspec
import pytest

import edge_apps
from edge_apps import App, Context
from edge_apps.client import AgentUnreachable, ApiError
from edge_apps.publisher import BATCH_READINGS_MAX, PAUSE_FIRST_S, PAUSE_MAX_S, Publisher
from edge_apps.reading import Reading
from edge_apps.schedule import Schedule
from edge_apps.testing import START_UNIX_S, AppHarness
from edge_apps.units import parse_duration

LOG = logging.getLogger("test_sdk")


class FakeAgent:
    """Takes batches, or raises what it is told to raise."""

    def __init__(self) -> None:
        self.batches: list[list[Reading]] = []
        self.calls = 0
        self.error: Exception | None = None

    def post(self, batch: Sequence[Reading]) -> None:
        self.calls += 1
        if self.error:
            raise self.error
        self.batches.append(list(batch))

    @property
    def values(self) -> list[Any]:
        return [reading.value for batch in self.batches for reading in batch]


def make(agent: FakeAgent, buffer_max: int = 10_000) -> Publisher:
    return Publisher(agent.post, LOG, random.Random(1), buffer_max)


def offer(publisher: Publisher, values: range) -> None:
    for value in values:
        publisher.offer(Reading("a", value))


def test_readings_travel_in_order_and_in_batches() -> None:
    agent = FakeAgent()
    publisher = make(agent)
    offer(publisher, range(1_200))
    publisher.flush(0)
    assert agent.values == list(range(1_200))
    assert max(len(batch) for batch in agent.batches) == BATCH_READINGS_MAX
    assert len(publisher) == 0
    assert publisher.counts == {"readings/sent": 1_200}


@pytest.mark.parametrize(
    "error", [AgentUnreachable("away"), ApiError(503, "x", "busy"), ApiError(429, "x", "slow")]
)
def test_readings_wait_for_an_agent_that_is_away(error: Exception) -> None:
    agent = FakeAgent()
    publisher = make(agent)
    agent.error = error
    offer(publisher, range(3))
    publisher.flush(10)
    offer(publisher, range(3, 5))
    assert len(publisher) == 5
    publisher.flush(10)  # too early: nobody is asked
    assert agent.calls == 1
    agent.error = None
    publisher.flush(publisher.deadline())
    assert agent.values == [0, 1, 2, 3, 4]


def test_pauses_double_with_jitter_up_to_a_limit() -> None:
    agent = FakeAgent()
    publisher = make(agent)
    agent.error = AgentUnreachable("away")
    offer(publisher, range(1))
    pauses = []
    now = 0.0
    for _ in range(12):
        publisher.flush(now)
        pauses.append(publisher.deadline() - now)
        now = publisher.deadline()
    for number, pause in enumerate(pauses):
        full = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**number)
        assert full / 2 <= pause <= full
    agent.error = None
    publisher.flush(now)
    agent.error = AgentUnreachable("away again")
    offer(publisher, range(1))
    publisher.flush(now)
    assert publisher.deadline() - now <= PAUSE_FIRST_S


def test_overflow_drops_the_oldest_and_is_counted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = FakeAgent()
    publisher = make(agent, buffer_max=100)
    agent.error = AgentUnreachable("away")
    offer(publisher, range(130))
    publisher.flush(0)
    offer(publisher, range(130, 150))
    assert publisher.counts["readings_dropped/overflow"] == 50
    assert "dropped the oldest, 30 so far" in caplog.text
    agent.error = None
    publisher.flush(publisher.deadline())
    assert agent.values == list(range(50, 150))


def test_a_failed_batch_makes_room_for_what_came_meanwhile() -> None:
    agent = FakeAgent()
    publisher = make(agent, buffer_max=10)
    offer(publisher, range(10))

    class Overtaken(FakeAgent):
        def post(self, batch: Sequence[Reading]) -> None:
            offer(publisher, range(10, 14))  # another thread, during the request
            raise AgentUnreachable("away")

    publisher._post = Overtaken().post
    publisher.flush(0)
    assert len(publisher) == 10
    assert publisher.counts["readings_dropped/overflow"] == 4
    publisher._post = agent.post
    publisher.flush(publisher.deadline())
    assert agent.values == list(range(4, 14))


def test_a_refused_batch_does_not_block_the_next(caplog: pytest.LogCaptureFixture) -> None:
    agent = FakeAgent()
    publisher = make(agent)
    agent.error = ApiError(400, "bad", "no such unit")
    offer(publisher, range(2))
    publisher.flush(0)
    agent.error = None
    offer(publisher, range(2, 3))
    publisher.flush(0)
    assert agent.values == [2]
    assert publisher.counts["readings_dropped/refused"] == 2
    assert "no such unit" in caplog.text


def first() -> None:
    """A function of a schedule."""


def second() -> None:
    """Another one."""


def test_a_schedule_keeps_its_distance_and_skips_what_it_missed() -> None:
    schedule = Schedule([(first, 5.0)], start=100.0)
    assert schedule.take_due(100.0) is first
    assert schedule.take_due(104.9) is None
    assert schedule.take_due(107.0) is first  # late, but the next one is on time
    assert schedule.deadline() == 110.0
    assert schedule.take_due(126.0) is first  # 110, 115, 120 and 125 are one sample
    assert schedule.take_due(126.0) is None
    assert schedule.deadline() == 130.0
    assert schedule.skipped == 3


def test_a_schedule_takes_the_longest_due_first() -> None:
    schedule = Schedule([(first, 5.0), (second, 2.0)], start=0.0)
    taken = [schedule.take_due(0.0), schedule.take_due(0.0), schedule.take_due(0.0)]
    assert taken == [first, second, None]
    assert schedule.take_due(6.0) is second  # due since 2, the other since 5
    assert schedule.take_due(6.0) is first


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("1h30m", 5400.0), ("0.5s", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["5", "", "s", "5 s", "-5s", "0s", "5sec", "1e3s", "٣s"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def counting_app() -> App:
    app = App("counting")

    @app.every("5s")
    def sample(context: Context) -> None:
        count = int(context.kv.get("count") or b"0") + 1
        context.kv.put("count", str(count))
        context.publish("counted", count, unit="1", tags={"bay": str(context.options["bay"])})

    return app


def test_the_harness_runs_an_app_in_virtual_time() -> None:
    harness = AppHarness(counting_app(), options={"bay": 2})
    harness.run(60)
    assert harness.values("counted") == list(range(1, 13))
    assert harness.kv.contents == {"count": b"12"}
    times = [reading.time_ns / 1e9 - START_UNIX_S for reading in harness.published]
    assert times == [5.0 * n for n in range(12)]
    assert harness.published[0] == Reading(
        "counted", 1, "1", int(START_UNIX_S * 1_000_000_000), {"bay": "2"}
    )
    harness.run(5)
    assert len(harness.published) == 13


def test_the_configuration_replaces_the_period() -> None:
    harness = AppHarness(counting_app(), options={"bay": 2, "every": "20s"})
    harness.run(60)
    assert len(harness.published) == 3


def test_mistakes_of_an_app_are_told_at_once() -> None:
    app = App("wrong")
    with pytest.raises(ValueError, match="no function"):
        app.periods({})
    with pytest.raises(ValueError, match="5sec"):
        app.every("5sec")


class Scalar:
    """What numpy's scalars are like."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def item(self) -> Any:
        return self._value


BAD_CALLS: list[dict[str, Any]] = [
    {"value": float("nan")},
    {"value": float("-inf")},
    {"value": None},
    {"value": [1]},
    {"value": b"21"},
    {"value": 2**70},
    {"value": "x" * 2000},
    {"value": "\ud800"},
    {"value": Scalar(float("nan"))},
    {"value": Scalar(Scalar(1))},
    {"value": 1j},
    {"sensor": "no blanks"},
    {"sensor": "x" * 500},
    {"sensor": None},
    {"sensor": "a\x85b"},
    {"unit": None},
    {"unit": "u" * 50},
    {"tags": {"floor": 3}},
    {"tags": ["floor"]},
    {"tags": {f"t{n}": "" for n in range(65)}},
    {"time_s": float("nan")},
    {"time_s": -1.0},
    {"time_s": 1e30},
    {"time_s": "now"},
]


@pytest.mark.parametrize("bad", BAD_CALLS, ids=[str(n) for n in range(len(BAD_CALLS))])
def test_one_bad_value_costs_that_value(bad: dict[str, Any]) -> None:
    app = App("wrong")
    said: list[bool] = []

    @app.every("1s")
    def sample(context: Context) -> None:
        said.append(context.publish("t", 1))
        said.append(context.publish(**{"sensor": "t", "value": 2, **bad}))
        said.append(context.publish("t", 3))

    harness = AppHarness(app)
    harness.run(2)
    assert said == [True, False, True] * 2
    assert harness.values("t") == [1, 3, 1, 3]
    assert len(harness.dropped) == 2
    assert harness.dropped[0][1]


class Level(IntEnum):
    LOW = 3


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        (Scalar(21.5), 21.5),
        (Scalar(7), 7),
        (Scalar(True), True),
        (Decimal("21.5"), 21.5),
        (Fraction(43, 2), 21.5),
        (Level.LOW, 3),
        (type("Celsius", (float,), {})(21.5), 21.5),
        (type("Word", (str,), {})("open"), "open"),
    ],
)
def test_numbers_of_other_kinds_become_pythons_own(value: Any, becomes: object) -> None:
    app = App("kinds")

    @app.every("1s")
    def sample(context: Context) -> None:
        assert context.publish("t", value)

    harness = AppHarness(app)
    harness.run(1)
    assert harness.values("t") == [becomes]
    assert type(harness.values("t")[0]) is type(becomes)
    msgspec.json.encode(harness.published)


def test_what_is_dropped_is_counted_and_told_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher = make(FakeAgent())
    for number in range(150):
        publisher.drop("t", f"it is NaN ({number})")
        publisher.drop(f"made-up-{number}", "why")
    assert publisher.counts["readings_dropped/bad"] == 300
    told = [line for line in caplog.messages if "reading of t " in line]
    assert [line.split("(")[1].split()[0] for line in told] == ["1", "10", "100"]
    assert len(caplog.messages) <= 103


def test_one_refused_reading_of_a_batch_costs_no_other() -> None:
    agent = FakeAgent()
    publisher = make(agent)

    class Picky(FakeAgent):
        def post(self, batch: Sequence[Reading]) -> None:
            self.calls += 1
            if any(reading.value in (7, 123) for reading in batch):
                raise ApiError(400, "usage", "no sevens")
            agent.post(batch)

    publisher._post = Picky().post
    offer(publisher, range(300))
    publisher.flush(0)
    assert agent.values == [n for n in range(300) if n not in (7, 123)]
    assert publisher.counts == {"readings/sent": 298, "readings_dropped/refused": 2}


def test_an_agent_that_goes_away_in_the_midst_of_a_refusal_costs_nothing() -> None:
    agent = FakeAgent()
    publisher = make(agent)

    class Leaving(FakeAgent):
        def post(self, batch: Sequence[Reading]) -> None:
            self.calls += 1
            if self.calls > 3:
                raise AgentUnreachable("away")
            raise ApiError(400, "usage", "no")

    publisher._post = Leaving().post
    offer(publisher, range(100))
    publisher.flush(0)
    assert len(publisher) == 100
    publisher._post = agent.post
    publisher.flush(publisher.deadline())
    assert agent.values == list(range(100))


def test_every_public_name_exists() -> None:
    assert {name: getattr(edge_apps, name).__name__ for name in edge_apps.__all__} == {
        name: name for name in edge_apps.__all__
    }
    with pytest.raises(AttributeError):
        edge_apps.nothing  # noqa: B018


def test_a_harness_refuses_what_was_not_seen() -> None:
    app = App("a")
    app.on_event("bell")(lambda *_: None)
    harness = AppHarness(app)
    nothing = harness.kv.look("k")
    assert harness.kv.put("k", b"1", seen=nothing)
    seen = harness.kv.look("k")
    with pytest.raises(ApiError):
        harness.kv.put("k", b"2", seen=nothing)
    assert harness.kv.put("k", b"2", seen=seen)
    assert harness.kv.get("k") == b"2"


def test_a_harness_has_typed_keys() -> None:
    app = App("a")
    app.on_event("bell")(lambda *_: None)
    kv = AppHarness(app).kv
    for _ in range(3):
        kv.count("bells")
    kv.count("bells", -1)
    kv.add("who", "bob")
    kv.add("who", "ada")
    kv.discard("who", "bob")
    kv.set_field("lamp", "colour", "red")
    kv.set_field("lamp", "level", "5")
    kv.set_field("lamp", "level", None)
    kv.raise_to("high", 5)
    kv.raise_to("high", 4)
    kv.lower_to("low", 5)
    kv.lower_to("low", 4.5)
    assert kv.contents == {
        "bells": b"2", "who": b'["ada"]', "lamp": b'{"colour": "red"}', "high": b"5", "low": b"4.5",
    }  # fmt: skip
    kv.discard("who", "ada")
    kv.set_field("lamp", "colour", None)
    assert not {"who", "lamp"} & kv.contents.keys()
