"""The client against a small HTTP server that can misbehave."""

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edge_apps.client import AgentTimedOut, AgentUnreachable, ApiError, Client
from tests.support.patience import GIVE_UP_S


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, str, bytes, dict[str, str]]]]
    released: ClassVar[threading.Event]

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *arguments: Any) -> None:
        """Keep the test's output clean."""

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Covey-Context", "abc")
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.command, self.path, body, dict(self.headers)))
        kind = self.path.split("?")[0]
        if kind == "/missing":
            error = {"code": "no_such_key", "message": "no such key", "hint": "put it"}
            self.answer(404, json.dumps({"error": error}).encode())
        elif kind == "/odd":
            self.answer(500, b"<h1>oops</h1>")
        elif kind == "/silent":
            self.released.wait(GIVE_UP_S)
        elif kind in ("/lines", "/cut", "/hang"):
            self.stream(kind)
        else:
            self.answer(200, json.dumps({"path": self.path}).encode())

    def stream(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        # Lines that do not agree with the chunks, as a real stream has them.
        for piece in (b'{"n": 1}\n{"n"', b": 2}\n\n", b'{"n": 3}\n'):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.flush()
        if kind == "/hang":
            self.released.wait(GIVE_UP_S)
        if kind == "/lines":
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def served(path: Path) -> Iterator[type[Handler]]:
    class Fresh(Handler):
        seen: ClassVar[list[tuple[str, str, bytes, dict[str, str]]]] = []
        released = threading.Event()

    with Server(str(path), Fresh) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Fresh
        finally:
            Fresh.released.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[type[Handler]]:
    with served(tmp_path / "covey.sock") as handler:
        yield handler


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "covey.sock", timeout_s=GIVE_UP_S)


def test_encodes_path_and_query(agent: type[Handler], client: Client) -> None:
    answer = client.get("/api/v1/kv/ä b/c?d", limit=3, follow=True, absent=None)
    assert answer == {"path": "/api/v1/kv/%C3%A4%20b/c%3Fd?limit=3&follow=1"}


def test_posts_json(agent: type[Handler], client: Client) -> None:
    client.post("/x", {"ttl_s": 5})
    method, _, body, headers = agent.seen[0]
    assert (method, json.loads(body), headers["Content-Type"]) == (
        "POST",
        {"ttl_s": 5},
        "application/json",
    )


def test_puts_bytes_with_headers(agent: type[Handler], client: Client) -> None:
    answer = client.request("PUT", "/k", body=b"\x00\xff", headers={"Covey-Context": "c"})
    method, _, body, headers = agent.seen[0]
    assert (method, body, headers["Covey-Context"]) == ("PUT", b"\x00\xff", "c")
    assert (answer.status, answer.headers["covey-context"]) == (200, "abc")


def test_api_error_carries_what_the_agent_said(agent: type[Handler], client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.get("/missing")
    error = caught.value
    assert (error.status, error.code, error.message, error.hint) == (
        404,
        "no_such_key",
        "no such key",
        "put it",
    )


def test_api_error_without_our_form(agent: type[Handler], client: Client) -> None:
    with pytest.raises(ApiError, match="oops") as caught:
        client.get("/odd")
    assert (caught.value.status, caught.value.code) == (500, "unexplained")


def test_streams_lines_across_chunks(agent: type[Handler], client: Client) -> None:
    assert [line["n"] for line in client.stream("/lines")] == [1, 2, 3]


def test_a_stream_that_breaks_is_not_a_stream_that_ends(
    agent: type[Handler], client: Client
) -> None:
    read: list[int] = []
    with pytest.raises(AgentUnreachable):
        read.extend(line["n"] for line in client.stream("/cut"))


def test_a_quiet_stream_times_out_only_when_asked(agent: type[Handler], tmp_path: Path) -> None:
    impatient = Client(tmp_path / "covey.sock", timeout_s=GIVE_UP_S)
    lines = impatient.stream("/hang", idle_timeout_s=0.5)
    assert [next(lines)["n"] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(AgentTimedOut):
        next(lines)
    patient = Client(tmp_path / "covey.sock", timeout_s=1.0)
    lines = patient.stream("/hang")
    assert [next(lines)["n"] for _ in range(3)] == [1, 2, 3]
    threading.Timer(1.5, agent.released.set).start()
    with pytest.raises(AgentUnreachable) as caught:  # the cut that follows, not a timeout
        next(lines)
    assert not isinstance(caught.value, AgentTimedOut)


def test_no_answer_in_time(agent: type[Handler], client: Client) -> None:
    with pytest.raises(AgentTimedOut, match=r"within 0\.05 s"):
        client.request("GET", "/silent", timeout_s=0.05)


def test_errors_of_a_stream_are_raised(agent: type[Handler], client: Client) -> None:
    with pytest.raises(ApiError):
        next(client.stream("/missing"))


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(AgentUnreachable, match="no agent listens") as caught:
        Client(tmp_path / "none.sock").get("/healthz")
    assert "covey run" in caught.value.hint


def test_a_socket_left_by_a_dead_agent(tmp_path: Path) -> None:
    with served(tmp_path / "covey.sock"):
        pass
    with pytest.raises(AgentUnreachable, match="no agent listens"):
        Client(tmp_path / "covey.sock").get("/healthz")


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(AgentUnreachable, match="too long"):
        Client(tmp_path / ("x" * 120)).get("/healthz")


def test_import_stays_light() -> None:
    script = "import sys, edge_apps.client; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    heavy = {"asyncio", "http.client", "msgspec", "ssl", "email", "edge_apps.app"}
    assert not heavy & set(done.stdout.split())
