"""Many operations in one request: each for itself, in order for one key, within bounds."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.api import kv_batch
from edge_apps.client import ApiError, Client
from edge_apps.key_batches import BYTES_MAX, OPERATIONS_MAX, carry_out, data_of, put_of
from gossip.core.errors import InvalidRequest
from gossip.kv.changes import CounterUpdate
from gossip.kv.requests import PutResult
from tests.support.fake_agent import Served, serving

ROUTE = "/api/v1/kv/batch"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served.paths.socket)


def batch(client: Client, *operations: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    answer = client.request("POST", ROUTE, query=query, json={"operations": operations})
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_each_has_an_outcome_of_its_own_in_the_order_asked(served: Served, client: Client) -> None:
    served.agent.kv.values = {"a": [b"1"], "b": [b"\xff"]}
    told = batch(
        client,
        {"op": "get", "key": "a"},
        {"op": "put", "key": "c", "value": "new", "ttl": 60, "w": "all"},
        {"op": "get", "key": "nothing"},
        {"op": "get", "key": "b"},
        {"op": "delete", "key": "a"},
        {"op": "put", "key": "d", "value": "x", "w": 9},
        {"op": "update", "key": "n", "change": {"type": "counter", "by": 2}},
        {"op": "update", "key": "m", "change": {"type": "nothing"}},
        timeout=7,
        durability="fsync",
    )
    assert [(each["key"], each["outcome"]) for each in told] == [
        ("a", "ok"), ("c", "ok"), ("nothing", "ok"), ("b", "ok"), ("a", "ok"), ("d", "refused"),
        ("n", "ok"), ("m", "refused"),
    ]  # fmt: skip
    assert [data_of(value) for value in told[0]["values"]] == [b"1"]
    assert told[2]["values"] == []
    assert data_of(told[3]["values"][0]) == b"\xff"
    assert "3 owners" in told[5]["error"]["message"]
    assert served.agent.kv.values["c"] == [b"new"]
    assert "a" not in served.agent.kv.values, "after it was read"
    asked = next(each for each in served.agent.kv.asked if each.get("ttl_s"))
    assert (asked["ttl_s"], asked["w"], asked["timeout_s"], asked["fsync"]) == (60, -1, 7, True)


def test_behind_one_that_failed_the_others_of_its_key_are_skipped(
    served: Served, client: Client
) -> None:
    served.agent.kv.outcome = "indeterminate"
    steps = [{"op": "put", "key": "k", "value": text} for text in "abc"]
    told = batch(client, *steps, {"op": "put", "key": "l", "value": "x"})
    expected = ["indeterminate", "skipped", "skipped", "indeterminate"]
    assert [each["outcome"] for each in told] == expected
    assert served.agent.kv.values["k"] == [b"a"]


@pytest.mark.parametrize("operation", [
    {"op": "put", "key": "k"}, {"op": "put", "key": "k", "value": "a", "value_base64": "YQ=="},
    {"op": "put", "key": "k", "value_base64": "=?"},
    {"op": "put", "key": "k", "value": "a", "only_if": "context"},
    {"op": "put", "key": "k", "value": "a", "only_if": "absent", "context": "Y3R4"},
    {"op": "delete", "key": "k", "context": "ü"}, {"op": "update", "key": "k"},
])  # fmt: skip
def test_what_cannot_be_done_is_refused_alone(
    served: Served, client: Client, operation: dict[str, Any]
) -> None:
    told = batch(client, operation, {"op": "put", "key": "x", "value": "y"})
    assert [each["outcome"] for each in told] == ["refused", "ok"]
    assert told[0]["error"]["message"]
    assert list(served.agent.kv.values) == ["x"]


@pytest.mark.parametrize("body", [
    b'{"operations": 7}', b'{"operations": [{"op": "move", "key": "k"}]}', b'{"operations": [{}]}',
    b'{"operations": [{"op": "get", "key": "k", "value": "v"}]}', b'["operations"]',
    b'{"operations": [{"op": "put", "key": "k", "value": "\xff"}]}', b'{"operations": [',
    b"\xff", b"[]",
    b'{"operations": [{"op": "get", "key": "k", "wish": 1}]}', b'{"operations": [], "more": 1}',
    b'{"operations": [{"op": "put", "key": "k", "value": "v", "w": "some"}]}',
])  # fmt: skip
def test_a_batch_that_cannot_be_read_does_nothing(
    served: Served, client: Client, body: bytes
) -> None:
    with pytest.raises(ApiError) as caught:
        client.request("POST", ROUTE, body=body)
    assert caught.value.status == 400
    assert not served.agent.kv.values


def test_there_are_bounds(served: Served, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gets = [{"op": "get", "key": f"k{n}"} for n in range(kv_batch.OPERATIONS_MAX + 1)]
    assert len(batch(client, *gets[1:])) == kv_batch.OPERATIONS_MAX
    with pytest.raises(ApiError) as caught:
        batch(client, *gets)
    assert caught.value.status == 413
    monkeypatch.setattr(kv_batch, "ANSWER_BYTES_MAX", 10)
    served.agent.kv.values = {name: [b"six..."] for name in "ab"}
    told = batch(client, {"op": "get", "key": "a"}, {"op": "get", "key": "b"})
    assert sorted(each["outcome"] for each in told) == ["ok", "refused"]


def test_a_key_may_be_called_as_the_route_is(served: Served, client: Client) -> None:
    updates: list[object] = []

    async def update(key: str, change: object, **_options: Any) -> PutResult:
        updates.append((key, change))
        return PutResult("ok", 2, 2, b"", 1)

    served.agent.kv.update = update  # type: ignore[method-assign]
    client.post(ROUTE, {"type": "counter", "by": 3})
    assert updates == [("batch", CounterUpdate(3))]


def test_many_are_cut_into_batches_that_the_agent_takes(served: Served, client: Client) -> None:
    large = [put_of(f"large{n}", bytes([255]) * 200_000, ttl=None) for n in range(16)]
    small = [put_of(f"small{n}", b"\x00", context=None) for n in range(OPERATIONS_MAX + 1)]
    assert len(json.dumps(large)) > BYTES_MAX
    told = list(carry_out(client, [*large, *small], 5.0))
    assert [each["key"] for each in told] == [each["key"] for each in (*large, *small)]
    assert {each["outcome"] for each in told} == {"ok"}
    assert served.agent.kv.values["large3"] == [bytes([255]) * 200_000]
    assert base64.b64decode(large[0]["value_base64"]) == bytes([255]) * 200_000
    assert not list(carry_out(client, [], 5.0))


def test_what_nobody_foresaw_of_one_operation_is_told_of_that_one(
    served: Served, client: Client
) -> None:
    async def put(_key: str, _value: bytes, **_options: Any) -> PutResult:
        raise InvalidRequest("no such thing")

    served.agent.kv.put = put  # type: ignore[method-assign, assignment]
    told = batch(client, {"op": "put", "key": "k", "value": "v"}, {"op": "get", "key": "x"})
    assert [each["outcome"] for each in told] == ["refused", "ok"]
