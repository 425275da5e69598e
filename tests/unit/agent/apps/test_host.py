"""The host of all apps, with real app processes and an agent's API that only counts."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent._version import __version__
from agent.apps.desired import DesiredApps
from agent.apps.host import AppHost, AppStatus
from agent.apps.supervisor import RestartTuning
from agent.config.settings import AppSettings
from agent.exits import BAD_CONFIG, NOT_FOUND, AgentError
from agent.programs.child import AsThisUser
from agent.programs.isolation import Apartness, Programs
from tests.support.patience import GIVE_UP_S

QUICK = RestartTuning(pause_first_s=0.05, pause_max_s=0.1, failing_after=3)

APP = """
import os
from edge_apps import App, Context

app = App("probe")

@app.every("50ms")
def report(context: Context) -> None:
    print("options", dict(context.options), "leaked", "COVEY_API__TOKEN" in os.environ)
"""


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(GIVE_UP_S):
            await scenario()

    asyncio.run(limited())


def make_host(directory: Path, apps: dict[str, AppSettings]) -> AppHost:
    return AppHost(
        apps, programs_of(directory), directory / "app-logs", directory / "apps.json", QUICK
    )


def programs_of(directory: Path) -> Programs:
    """Return what starts programs as this user."""
    return Programs(lambda: Apartness(AsThisUser(), directory, "this is a test"))


def probe(directory: Path, text: str = APP, **options: Any) -> AppSettings:
    file = directory / "probe.py"
    file.write_text(text)
    return AppSettings(path=str(file), options=options)


async def status(host: AppHost, name: str) -> AppStatus:
    return next(app for app in await host.list() if app.name == name)


async def until_printed(host: AppHost, name: str, text: str) -> None:
    async for line in host.log(name, 100, follow=True):
        if text in line:
            return


@pytest.fixture(autouse=True)
def leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVEY_API__TOKEN", "secret")


def test_runs_what_the_configuration_enables(tmp_path: Path) -> None:
    async def scenario() -> None:
        apps = {"probe": probe(tmp_path, bay="7"), "off": AppSettings(enabled=False)}
        host = make_host(tmp_path, apps)
        await host.open()
        try:
            await until_printed(host, "probe", "'bay': '7'")
            await until_printed(host, "probe", "leaked False")
            running = await status(host, "probe")
            assert (running.state, running.desired) == ("running", "started")
            assert [app.name for app in await host.list()] == [
                "off",
                "probe",
                "sensor_sim",
                "system",
            ]
            assert (await status(host, "off")).desired == "stopped"
        finally:
            await host.close()
        assert (await status(host, "probe")).state == "stopped"
        assert (await status(host, "probe")).desired == "started"

    play(scenario)


def test_stop_and_start_are_remembered(tmp_path: Path) -> None:
    async def scenario() -> None:
        apps = {"probe": probe(tmp_path)}
        host = make_host(tmp_path, apps)
        await host.open()
        await host.stop("probe")
        await host.start("sensor_sim")
        await host.close()
        again = make_host(tmp_path, apps)
        await again.open()
        try:
            assert (await status(again, "probe")).state == "stopped"
            assert (await status(again, "sensor_sim")).state == "running"
        finally:
            await again.close()

    play(scenario)


def test_an_app_that_fails_is_shown_with_its_traceback(tmp_path: Path) -> None:
    broken = APP.replace("print(", "raise RuntimeError('no sensor on pin 4') # (")

    async def scenario() -> None:
        host = make_host(tmp_path, {"probe": probe(tmp_path, broken)})
        await host.open()
        try:
            await until_printed(host, "probe", "RuntimeError: no sensor on pin 4")
            while (await status(host, "probe")).state != "failing":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert (await status(host, "probe")).last_end == "ended with exit status 1"
        finally:
            await host.close()

    play(scenario)


def test_who_runs_is_known_with_versions_and_changes_are_noticed(tmp_path: Path) -> None:
    broken = APP.replace("print(", "raise RuntimeError('no sensor on pin 4') # (")

    async def scenario() -> None:
        host = make_host(tmp_path, {"probe": probe(tmp_path, broken), "system": AppSettings()})
        await host.open()
        try:
            assert host.running().get("system") == __version__, "it comes with Covey"
            assert host.running().get("probe", "") == "", "a file of the owner has no version"
            while (await status(host, "probe")).state != "failing":
                host.changed.clear()
                await host.changed.wait()
            assert set(host.running()) == {"system"}
            host.changed.clear()
            await host.stop("system")
            assert host.changed.is_set()
            assert host.running() == {} or set(host.running()) == {"probe"}
        finally:
            await host.close()
        assert host.running() == {}

    play(scenario)


def test_unknown_names_change_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path, {})
        await host.open()
        for attempt in (host.start("nope"), host.stop("nope")):
            with pytest.raises(AgentError, match="no app is called 'nope'") as caught:
                await attempt
            assert caught.value.status == NOT_FOUND
        with pytest.raises(AgentError) as caught:
            host.log("sensor-sim")
        assert "did you mean 'sensor_sim'?" in caught.value.hint
        assert not (tmp_path / "apps.json").exists()
        await host.close()

    play(scenario)


@pytest.mark.parametrize("name", ["../x", "", "a b", "-x", "x" * 65])
def test_names_that_cannot_be_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(AgentError) as caught:
        make_host(tmp_path, {name: AppSettings()})
    assert caught.value.status == BAD_CONFIG


HOLDER = """
import asyncio, sys
from pathlib import Path
from agent.apps.host import AppHost
from agent.programs.child import AsThisUser
from agent.programs.isolation import Apartness, Programs
from agent.config.settings import AppSettings

async def main():
    directory = Path(sys.argv[1])
    host = AppHost({"probe": AppSettings(path=str(directory / "probe.py"))},
                   Programs(lambda: Apartness(AsThisUser(), directory, "a test")),
                   directory / "app-logs", directory / "apps.json")
    await host.open()
    await asyncio.sleep(600)

asyncio.run(main())
"""

PARENT_OF_A_CHILD = """
import subprocess, sys, os
from pathlib import Path
from edge_apps import App, Context

app = App("probe")

@app.every("1h")
def report(context: Context) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    ready = Path(__file__).with_name("pids.new")
    ready.write_text(f"{os.getpid()} {child.pid}")
    ready.rename(ready.with_name("pids"))
"""


@contextmanager
def holder(directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + GIVE_UP_S
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_apps_and_their_children_end_with_a_killed_agent(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(textwrap.dedent(PARENT_OF_A_CHILD))
    with holder(tmp_path) as agent:
        wait_until((tmp_path / "pids").exists)
        app, child = (int(word) for word in (tmp_path / "pids").read_text().split())
        assert is_alive(app)
        assert is_alive(child)
        os.kill(agent.pid, signal.SIGKILL)
        agent.wait()
        wait_until(lambda: not is_alive(app) and not is_alive(child))


def test_wishes_are_readable(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = make_host(tmp_path, {"off": AppSettings(enabled=False)})
        await host.stop("off")

    play(scenario)
    assert json.loads((tmp_path / "apps.json").read_text()) == {"off": False}


def test_an_app_that_is_gone_is_not_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was started by hand, and then deleted from the configuration."""

    async def scenario() -> None:
        host = make_host(tmp_path, {"probe": probe(tmp_path)})
        await host.open()
        await host.stop("probe")
        await host.start("probe")
        await host.start("sensor_sim")
        await host.close()
        again = make_host(tmp_path, {})
        await again.open()
        try:
            known = {app.name: app.state for app in await again.list()}
            assert known == {"sensor_sim": "running", "system": "stopped"}
            assert "probe is neither in the configuration nor installed any more" in caplog.text
        finally:
            await again.close()
        assert DesiredApps(tmp_path / "apps.json").names() == {"sensor_sim"}

    play(scenario)
