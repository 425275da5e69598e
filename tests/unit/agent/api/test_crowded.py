"""The API's sockets when there are too many connections, or no file descriptors left."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.api import server as api_serving
from agent.api.server import CONNECTIONS_MAX
from agent.config.settings import ApiSettings
from agent.net import accept
from tests.support.fake_agent import Served, serving
from tests.support.patience import GIVE_UP_S
from tests.unit.agent.api.test_listeners import free_port, get

PAUSE_S = 0.02


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def served(tmp_path: Path, port: int) -> Iterator[Served]:
    with serving(tmp_path, ApiSettings(listen=f"127.0.0.1:{port}")) as found:
        assert get(port, None)[0] == 401  # from here on, all is loaded
        yield found


@contextmanager
def no_files_left() -> Iterator[None]:
    """Let this process open nothing more; what is open stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def counted(served: Served, counter: str) -> int:
    return served.agent.metrics.counts()[f"api_connections/{counter}"]


def until(happened: Any) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not happened():
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.005)


def test_without_files_it_tries_once_between_two_pauses(
    served: Served, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "PAUSE_S", PAUSE_S)
    errors: list[dict[str, Any]] = []
    served.loop.set_exception_handler(lambda _, context: errors.append(context))
    began = time.monotonic()
    with ExitStack() as open_here:
        waiting = [open_here.enter_context(socket.socket()) for _ in range(3)]
        with no_files_left():
            for each in waiting:
                each.connect(("127.0.0.1", port))
            until(lambda: counted(served, "accept_failed") >= 3)
            attempts = counted(served, "accept_failed")
            took_s = time.monotonic() - began
        assert attempts <= 2 + took_s / PAUSE_S
        assert not errors
    assert get(port, None)[0] == 401, "it goes on"


SAID = {
    "nothing": b"",
    "half a head": b"GET /ping HT",
    "a question": b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a body": b"POST /write HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
}
"""What somebody without a token may leave it at."""


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_who_asks_is_answered_beside_many_who_hold_on(
    served: Served, port: int, said: bytes
) -> None:
    with ExitStack() as open_here:
        for _ in range(CONNECTIONS_MAX + 20):
            each = open_here.enter_context(socket.create_connection(("127.0.0.1", port)))
            each.sendall(said)
        assert get(port, None)[0] == 401
        assert counted(served, "too_many") >= 20


def test_a_question_that_takes_long_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_serving, "REQUEST_S", 0.02)
    with serving(tmp_path) as served, socket.socket(socket.AF_UNIX) as watching:
        watching.connect(str(served.paths.socket))
        watching.sendall(b"GET /api/v1/watch?prefix=x HTTP/1.1\r\nHost: x\r\n\r\n")
        watching.settimeout(GIVE_UP_S)
        assert watching.recv(1000).startswith(b"HTTP/1.1 200")
        watching.settimeout(0.2)  # ten looks
        try:
            more: bytes | None = watching.recv(1000)
        except TimeoutError:
            more = None
        assert more != b"", "the stream was ended"
