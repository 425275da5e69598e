"""`covey run` as a process: one agent per directory, and how signals end it.

And how every command ends when its reader goes away, or at Ctrl-C.
"""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent import exits
from agent.config.loader import Config
from agent.config.paths import Paths
from agent.exits import AgentError
from agent.process import run_agent, serve_until_stopped
from agent.store.lock import locked
from tests.support.fake_agent import Served
from tests.support.patience import GIVE_UP_S

COVEY = [sys.executable, "-m", "agent"]


ROOT = Path(__file__).parents[4]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths.find(tmp_path, {})
    found.create()
    return found


def test_a_second_agent_is_kept_away(paths: Paths) -> None:
    with locked(paths):
        told = f"an agent already runs .* {os.getpid()}"
        with pytest.raises(AgentError, match=told) as caught, locked(paths):
            pass
        assert "--dir" in caught.value.hint
    with locked(paths):
        pass


def test_the_lock_goes_with_the_process(paths: Paths) -> None:
    program = (
        "import sys; from pathlib import Path; from agent.config.paths import Paths;"
        "from agent.store.lock import locked\n"
        f"with locked(Paths.find(Path({str(paths.runtime)!r}), {{}})):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(AgentError, match=str(other.pid)), locked(paths):
            pass
        other.kill()
    with locked(paths):
        pass


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    paths = Paths.find(tmp_path / "missing", {})
    with pytest.raises(AgentError) as caught, locked(paths):
        pass
    assert caught.value.status == exits.NOT_PERMITTED


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_may_be_better_later_keeps_no_service_down(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """systemd does not start again what ended with a status that no later start mends."""

    def refuse(path: object, *_: object) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AgentError, match="the disk of") as caught, locked(paths):
        pass
    monkeypatch.undo()
    unit = (ROOT / "packaging/systemd/covey.service").read_text()
    [final] = [line for line in unit.splitlines() if line.startswith("RestartPreventExitStatus=")]
    assert str(caught.value.status) not in final.partition("=")[2].split()


@pytest.mark.parametrize("is_file", [False, True])
def test_what_goes_wrong_is_told_alike_with_click_and_without(
    tmp_path: Path, is_file: bool
) -> None:
    place = tmp_path / "my agent"
    if is_file:
        place.write_text("no directory")
    else:
        place.mkdir()
        (place / "covey.toml").write_text("[log]\nlevle = 'info'\n")

    def told(*options: str) -> tuple[int, str]:
        command = [*COVEY, "--dir", str(place), *options, "run"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.stdout
        return done.returncode, done.stderr

    status, words = told()
    assert (status, words) == told("--quiet")
    assert status == (exits.USAGE if is_file else exits.BAD_CONFIG)
    assert words.startswith("error: ")


def test_what_nobody_foresaw_is_shown_safely_without_click_too(tmp_path: Path) -> None:
    program = (
        "import sys, agent.process as process\n"
        "def fail(*_): raise RuntimeError('a\\x1b[2J')\n"
        "process.run_agent = fail\n"
        "sys.argv = ['covey', '--dir', sys.argv[1], 'run']\n"
        "from agent.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == exits.NO
    assert "RuntimeError: a\\x1b[2J" in done.stderr


class Runnable:
    """Runs until it has left; leaving waits for ``may_go``."""

    has_left = False
    is_resumed = False
    has_another_log = False

    def __init__(self) -> None:
        self.events: list[str] = []
        self.left = asyncio.Event()
        self.may_go = asyncio.Event()

    async def run(self) -> None:
        try:
            await self.left.wait()
            self.events.append("returned")
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise

    async def leave(self) -> None:
        self.events.append("leaving")
        await self.may_go.wait()
        self.left.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_leaves(number: signal.Signals) -> None:
    async def story() -> list[str]:
        agent = Runnable()
        agent.may_go.set()
        serving = asyncio.create_task(serve_until_stopped(agent))
        await asyncio.sleep(0)
        os.kill(os.getpid(), number)
        await asyncio.wait_for(serving, GIVE_UP_S)
        return agent.events

    assert asyncio.run(story()) == ["leaving", "returned"]


def test_the_second_signal_does_not_wait() -> None:
    async def story() -> list[str]:
        agent = Runnable()
        serving = asyncio.create_task(serve_until_stopped(agent))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        while not agent.events:  # noqa: ASYNC110  a plain list
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, GIVE_UP_S)
        return agent.events

    assert asyncio.run(story()) == ["leaving", "cancelled"]


def test_what_stops_the_agent_is_raised() -> None:
    class Broken(Runnable):
        async def run(self) -> None:
            raise AgentError("the disk is full", "make room", exits.UNHEALTHY)

    with pytest.raises(AgentError, match="the disk is full"):
        asyncio.run(serve_until_stopped(Broken()))


def test_run_without_identity_waits_and_ends_when_told(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COVEY, "--dir", str(tmp_path), "run"], stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr is not None
        assert "covey init" in waiting.stderr.readline()
        command = [*COVEY, "--dir", str(tmp_path), "status"]
        status = subprocess.run(command, capture_output=True, text=True, check=False)
        assert status.returncode == exits.UNHEALTHY
        assert status.stdout.startswith("state\twaiting\nbecause\tthis node belongs to no covey")
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(GIVE_UP_S) == 0


@pytest.mark.parametrize("why", ["has_left", "is_resumed", "has_another_log"])
def test_who_leaves_or_was_copied_goes_on_in_the_same_process(paths: Paths, why: str) -> None:
    """Whatever watches over the process would start it again, and so it does not end."""
    lives: list[Runnable] = []

    class Leaving(Runnable):
        def __init__(self, *_: object, may_be_outrun: bool) -> None:
            super().__init__()
            setattr(self, why, not lives)
            lives.append(self)

        async def run(self) -> None:
            if len(lives) > 1:
                os.kill(os.getpid(), signal.SIGTERM)
                self.may_go.set()
                await self.left.wait()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("agent.agent.Agent", Leaving)
        patched.setattr(
            "agent.config.logs.configure", lambda _settings: None
        )  # the tests' own stay
        run_agent(paths, "error")
    assert [each.events for each in lives] == [[], ["leaving"]]


def test_another_life_begins_with_the_configuration_as_it_is_then(paths: Paths) -> None:
    """And with that of before where somebody has broken it meanwhile."""
    levels: list[str] = []
    texts = ['[log]\nlevel = "debug"\n', '[log]\nlevel = "loud"\n']

    class Reading(Runnable):
        def __init__(self, config: Config, *_: object, may_be_outrun: bool) -> None:
            super().__init__()
            levels.append(config.log.level)
            self.has_another_log = bool(texts)

        async def run(self) -> None:
            if texts:
                paths.config_file.write_text(texts.pop(0))
                return
            os.kill(os.getpid(), signal.SIGTERM)
            self.may_go.set()
            await self.left.wait()

    paths.config_file.write_text('[log]\nlevel = "error"\n')
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("agent.agent.Agent", Reading)
        patched.setattr("agent.config.logs.configure", lambda _settings: None)
        run_agent(paths)
    assert levels == ["error", "debug", "debug"]


def test_a_broken_pipe_is_quiet(served: Served) -> None:
    served.agent.kv.values = {f"k{n}": [b"v" * 50] for n in range(5000)}
    directory = str(served.paths.runtime)
    command = [*COVEY, "--dir", directory, "kv", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == exits.NO


def test_ctrl_c_ends_a_stream_quietly(served: Served) -> None:
    directory = str(served.paths.runtime)
    command = [*COVEY, "--dir", directory, "readings", "--follow", "--limit", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        subprocess.run([*COVEY, "--dir", directory, "publish", "t", "1"], check=True)
        assert b"\tt\t1\t" in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(GIVE_UP_S) == exits.INTERRUPTED
        assert b"Traceback" not in following.stderr.read()


def test_a_group_named_alone_shows_its_help_and_no_error() -> None:
    for arguments in ([], ["kv"]):
        shown = subprocess.run([*COVEY, *arguments], capture_output=True, text=True, check=False)
        assert shown.returncode == exits.USAGE
        assert shown.stderr.startswith("Usage: ")
        assert "error:" not in shown.stderr
        assert shown.stdout == ""
