"""The agent's side of events and queries: followers, handlers, apps; on a node that is alone."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.cluster.event_handlers import EventHandlers
from agent.cluster.event_json import EventRecord, MissedEvents, QueryResponse, QuerySummary
from agent.cluster.events import EventService
from agent.config.settings import HandlerSettings
from agent.exits import NOT_FOUND, UNHEALTHY, AgentError
from agent.loop.bounded_queue import LossyQueue
from gossip.core.machine import Emit
from gossip.core.tuning import LAN
from gossip.events.messages import ResponseKind
from tests.support.membership_solo import ME, MY_BOOT, Solo
from tests.support.patience import GIVE_UP_S

PYTHON = sys.executable


class FakeDriver:
    """A real membership machine, whose time a test moves."""

    def __init__(self) -> None:
        self.solo = Solo()
        swim = self.solo.swim
        settings = SimpleNamespace(me=ME, boot=MY_BOOT, tuning=LAN)
        self.node: Any = SimpleNamespace(
            swim=swim, with_events=swim.with_delegate, settings=settings
        )
        self.listeners: list[Callable[[object], None]] = []

    def now(self) -> float:
        return self.solo.now

    def listen(self, callback: Callable[[object], None]) -> None:
        self.listeners.append(callback)

    def call(self, action: Callable[[float], Any]) -> Any:
        result = action(self.solo.now)
        self.perform()
        return result

    def perform(self) -> None:
        for effect in self.solo.swim.effects():
            if isinstance(effect, Emit):
                for callback in self.listeners:
                    callback(effect.event)

    def sleep(self, seconds: float) -> None:
        self.solo.now += seconds
        self.solo.swim.wake(self.solo.now)
        self.perform()


class Rig:
    def __init__(self, *, wall_clock: Callable[[], float] = time.time, **tables: Any) -> None:
        self.driver = FakeDriver()
        self.saved: list[int] = []
        settings = {"handlers": {}, "timeout": "5s"}
        events = HandlerSettings(**{**settings, **tables.get("events", {})})
        queries = HandlerSettings(**{**settings, **tables.get("queries", {})})
        self.event_service = EventService(
            self.driver,  # type: ignore[arg-type]
            events,
            queries,
            self.save,
            wall_clock=wall_clock,
        )

    async def save(self, lamport: int) -> None:
        self.saved.append(lamport)

    async def ask(self, name: str, payload: bytes = b"") -> list[QueryResponse | QuerySummary]:
        return [one async for one in self.event_service.ask(name, payload, {}, 5.0)]


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), GIVE_UP_S))


async def until(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


def test_an_event_is_remembered_followed_and_its_time_saved() -> None:
    async def test() -> None:
        rig = Rig()
        followed: list[EventRecord | MissedEvents] = []

        async def follow() -> None:
            async for one in rig.event_service.follow(("do*",)):
                followed.append(one)

        reader = asyncio.create_task(follow())
        await asyncio.sleep(0)
        sent = rig.event_service.send("door", b"open")
        rig.event_service.send("window", b"")
        rig.driver.sleep(2.0)
        assert [one.name for one in rig.event_service.recent(("*",), 100)] == ["door", "window"]
        assert [one.id for one in rig.event_service.recent(("door",), 100)] == [sent]
        assert rig.event_service.recent(("*",), 0) == []
        await until(lambda: followed)
        await asyncio.sleep(0.01)
        [one] = followed
        assert isinstance(one, EventRecord)
        assert (one.payload, one.sender_name, one.lamport) == (b"open", "me", 1)
        reader.cancel()
        await rig.event_service.stop()
        assert rig.saved == [2]

    run(test)


def test_a_slow_follower_is_told_what_it_missed() -> None:
    async def test() -> None:
        follower: LossyQueue[int] = LossyQueue(waiting_max=3)
        assert [follower.put(number) for number in range(5)] == [True, True, True, False, False]
        assert await follower.drain() == (2, [2, 3, 4])
        follower.put(9)
        assert await follower.drain() == (0, [9])

    run(test)


def test_too_many_events_are_the_callers_fault() -> None:
    async def test() -> None:
        rig = Rig()
        for _ in range(LAN.event_burst_max):
            rig.event_service.send("x", b"")
        with pytest.raises(AgentError) as refused:
            rig.event_service.send("x", b"")
        assert refused.value.status == UNHEALTHY
        await rig.event_service.stop()

    run(test)


@pytest.mark.parametrize(("name", "answer"), [("ping", b"pong"), ("uptime", b"0ms")])
def test_every_agent_answers_some_queries_itself(name: str, answer: bytes) -> None:
    async def test() -> None:
        rig = Rig()
        first, summary = await rig.ask(name)
        assert isinstance(first, QueryResponse)
        assert first.payload[-2:] == answer[-2:]
        assert summary == QuerySummary(1, 1, ())
        await rig.event_service.stop()

    run(test)


def test_an_agent_has_run_for_as_long_as_it_has_whatever_the_clock_says() -> None:
    clock = [86400.0]

    async def test() -> None:
        rig = Rig(wall_clock=clock.pop)
        clock.extend([0.0, 4e9])
        rig.driver.sleep(90.0)
        first, _ = await rig.ask("uptime")
        assert isinstance(first, QueryResponse)
        assert first.payload.startswith(b"1m30s")
        await rig.event_service.stop()

    run(test)


def test_a_handler_answers_with_what_it_prints() -> None:
    script = "import os, sys; print(os.environ['COVEY_QUERY'], sys.stdin.read(), end='')"
    script += "; print(os.environ.get('COVEY_DIR'), os.environ['COVEY_ASKER'])"

    async def test() -> None:
        rig = Rig(queries={"handlers": {"weigh*": [PYTHON, "-c", script]}})
        first, _ = await rig.ask("weigh/1", b"now")
        assert isinstance(first, QueryResponse)
        assert (first.kind, first.payload) == (ResponseKind.ANSWERED, b"weigh/1 nowNone me\n")
        assert rig.event_service.counts["handlers/ok"] == 1
        await rig.event_service.stop()

    run(test)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([PYTHON, "-c", "import sys; sys.exit('no scale')"], "ended with exit status 1: no scale"),
        ([PYTHON, "-c", "print('x' * 70_000)"], "printed more than 65536 bytes"),
        (["/nowhere/at/all"], "could not be started"),
        (["/bin/sleep", "60"], "took more than 0.3 s"),
        (["/bin/sh", "-c", "sleep 60 & sleep 60"], "took more than 0.3 s"),
    ],
)
def test_a_handler_that_fails_says_so(command: list[str], words: str) -> None:
    timeout = "300ms" if "sleep" in str(command) else "5s"

    async def test() -> None:
        rig = Rig(queries={"handlers": {"weigh": command}, "timeout": timeout})
        first, summary = await rig.ask("weigh")
        assert isinstance(first, QueryResponse)
        assert first.kind is ResponseKind.FAILED
        assert words in first.payload.decode()
        assert summary == QuerySummary(0, 1, ())
        await rig.event_service.stop()

    run(test)


@pytest.mark.parametrize("left", ["sleep 60 &", "setsid sleep 3 &"])
def test_a_handler_has_answered_when_it_ends_whatever_it_left_behind(left: str) -> None:
    """What it started in the background may hold the pipe, and even be in a group of its own."""

    async def test() -> None:
        command = ["/bin/sh", "-c", f"{left} echo 21"]
        rig = Rig(queries={"handlers": {"weigh": command}, "timeout": "2s"})
        first, _ = await rig.ask("weigh")
        assert isinstance(first, QueryResponse)
        assert (first.kind, first.payload) == (ResponseKind.ANSWERED, b"21\n")
        await rig.event_service.stop()

    run(test)


def test_a_query_that_nobody_handles_ends_at_once() -> None:
    async def test() -> None:
        rig = Rig()
        first, summary = await rig.ask("weigh")
        assert isinstance(first, QueryResponse)
        assert first.kind is ResponseKind.NOBODY
        assert summary == QuerySummary(0, 1, ())
        await rig.event_service.stop()

    run(test)


def test_an_event_runs_all_handlers_of_its_name(tmp_path: Path) -> None:
    def note(file: str) -> list[str]:
        return [
            "/bin/sh",
            "-c",
            f'{{ echo "$COVEY_EVENT $COVEY_SENDER"; cat; }} > {tmp_path}/{file}',
        ]

    async def test() -> None:
        rig = Rig(events={"handlers": {"door": note("a"), "d*": note("b"), "window": note("c")}})
        rig.event_service.send("door", b"open")
        rig.driver.sleep(2.0)
        await until(lambda: rig.event_service.counts["handlers/ok"] == 2)
        assert (tmp_path / "a").read_text() == "door me\nopen" == (tmp_path / "b").read_text()
        assert not (tmp_path / "c").exists()
        await rig.event_service.stop()

    run(test)


def test_an_app_answers() -> None:
    async def test() -> None:
        rig = Rig()
        queries = rig.event_service.listen(("weigh",))
        listening = asyncio.ensure_future(anext(queries))
        await asyncio.sleep(0)
        asking = asyncio.create_task(rig.ask("weigh", b"now"))
        query = await listening
        assert not isinstance(query, MissedEvents)
        assert (query.payload, query.asker_name) == (b"now", "me")
        rig.event_service.answer(query.id, b"7 kg")
        first, summary = await asking
        assert isinstance(first, QueryResponse)
        assert (first.payload, summary) == (b"7 kg", QuerySummary(1, 1, ()))
        for late in (query.id, "nonsense"):
            with pytest.raises(AgentError) as refused:
                rig.event_service.answer(late, b"8 kg")
            assert refused.value.status == NOT_FOUND
        await queries.aclose()
        await rig.event_service.stop()

    run(test)


def test_an_app_that_is_silent_has_not_answered() -> None:
    async def test() -> None:
        rig = Rig(queries={"timeout": "100ms"})
        queries = rig.event_service.listen(("*",))
        listening = asyncio.ensure_future(anext(queries))
        await asyncio.sleep(0)
        first, _ = await rig.ask("weigh")
        assert isinstance(first, QueryResponse)
        assert first.kind is ResponseKind.FAILED
        await listening
        await queries.aclose()
        # The app is gone: nobody is waited for.
        first, _ = await rig.ask("weigh")
        assert isinstance(first, QueryResponse)
        assert first.kind is ResponseKind.NOBODY
        await rig.event_service.stop()

    run(test)


def test_only_so_many_handlers_run_and_wait() -> None:
    async def test() -> None:
        counts: Counter[str] = Counter()
        settings = HandlerSettings(
            handlers={"x": ["/bin/sleep", "60"]}, timeout="300ms", concurrency=1
        )
        handlers = EventHandlers(settings, 100, counts)
        runs = [handlers.run(["/bin/sleep", "60"], b"", {}) for _ in range(70)]
        outcomes = await asyncio.gather(*runs)
        assert not any(outcome.is_ok for outcome in outcomes)
        assert counts == {"handlers/killed": 64, "handlers/not run": 6}

    run(test)


def test_a_handler_that_fails_each_time_is_told_of_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Events come as often as their sender likes."""

    async def test() -> None:
        counts: Counter[str] = Counter()
        handlers = EventHandlers(HandlerSettings(handlers={"x": ["/bin/false"]}), 100, counts)
        for _n in range(5):
            await handlers.run(["/bin/false"], b"", {})
        assert counts["handlers/failed"] == 5

    run(test)
    assert sum("/bin/false" in each.getMessage() for each in caplog.records) == 1


def test_a_sender_sees_its_own_event_at_once() -> None:
    """An event is held back for a second; whoever looks meanwhile waits for it."""

    async def story() -> None:
        rig = Rig()
        rig.driver.sleep(6.0)  # alone for long enough: it knows what time it is
        rig.event_service.send("door", b"open")
        assert not rig.event_service.recent(("*",), 10)
        looking = asyncio.create_task(rig.event_service.settle())
        await asyncio.sleep(0.05)
        assert not looking.done()
        rig.driver.sleep(2.0)
        await looking
        assert [one.name for one in rig.event_service.recent(("*",), 10)] == ["door"]
        await asyncio.wait_for(rig.event_service.settle(), GIVE_UP_S)
        await rig.event_service.stop()

    run(story)
