"""Events and queries over HTTP and on the command line, against a fake agent."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from agent import exits
from agent.cluster.event_json import (
    MissedEvents,
    QueryResponse,
    QuerySummary,
    describe,
    id_text,
    parse_id,
)
from agent.exits import UNHEALTHY, AgentError
from edge_apps.client import ApiError, Client
from gossip.events.messages import ResponseKind
from tests.support.command_line import Covey
from tests.support.fake_agent import ME, OTHER, Served


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served.paths.socket)


# ---- HTTP


@pytest.mark.parametrize(
    ("fields", "payload"),
    [
        ({"payload": "größe"}, "größe".encode()),
        ({"payload_base64": "/wA="}, b"\xff\x00"),
        ({}, b""),
    ],
)
def test_send(served: Served, client: Client, fields: dict[str, str], payload: bytes) -> None:
    assert client.post("/api/v1/events", {"name": "door", **fields}) == {"id": "a-1-1"}
    assert served.agent.event_service.sent == [("door", payload)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"name": ""}, 400),
        ({"name": 7}, 400),
        ({"name": "x", "payload_base64": "?"}, 400),
        ({"name": "x", "payload": "a", "payload_base64": "YQ=="}, 400),
        ({"name": "x", "payload": "a" * 513}, 413),
        ({"name": "x", "color": "red"}, 400),
    ],
)
def test_bad_events(served: Served, client: Client, body: dict[str, Any], status: int) -> None:
    with pytest.raises(ApiError) as refused:
        client.post("/api/v1/events", body)
    assert refused.value.status == status
    assert not served.agent.event_service.sent


def test_too_many_events_are_refused(served: Served, client: Client) -> None:
    served.agent.event_service.refusal = AgentError("too many", "send fewer", UNHEALTHY)
    with pytest.raises(ApiError) as refused:
        client.post("/api/v1/events", {"name": "x"})
    assert refused.value.status == 503


def test_recent_events(client: Client) -> None:
    first, second = client.get("/api/v1/events")["events"]
    assert first == {
        "id": "a-1-1",
        "name": "door",
        "payload": "open",
        "sender": {"id": f"{ME:016x}", "name": "ada"},
        "lamport": 7,
        "late": False,
        "received": "2023-11-14T22:13:20.500Z",
    }
    assert (second["payload_base64"], second["late"]) == ("/w==", True)
    assert client.get("/api/v1/events", name="window")["events"] == []
    assert len(client.get("/api/v1/events", limit=1)["events"]) == 1


def test_following_tells_what_was_missed(served: Served, client: Client) -> None:
    served.agent.event_service.followed = [MissedEvents(3), served.agent.event_service.told[0]]
    lines = list(client.stream("/api/v1/events", query={"follow": 1}))
    assert lines[0] == {"missed": 3}
    assert lines[1]["name"] == "door"


def test_ask(served: Served, client: Client) -> None:
    body = {"name": "ping", "payload": "x", "filters": {"room": "attic"}, "timeout_s": 2}
    answer, summary = client.stream("/api/v1/queries", json=body)
    assert answer == {
        "node": {"id": f"{ME:016x}", "name": "ada"},
        "kind": "answered",
        "payload": "pong",
        "after_s": 0.001,
    }
    assert summary == {"summary": {"answered": 1, "expected": 1, "missing": []}}
    assert served.agent.event_service.asked == {
        "name": "ping",
        "payload": b"x",
        "filters": {"room": "attic"},
        "timeout_s": 2.0,
    }


@pytest.mark.parametrize(
    "more", [{"filters": []}, {"filters": {"a": 1}}, {"timeout_s": "5s"}, {"timeout_s": 61}]
)
def test_bad_queries(client: Client, more: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        list(client.stream("/api/v1/queries", json={"name": "ping", **more}))
    assert refused.value.status == 400


def test_an_app_listens_and_answers(served: Served, client: Client) -> None:
    [query] = client.stream("/api/v1/queries", query={"name": ["weigh", "tare"]})
    assert (query["id"], query["name"], query["payload"]) == ("b-1-9", "weigh", "now")
    assert served.agent.event_service.listened == ("weigh", "tare")
    path = f"/api/v1/queries/{query['id']}/answer"
    assert client.request("POST", path, body=b"\xff7").status == 204
    client.request("POST", path, body=b"broken", query={"failed": True})
    assert served.agent.event_service.answered == [
        ("b-1-9", b"\xff7", False),
        ("b-1-9", b"broken", True),
    ]
    with pytest.raises(ApiError) as late:
        client.request("POST", "/api/v1/queries/b-1-8/answer", body=b"")
    assert late.value.status == 404
    with pytest.raises(ApiError) as long:
        client.request("POST", path, body=b"x" * 65_537)
    assert long.value.status == 413


def test_listening_needs_names(client: Client) -> None:
    with pytest.raises(ApiError):
        list(client.stream("/api/v1/queries"))


# ---- commands


def test_event_send(served: Served, covey: Covey, tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b"\xff\x00")
    assert covey("event", "send", "door", "open") == (0, "a-1-1\n", "")
    covey("event", "send", "door", "--file", str(tmp_path / "payload"))
    covey("event", "send", "door")
    assert [payload for _, payload in served.agent.event_service.sent] == [
        b"open",
        b"\xff\x00",
        b"",
    ]
    status, _, told = covey("event", "send", "door", "x" * 513)
    assert status == exits.USAGE, told
    assert (
        covey("event", "send", "door", "x", "--file", str(tmp_path / "payload"))[0] == exits.USAGE
    )


def test_events(served: Served, covey: Covey) -> None:
    status, out, _ = covey("events")
    assert status == 0
    assert [line.split("\t")[1:] for line in out.splitlines()] == [
        ["7", "door", "ada", "open"],
        ["5 late", "door", "bob", "(1 bytes)"],
    ]
    assert json.loads(covey("events", "-o", "json", "--limit", "1")[1])["events"][0]["lamport"] == 7


def test_events_follow(served: Served, covey: Covey) -> None:
    served.agent.event_service.followed = [MissedEvents(3), served.agent.event_service.told[0]]
    status, out, told = covey("events", "--follow")
    assert (status, out.split("\t")[2]) == (0, "door")
    assert "3 events missed" in told
    lines = covey("events", "--follow", "-o", "json")[1].splitlines()
    assert [next(iter(json.loads(line))) for line in lines] == ["missed", "id"]


def test_query(served: Served, covey: Covey) -> None:
    status, out, told = covey("query", "ping", "x", "--filter", "room=attic", "--timeout", "2s")
    assert (status, out, told) == (0, "ada\t1ms\tpong\n", "1 of 1 answered\n")
    assert served.agent.event_service.asked["filters"] == {"room": "attic"}
    assert served.agent.event_service.asked["timeout_s"] == 2.0


def test_query_with_fewer_answers_ends_with_6(served: Served, covey: Covey) -> None:
    served.agent.event_service.answers = [
        QueryResponse(ME, "ada", ResponseKind.ANSWERED, b"pong", 0.001),
        QueryResponse(OTHER, "bob", ResponseKind.FAILED, b"ended with exit status 3", 0.02),
        QueryResponse(0xD, "dan", ResponseKind.NOBODY, b"", 0.02),
        QuerySummary(1, 4, ("eve",)),
    ]
    status, out, told = covey("query", "ping")
    assert status == exits.UNHEALTHY
    assert "1 of 4 answered" in told
    assert "eve" in told
    assert "bob\t20ms\tfailed: ended with exit status 3" in out
    assert "nobody answers such queries there" in out
    status, out, _ = covey("query", "ping", "-o", "json")
    assert status == exits.UNHEALTHY
    assert json.loads(out.splitlines()[-1])["summary"]["missing"] == ["eve"]


def test_a_query_that_is_cut_off_is_no_success(served: Served, covey: Covey) -> None:
    served.agent.event_service.answers = []
    assert covey("query", "ping")[0] == exits.UNREACHABLE


# ---- words


def test_ids_read_back() -> None:
    key = (0xA, 1 << 63, 2**40)
    assert parse_id(id_text(*key)) == key
    for bad in ("", "a", "a-1-1", "x-y-z", id_text(*key) + "0 ", id_text(*key).upper()):
        assert parse_id(bad) is None


def test_bytes_that_are_no_text_travel_as_base64() -> None:
    described = describe(QueryResponse(ME, "ada", ResponseKind.ANSWERED, b"\xff", 0.0))
    assert base64.b64decode(described["payload_base64"]) == b"\xff"
