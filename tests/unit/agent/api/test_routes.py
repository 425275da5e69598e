"""Every route, through the real client on a real socket, against a fake agent."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.admission.token_terms import TokenTerms
from agent.api.interfaces import AgentServices
from agent.api.members import find_entry, find_member
from agent.exits import UNHEALTHY, AgentError
from agent.telemetry.dead_letters import Choice
from edge_apps.client import ApiError, Client
from gossip.kv.changes import Change, CounterUpdate, LimitUpdate, MapUpdate, SetUpdate
from gossip.kv.requests import ALL, Value, WatchEvent
from gossip.kv.watch_token import encode_token, watched_mark
from gossip.membership.model.members import Member, MemberState
from gossip.registry.node import RegisteredNode
from tests.support.fake_agent import OTHER, STAMP, TOKEN_ID, Served, serving
from tests.support.patience import GIVE_UP_S


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served.paths.socket)


def eventually(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def refused(client: Client, method: str, path: str, **more: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        client.request(method, path, **more)  # type: ignore[arg-type]
    assert caught.value.message
    return caught.value


# ---- the agent ----------------------------------------------------------------------------------


def test_health_is_a_status_code(served: Served, client: Client) -> None:
    assert client.get("/healthz") == {"ready": True, "reasons": [], "losses": []}
    served.agent.lost = ["telemetry.db was damaged"]
    assert client.get("/healthz")["losses"] == ["telemetry.db was damaged"]
    served.agent.reasons = ["the disk is full"]
    assert refused(client, "GET", "/healthz").status == 503


def test_metrics_have_the_counters_of_the_api_itself(client: Client) -> None:
    refused(client, "GET", "/nowhere")
    answer = client.request("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'covey_api_errors_total{kind="no-such-route"} 1.0' in answer.body.decode()


def test_status_counts_members_by_state(client: Client) -> None:
    answer = client.get("/api/v1/status")
    assert answer["members"] == {"alive": 1, "suspect": 1, "asleep": 0, "dead": 1, "left": 0}
    assert answer["ready"] is True
    assert answer["epoch"] == 2
    assert answer["node"] == {
        "id": "000000000000000a",
        "name": "ada",
        "boot": "0000000100000001",
        "issuer": True,
    }
    assert answer["issuers"] == []
    assert answer["apps"] == {"running": 1, "stopped": 1}


def test_config_names_origins(client: Client) -> None:
    settings = client.get("/api/v1/config")["settings"]
    assert {"setting": "network.port", "value": 7747, "origin": "default"} in settings


def test_leave_answers_before_it_leaves(served: Served, client: Client) -> None:
    assert client.post("/api/v1/leave") == {"leaving": True, "freed": False}
    assert served.agent.left.wait(GIVE_UP_S)


# ---- sleep -----------------------------------------------------------------------------------


def test_sleep_and_wake(client: Client) -> None:
    asleep = {"asleep": True, "until_s": 7200.0, "grace_s": 120.0}
    assert client.post("/api/v1/sleep", {"duration_s": 7200}) == asleep
    [ada, *_] = client.get("/api/v1/members", state="asleep")["members"]
    assert (ada["state"], ada["until_s"]) == ("asleep", 7200)
    assert client.post("/api/v1/wake") == {"asleep": False, "woken": True}
    assert client.post("/api/v1/wake") == {"asleep": False, "woken": False}
    assert client.get("/api/v1/members")["members"][0]["until_s"] is None


@pytest.mark.parametrize("duration_s", [0, -1, 0.5, 32 * 86400, "2h", True, None])
def test_a_sleep_that_cannot_be_is_refused(client: Client, duration_s: object) -> None:
    with pytest.raises(ApiError, match="`duration_s`: from 1s to 31d"):
        client.post("/api/v1/sleep", {"duration_s": duration_s})


# ---- members and tokens -------------------------------------------------------------------------


def test_members_by_id_with_stable_fields(client: Client) -> None:
    members = client.get("/api/v1/members")["members"]
    assert [member["name"] for member in members] == ["ada", "bob", "cy"]
    assert members[0] == {
        "id": "000000000000000a",
        "name": "ada",
        "roles": [],
        "addresses": ["192.168.1.7:7747"],
        "state": "alive",
        "boot": "0000000000000001",
        "incarnation": 2,
        "tags": {"room": "attic"},
        "self": True,
        "until_s": None,
        "flapping": False,
        "calls_itself": "ada",
        "clone": [],
        "impaired": [],
        "drains": False,
    }
    assert members[2]["flapping"] is True
    assert members[2]["clone"] == ["192.168.1.7:7747", "192.168.1.8:7747"]


def test_members_of_one_state(client: Client) -> None:
    found = client.get("/api/v1/members", state="dead")["members"]
    assert [member["name"] for member in found] == ["cy"]
    error = refused(client, "GET", "/api/v1/members", query={"state": "zombie"})
    assert (error.status, error.code) == (400, "usage")
    assert "suspect" in error.hint


@pytest.mark.parametrize("wanted", ["bob", "000000000000000b"])
def test_one_member_by_name_or_id(client: Client, wanted: str) -> None:
    member = client.get(f"/api/v1/members/{wanted}")
    assert (member["name"], member["changed_s"]) == ("bob", 60.0)
    assert member["facts"] == {"covey": "1.2.3", "memory_bytes": "1024"}


def test_a_name_that_is_the_id_of_somebody_else_gets_nothing_of_theirs() -> None:
    """Who joins chooses name and id, and an operator may go by ids."""
    thief, bob = RegisteredNode(1, f"{OTHER:016x}"), RegisteredNode(OTHER, "bob")
    members = [Member(n.id, n.name, (), {}, MemberState.ALIVE, 1, 1, 0.0) for n in (thief, bob)]
    registry = SimpleNamespace(nodes=(thief, bob))
    agent = cast("AgentServices", SimpleNamespace(members=members, registry=registry))
    assert find_member(agent, f"{OTHER:016x}").id == OTHER
    assert find_entry(agent, f"{OTHER:016x}") == bob
    assert find_entry(agent, f"{1:016x}") == thief


def test_unknown_member(client: Client) -> None:
    error = refused(client, "GET", "/api/v1/members/eve")
    assert (error.status, error.code) == (404, "not-found")


def test_token(served: Served, client: Client) -> None:
    assert client.post("/api/v1/tokens")["token"] == "covey-token-abc"
    assert served.agent.admission.asked == TokenTerms(3600.0)
    client.post("/api/v1/tokens", {"ttl_s": 60, "uses": 5, "zone": "shed"})
    assert served.agent.admission.asked == TokenTerms(60.0, 5, zone="shed")
    [shown] = client.get("/api/v1/tokens")["tokens"]
    assert (shown["id"], shown["state"], shown["zone"]) == (TOKEN_ID.hex(), "valid", "shed")
    gone = client.request("DELETE", f"/api/v1/tokens/{TOKEN_ID.hex()}").json()
    assert gone == {"id": TOKEN_ID.hex(), "was": "valid"}
    assert refused(client, "DELETE", f"/api/v1/tokens/{'0' * 16}").status == 404
    assert refused(client, "DELETE", "/api/v1/tokens/covey1-abc").status == 404
    rights = client.post("/api/v1/members/bob/rights", {"invite": True})
    assert rights == {"name": "bob", "invite": True}
    assert refused(client, "POST", "/api/v1/members/bob/rights", body=b"{}").status == 400


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"ttl": 5}', b'{"ttl_s": "1h"}', b'{"uses": 0}', b'{"uses": true}',
     b'{"ttl_s": 1e99}', b'{"uses": 101}', b'{"ttl_s": 604801}', b'{"zone": "\x1b[2J"}',
     b'{"node_name": "a b"}', b'{"node_name": "pi", "uses": 2}', b'{"weight": -1}',
     b"[" * 60_000, b"\xff"],
)  # fmt: skip
def test_bad_token_orders(client: Client, body: bytes) -> None:
    assert refused(client, "POST", "/api/v1/tokens", body=body).status == 400


# ---- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a", "a/b", "/a", "a/", "//", "ä%2F?#", " ", "..", "a/../b"])
def test_keys_travel_unharmed(served: Served, client: Client, key: str) -> None:
    value = bytes(range(256))
    answer = client.request("PUT", f"/api/v1/kv/{key}", body=value)
    assert answer.json()["outcome"] == "ok"
    assert served.agent.kv.values == {key: [value]}
    got = client.request("GET", f"/api/v1/kv/{key}")
    assert got.body == value
    assert got.headers["covey-outcome"] == "ok"
    client.request("DELETE", f"/api/v1/kv/{key}")
    assert served.agent.kv.values == {}


def test_quorum_and_timeout_reach_the_service(served: Served, client: Client) -> None:
    query = {"w": 3, "timeout": 1.5}
    client.request("PUT", "/api/v1/kv/k", body=b"", query=query)
    context = client.request("GET", "/api/v1/kv/k", query={"r": 1}).headers["covey-context"]
    client.request("DELETE", "/api/v1/kv/k", headers={"Covey-Context": context})
    put, get, delete = served.agent.kv.asked
    assert put == {"w": 3, "context": None, "timeout_s": 1.5}
    assert get == {"r": 1, "timeout_s": 5.0}
    assert delete["context"] == b"ctx\xff"


@pytest.mark.parametrize(
    "query", [{"w": "0"}, {"w": "x"}, {"w": "4"}, {"timeout": "-1"}, {"timeout": "nan"}]
)
def test_bad_quorums(client: Client, query: dict[str, str]) -> None:
    assert refused(client, "PUT", "/api/v1/kv/k", body=b"", query=query).status == 400


def test_bad_context(client: Client) -> None:
    error = refused(client, "PUT", "/api/v1/kv/k", body=b"", headers={"Covey-Context": "abc"})
    assert error.status == 400


def test_indeterminate_is_202(served: Served, client: Client) -> None:
    served.agent.kv.outcome = "indeterminate"
    answer = client.request("PUT", "/api/v1/kv/k", body=b"v")
    assert (answer.status, answer.json()["outcome"]) == (202, "indeterminate")


def test_missing_key_and_missing_owners_differ(served: Served, client: Client) -> None:
    assert refused(client, "GET", "/api/v1/kv/k").status == 404
    served.agent.kv.outcome = "unavailable"
    error = refused(client, "GET", "/api/v1/kv/k")
    assert (error.status, error.code) == (503, "unhealthy")


def test_all_versions_as_json(served: Served, client: Client) -> None:
    served.agent.kv.values["k"] = [b"new", b"\xff"]
    headers = {"Accept": "application/json"}
    answer = client.request("GET", "/api/v1/kv/k", headers=headers)
    assert answer.headers["covey-versions"] == "2"
    values = answer.json()["values"]
    assert values[0] == {"value": "new", "written_ms": 1_700_000_000_000}
    assert values[1]["value_base64"] == "/w=="


def test_a_value_that_is_far_too_large(client: Client) -> None:
    error = refused(client, "PUT", "/api/v1/kv/k", body=bytes(600 * 1024))
    assert error.status == 413
    assert "nothing" in error.message


def test_list_in_pages(served: Served, client: Client) -> None:
    served.agent.kv.values = {f"k{n}": [b"v"] for n in range(5)}
    first = client.get("/api/v1/kv", prefix="k", limit=3)
    assert [entry["key"] for entry in first["entries"]] == ["k0", "k1", "k2"]
    second = client.get("/api/v1/kv", prefix="k", limit=3, after=first["next"])
    assert [entry["key"] for entry in second["entries"]] == ["k3", "k4"]
    assert second["next"] == ""


def test_watch_streams_until_hung_up(served: Served, client: Client) -> None:
    events = served.agent.kv.events
    event = WatchEvent(1, "k", "put", (Value(b"v", STAMP, (1, 1)),))
    served.loop.call_soon_threadsafe(events.put_nowait, event)
    stream = client.stream("/api/v1/watch", query={"prefix": ""})
    assert next(stream)["values"][0]["value"] == "v"
    assert served.agent.kv.watches_open == 1
    stream.close()  # type: ignore[attr-defined]
    eventually(lambda: served.agent.kv.watches_open == 0)


def put_events(served: Served, *events: WatchEvent | AgentError) -> None:
    for event in events:
        served.loop.call_soon_threadsafe(served.agent.kv.events.put_nowait, event)


ENDED = AgentError("the agent is stopping", "", UNHEALTHY)


def test_a_watch_goes_on_from_a_token_and_gives_tokens_and_gaps(
    served: Served, client: Client
) -> None:
    token = encode_token(watched_mark("k", is_prefix=False), {0: ((1, ((1, 2),)),)})
    text = base64.urlsafe_b64encode(token).decode()
    put_events(
        served,
        WatchEvent(1, "", "mark", token=token),
        WatchEvent(1, "", "gap", reason="nobody knows"),
        WatchEvent(1, "k", "delete"),
        ENDED,
    )
    lines = list(client.stream("/api/v1/watch", query={"key": "k", "since": text}))
    assert lines[:3] == [
        {"kind": "mark", "token": text},
        {"kind": "gap", "reason": "nobody knows"},
        {"key": "k", "kind": "delete", "values": []},
    ]
    assert served.agent.kv.asked[-1] == {"prefix": None, "key": "k", "since": token}
    put_events(served, ENDED)
    list(client.stream("/api/v1/watch", query={"key": "k"}, json={"since": text}))
    assert served.agent.kv.asked[-1]["since"] == token
    for wrong in ("é", "rubbish", text[:-8]):
        query = {"key": "k", "since": wrong}
        assert refused(client, "GET", "/api/v1/watch", query=query).status == 400
    other = {"prefix": "", "since": text}
    assert refused(client, "GET", "/api/v1/watch", query=other).status == 400
    assert refused(client, "POST", "/api/v1/watch?key=k", json={"since": 3}).status in (400, 404)


def test_a_watch_as_server_sent_events_goes_on_by_its_last_id(
    served: Served, client: Client
) -> None:
    token = encode_token(watched_mark("", is_prefix=True), {0: ((1, ((1, 2),)),)})
    text = base64.urlsafe_b64encode(token).decode()
    value = Value(b"line\nline", STAMP, (1, 1))
    put_events(
        served, WatchEvent(1, "k", "put", (value,)), WatchEvent(1, "", "mark", token=token), ENDED
    )
    answer = client.request(
        "GET",
        "/api/v1/watch",
        query={"prefix": ""},
        headers={"Accept": "text/event-stream", "Last-Event-ID": text},
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    put, mark, failed, rest = answer.body.decode().split("\n\n")
    assert put.startswith("event: put\ndata: {")
    assert json.loads(put.partition("data: ")[2])["values"][0]["value"] == "line\nline"
    assert mark.startswith(f"event: mark\nid: {text}\ndata: ")
    assert failed.startswith("event: error\ndata: ")
    assert rest == ""
    assert served.agent.kv.asked[-1]["since"] == token


def test_watch_that_fails_says_so_in_its_last_line(served: Served, client: Client) -> None:
    failure = AgentError("too many events waited", "read faster", UNHEALTHY)
    served.loop.call_soon_threadsafe(served.agent.kv.events.put_nowait, failure)
    lines = list(client.stream("/api/v1/watch", query={"key": "k"}))
    told = {"code": "unhealthy", "message": "too many events waited", "hint": "read faster"}
    assert lines == [{"error": told}]


def test_a_bug_in_a_stream_is_not_told(served: Served, client: Client) -> None:
    served.loop.call_soon_threadsafe(served.agent.kv.events.put_nowait, ValueError("secret"))
    [line] = client.stream("/api/v1/watch", query={"key": "k"})
    assert line["error"]["code"] == "internal"
    assert "secret" not in json.dumps(line)


def test_watch_needs_one_subject(client: Client) -> None:
    assert refused(client, "GET", "/api/v1/watch").status == 400
    assert refused(client, "GET", "/api/v1/watch", query={"key": "k" * 600}).status == 400


def test_ring(client: Client) -> None:
    ring = client.get("/api/v1/ring")
    assert sum(node["share"] for node in ring["nodes"]) == pytest.approx(1)
    assert {node["name"]: node["state"] for node in ring["nodes"]} == {
        "ada": "alive",
        "bob": "suspect",
    }
    one = client.get("/api/v1/ring", key="k")
    assert [owner["name"] for owner in one["owners"]] == ["ada"]
    assert one["stage"] == "copying", "bob never ran"
    assert {owner["name"] for owner in one["pending"]} == {"ada", "bob"}
    assert ring["moving"] == {"copying": 256, "joining": 0, "leaving": 0}
    assert {node["name"]: node["pending"] for node in ring["nodes"]} == {"ada": 0, "bob": 256}
    assert 0 <= one["partition"] < ring["partitions"]


# ---- readings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'[{"sensor":"t","value":1},{"sensor":"t","value":2.5,"time":1700000000}]',
        b'{"sensor":"t","value":1}\n\n{"sensor":"t","value":2.5,"time_ns":1700000000000000000}\n',
    ],
)
def test_readings_as_json(served: Served, client: Client, body: bytes) -> None:
    answer = client.request("POST", "/api/v1/readings", body=body).json()
    assert answer == {"accepted": 2, "first": "a-1-1", "last": "a-1-2"}
    second = client.get("/api/v1/readings")["readings"][1]
    assert second["value"] == 2.5
    assert second["time"] == "2023-11-14T22:13:20.000Z"


def test_line_protocol(served: Served, client: Client) -> None:
    body = b"weather,room=attic temperature=21.5,humidity=40i 1700000000\n"
    answer = client.request("POST", "/api/v1/write", body=body, query={"precision": "s"}).json()
    assert answer["accepted"] == 2
    assert served.agent.telemetry.accepted[0].reading.time_ns == 1_700_000_000 * 10**9


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("readings", b'[{"sensor":"t","value":1},{"sensor":"a b","value":1}]'),
        ("readings", b'{"sensor":"t","value":1}\n{"sensor":"t"}'),
        ("readings", b'[{"sensor":"t","value":1,"colour":"red"}]'),
        ("readings", b"hello"),
        ("readings", b"[" * 100_000),
        ("readings", b"\xff\xfe"),
        ("write", b"nonsense\nm"),
        ("write", b"\xff\xfe"),
    ],
)
def test_one_bad_reading_refuses_all(
    served: Served, client: Client, path: str, body: bytes
) -> None:
    error = refused(client, "POST", f"/api/v1/{path}", body=body)
    assert error.status == 400
    assert served.agent.telemetry.accepted == []


def test_a_full_outbox_is_503(served: Served, client: Client) -> None:
    served.agent.telemetry.refusal = AgentError("the outbox is full", "wait", UNHEALTHY)
    body = b'[{"sensor":"t","value":1}]'
    error = refused(client, "POST", "/api/v1/readings", body=body)
    assert (error.status, error.message, error.hint) == (503, "the outbox is full", "wait")


def test_too_many_readings_at_once(client: Client) -> None:
    assert refused(client, "POST", "/api/v1/write", body=bytes(9 * 1024**2)).status == 413


def test_following_shows_old_and_new(served: Served, client: Client) -> None:
    client.post("/api/v1/readings", [{"sensor": "t", "value": 1}])
    stream = client.stream("/api/v1/readings", query={"follow": 1, "limit": 10})
    assert next(stream)["value"] == 1
    eventually(lambda: len(served.agent.telemetry.followers) == 1)
    client.post("/api/v1/readings", [{"sensor": "t", "value": 2}])
    assert next(stream)["value"] == 2
    stream.close()  # type: ignore[attr-defined]
    eventually(lambda: not served.agent.telemetry.followers)


def test_dead_letters_are_listed_replayed_and_dropped(served: Served, client: Client) -> None:
    telemetry = served.agent.telemetry
    answer = client.request("GET", "/api/v1/dead-letters", query={"sensor": "attic/*"}).json()
    (letter,) = answer["dead_letters"]
    assert (letter["id"], letter["sensor"], letter["value"]) == ("a-1-9", "attic/gas", 1)
    assert (letter["reason"], letter["dead_since"]) == ("refused: 0x99", "2023-11-14T22:13:20.000Z")
    assert answer["totals"]["replayed"] == 2
    replayed = client.request(
        "POST", "/api/v1/dead-letters/replay", query={"id": ["a-1-9", "a-1-8"], "reason": "*0x99"}
    ).json()
    assert replayed == {"replayed": 3, "damaged": 1, "left": 0}
    assert client.request("DELETE", "/api/v1/dead-letters", query={"all": 1}).json() == {
        "dropped": 1
    }
    assert telemetry.chosen == [
        Choice(sensor="attic/*"),
        Choice(frozenset({"a-1-9", "a-1-8"}), reason="*0x99"),
        Choice(),
    ]


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("POST", "/replay", {}),
        ("DELETE", "", {"all": 0}),
        ("DELETE", "", {"sensor": ["a", "b"]}),
        ("POST", "/replay", {"id": [str(n) for n in range(101)]}),
        ("POST", "/replay", {"id": "x" * 65}),
    ],
)
def test_dead_letters_that_nobody_chose_stay(
    served: Served, client: Client, method: str, path: str, query: dict[str, Any]
) -> None:
    with pytest.raises(ApiError) as caught:
        client.request(method, f"/api/v1/dead-letters{path}", query=query)
    assert caught.value.status == 400
    assert served.agent.telemetry.chosen == []


def test_outbox(client: Client) -> None:
    answer = client.get("/api/v1/outbox")
    assert answer["delivered"] == 7
    assert answer["uplink"]["state"] == "connected"
    assert answer["newest_dead_letters"][0]["reason"] == "refused: 0x99"


# ---- apps ---------------------------------------------------------------------------------------


def test_apps(served: Served, client: Client) -> None:
    assert [app["name"] for app in client.get("/api/v1/apps")["apps"]] == ["system", "sensor_sim"]
    assert client.post("/api/v1/apps/sensor_sim/start")["state"] == "running"
    assert client.post("/api/v1/apps/system/stop")["state"] == "stopped"
    assert refused(client, "POST", "/api/v1/apps/nobody/start").status == 404


def test_app_log(client: Client) -> None:
    path = "/api/v1/apps/system/log"
    assert len(client.get(path, lines=3)["lines"]) == 3
    followed = list(client.stream(path, query={"lines": 1, "follow": 1}))
    assert [line["line"] for line in followed] == ["line 0\x1b[31m", "one more"]
    assert refused(client, "GET", "/api/v1/apps/nobody/log", query={"follow": 1}).status == 404


# ---- what is not there --------------------------------------------------------------------------


def test_unknown_routes_and_methods_are_json(client: Client) -> None:
    missing = refused(client, "GET", "/api/v1/nonsense")
    assert (missing.status, missing.code) == (404, "no-such-route")
    assert missing.hint.startswith("below /api/v1/ there are access, apps, audit, authority, ")
    wrong = refused(client, "DELETE", "/api/v1/status")
    assert (wrong.status, wrong.code) == (405, "wrong-method")
    assert wrong.hint == "it takes GET"
    hint = "it takes DELETE and GET and POST and PUT"
    assert refused(client, "PATCH", "/api/v1/kv/k").hint == hint


def test_a_bug_is_logged_and_not_told(
    served: Served, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    served.agent.telemetry.stats = None  # type: ignore[assignment, method-assign]
    error = refused(client, "GET", "/api/v1/outbox")
    assert (error.status, error.code) == (500, "internal")
    assert "NoneType" not in error.message + error.hint
    assert "NoneType" in caplog.text


# ---- keys and doctor ----------------------------------------------------------------------------


def test_keys_go_by_fingerprints(served: Served, client: Client) -> None:
    told = client.get("/api/v1/keys")
    assert (told["generation"], told["phase"], told["rotating"]) == (0, "steady", False)
    ada, cy = told["members"]
    assert ada["primary"] == "bb" * 8
    assert ada["keys"] == ["aa" * 8, "bb" * 8]
    assert (cy["generation"], cy["primary"], cy["live"]) == (None, None, False)
    assert client.request("POST", "/api/v1/keys/rotate", json={"force": True}).status == 202
    assert served.agent.keys.ordered == [True]
    assert refused(client, "POST", "/api/v1/keys/rotate", json={"force": "yes"}).status == 400


def test_the_doctor_answers(client: Client) -> None:
    told = client.get("/api/v1/doctor")
    assert told["matrix"]["rows"] == [["-", "stream"], ["udp", "-"]]


def test_a_member_says_why_and_which_ways_work(client: Client) -> None:
    bob = client.get("/api/v1/members/bob")
    assert bob["reason"] == "did not answer"
    assert bob["paths"]["udp_in_s"] == 1.25
    assert bob["paths"]["udp_out_s"] is None
    assert bob["paths"]["udp_blocked"] is True
    assert client.get("/api/v1/members/ada")["paths"] is None


def test_words_for_how_many_owners(served: Served, client: Client) -> None:
    for word, number in (("one", 1), ("quorum", None), ("all", ALL)):
        client.request("PUT", "/api/v1/kv/k", body=b"v", query={"w": word})
        client.request("GET", "/api/v1/kv/k", query={"r": word})
        put, get = served.agent.kv.asked[-2:]
        assert put["w"] == number
        assert get["r"] == number


def test_a_conditional_put(served: Served, client: Client) -> None:
    put: dict[str, Any] = {"body": b"v", "query": {"if_absent": True}}
    assert client.request("PUT", "/api/v1/kv/k", **put).status == 200
    assert served.agent.kv.asked[-1]["if_unchanged"]
    assert refused(client, "PUT", "/api/v1/kv/k", **put).status == 409
    headers = {"Covey-Context": "YWJj"}
    for query in ({"if_context": True}, {"if_absent": True, "if_context": True}):
        assert refused(client, "PUT", "/api/v1/kv/k", body=b"", query=query).status == 400
    asked: dict[str, Any] = {"body": b"", "query": {"if_absent": True}, "headers": headers}
    assert refused(client, "PUT", "/api/v1/kv/k", **asked).status == 400
    asked["query"] = {"if_context": True}
    assert client.request("PUT", "/api/v1/kv/k", **asked).status == 200
    assert served.agent.kv.asked[-1]["context"] == b"abc"


@pytest.mark.parametrize(
    ("body", "change"),
    [
        ({"type": "counter"}, CounterUpdate(1)),
        ({"type": "counter", "by": -3}, CounterUpdate(-3)),
        ({"type": "set", "add": "ada"}, SetUpdate("ada")),
        ({"type": "set", "remove": "ada"}, SetUpdate("ada", removes=True)),
        ({"type": "map", "field": "f", "value": "v"}, MapUpdate("f", "v")),
        ({"type": "map", "field": "f", "value": None}, MapUpdate("f", None)),
        ({"type": "max", "number": 3}, LimitUpdate(3, "max")),
        ({"type": "min", "number": 2.5}, LimitUpdate(2.5, "min")),
    ],
)
def test_an_update(served: Served, client: Client, body: dict[str, Any], change: Change) -> None:
    answer = client.request("POST", "/api/v1/kv/k", json=body, query={"w": "all"})
    assert answer.json()["outcome"] == "ok"
    assert served.agent.kv.asked == [{"change": change, "w": ALL, "timeout_s": 5.0}]


@pytest.mark.parametrize(
    "body",
    [
        {}, {"type": "list"}, {"type": ["set"]}, {"type": "counter", "by": 1.5},
        {"type": "counter", "by": True}, {"type": "counter", "add": "x"}, {"type": "set"},
        {"type": "set", "add": "a", "remove": "b"}, {"type": "set", "add": 5},
        {"type": "map", "field": "f"}, {"type": "map", "value": "v"}, {"type": "max"},
        {"type": "min", "number": "3"}, {"type": "max", "number": 3, "by": 1}, {"typ": "set"},
    ],
)  # fmt: skip
def test_updates_that_are_none(client: Client, body: dict[str, Any]) -> None:
    assert refused(client, "POST", "/api/v1/kv/k", json=body).status == 400


def test_a_typed_value_is_shown_as_what_it_is(served: Served, client: Client) -> None:
    served.agent.kv.values["k"] = [b'["ada", "bob"]']
    served.agent.kv.types["k"] = "set"
    answer = client.request("GET", "/api/v1/kv/k")
    assert (answer.body, answer.headers["covey-type"]) == (b'["ada", "bob"]', "set")
    (entry,) = client.get("/api/v1/kv")["entries"]
    shown = {name: entry["values"][0][name] for name in ("value", "type")}
    assert shown == {"value": ["ada", "bob"], "type": "set"}
