"""Watches of apps: changes over breaks of the connection, from the last token."""

from collections.abc import Iterator
from typing import Any

import pytest

from edge_apps.client import AgentTimedOut, AgentUnreachable
from edge_apps.key_watch import KeyChange, KeyWatch
from edge_apps.testing import MemoryKv


class FakeClient:
    """Streams what it is given; an exception ends a stream."""

    def __init__(self, *streams: list[Any]) -> None:
        self.streams = list(streams)
        self.asked: list[tuple[Any, ...]] = []

    def stream(
        self, path: str, *, query: Any, json: Any, idle_timeout_s: float | None
    ) -> Iterator[Any]:
        self.asked.append((path, query, json, idle_timeout_s))
        for one in self.streams.pop(0):
            if isinstance(one, Exception):
                raise one
            yield one


PUT = {"kind": "put", "key": "k", "values": [{"value": "on"}, {"value_base64": "/w=="}]}
GONE = AgentUnreachable("it hung up", "")
IDLE = AgentTimedOut("nothing came", "")


def test_it_goes_on_from_the_last_token_over_a_break() -> None:
    client = FakeClient(
        [{"kind": "mark", "token": "one"}, PUT, {"kind": "mark", "token": "two"}, GONE],
        [],
        [{"kind": "gap", "reason": "nobody knows"}, {"kind": "later"}, IDLE],
    )
    waits: list[float] = []
    watch = KeyWatch(client, {"key": "k"}, "zero", 3.0, waits.append)  # type: ignore[arg-type]
    changes = list(watch)
    assert changes == [
        KeyChange("put", "k", (b"on", b"\xff"), "one"),
        KeyChange("gap", "", (), "two"),
    ]
    assert [change.value for change in changes] == [b"on", None]
    assert [asked[2] for asked in client.asked] == [
        {"since": "zero"}, {"since": "two"}, {"since": "two"}]  # fmt: skip
    assert len(waits) == 2


def test_without_an_end_it_goes_on_when_the_agent_is_busy() -> None:
    client = FakeClient([IDLE], [PUT, ValueError("the app ends")])
    watch = KeyWatch(client, {"prefix": ""}, "", None, lambda _s: None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the app ends"):
        list(watch)
    assert [asked[2] for asked in client.asked] == [{}, {}]


def test_an_apps_test_watches_a_dict() -> None:
    kv = MemoryKv()
    kv.put("a/1", "x")
    kv.delete("a/1")
    kv.put("b", b"y")
    first, second = kv.watch("a/")
    assert (first.kind, first.value, second.kind, second.value) == ("put", b"x", "delete", None)
    assert [change.key for change in kv.watch(key="b")] == ["b"]
    assert list(kv.watch("a/", since=second.token)) == []
