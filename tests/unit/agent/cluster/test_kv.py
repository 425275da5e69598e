"""The kv service: what it asks of the driver, and how refusals come out."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from agent.cluster.kv import Kv
from agent.exits import UNREACHABLE, USAGE, AgentError
from agent.runtime.driver import Driver
from gossip.kv.requests import (
    Delete,
    Get,
    GetResult,
    List,
    ListResult,
    Put,
    PutResult,
    Rejected,
    Request,
    Result,
    Watch,
    WatchEvent,
)


class FakeEvents:
    def __init__(self, events: list[WatchEvent]) -> None:
        self.events, self.is_closed = events, False

    async def __aiter__(self) -> AsyncIterator[WatchEvent]:
        for event in self.events:
            yield event

    def close(self) -> None:
        self.is_closed = True


class FakeDriver:
    def __init__(self, result: Result | None = None) -> None:
        self.asked: list[Request] = []
        self.result = result
        self.events = FakeEvents([WatchEvent(1, "k", "delete", ())])

    async def request(self, request: Request) -> Result:
        self.asked.append(request)
        assert self.result is not None
        return self.result

    def watch(self, request: Watch) -> FakeEvents:
        self.asked.append(request)
        return self.events


def kv_on(driver: FakeDriver) -> Kv:
    return Kv(cast("Driver", driver))


def test_arguments_become_requests_and_results_come_back() -> None:
    put = PutResult("indeterminate", 1, 2, b"c")
    get = GetResult((), b"", 2, 2, "ok")
    page = ListResult((), "", "partial")

    async def scenario() -> None:
        driver = FakeDriver(put)
        assert await kv_on(driver).put("k", b"v", w=1, context=b"x", timeout_s=2) == put
        assert await kv_on(driver).delete("k") == put
        assert driver.asked == [Put("k", b"v", 1, b"x", 2), Delete("k")]
        driver = FakeDriver(get)
        assert await kv_on(driver).get("k", r=3) == get
        assert driver.asked == [Get("k", 3)]
        driver = FakeDriver(page)
        assert await kv_on(driver).list("p", after="a", limit=7, r=1) == page
        assert driver.asked == [List("p", "a", 7, 1)]

    asyncio.run(scenario())


@pytest.mark.parametrize(("unreachable", "status"), [(True, UNREACHABLE), (False, USAGE)])
def test_a_refusal_is_an_error_with_a_hint(*, unreachable: bool, status: int) -> None:
    driver = FakeDriver(Rejected("it did not happen; do something else", unreachable))
    with pytest.raises(AgentError) as caught:
        asyncio.run(kv_on(driver).put("k", b"v"))
    error = caught.value
    assert (error.message, error.hint, error.status) == (
        "it did not happen", "do something else", status)  # fmt: skip


def test_a_watch_is_closed_with_its_iterator() -> None:
    async def scenario() -> None:
        driver = FakeDriver()
        watch = kv_on(driver).watch(prefix="k")
        assert (await anext(watch)).key == "k"
        assert not driver.events.is_closed
        await watch.aclose()
        assert driver.events.is_closed
        assert driver.asked == [Watch("k", None)]

    asyncio.run(scenario())
