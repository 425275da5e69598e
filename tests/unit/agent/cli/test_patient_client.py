"""Waiting: a person sees what for, a pipe sees nothing, and an agent that starts is waited for."""

import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agent.cli import patient_client
from agent.cli.patient_client import PatientClient
from agent.cli.progress import CLEAR_LINE, WaitNotice
from agent.cli.streaming import one_by_one
from agent.config.paths import Paths
from agent.store.lock import is_held, locked
from edge_apps.client import AgentUnreachable
from tests.support.fake_agent import serving
from tests.support.patience import GIVE_UP_S


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths.find(tmp_path, {})
    found.create()
    return found


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.cli.progress.somebody_watches", lambda: True)


def wait_until_drawn(waiting: WaitNotice) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not waiting._is_drawn:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_person_sees_what_is_waited_for(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with WaitNotice("for \x1b[2J answers", patience_s=0.01) as waiting:
        wait_until_drawn(waiting)
    shown = capsys.readouterr().err
    assert "waiting for \\x1b[2J answers ... 0 s" in shown
    assert shown.endswith(CLEAR_LINE), "no trace of it stays"


def test_nobody_sees_what_is_quick(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    with WaitNotice("for answers"):
        pass
    assert capsys.readouterr().err == ""


def test_a_pipe_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with WaitNotice("for answers", patience_s=0.0):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_quiet_is_quiet(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    with WaitNotice("for answers", quiet=True, patience_s=0.0):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_a_stream_is_passed_on_whole() -> None:
    lines = [{"a": 1}, {"b": 2}]
    assert list(one_by_one(iter(lines), "for more", quiet=False)) == lines


def test_a_lock_is_seen_and_not_touched(paths: Paths) -> None:
    assert not is_held(paths)
    with locked(paths):
        assert is_held(paths)
    assert not is_held(paths)


def test_an_agent_that_starts_is_waited_for(tmp_path: Path, paths: Paths) -> None:
    """It holds its lock, and listens a moment later."""
    client = PatientClient(paths, quiet=True)
    answers: list[object] = []
    with locked(paths):
        asking = threading.Thread(target=lambda: answers.append(client.get("/api/v1/status")))
        asking.start()
        time.sleep(0.2)
        assert asking.is_alive(), "it waits"
        with serving(tmp_path):
            asking.join(GIVE_UP_S)
    assert len(answers) == 1


def test_nobody_is_waited_for_where_nobody_starts(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    monkeypatch.setattr("agent.cli.patient_client.time.sleep", looks.append)
    with pytest.raises(AgentUnreachable, match="no agent listens"):
        PatientClient(paths, quiet=True).get("/api/v1/status")
    assert not looks


def test_a_node_of_a_covey_may_be_about_to_start(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.identity.mkdir()
    now = [0.0]
    monkeypatch.setattr("agent.system.process_age.first_work_s", lambda: 0.1)
    monkeypatch.setattr("agent.cli.patient_client.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "agent.cli.patient_client.time.sleep", lambda s: now.__setitem__(0, now[0] + s)
    )
    with pytest.raises(AgentUnreachable, match="no agent listens"):
        PatientClient(paths, quiet=True).get("/api/v1/status")
    assert now[0] == pytest.approx(patient_client.STARTING_S, abs=2 * patient_client.LOOK_S)


def test_on_a_busy_machine_it_is_waited_for_longer(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.identity.mkdir()
    now = [0.0]
    monkeypatch.setattr("agent.system.process_age.first_work_s", lambda: 2.0)
    monkeypatch.setattr("agent.cli.patient_client.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "agent.cli.patient_client.time.sleep", lambda s: now.__setitem__(0, now[0] + s)
    )
    with pytest.raises(AgentUnreachable, match="no agent listens"):
        PatientClient(paths, quiet=True).get("/api/v1/status")
    waited_s = 2.0 * patient_client.STARTING_SHARE
    assert now[0] == pytest.approx(waited_s, abs=2 * patient_client.LOOK_S)


def test_an_agent_that_starts_for_long_is_not_called_absent(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told to start one would start a second."""
    now = [0.0]
    monkeypatch.setattr("agent.cli.patient_client.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "agent.cli.patient_client.time.sleep", lambda s: now.__setitem__(0, now[0] + 100 * s)
    )
    with locked(paths), pytest.raises(AgentUnreachable, match="is starting") as caught:
        PatientClient(paths, quiet=True).get("/api/v1/status")
    assert "covey run" not in caught.value.hint


def test_a_slow_agent_is_named_on_a_real_terminal(tmp_path: Path, paths: Paths) -> None:
    """The lock is held and nobody listens: the command says for what it waits, then gives up."""
    words = [sys.executable, "-m", "agent", "--dir", str(tmp_path), "status"]
    ours, theirs = pty.openpty()
    with (
        locked(paths),
        subprocess.Popen(words, stderr=theirs, stdout=subprocess.DEVNULL) as asking,
    ):
        os.close(theirs)
        seen = b""
        while b"waiting for the agent ... 1 s" not in seen:
            seen += os.read(ours, 4096)
        asking.terminate()
    os.close(ours)
