"""Round trips from the driver to the terminal: who is asked, for how long, and what is shown."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from agent import exits
from agent.cli.errors import run_to_status
from agent.cli.root import root
from agent.cluster import rtt
from agent.cluster.rtt import RttClient
from agent.runtime.driver import Driver
from edge_apps.client import ApiError, Client
from gossip.membership.rtt import Rtt, RttReported
from tests.support.fake_agent import Served

ME, ONE, OTHER = 1, 2, 3
HERE, THERE = Rtt(None, 0.5, 0.1), Rtt(0.02, 0.03, 0.01)


class FakeDriver:
    """A node that knows HERE, and a peer that answers as ``answer`` says."""

    def __init__(self, answer: Rtt | None) -> None:
        self.node = self
        self.swim = self
        self.rtt_service = self
        self.settings = self
        self.me = ME
        self.asked: list[tuple[int, int]] = []
        self._answer = answer
        self._heed: Callable[[object], None]

    def listen(self, heed: Callable[[object], None]) -> None:
        self._heed = heed

    def call(self, action: Callable[[float], Any]) -> Any:
        return action(0.0)

    def between(self, one: int, other: int) -> Rtt:
        return HERE

    def ask_round_trip(self, peer: int, target: int, now: float) -> int:
        self.asked.append((peer, target))
        if self._answer is not None:
            for told in (
                RttReported(peer, 8, Rtt(9.0)),
                RttReported(OTHER, 7, Rtt(9.0)),
                RttReported(peer, 7, self._answer),
                RttReported(peer, 7, Rtt(9.0)),
            ):
                asyncio.get_running_loop().call_soon(self._heed, told)
        return 7


def between(driver: FakeDriver, one: int, other: int) -> Rtt:
    async def ask() -> Rtt:
        return await RttClient(cast("Driver", driver)).between(one, other)

    return asyncio.run(ask())


@pytest.mark.parametrize(("one", "other"), [(ME, ONE), (ONE, ME), (ONE, ONE)])
def test_nobody_is_asked_about_our_own_ways(one: int, other: int) -> None:
    driver = FakeDriver(THERE)
    assert between(driver, one, other) == HERE
    assert not driver.asked


def test_the_member_at_one_end_is_asked() -> None:
    driver = FakeDriver(THERE)
    assert between(driver, ONE, OTHER) == THERE
    assert driver.asked == [(ONE, OTHER)]


@pytest.mark.parametrize("answer", [None, Rtt()])
def test_without_an_answer_our_own_estimate_has_to_do(
    answer: Rtt | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtt, "ANSWER_TIMEOUT_S", 0.01)
    assert between(FakeDriver(answer), ONE, OTHER) == HERE


KNOWN = {
    "a": "ada",
    "b": "bob",
    "measured_ms": 12.346,
    "estimated_ms": 12.0,
    "error_ms": 3.4,
}


def test_the_route_takes_names_and_ids_and_means_this_node_without_b(served: Served) -> None:
    client = Client(served.paths.socket)
    assert client.get("/api/v1/rtt", a="ada", b="bob") == KNOWN
    assert client.get("/api/v1/rtt", a="bob") == {**KNOWN, "a": "bob", "b": "ada"}
    assert client.get("/api/v1/rtt", a="000000000000000b")["a"] == "bob"


@pytest.mark.parametrize(
    ("asked", "status"), [({}, 400), ({"a": "nobody"}, 404), ({"a": "cy"}, 404)]
)
def test_the_route_refuses(served: Served, asked: dict[str, str], status: int) -> None:
    with pytest.raises(ApiError) as caught:
        Client(served.paths.socket).get("/api/v1/rtt", **asked)
    assert caught.value.status == status


def covey(served: Served, *arguments: str) -> int:
    return run_to_status(root, ["--dir", str(served.paths.config_file.parent), *arguments])


def test_the_command_shows_both_figures(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert covey(served, "rtt", "ada", "bob") == exits.YES
    assert capsys.readouterr().out.splitlines() == [
        "between\tada and bob",
        "measured\t12.3 ms",
        "estimated\t12 ms (give or take 3.4 ms)",
    ]
    assert covey(served, "rtt", "bob", "-o", "json") == exits.YES
    assert json.loads(capsys.readouterr().out)["measured_ms"] == KNOWN["measured_ms"]


def test_what_nobody_knows_is_status_3(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert covey(served, "rtt", "cy") == exits.NOT_FOUND
    assert "nobody knows how far cy is from ada" in capsys.readouterr().err
