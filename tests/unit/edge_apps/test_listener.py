"""Apps that hear events and answer queries: in virtual time, and against an agent's API."""

import json
import os
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest

from edge_apps import App, Client, Context, Event, Query
from edge_apps.listener import Order, listen
from edge_apps.testing import AppHarness, MemoryAgreement, MemoryKv
from tests.support.fake_agent import serving
from tests.support.patience import GIVE_UP_S

app = App("porch")


@app.on_event("alarm/*")
def alarm(context: Context, event: Event) -> None:
    context.publish("porch/lamp", 1, tags={"by": event.sender, "how": event.payload.decode()})


@app.on_query("lamp")
def lamp(context: Context, query: Query) -> str:
    return f"on, {query.asker}"


@app.on_query("broken")
def broken(context: Context, query: Query) -> bytes:
    raise ZeroDivisionError("no lamp")


@app.on_query("nothing")
def nothing(context: Context, query: Query) -> None:
    """Answer with nothing."""


def test_harness() -> None:
    harness = AppHarness(app)
    harness.event("alarm/door", "open", sender="ada")
    harness.event("rain")
    [reading] = harness.published
    assert reading.tags == {"by": "ada", "how": "open"}
    assert harness.query("lamp", asker="bob") == b"on, bob"
    assert harness.query("nothing") == b""
    with pytest.raises(ZeroDivisionError):
        harness.query("broken")
    with pytest.raises(LookupError, match="door"):
        harness.query("door")


def test_an_app_may_only_listen() -> None:
    assert app.periods({}) == []
    with pytest.raises(ValueError, match="no function"):
        App("idle").periods({})


def test_what_comes_is_done_by_the_apps_own_thread(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        event_service = served.agent.event_service
        event_service.followed = [event_service.told[0]]
        event_service.queries = [
            type(event_service.queries[0])("b-1-9", name, b"", 0xB, "bob", 5.0)
            for name in ("lamp", "broken")
        ]
        listening = App("porch")
        listening.event_functions = {"door": lambda context, event: context.log.info("%s", event)}
        listening.query_functions = app.query_functions
        orders: Order = SimpleQueue()
        listen(listening, Client(served.paths.socket), orders)
        context = Context(
            "porch", {}, lambda _: None, MemoryKv(), lambda: 0.0, lambda *_: None,
            control=MemoryAgreement(),
        )  # fmt: skip
        failed = 0
        for _ in range(3):
            order = orders.get(timeout=GIVE_UP_S)
            assert not isinstance(order, str)
            try:
                order(context)
            except ZeroDivisionError:
                failed += 1
        assert failed == 1
        assert event_service.answered[0] == ("b-1-9", b"on, bob", False)
        assert event_service.answered[1][2] is True
        assert event_service.listened == ("lamp", "broken", "nothing")


def test_as_a_process(tmp_path: Path) -> None:
    source = tmp_path / "porch.py"
    source.write_text(
        "from edge_apps import App\n"
        "app = App('porch')\n"
        "@app.on_query('lamp')\n"
        "def lamp(context, query):\n"
        "    return 'on'\n"
    )
    with serving(tmp_path) as served:
        event_service = served.agent.event_service
        event_service.queries = [
            type(event_service.queries[0])("b-1-9", "lamp", b"", 0xB, "bob", 5.0)
        ]
        environment = {
            **os.environ,
            "COVEY_SOCKET": str(served.paths.socket),
            "COVEY_APP_OPTIONS": json.dumps({"path": str(source)}),
        }
        command = [sys.executable, "-m", "edge_apps", "porch"]
        process = subprocess.Popen(command, env=environment)
        try:
            for _ in range(600):
                if event_service.answered:
                    break
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.05)
            assert event_service.answered[0] == ("b-1-9", b"on", False)
        finally:
            process.terminate()
            assert process.wait(GIVE_UP_S) == 0
