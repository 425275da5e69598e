"""A whole agent without an identity, in this process: it answers, is founded, leaves, is back."""

import asyncio
import contextlib
import datetime as dt
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.admission.former_membership import FormerMembership, record_parting
from agent.admission.newcomer import Newcomer
from agent.agent import Agent
from agent.config.loader import load
from agent.config.paths import Paths
from agent.exits import AgentError
from agent.identity import certificates
from agent.readiness import Stage
from agent.store.consensus_store import ConsensusStore
from agent.system import systemd
from agent.system.resumption import Resumption
from agent.system.systemd import Notifier
from agent.system.wall_clock import WallClock
from edge_apps.client import ApiError, Client
from gossip.control.requests import ControlStatus
from tests.support.patience import GIVE_UP_S

WITHIN_S = GIVE_UP_S


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "covey.toml").write_text(
        f'[network]\nbind = ["127.0.0.1"]\nport = {free_port()}\nmdns = false\n'
        f'[api]\nlisten = "127.0.0.1:{free_port()}"\n[apps.system]\nenabled = false\n'
    )
    found = Paths.find(tmp_path, {})
    found.create()
    return found


@contextlib.asynccontextmanager
async def running(paths: Paths, agent: Agent | None = None) -> AsyncIterator[Agent]:
    agent = agent or Agent(load(paths), paths)
    task = asyncio.create_task(agent.run())
    try:
        await until(lambda: task.done() or paths.socket.exists())
        yield agent
        await agent.leave()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(come_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not come_true():  # noqa: ASYNC110 - the agent has no event for each of these
            await asyncio.sleep(0.01)


async def ask(paths: Paths, method: str, path: str, body: Any = None) -> Any:
    client = Client(paths.socket, timeout_s=WITHIN_S)
    return (await asyncio.to_thread(client.request, method, path, json=body)).json()


async def refusal(paths: Paths, method: str, path: str, body: Any = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await ask(paths, method, path, body)
    return caught.value


def test_a_waiting_agent_answers_and_says_what_to_do(paths: Paths) -> None:
    async def story() -> None:
        async with running(paths):
            status = await ask(paths, "GET", "/api/v1/status")
            assert (status["ready"], status["stage"]) == (False, "waiting")
            assert status["reasons"] == ["this node belongs to no covey yet"]
            assert "covey join TOKEN" in status["advice"]
            assert status["cluster"] is status["members"] is status["outbox"] is None
            assert (await refusal(paths, "GET", "/healthz")).status == 503
            checks = (await ask(paths, "GET", "/api/v1/doctor"))["checks"]
            [health] = [each for each in checks if each["id"] == "health"]
            assert health["status"] == "fail"
            assert "covey init" in health["hint"]
            await asyncio.to_thread(Client(paths.socket).request, "GET", "/metrics")
            assert (await ask(paths, "GET", "/api/v1/config"))["settings"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/v1/members"), ("GET", "/api/v1/kv/lamp"), ("POST", "/api/v1/readings"),
     ("GET", "/api/v1/outbox"), ("GET", "/api/v1/apps"), ("POST", "/api/v1/tokens"),
     ("GET", "/api/v1/events"), ("POST", "/api/v1/sleep"), ("POST", "/api/v1/leave"),
     ("POST", "/api/v1/keys/rotate")],
)  # fmt: skip
def test_whatever_needs_a_covey_is_refused_plainly(paths: Paths, method: str, path: str) -> None:
    async def story() -> None:
        async with running(paths):
            error = await refusal(paths, method, path)
            if error.code == "wrong-method":  # the table above has a typing error
                pytest.fail(error.message)
            assert (error.status, error.code) == (503, "unhealthy")
            assert error.message == "this node belongs to no covey yet; nothing was done"
            assert "covey init" in error.hint

    asyncio.run(story())


def test_a_founder_agrees_with_itself_and_founds_its_log_once(paths: Paths) -> None:
    async def begin(agent: Agent, past: int) -> tuple[int, int, int]:
        """Return generation, index and since when the log has the registry, past this index."""
        await until(lambda: agent.stage is Stage.MEMBER)

        def status(now: float) -> ControlStatus:
            return agent.driver.node.with_control(lambda control: control.status(now), now)

        def since(now: float) -> int:
            table = agent.driver.node.with_control(lambda control: control.state.registry, now)
            return table.agreed.revision if table.agreed else 0

        await until(lambda: agent.driver.call(status).role == "leader")
        await until(lambda: agent.driver.call(since) > 0)
        await until(lambda: bool(agent.registry.places))  # a step of its own, a moment later
        await until(lambda: agent.driver.call(status).applied_index > past)
        told = agent.driver.call(status)
        return told.generation, told.applied_index, agent.driver.call(since)

    async def story() -> None:
        async with running(paths) as agent:
            await agent.newcomer.found("barn", "pi1")
            first = await begin(agent, 1)
        again = Agent(load(paths), paths)
        task = asyncio.create_task(again.run())
        second = await begin(again, first[1])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert first[0] == second[0] == 1
        assert second[2] == first[2], "the same log, and another term"

    asyncio.run(story())


def test_founded_through_its_socket_it_goes_on_as_a_member(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Notifier, "ready", lambda _self, text: told.append(text))

    async def story() -> None:
        async with running(paths) as agent:
            await until(lambda: bool(told))
            asked = {"name": "barn", "node_name": "pi1"}
            founded = await ask(paths, "POST", "/api/v1/init", asked)
            assert founded["node"]["name"] == "pi1"
            await until(lambda: agent.stage is Stage.MEMBER)
            status = await ask(paths, "GET", "/api/v1/status")
            assert (status["ready"], status["advice"]) == (True, "")
            assert status["cluster"]["name"] == "barn"
            [member] = (await ask(paths, "GET", "/api/v1/members"))["members"]
            assert member["id"] == founded["node"]["id"]
            again = await refusal(paths, "POST", "/api/v1/init", asked)
            assert "already holds node pi1 of covey barn" in again.message

    asyncio.run(story())
    waiting, member = told
    assert "covey join TOKEN" in waiting
    assert member == "pi1 of barn"


def test_restored_from_a_copy_it_says_no_more_and_the_next_has_a_life_of_its_own(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[str] = []
    monkeypatch.setattr(Notifier, "stopping", lambda _self: ends.append("stopping"))
    monkeypatch.setattr("agent.system.resumption.LOOK_S", 0.01)

    async def story() -> None:
        async with running(paths) as agent:
            await agent.newcomer.found("barn", "pi1")
            await until(lambda: agent.stage is Stage.MEMBER)
            first = agent.boot
            assert not agent.is_resumed
            monkeypatch.setattr(Resumption, "sign", lambda _self: "a sign")
            await until(lambda: agent.is_resumed)
            with pytest.raises(AgentError, match="stopping"):
                agent.driver.call(lambda now: now)
        assert not ends, "systemd kills the process that goes on after it said that it stops"
        monkeypatch.setattr(Resumption, "sign", lambda _self: "")
        async with running(paths) as agent:
            await until(lambda: agent.stage is Stage.MEMBER)
            assert agent.boot > first

    asyncio.run(story())


def test_who_leaves_waits_and_comes_back_also_over_restarts(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[str] = []
    monkeypatch.setattr(Notifier, "stopping", lambda _self: ends.append("stopping"))

    async def story() -> None:
        async with running(paths) as agent:
            founded = await agent.newcomer.found("barn", "pi1")
            await until(lambda: agent.stage is Stage.MEMBER)
            await agent.part(FormerMembership.STAYS_AWAY)
            assert agent.has_left
        assert not ends, "systemd kills the process that goes on after it said that it stops"
        for _ in range(2):
            async with running(paths) as agent:
                status = await ask(paths, "GET", "/api/v1/status")
                assert status["reasons"] == ["this node has left the covey barn"]
                error = await refusal(paths, "GET", "/api/v1/members")
                assert "`covey join` without a token" in error.hint
                error = await refusal(paths, "POST", "/api/v1/leave", {})
                assert "has left the covey barn already" in error.message
                assert not agent.has_left, "there is nobody to say goodbye to"
        async with running(paths) as agent:
            lines = await asyncio.to_thread(
                lambda: list(Client(paths.socket).stream("/api/v1/join", json={}))
            )
            assert lines[-1]["node"]["id"] == f"{founded.node_id:016x}"
            await until(lambda: agent.stage is Stage.MEMBER)
            assert not agent.has_left
        assert ends, "an agent that ends says so"

    asyncio.run(story())


def test_who_is_to_forget_is_not_told_to_stay_away_instead(paths: Paths) -> None:
    async def story() -> None:
        newcomer = Newcomer(load(paths), paths)
        with pytest.raises(AgentError, match="belongs to no covey yet"):
            newcomer.check_may_part(FormerMembership.FORGETS)
        await newcomer.found("barn", "pi1")
        newcomer.check_may_part(FormerMembership.STAYS_AWAY)
        record_parting(paths, FormerMembership.STAYS_AWAY)
        newcomer.check_may_part(FormerMembership.FORGETS)
        record_parting(paths, FormerMembership.FORGETS)
        for parting in FormerMembership:
            with pytest.raises(AgentError, match="about to forget"):
                newcomer.check_may_part(parting)

    asyncio.run(story())


class FakeClock(WallClock):
    """A clock that the test sets."""

    def __init__(self, now_s: float) -> None:
        self.ahead_s = now_s - time.time()
        super().__init__(lambda: time.time() + self.ahead_s)

    def set_to(self, now_s: float) -> None:
        self.ahead_s = now_s - time.time()


@pytest.mark.parametrize("days", [-20_000, -2, 5_000], ids=["1970s", "before", "after"])
def test_without_a_clock_it_measures_and_joins_in_when_there_is_one(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    monkeypatch.setattr("agent.system.wall_clock.LOOK_S", 0.01)
    monkeypatch.setattr("agent.startup.kernel_keeps_clock", lambda: False)

    async def story() -> None:
        await Newcomer(load(paths), paths).found("barn", "pi1")
        agent = Agent(load(paths), paths)
        agent.clock = clock = FakeClock(time.time() + days * 86400)
        async with running(paths, agent):
            status = await ask(paths, "GET", "/api/v1/status")
            assert (status["ready"], status["stage"]) == (False, "keeping")
            assert status["reasons"][0].startswith("this device's clock says ")
            assert "timedatectl" in status["advice"]
            assert status["cluster"]["name"] == "barn"
            assert (await refusal(paths, "GET", "/healthz")).status == 503
            reading = {"sensor": "porch/temperature", "value": 21.5}
            await ask(paths, "POST", "/api/v1/readings", [reading])
            assert (await ask(paths, "GET", "/api/v1/outbox"))["waiting"] == 1
            assert (await ask(paths, "GET", "/api/v1/apps"))["apps"]
            assert not hasattr(agent, "driver"), "nothing is said to others"
            error = await refusal(paths, "GET", "/api/v1/kv/lamp")
            assert "clock says" in error.message
            checks = (await ask(paths, "GET", "/api/v1/doctor"))["checks"]
            assert "health" in {each["id"] for each in checks if each["status"] == "fail"}

            clock.set_to(time.time())
            await until(lambda: agent.stage is Stage.MEMBER)
            status = await ask(paths, "GET", "/api/v1/status")
            assert (status["ready"], status["outbox"]["waiting"]) == (True, 1)
            checks = (await ask(paths, "GET", "/api/v1/doctor"))["checks"]
            [told] = [each for each in checks if each["id"] == "clock-set"]
            assert told["status"] == "warn"
            assert f"set by {-days * 86400:+d} s" in told["message"]
            assert agent.metrics.counts()["clock/forward" if days < 0 else "clock/back"] == 1

            clock.set_to(86400.0)
            await until(lambda: bool(agent.not_ready()))
            assert agent.stage is Stage.MEMBER, "a member goes on"
            clock.set_to(time.time())

    asyncio.run(story())


def test_a_disk_that_hangs_makes_an_agent_unready_until_it_goes_on(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, save = asyncio.Event(), ConsensusStore.save

    async def hang(store: ConsensusStore, changes: Sequence[object]) -> None:
        await goes_on.wait()
        await save(store, changes)

    async def story() -> None:
        await Newcomer(load(paths), paths).found("barn", "pi1")
        agent = Agent(load(paths), paths)
        async with running(paths, agent):
            control = agent.driver.node.control
            assert control is not None
            with monkeypatch.context() as patched:
                patched.setattr(control.own_reports, "_hangs_s", 0.05)
                patched.setattr(ConsensusStore, "save", hang)
                body = {"then": [{"put": "lamp", "value": "on"}]}
                asked = asyncio.create_task(ask(paths, "POST", "/api/v1/txn", body))
                await until(lambda: any("the disk hangs" in why for why in agent.not_ready()))
                checks = (await ask(paths, "GET", "/api/v1/doctor"))["checks"]
                [told] = [each for each in checks if each["id"] == "agreement"]
                assert "this node's disk hangs" in told["message"]
                goes_on.set()
            await asked
            await until(lambda: not agent.not_ready())

    asyncio.run(story())


def test_a_founder_whose_clock_was_ahead_replaces_its_certificate_once_the_clock_is_kept_right(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.startup.LOOK_S", 0.01)
    is_kept = False
    monkeypatch.setattr("agent.startup.kernel_keeps_clock", lambda: is_kept)

    async def story() -> None:
        nonlocal is_kept
        with monkeypatch.context() as patched:
            patched.setattr(certificates, "BACKDATED", dt.timedelta(days=-300))
            patched.setattr(certificates, "NODE_VALIDITY", dt.timedelta(days=390))
            await Newcomer(load(paths), paths).found("barn", "pi1")
        agent = Agent(load(paths), paths)
        async with running(paths, agent):
            await until(lambda: agent.stage is Stage.KEEPING)
            await asyncio.sleep(0.1)
            assert agent.stage is Stage.KEEPING, "it may be the clock that is wrong"
            is_kept = True
            await until(lambda: agent.stage is Stage.MEMBER)
            assert agent.identity.valid_from < time.time() < agent.identity.valid_until

    asyncio.run(story())


def test_it_can_be_stopped_while_it_waits_for_the_clock(paths: Paths) -> None:
    async def story() -> None:
        await Newcomer(load(paths), paths).found("barn", "pi1")
        agent = Agent(load(paths), paths)
        agent.clock = FakeClock(0.0)
        async with running(paths, agent):
            assert agent.stage is Stage.KEEPING
        assert not paths.socket.exists()

    asyncio.run(story())


def test_nobody_is_moved_to_another_covey_by_tcp(paths: Paths) -> None:
    async def story() -> None:
        async with running(paths):
            host = load(paths).api.listen
            token = paths.api_token.read_text().strip()
            for path in ("init", "join", "leave"):
                status, body = await post(host, f"/api/v1/{path}", token)
                assert status == 403
                assert "Unix socket" in body

    asyncio.run(story())
    assert not paths.identity.exists()


async def post(endpoint: str, path: str, token: str) -> tuple[int, str]:
    host, _, port = endpoint.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        "Connection: close\r\nContent-Length: 2\r\n\r\n{}".encode()
    )
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer


def test_an_identity_that_is_damaged_ends_the_start(paths: Paths) -> None:
    paths.identity.mkdir()
    (paths.identity / "identity.json").write_text("{")
    with pytest.raises(Exception, match="cannot be read"):
        asyncio.run(Agent(load(paths), paths).run())
    assert not paths.socket.exists()


def test_an_agent_that_starts_asks_for_time_and_no_more_when_it_is_ready(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "START_PAUSE_S", 0.01)
    words: list[str] = []

    def listen(manager: socket.socket) -> None:
        while "STOPPING" not in words:
            words.append(manager.recv(1000).decode().partition("=")[0])

    async def story(manager: socket.socket) -> None:
        await Newcomer(load(paths), paths).found("barn", "pi1")
        listening = asyncio.create_task(asyncio.to_thread(listen, manager))
        async with running(paths):
            await until(lambda: "READY" in words)
        await listening

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(paths.runtime / "notify"))
        manager.settimeout(WITHIN_S)
        monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
        asyncio.run(story(manager))
    assert words[0] == "EXTEND_TIMEOUT_USEC"
    assert words[-2:] == ["READY", "STOPPING"]
