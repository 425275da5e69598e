"""An app as a process of its own: found, run, stopped; against an API that notes what comes."""

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edge_apps.app import App, Seen
from edge_apps.client import ApiError, Client
from edge_apps.loader import AppNotFound, available, find, installed
from edge_apps.runner import AgentKv
from tests.support.patience import GIVE_UP_S

APP = """
from edge_apps import App, Context

app = App("door")

@app.every("50ms")
def sample(context: Context) -> None:
    count = int(context.kv.get("door/count") or 0) + 1
    context.kv.put("door/count", str(count))
    context.publish("door/count", count, tags={"side": context.options["side"]})
"""


class Api(BaseHTTPRequestHandler):
    """The part of an agent's API that an app uses."""

    protocol_version = "HTTP/1.1"
    keys: ClassVar[dict[str, bytes]]
    readings: ClassVar[list[dict[str, Any]]]
    arrived: ClassVar[threading.Event]
    write_status: ClassVar[int]
    context: ClassVar[str | None] = None

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *arguments: Any) -> None:
        """Keep the test's output clean."""

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        if self.path in self.keys:
            self.answer(200, self.keys[self.path])
        else:
            told = {"error": {"code": "not-found", "message": "no such key", "hint": ""}}
            self.answer(404, json.dumps(told).encode())

    def do_PUT(self) -> None:
        type(self).context = self.headers.get("Covey-Context")
        self.keys[self.path] = self.body()
        outcome = "ok" if self.write_status == 200 else "indeterminate"
        self.answer(self.write_status, json.dumps({"outcome": outcome}).encode())

    def do_DELETE(self) -> None:
        self.keys.pop(self.path, None)
        self.answer(200, b'{"outcome": "ok"}')

    def do_POST(self) -> None:
        batch = json.loads(self.body())
        if "/kv/" in self.path:
            self.keys[self.path] = json.dumps(batch).encode()
            self.answer(self.write_status, b"{}")
            return
        self.readings.extend(batch)
        self.answer(200, json.dumps({"accepted": len(batch)}).encode())
        self.arrived.set()


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def api(tmp_path: Path) -> Iterator[type[Api]]:
    class Fresh(Api):
        keys: ClassVar[dict[str, bytes]] = {}
        readings: ClassVar[list[dict[str, Any]]] = []
        arrived: ClassVar[threading.Event] = threading.Event()
        write_status: ClassVar[int] = 200

    with Server(str(tmp_path / "covey.sock"), Fresh) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Fresh
        server.shutdown()
        thread.join()


@contextmanager
def app_process(
    directory: Path, options: dict[str, Any], *, guard: bool = False
) -> Iterator["subprocess.Popen[str]"]:
    environ = {
        **os.environ,
        "COVEY_SOCKET": str(directory / "covey.sock"),
        "COVEY_APP_OPTIONS": json.dumps(options),
    }
    if guard:
        environ["COVEY_APP_GUARD"] = "1"
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edge_apps", "door"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environ, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def door(directory: Path, text: str = APP) -> dict[str, Any]:
    (directory / "door.py").write_text(text)
    return {"path": str(directory / "door.py"), "side": "north"}


def test_readings_and_keys_reach_the_agent(api: type[Api], tmp_path: Path) -> None:
    with app_process(tmp_path, door(tmp_path)) as process:
        assert api.arrived.wait(GIVE_UP_S)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 0, printed
    assert "stopping: SIGTERM" in printed
    values = [reading["value"] for reading in api.readings]
    assert values == list(range(1, len(values) + 1))
    assert api.readings[0]["tags"] == {"side": "north"}
    # What was measured after the last round of sending was sent on the way out.
    assert int(api.keys["/api/v1/kv/door/count"]) == values[-1]


def test_the_end_of_stdin_is_the_end_of_the_app(api: type[Api], tmp_path: Path) -> None:
    with app_process(tmp_path, door(tmp_path), guard=True) as process:
        assert api.arrived.wait(GIVE_UP_S)
        printed, _ = process.communicate(timeout=GIVE_UP_S)  # closes stdin
    assert "the agent is gone" in printed
    # It ends its process group with SIGTERM, and itself in the ordinary way.
    assert process.returncode == 0, printed


def test_without_the_guard_stdin_means_nothing(api: type[Api], tmp_path: Path) -> None:
    with app_process(tmp_path, door(tmp_path)) as process:
        assert process.stdin
        process.stdin.close()
        assert api.arrived.wait(GIVE_UP_S)
        assert process.poll() is None
        process.stdin = None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 0


def test_readings_that_no_agent_takes_are_told_at_the_end(tmp_path: Path) -> None:
    text = APP.replace("context.kv.get", "len").replace("context.kv.put", "max").replace(
        "    context.publish", "    print('published', flush=True); context.publish"
    )  # fmt: skip
    with app_process(tmp_path, door(tmp_path, text)) as process:
        assert process.stdout
        first = process.stdout.readline()
        assert "published" in first
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=GIVE_UP_S)
    assert "readings wait: no agent listens" in printed
    assert "that no agent took; they are lost" in printed
    assert process.returncode == 0


def test_a_round_without_keys_is_skipped(tmp_path: Path) -> None:
    with app_process(tmp_path, door(tmp_path)) as process:
        assert process.stdout
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=GIVE_UP_S)
    assert "skipped a round: no agent listens" in first
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no app is called 'door'"),
        ({"path": "/nowhere/door.py"}, "is no Python file"),
        ({"path": f"/{'d' * 300}.py"}, "File name too long; whoever runs the app has to be able"),
        ({"module": "json"}, "json has no App called app"),
        ({"module": "edge_apps.builtin.system", "every": "often"}, "no duration"),
    ],
)
def test_what_cannot_run_says_why(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with app_process(tmp_path, options) as process:
        printed, _ = process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 2
    assert said in printed
    assert "Traceback" not in printed


def test_a_mistake_of_the_app_shows_its_traceback(tmp_path: Path) -> None:
    text = APP.replace("count = int", "1 / 0; count = int")
    with app_process(tmp_path, door(tmp_path, text)) as process:
        printed, _ = process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 1
    assert "ZeroDivisionError" in printed


def test_apps_are_found_by_name_module_and_attribute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(available()) >= {"sensor_sim", "system"}
    assert find("system", {}).name == "system"
    assert find("other", {"module": "edge_apps.builtin.sensor_sim:app"}).name == "sensor_sim"
    assert isinstance(find("door", door(tmp_path)), App)
    with pytest.raises(AppNotFound, match="there are sensor_sim, system"):
        find("nope", {})


def test_installed_packages_bring_apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "doorbell.py").write_text(APP)
    (tmp_path / "doorbell-1.0.dist-info").mkdir()
    (tmp_path / "doorbell-1.0.dist-info/METADATA").write_text("Name: doorbell\nVersion: 1.0\n")
    (tmp_path / "doorbell-1.0.dist-info/entry_points.txt").write_text(
        "[covey.apps]\nbell = doorbell:app\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "bell" in available()
    assert installed()["bell"] == "1.0"
    assert find("bell", {}).name == "door"


def test_keys(api: type[Api], tmp_path: Path) -> None:
    kv = AgentKv(Client(tmp_path / "covey.sock"))
    assert kv.get("a/b") is None
    assert kv.put("a/b", "text")
    assert kv.get("a/b") == b"text"
    kv.delete("a/b")
    assert kv.get("a/b") is None
    assert kv.put("c", b"new", seen=kv.look("c", r="all"), w="one")
    assert api.keys == {"/api/v1/kv/c?w=one&if_absent=1": b"new"}
    assert kv.put("c", b"newer", seen=Seen(b"new", "abc="))
    assert api.keys["/api/v1/kv/c?if_context=1"] == b"newer"
    assert api.context == "abc="
    api.write_status = 202
    assert not kv.put("a/b", b"in doubt")
    api.write_status = 400
    with pytest.raises(ApiError):
        kv.put("a/b", b"refused")


def test_typed_keys(api: type[Api], tmp_path: Path) -> None:
    kv = AgentKv(Client(tmp_path / "covey.sock"))
    asked: list[tuple[Callable[..., bool], tuple[Any, ...], dict[str, Any]]] = [
        (kv.count, (-2,), {"type": "counter", "by": -2}),
        (kv.add, ("ada",), {"type": "set", "add": "ada"}),
        (kv.discard, ("ada",), {"type": "set", "remove": "ada"}),
        (kv.set_field, ("f", "v"), {"type": "map", "field": "f", "value": "v"}),
        (kv.set_field, ("f", None), {"type": "map", "field": "f", "value": None}),
        (kv.raise_to, (3,), {"type": "max", "number": 3}),
        (kv.lower_to, (2.5,), {"type": "min", "number": 2.5}),
    ]
    for call, arguments, body in asked:
        assert call("k", *arguments)
        assert json.loads(api.keys["/api/v1/kv/k"]) == body
    api.write_status = 202
    assert not kv.count("k")
