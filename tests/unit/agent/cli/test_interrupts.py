"""Commands that wait for something are told to end: what they hold, or wait for, is let go."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli.interrupts import interrupted_by_signals
from edge_apps.client import Client
from tests.support.fake_agent import serving
from tests.support.patience import GIVE_UP_S

COVEY = (sys.executable, "-m", "agent")
INTERRUPTED = 130


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path) as served:
        yield Client(served.paths.socket, timeout_s=GIVE_UP_S)


def until(client: Client, path: str, key: str, count: int) -> list[Any]:
    """Wait for so many of something; return them."""
    give_up = time.monotonic() + GIVE_UP_S
    while True:
        found: list[Any] = client.get(path)[key]
        if len(found) == count or time.monotonic() > give_up:
            assert len(found) == count
            return found
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "words",
    [
        ["lock", "door", "--", "true"],
        ["elect", "door", "--value", "me"],
        ["elect", "door", "--value", "me", "--", "true"],
        ["barrier", "enter", "gate", "--count", "2", "--", "true"],
    ],
)
def test_who_waits_and_is_told_to_end_leaves_no_session(
    client: Client, tmp_path: Path, words: list[str], number: signal.Signals
) -> None:
    """systemd stops with SIGTERM: the lock would go to a dead waiter, a barrier open with one."""
    session = client.post("/api/v1/sessions", {"ttl_s": 3600})["session"]
    client.request("PUT", "/api/v1/locks/door", json={"session": session})
    command = [*COVEY, "--dir", str(tmp_path), "--quiet", *words]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        until(client, "/api/v1/sessions", "sessions", 2)
        if words[0] == "barrier":
            until(client, "/api/v1/barriers", "barriers", 1)
        else:
            until(client, "/api/v1/locks/door", "waiters", 1)
        process.send_signal(number)
        try:
            assert process.wait(GIVE_UP_S) == INTERRUPTED
        finally:
            process.kill()  # or the end of the block would wait without end
    [left] = until(client, "/api/v1/sessions", "sessions", 1)
    assert left["session"] == session


def test_what_was_ignored_stays_ignored() -> None:
    """As ``nohup`` wants it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_by_signals():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
