"""`covey doctor`, `keys` and `members --watch`: what they print, and how they end."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from agent import exits
from agent.cli.errors import run_to_status
from agent.cli.live_table import CLOSE, OPEN
from agent.cli.root import root
from agent.exits import AgentError
from agent.identity.identity import found
from gossip.membership.model.members import MemberState
from tests.support.fake_agent import OTHER, Served
from tests.support.patience import GIVE_UP_S


def covey(tmp_path: Path, *arguments: str) -> int:
    return run_to_status(root, ["--dir", str(tmp_path), *arguments])


# ---- doctor -------------------------------------------------------------------------------------


def test_the_doctor_shows_advice_and_the_matrix(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert covey(tmp_path, "doctor") == exits.YES
    told = capsys.readouterr().out
    assert "ok    agent" in told
    assert "warn  one-way" in told
    assert "mend it" in told
    assert "\x1b[1m" not in told, "nobody else writes to this terminal"
    assert "ada\t-\tstream" in told
    served.agent.doctor.checks[0]["status"] = "fail"
    assert covey(tmp_path, "doctor", "-o", "json") == exits.UNHEALTHY


def test_without_an_agent_the_doctor_looks_at_the_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "covey.toml").write_text("[network]\nmdns = 3\n")
    assert covey(tmp_path, "doctor") == exits.UNHEALTHY
    told = capsys.readouterr().out
    assert "fail  agent" in told
    assert f"`covey --dir {tmp_path} run`" in told
    assert "fail  configuration" in told
    assert "fail  certificate" in told
    assert "packages" in told


def test_an_agent_whose_keys_are_locked_away_is_not_to_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "covey.seal").write_bytes(bytes(32))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    found(tmp_path / "data" / "identity", "barn", "pi1")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    monkeypatch.setattr("agent.system.process_age.first_work_s", lambda: 0.1)
    assert covey(tmp_path, "doctor") == exits.UNHEALTHY
    told = capsys.readouterr().out
    assert "fail  sealed-keys" in told
    assert "see sealed-keys, below" in told
    assert "run`" not in told


# ---- keys ---------------------------------------------------------------------------------------


def test_keys_of_everybody(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert covey(tmp_path, "keys", "list") == exits.YES
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["ada", "0", "bb" * 8, "aa" * 8, "now"],
        ["cy", "-", "-", "-", "never"],
    ]


def test_a_rotation_that_waits_for_the_absent_says_for_whom(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert covey(tmp_path, "keys", "rotate") == exits.UNHEALTHY
    told = capsys.readouterr().err
    assert "2/3 used" in told
    assert "until these have the new one: cy" in told
    assert "--force" in told
    assert covey(tmp_path, "keys", "rotate", "--force") == exits.YES
    assert "3/3 removed" in capsys.readouterr().err
    served.agent.keys.refusal = AgentError("no issuer", "start it", exits.UNREACHABLE)
    assert covey(tmp_path, "keys", "rotate") == exits.UNREACHABLE


@pytest.mark.parametrize("arguments", [[], ["-o", "json"]], ids=str)
def test_another_authority_takes_over(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert covey(tmp_path, "keys", "rotate", "--authority", "--force", *arguments) == exits.YES
    told = capsys.readouterr()
    assert told.err.index("1/2 named") < told.err.index("2/2 removed")
    registry = served.agent.registry
    assert (registry.authority_number, registry.overlaps) == (1, False)
    assert served.agent.keys.ordered == [], "the datagrams' keys stay"
    if arguments:
        assert json.loads(told.out)["authority"] == {
            "number": 1, "overlaps": False, "uncertified": ["ada", "bob"],
        }  # fmt: skip


def test_an_authority_that_waits_for_the_absent_says_for_whom(
    served: Served,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.cli.keys.PATIENCE_S", 0.3)
    assert covey(tmp_path, "keys", "rotate", "--authority") == exits.UNHEALTHY
    told = capsys.readouterr().err
    assert "1/2 named" in told
    assert "stays until these have new certificates: ada, bob" in told
    assert f"`covey --dir {tmp_path} keys rotate --authority --force`" in told
    assert covey(tmp_path, "keys", "list") == exits.YES
    assert "No certificate of the present authority yet: ada, bob" in capsys.readouterr().err
    assert covey(tmp_path, "keys", "rotate", "--authority", "--force") == exits.YES
    again = capsys.readouterr().err
    assert "1/2" not in again, "it was named before"
    assert "2/2 removed" in again
    served.agent.allegiance.refusal = AgentError("not here", "there", exits.NOT_PERMITTED)
    assert covey(tmp_path, "keys", "rotate", "--authority") == exits.NOT_PERMITTED


# ---- members ------------------------------------------------------------------------------------


def test_one_member_with_its_ways(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert covey(tmp_path, "members", "show", "bob") == exits.YES
    told = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert told["reason"] == "did not answer"
    assert told["UDP in"] == "1.25s ago"
    assert told["UDP out"].startswith("blocked")
    assert told["stream"] == "1m ago"


def watching(tmp_path: Path, output: int, *more: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "agent", "--dir", str(tmp_path), "members", "--watch", *more]
    return subprocess.Popen(words, stdout=output, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def read_until(handle: int, wanted: bytes) -> bytes:
    seen, give_up = b"", time.monotonic() + GIVE_UP_S
    while wanted not in seen:
        assert time.monotonic() < give_up, seen
        if select.select([handle], [], [], 0.1)[0]:
            seen += os.read(handle, 65536)
    return seen


def change(served: Served) -> None:
    bob = served.agent.members[OTHER]
    served.agent.members.put(msgspec.structs.replace(bob, state=MemberState.DEAD))


@pytest.mark.parametrize(("end", "no_color"), [(signal.SIGINT, ""), (signal.SIGTERM, "1")])
def test_the_screen_is_drawn_on_change_and_given_back(
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: signal.Signals,
    no_color: str,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    ours, theirs = pty.openpty()
    process = watching(tmp_path, theirs)
    try:
        begun = read_until(ours, b"3 members")
        assert OPEN.encode() in begun
        assert b"suspect" in begun
        assert (b"\x1b[33msuspect" in begun) == (not no_color)
        change(served)
        again = read_until(ours, b"3 members")
        assert b"suspect" not in again
        process.send_signal(end)
        assert CLOSE.encode() in read_until(ours, CLOSE.encode())
        assert process.wait(GIVE_UP_S) == exits.INTERRUPTED
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
        os.close(theirs)


def test_in_a_pipe_each_change_is_a_line(served: Served, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    process = watching(tmp_path, theirs)
    try:
        begun = read_until(ours, b"\tcy\tdead")
        assert b"\x1b" not in begun
        assert begun.count(b"\n") == 3
        change(served)
        assert read_until(ours, b"\n").split(b"\t")[1:3] == [b"bob", b"dead"]
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
        os.close(theirs)
