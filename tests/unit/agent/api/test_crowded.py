"""The API's sockets when there are too many connections, or no file descriptors left."""

import asyncio
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from agent.api import ndjson, unread_answer
from agent.api import server as api_serving
from agent.api.server import CONNECTIONS_MAX
from agent.api.unread_answer import UnreadAnswer
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
ENDED = {"a question"}
"""What is answered, and holds no connection at all."""


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_who_asks_is_answered_beside_many_who_hold_on(
    served: Served, port: int, said: bytes
) -> None:
    with ExitStack() as open_here:
        for _ in range(CONNECTIONS_MAX + 20):
            each = open_here.enter_context(socket.create_connection(("127.0.0.1", port)))
            each.sendall(said)
        assert get(port, None)[0] == 401
        if said not in [SAID[what] for what in ENDED]:
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


# ---- who is answered, and takes nothing of it --------------------------------------------------

ANSWER_BYTES = 4 << 20
"""More than the kernel keeps for who does not read."""


def ask(path: Path | int, what: str, token: str = "") -> socket.socket:
    """Connect to a Unix socket or a port, and ask; nothing is read."""
    if isinstance(path, int):
        opened = socket.create_connection(("127.0.0.1", path), GIVE_UP_S)
    else:
        opened = socket.socket(socket.AF_UNIX)
        opened.settimeout(GIVE_UP_S)
        opened.connect(str(path))
    shown = f"Authorization: Bearer {token}\r\n" if token else ""
    opened.sendall(f"GET {what} HTTP/1.1\r\nHost: x\r\n{shown}\r\n".encode())
    return opened


def begins_with(opened: socket.socket) -> bytes:
    """Return the status line; nothing if the connection is closed."""
    try:
        return opened.recv(12)
    except ConnectionError:
        return b""


def test_who_takes_nothing_of_an_answer_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread_answer, "CHECK_S", 0.02)
    monkeypatch.setattr(unread_answer, "UNREAD_S", 0.1)
    with serving(tmp_path) as served, ExitStack() as open_here:
        served.agent.kv.values["big"] = [bytes(ANSWER_BYTES)]
        for _ in range(3):
            open_here.enter_context(ask(served.paths.socket, "/api/v1/kv/big"))
        until(lambda: counted(served, "unread") == 3)


def test_who_takes_nothing_of_an_answer_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_serving, "CONNECTIONS_MAX", 3)
    monkeypatch.setattr(unread_answer, "CHECK_S", 0.02)
    monkeypatch.setattr(unread_answer, "UNREAD_S", 10 * GIVE_UP_S)
    with serving(tmp_path) as served, ExitStack() as open_here:
        served.agent.kv.values["big"] = [bytes(ANSWER_BYTES)]
        for _ in range(3):
            open_here.enter_context(ask(served.paths.socket, "/api/v1/kv/big"))
        for _ in range(3):
            with ask(served.paths.socket, "/healthz") as honest:
                assert begins_with(honest) == b"HTTP/1.1 200"


class SlowReader:
    """A transport with so much to write; ``left_bytes`` is what a test makes of it."""

    def __init__(self, left_bytes: int) -> None:
        self.left_bytes = left_bytes
        self.is_ended = False

    def get_write_buffer_size(self) -> int:
        return self.left_bytes

    def abort(self) -> None:
        self.is_ended = True


def test_who_takes_a_little_of_an_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_answer, "CHECK_S", 0.0)
    monkeypatch.setattr(unread_answer, "UNREAD_S", 0.0)

    async def story() -> None:
        reader, counts = SlowReader(100), Counter[str]()
        unread = UnreadAnswer(cast("asyncio.Transport", reader), counts)
        unread.watch()
        monkeypatch.setattr(unread_answer, "UNREAD_S", 1e-9)
        for left_bytes in (99, 98, 97):
            reader.left_bytes = left_bytes
            assert not unread.is_stuck
            unread.end()
            unread._check()
            assert not reader.is_ended
        assert unread.is_stuck
        unread.end()
        unread._check()
        assert (reader.is_ended, counts["api_connections/unread"]) == (True, 1)

    asyncio.run(story())


def test_who_shows_no_token_has_one_answer(served: Served, port: int) -> None:
    """Else a stranger has thousands of questions answered that it sends at once."""
    with socket.create_connection(("127.0.0.1", port), GIVE_UP_S) as stranger:
        stranger.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        said = b""
        while more := begins_with(stranger):
            said += more
    assert said.count(b"HTTP/1.1 401") == 1
    assert counted(served, "too_slow") == 0


# ---- who asks what does not end ----------------------------------------------------------------

FOLLOW = "/api/v1/watch?prefix=x"


def is_open(stream: socket.socket) -> bool:
    try:
        while stream.recv(1000):
            pass
    except BlockingIOError:
        return True
    return False


def test_an_app_has_so_many_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "STREAMS_MAX", 3)
    with serving(tmp_path) as served, ExitStack() as open_here:
        served.agent.app_keys = {"k1": "scale", "k2": "clock"}

        def follow(key: str) -> socket.socket:
            return open_here.enter_context(ask(served.paths.app_door, FOLLOW, key))

        streams = [follow("k1") for _ in range(3)]
        assert {begins_with(each) for each in streams} == {b"HTTP/1.1 200"}
        assert begins_with(follow("k1")) == b"HTTP/1.1 429"
        assert begins_with(follow("k2")) == b"HTTP/1.1 200", "another has its own"
        streams[0].close()
        until(lambda: begins_with(follow("k1")) == b"HTTP/1.1 200")


def test_where_all_are_busy_the_client_with_most_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_serving, "CONNECTIONS_MAX", 4)
    with serving(tmp_path) as served, ExitStack() as open_here:
        served.agent.app_keys = {"k1": "scale", "k2": "clock"}

        def follow(key: str) -> socket.socket:
            stream = open_here.enter_context(ask(served.paths.app_door, FOLLOW, key))
            assert begins_with(stream) == b"HTTP/1.1 200"
            return stream

        modest = follow("k2")
        greedy = [follow("k1") for _ in range(3)]
        with ask(served.paths.app_door, "/api/v1/members", "k2") as honest:
            assert begins_with(honest) == b"HTTP/1.1 200"
        while begins_with(greedy[0]):  # its headers, and then its end
            pass
        for each in (modest, *greedy[1:]):
            each.setblocking(False)
            assert is_open(each), "this one was not to give way"
