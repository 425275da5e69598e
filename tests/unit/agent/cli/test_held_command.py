"""A command under a lock: its exit status, its environment, and that it ends with the lock."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agent.cli.held_command import HeldCommand
from agent.exits import UNHEALTHY, AgentError
from edge_apps.locks import Lock
from tests.support.patience import GIVE_UP_S


@pytest.fixture(autouse=True)
def signals_as_before() -> object:
    before = {
        each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def lock(*, lost: bool = False) -> Lock:
    return cast("Lock", SimpleNamespace(name="door", lost=lost))


def shell(script: str, grace_s: float = 0.2) -> HeldCommand:
    return HeldCommand(["sh", "-c", script], {"COVEY_LOCK_TOKEN": "7"}, grace_s)


def is_there(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit $COVEY_LOCK_TOKEN", 7), ("true", 0), ("kill -TERM $$", 128 + signal.SIGTERM)],
)
def test_the_status_is_the_commands(script: str, status: int) -> None:
    assert shell(script).run(lock(), "lock 'door'") == status


def test_a_command_that_is_not_there_is_said_as_a_shell_says_it() -> None:
    with pytest.raises(AgentError) as refusal:
        HeldCommand(["/nonexistent/command"], {}, 1.0)
    assert refusal.value.status == 127


def test_it_is_stopped_with_all_it_has_started_when_the_lock_is_lost(tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = shell(f"trap '' TERM; (trap '' TERM; echo $$ > {told}; sleep 60) & wait; sleep 60")
    while not (told.exists() and told.read_text()):
        time.sleep(0.01)
    with pytest.raises(AgentError, match="was lost") as refusal:
        command.run(lock(lost=True), "lock 'door'")
    assert refusal.value.status == UNHEALTHY
    assert not is_there(int(told.read_text()))


def test_it_is_stopped_when_we_are_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    ours = (
        "from types import SimpleNamespace\n"
        "from agent.cli.held_command import HeldCommand\n"
        f"command = HeldCommand(['sh', '-c', 'echo $$ > {told}; sleep 60'], {{}}, 0.2)\n"
        "command.run(SimpleNamespace(lost=False), 'it')\n"
    )
    with subprocess.Popen([sys.executable, "-c", ours], stdin=subprocess.DEVNULL) as process:
        while not (told.exists() and told.read_text()):
            time.sleep(0.01)
        command = int(told.read_text())
        assert is_there(command)
        process.kill()
        give_up = time.monotonic() + GIVE_UP_S
        while is_there(command) and time.monotonic() < give_up:
            time.sleep(0.02)
        assert not is_there(command)
