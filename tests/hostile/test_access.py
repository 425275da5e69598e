"""Who asks for what is not theirs: refused, counted and logged, at each socket of the API."""

import asyncio
import http.client
import json
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.access.access_tokens import (
    AccessTerms,
    digest_of,
    encode_record,
    make_record,
)
from agent.access.audit import AuditLog
from agent.access.caller import local_caller
from agent.access.repeated_refusals import KINDS_MAX
from agent.access.rights import OF_ROLE, Right, Role
from agent.api.refusals import Attempt, Refusals
from agent.api.route_rights import AUDITED, AUDITED_RIGHTS, RIGHTS
from agent.config.fleet_layer import WHERE_SECRETS_GO
from agent.config.settings import ApiSettings
from agent.exits import AgentError
from edge_apps.client import ApiError, Client
from gossip.control.bounds import OPERATIONS_MAX
from gossip.control.fleet_settings import ACCESS_PREFIX
from gossip.control.transactions import DeleteKey, PutKey
from gossip.core.errors import InvalidRequest
from gossip.core.ids import format_node_id
from tests.support.fake_agent import ME, OTHER, Served, serving
from tests.support.patience import GIVE_UP_S

HERE = local_caller(0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


class Remote:
    """Somebody at the API on TCP."""

    def __init__(self, served: Served, port: int) -> None:
        self.served, self.port = served, port

    def token(self, name: str, role: Role, *prefixes: str, node: str = "") -> str:
        """Make a token, and return when this agent knows it."""
        terms = AccessTerms(name, role, prefixes, node)
        secret, _ = self.served.call(self.served.agent.access.create(terms, HERE))
        self.served.call(self.served.settle())
        return str(secret)

    def ask(
        self, token: str | None, method: str, path: str, body: Any = None
    ) -> tuple[int, Mapping[str, Any]]:
        """Make a request; return the status, and the error if it is one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=GIVE_UP_S)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body)
        connection.request(method, path, sent, headers)
        answer = connection.getresponse()
        data = answer.read() if answer.status >= 400 else b"{}"
        connection.close()
        return answer.status, json.loads(data).get("error", {})

    def refused(self, label: str) -> int:
        """Return how many were refused for this reason."""
        return self.served.agent.metrics.counts()[f"api_refusals/{label}"]


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    port = free_port()
    with serving(tmp_path, ApiSettings(listen=f"127.0.0.1:{port}")) as served:
        yield Remote(served, port)


def filled(path: str) -> str:
    return re.sub(r"\{\w+(?::key)?\}", "x", path)


# ---- the table ----------------------------------------------------------------------------------


def test_what_changes_something_asks_for_more_than_to_read() -> None:
    """Where devices are let in, and access is given, also what is only read."""
    idle = {Right.READ, Right.INSPECT, Right.METRICS}
    changing = {route for route, right in RIGHTS.items() if route[0] != "GET" and right in idle}
    assert changing == {("POST", "/api/v1/watch")}, "it only takes a token longer than a header"
    assert OF_ROLE[Role.READER] == idle
    guarded = {path.split("/")[3] for (_, path), right in RIGHTS.items() if right is Right.ADMIT}
    assert guarded == {
        "backup",
        "init",
        "join",
        "leave",
        "members",
        "recovery",
        "registry",
        "snapshot",
        "tokens",
        "voters",
    }


@pytest.mark.parametrize("role", list(Role))
def test_a_token_opens_what_its_role_has_and_nothing_else(remote: Remote, role: Role) -> None:
    """Also where what is asked is not there, or makes no sense: rights come first."""
    node = format_node_id(ME) if role is Role.NODE else ""
    token = remote.token("one", role, node=node)
    closed = [route for route, right in RIGHTS.items() if right not in OF_ROLE[role]]
    for method, path in closed:
        status, error = remote.ask(token, method, filled(path))
        assert (status, error.get("code")) == (403, "not-permitted"), (method, path)
        assert "the right" in error["message"]
    assert remote.refused("right") == len(closed)
    if Right.READ in OF_ROLE[role]:
        assert remote.ask(token, "GET", "/api/v1/members")[0] == 200
    if Right.PUBLISH in OF_ROLE[role]:
        assert remote.ask(token, "POST", "/api/v1/write", b"t v=1")[0] == 200


# ---- tokens that are none -----------------------------------------------------------------------


def test_without_a_token_with_a_wrong_one_with_one_that_was_revoked(
    remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    token = remote.token("grafana", Role.READER)
    assert remote.ask(token, "GET", "/api/v1/status")[0] == 200
    assert remote.ask(None, "GET", "/api/v1/status")[0] == 401
    assert remote.ask(token + "x", "GET", "/api/v1/status")[0] == 401
    access = remote.served.agent.access
    assert remote.served.call(access.revoke("grafana"))
    remote.served.call(remote.served.settle())
    assert remote.ask(token, "GET", "/api/v1/status")[0] == 401
    assert not remote.served.call(access.revoke("grafana"))
    assert (remote.refused("no_token"), remote.refused("unknown_token")) == (1, 2)
    assert "from 127.0.0.1" in caplog.text
    assert token not in caplog.text


def test_a_reader_s_token_on_a_write_is_refused_counted_and_logged(
    remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    token = remote.token("grafana", Role.READER)
    status, error = remote.ask(token, "PUT", "/api/v1/kv/lamp", b"on")
    assert (status, error["code"]) == (403, "not-permitted")
    assert "`write`" in error["message"]
    assert remote.served.agent.kv.values == {}
    assert remote.refused("right") == 1
    assert "'PUT /api/v1/kv/lamp' of token grafana" in caplog.text


def test_a_token_ends_and_a_clock_that_was_set_back_revives_none(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = remote.token("brief", Role.READER)
    begun = time.time()
    for now, status, label in (
        (begun, 200, ""),
        (begun + 91 * 86400, 401, "expired"),
        (begun - 2 * 86400, 401, "clock"),
        (0.0, 401, "clock"),
    ):
        monkeypatch.setattr("agent.access.access.time.time", lambda now=now: now)
        assert remote.ask(token, "GET", "/api/v1/status")[0] == status, label
    assert (remote.refused("expired"), remote.refused("clock")) == (1, 2)


# ---- what a reader can ask ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["facts?name", "events?name", "queries?name", "readings?sensor"])
@pytest.mark.parametrize("globs", [["x"] * 65, ["*a" * 2049], ["*a" * 1500, "b" * 1500]])
def test_globs_are_bounded(remote: Remote, path: str, globs: list[str]) -> None:
    """Each is compiled in the agent's one loop, and tried on everything."""
    _, _, name = path.partition("?")
    asked = f"/api/v1/{path}=" + f"&{name}=".join(globs)
    status, error = remote.ask(remote.token("ops", Role.OPERATOR), "GET", asked)
    assert status == 400
    assert "at most 64 globs" in error["message"]


# ---- what is under way when a token ends --------------------------------------------------------

STREAMS = [
    "/api/v1/changes?prefix=",
    "/api/v1/watch?prefix=",
    "/api/v1/audit?follow=1",
]


class Reader:
    """Somebody who reads a stream on TCP."""

    def __init__(self, remote: Remote, token: str, path: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", remote.port, timeout=GIVE_UP_S)
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, path

    def rest(self) -> list[dict[str, Any]]:
        """Return all lines that still come, once the other side ends it."""
        lines = [json.loads(each) for each in self.answer.read().splitlines()]
        self.connection.close()
        return lines


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_ends_with_its_token(remote: Remote, path: str) -> None:
    """Also where another token has its name by then; and one of another token goes on."""
    spy, other = remote.token("spy", Role.ADMIN), remote.token("other", Role.ADMIN)
    of_spy, of_other = Reader(remote, spy, path), Reader(remote, other, path)
    remote.served.call(remote.served.agent.access.revoke("spy"))
    remote.token("spy", Role.READER)
    assert of_spy.rest()[-1]["error"]["code"] == "unauthorized"
    assert remote.refused("ended") == 1
    remote.served.call(remote.served.agent.access.revoke("other"))
    remote.served.call(remote.served.settle())
    assert of_other.rest()[-1]["error"]["code"] == "unauthorized"


def test_a_stream_ends_when_its_token_expires(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = remote.token("short", Role.READER)
    _, record = remote.served.agent.access._tokens[digest_of(token.encode())]
    monkeypatch.setattr(time, "time", lambda: record.expires_at - 0.5)
    [told] = Reader(remote, token, "/api/v1/changes?prefix=").rest()
    assert told["error"]["code"] == "unauthorized"


def test_who_waits_for_a_lock_gets_none_once_its_token_is_revoked(remote: Remote) -> None:
    token, held = remote.token("waiter", Role.OPERATOR), remote.token("holder", Role.OPERATOR)
    sessions = {}
    for each in (held, token):
        connection = http.client.HTTPConnection("127.0.0.1", remote.port, timeout=GIVE_UP_S)
        connection.request("POST", "/api/v1/sessions", "{}", {"Authorization": f"Bearer {each}"})
        sessions[each] = json.loads(connection.getresponse().read())["session"]
        connection.close()
    body = {"session": sessions[held]}
    assert remote.ask(held, "PUT", "/api/v1/locks/door", body)[0] == 200
    waiting = http.client.HTTPConnection("127.0.0.1", remote.port, timeout=GIVE_UP_S)
    body = {"session": sessions[token], "wait_s": 60}
    bearer = {"Authorization": f"Bearer {token}"}
    waiting.request("PUT", "/api/v1/locks/door", json.dumps(body), bearer)
    while digest_of(token.encode()) not in remote.served.agent.access._open._of:
        time.sleep(0.01)
    remote.served.call(remote.served.agent.access.revoke("waiter"))
    answer = waiting.getresponse()
    assert answer.status == 401
    assert "while this was under way" in json.loads(answer.read())["error"]["message"]


def test_who_revokes_its_own_token_is_told_that_it_is(remote: Remote) -> None:
    token = remote.token("own", Role.ADMIN)
    assert remote.ask(token, "DELETE", "/api/v1/access/own")[0] == 200
    assert remote.ask(token, "GET", "/api/v1/members")[0] == 401


def test_a_node_s_own_token_is_good_at_that_node_alone(remote: Remote) -> None:
    mine = remote.token("ada-own", Role.NODE, node=format_node_id(ME))
    other = remote.token("bob-own", Role.NODE, node=format_node_id(OTHER))
    assert remote.ask(mine, "POST", "/api/v1/wake", {})[0] == 200
    assert remote.ask(other, "POST", "/api/v1/wake", {})[0] == 401
    assert remote.refused("other_node") == 1


def test_a_record_that_this_version_does_not_understand_opens_nothing(remote: Remote) -> None:
    """A field that is unknown here may be a restriction that is unknown here."""
    terms = AccessTerms("new", Role.ADMIN)
    good = make_record("covey_secret", terms, "me", time.time())
    fields: dict[str, Any] = msgspec.to_builtins(good)
    agreement = remote.served.agent.agreement
    records: list[Any] = [
        {**fields, "only_on": "mondays"},
        {**fields, "version": 2},
        {},
        [],
        "\x00",
    ]
    for record in records:
        put = PutKey(f"{ACCESS_PREFIX}new", msgspec.json.encode(record))
        remote.served.call(agreement.transact((), (put,)))
        remote.served.call(remote.served.settle())
        assert remote.ask("covey_secret", "GET", "/api/v1/status")[0] == 401
        assert remote.served.call(remote.served.agent.access.listed()).strange == 1
    put = PutKey(f"{ACCESS_PREFIX}new", encode_record(good))
    remote.served.call(agreement.transact((), (put,)))
    remote.served.call(remote.served.settle())
    assert remote.ask("covey_secret", "GET", "/api/v1/status")[0] == 200


def test_an_administrator_s_token_is_not_heard_in_the_clear_from_elsewhere(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = remote.token("root", Role.ADMIN)
    assert remote.ask(token, "GET", "/api/v1/tokens")[0] == 200, "from the device itself"
    monkeypatch.setattr("agent.api.gates._is_secret", lambda _scope: False)
    status, error = remote.ask(token, "GET", "/api/v1/tokens")
    assert status == 403
    assert "without TLS" in error["message"]
    assert remote.ask(token, "GET", "/api/v1/status")[0] == 200


# ---- names --------------------------------------------------------------------------------------


def put_in(key: str) -> dict[str, str]:
    return {"op": "put", "key": key, "value": "x"}


def test_a_token_for_some_keys_has_those_alone(remote: Remote) -> None:
    token = remote.token("attic", Role.OPERATOR, "rooms/attic/", "shared/")
    for method, path, body, expected in (
        ("PUT", "/api/v1/kv/rooms/attic/lamp", b"on", 200),
        ("PUT", "/api/v1/kv/shared/x", b"on", 200),
        ("PUT", "/api/v1/kv/rooms/cellar/lamp", b"on", 403),
        ("DELETE", "/api/v1/kv/rooms/attic", None, 403),
        ("GET", "/api/v1/kv/rooms/cellar/lamp", None, 403),
        ("GET", "/api/v1/kv", None, 403),
        ("GET", "/api/v1/kv?prefix=rooms/attic/", None, 200),
        ("GET", "/api/v1/kv?prefix=rooms/", None, 403),
        ("GET", "/api/v1/watch?prefix=rooms/", None, 403),
        ("GET", "/api/v1/watch?key=lamp", None, 403),
        ("GET", "/api/v1/changes?prefix=", None, 403),
        ("GET", "/api/v1/control?prefix=shared/", None, 200),
        ("GET", "/api/v1/control/lamp", None, 403),
        ("GET", "/api/v1/locks?prefix=shared/", None, 200),
        ("GET", "/api/v1/locks", None, 403),
        ("POST", "/api/v1/txn", {"then": [{"put": "shared/a", "value": "1"}]}, 200),
        ("POST", "/api/v1/txn", {"then": [{"put": "other/a", "value": "1"}]}, 403),
        ("POST", "/api/v1/txn", {"else": [{"get": "other/a"}]}, 403),
        ("POST", "/api/v1/kv/batch", {"operations": [put_in("shared/y"), put_in("other/y")]}, 403),
        ("POST", "/api/v1/kv/batch", {"operations": [put_in("shared/x")]}, 200),
        ("POST", "/api/v1/kv/batch", {"type": "counter"}, 403),
        ("POST", "/api/v1/settings", {"setting": "log.level", "value": "info"}, 403),
        ("POST", "/api/v1/keys/rotate", {}, 403),
    ):
        assert remote.ask(token, method, path, body)[0] == expected, (method, path, body)
    assert set(remote.served.agent.kv.values) == {"rooms/attic/lamp", "shared/x"}


def test_a_token_for_some_keys_has_its_own_sessions_alone(remote: Remote) -> None:
    token = remote.token("attic", Role.OPERATOR, "rooms/attic/")
    local = Client(remote.served.paths.socket, timeout_s=GIVE_UP_S)
    session = local.post("/api/v1/sessions", {"ttl_s": 60})["session"]
    assert remote.ask(token, "PUT", f"/api/v1/sessions/{session}")[0] == 403
    assert remote.ask(token, "DELETE", f"/api/v1/sessions/{session}")[0] == 403
    lock = {"session": session}
    assert remote.ask(token, "PUT", "/api/v1/locks/rooms/attic/door", lock)[0] == 403


def test_the_sessions_of_a_token_for_some_keys_end_with_it(remote: Remote) -> None:
    token = remote.token("attic", Role.OPERATOR, "rooms/attic/")
    local = Client(remote.served.paths.socket, timeout_s=GIVE_UP_S)
    other = local.post("/api/v1/sessions", {"ttl_s": 60})["session"]
    for _ in range(3):
        assert remote.ask(token, "POST", "/api/v1/sessions", {"ttl_s": 86_400})[0] == 200
    assert len(local.get("/api/v1/sessions")["sessions"]) == 4
    local.request("DELETE", "/api/v1/access/attic")
    assert [each["session"] for each in local.get("/api/v1/sessions")["sessions"]] == [other]


def test_a_token_is_not_the_one_that_had_its_name_before(remote: Remote) -> None:
    """Its sessions are not the new one's, and they end though they did not when it was revoked."""
    served, local = remote.served, Client(remote.served.paths.socket, timeout_s=GIVE_UP_S)

    def labelled() -> dict[str, str]:
        return {
            each["label"]: each["session"] for each in local.get("/api/v1/sessions")["sessions"]
        }

    first = remote.token("attic", Role.OPERATOR, "rooms/attic/")
    assert remote.ask(first, "POST", "/api/v1/sessions", {"ttl_s": 60})[0] == 200
    former = labelled()
    record = DeleteKey(f"{ACCESS_PREFIX}attic")
    served.call(served.agent.agreement.transact((), (record,)))
    second = remote.token("attic", Role.OPERATOR, "rooms/attic/")
    (session,) = former.values()
    lock = {"session": session, "wait_s": 0}
    assert remote.ask(second, "PUT", f"/api/v1/sessions/{session}")[0] == 403
    assert remote.ask(second, "PUT", "/api/v1/locks/rooms/attic/door", lock)[0] == 403
    assert remote.ask(second, "DELETE", f"/api/v1/sessions/{session}")[0] == 403
    assert remote.ask(second, "POST", "/api/v1/sessions", {"ttl_s": 60})[0] == 200
    served.call(served.agent.access._close_sessions_of("attic"))
    assert len(labelled()) == 1
    assert not labelled().keys() & former.keys(), "who has the name now keeps its own"
    local.request("DELETE", "/api/v1/access/attic")
    assert not labelled()


@pytest.mark.parametrize(
    "operation",
    [
        {"put": "covey/access/me", "value": "{}"},
        {"put": "covey/settings/all/log.level", "value": "debug"},
        {"delete": "covey/access/me"},
        {"delete_prefix": "covey/access/"},
        {"delete_prefix": "covey/"},
        {"delete_prefix": "covey"},
        {"delete_prefix": "c"},
    ],
)
def test_nobody_writes_reserved_keys_whatever_their_rights(
    remote: Remote, operation: Mapping[str, str]
) -> None:
    token = remote.token("root", Role.ADMIN)
    local = Client(remote.served.paths.socket, timeout_s=GIVE_UP_S)
    for branch in ("then", "else"):
        body = {branch: [operation]}
        assert remote.ask(token, "POST", "/api/v1/txn", body)[0] == 403, body
        with pytest.raises(ApiError, match="Covey's own"):
            local.post("/api/v1/txn", body)
    assert remote.ask(token, "GET", "/api/v1/access")[0] == 200, "it is still good"


# ---- what no token can be -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "terms",
    [
        AccessTerms("", Role.READER),
        AccessTerms("a b", Role.READER),
        AccessTerms("../x", Role.READER),
        AccessTerms("a", Role.READER, ttl_s=1.0),
        AccessTerms("a", Role.READER, ttl_s=367 * 86400.0),
        AccessTerms("a", Role.READER, ttl_s=float("nan")),
        AccessTerms("a", Role.NODE),
        AccessTerms("a", Role.READER, node="00000000000000a1"),
        AccessTerms("a", Role.ADMIN, ("x/",)),
        AccessTerms("a", Role.PUBLISHER, ("x/",)),
        AccessTerms("a", Role.READER, ("",)),
        AccessTerms("a", Role.READER, ("x" * 257,)),
        AccessTerms("a", Role.READER, tuple("abcdefghi")),
    ],
    ids=repr,
)
def test_what_no_token_can_be_is_refused(terms: AccessTerms) -> None:
    with pytest.raises(InvalidRequest):
        terms.check()


def test_names_are_taken_once_and_tokens_are_bounded(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.access.access.TOKENS_MAX", 2)
    remote.token("one", Role.READER)
    with pytest.raises(AgentError, match="already"):
        remote.token("one", Role.ADMIN)
    remote.token("two", Role.READER)
    with pytest.raises(AgentError, match="there are 2"):
        remote.token("three", Role.READER)


def test_a_token_is_kept_nowhere(remote: Remote) -> None:
    token = remote.token("one", Role.READER)
    _, entries = remote.served.call(remote.served.agent.agreement.all_under(""))
    assert entries
    assert not [entry for entry in entries if token.removeprefix("covey_").encode() in entry.value]
    local = Client(remote.served.paths.socket, timeout_s=GIVE_UP_S)
    assert token.removeprefix("covey_") not in json.dumps(local.get("/api/v1/access"))


# ---- the audit log ------------------------------------------------------------------------------


def audited(remote: Remote, query: str = "") -> list[dict[str, Any]]:
    local = Client(remote.served.paths.socket, timeout_s=GIVE_UP_S)
    found: list[dict[str, Any]] = local.get(f"/api/v1/audit{query}")["entries"]
    return found


def test_a_change_is_written_down_with_who_from_where_what_and_what_came_of_it(
    remote: Remote,
) -> None:
    local = Client(remote.served.paths.socket, timeout_s=GIVE_UP_S)
    made = local.post("/api/v1/access", {"name": "ops", "role": "operator"})
    remote.served.call(remote.served.settle())
    body = {"setting": "log.level", "value": "debug"}
    assert remote.ask(made["token"], "POST", "/api/v1/settings", body)[0] == 200
    assert remote.ask(made["token"], "POST", "/api/v1/settings", {"setting": "no.such"})[0] >= 400
    put = {"then": [{"put": "lamp", "value": "a secret"}]}
    assert remote.ask(made["token"], "POST", "/api/v1/txn", put)[0] == 200
    with pytest.raises(ApiError):
        local.request("DELETE", f"/api/v1/tokens/{made['token']}")
    told = [
        (e["who"].split(" (")[0], e["from"], e["action"], e["detail"], e["outcome"])
        for e in audited(remote)
    ]
    uid = f"uid {os.getuid()}"
    assert told == [
        (uid, "here", "POST /api/v1/access", "ops operator", "ok"),
        ("token ops", "127.0.0.1", "POST /api/v1/settings", "log.level for all", "ok"),
        ("token ops", "127.0.0.1", "POST /api/v1/settings", "no.such for all", "not-found"),
        ("token ops", "127.0.0.1", "POST /api/v1/txn", '"lamp"', "ok"),
        (uid, "here", "DELETE /api/v1/tokens/(token)", "", "not-found"),
    ]
    kept = json.dumps(audited(remote))
    assert "a secret" not in kept
    assert made["token"].removeprefix("covey_") not in kept


def test_no_name_hides_behind_the_others_of_its_transaction(remote: Remote) -> None:
    local = Client(remote.served.paths.socket, timeout_s=GIVE_UP_S)
    dummies = [{"delete": f"{number:03}{'z' * 500}"} for number in range(OPERATIONS_MAX)]
    body = {"then": [*dummies[:-2], {"put": 'a" "b', "value": "1"}, {"put": "door", "value": "1"}]}
    local.post("/api/v1/txn", {**body, "else": dummies})
    [told] = audited(remote)
    assert told["detail"].count('"000zz') == 1, "each once"
    assert '"a\\" \\"b" "door" ' in told["detail"]
    assert told["detail"].endswith(f'"127{"z" * 29}…{"z" * 16}"')


def test_who_takes_all_values_along_is_written_down(remote: Remote) -> None:
    token = remote.token("backup", Role.ADMIN)
    assert remote.ask(token, "GET", "/api/v1/snapshot")[0] == 200
    assert [each["action"] for each in audited(remote)] == ["GET /api/v1/snapshot"]


@pytest.mark.parametrize("name", sorted(WHERE_SECRETS_GO))
def test_where_devices_show_their_passwords_an_administrator_says(
    remote: Remote, name: str
) -> None:
    body = {
        "setting": name,
        "value": {"uplink.host": "evil", "uplink.port": "1"}.get(name, "false"),
    }
    status, error = remote.ask(remote.token("ops", Role.OPERATOR), "POST", "/api/v1/settings", body)
    assert (status, error["code"]) == (403, "not-permitted")
    assert remote.refused("right") == 1
    assert remote.ask(remote.token("root", Role.ADMIN), "POST", "/api/v1/settings", body)[0] == 200


def test_what_is_refused_is_written_down_and_a_flood_of_it_in_two_lines(remote: Remote) -> None:
    reader = remote.token("grafana", Role.READER)
    for _ in range(20):
        assert remote.ask(None, "GET", "/api/v1/status")[0] == 401
    assert remote.ask(reader, "POST", "/api/v1/txn", {})[0] == 403
    told = [(e["who"].split(" (")[0], e["outcome"], e["times"]) for e in audited(remote)]
    assert told == [
        ("nobody", "no_token", 1),
        ("token grafana", "right", 1),
        ("nobody", "no_token", 19),
    ]
    assert all(entry["refused"] for entry in audited(remote))


def test_from_many_places_a_flood_is_bounded_too(tmp_path: Path) -> None:
    audit = AuditLog()
    counts: Counter[str] = Counter()

    async def flood() -> None:
        refusals = Refusals(counts, audit)
        await audit.open(tmp_path / "audit.db")
        for number in range(1000):
            source = f"10.0.{number // 250}.{number % 250}"
            refusals.record("no_token", Attempt("nobody", source, "GET", "/"), "no")
        found = await audit.entries(limit=1000)
        assert len(found) <= KINDS_MAX + 2
        assert sum(entry.times for entry in found) == 1000
        await audit.close()

    asyncio.run(flood())
    assert counts["api_refusals/no_token"] == 1000


def test_the_audit_log_is_for_administrators(remote: Remote) -> None:
    operator = remote.token("ops", Role.OPERATOR)
    assert remote.ask(operator, "GET", "/api/v1/audit")[0] == 403
    assert remote.ask(remote.token("root", Role.ADMIN), "GET", "/api/v1/audit")[0] == 200


def test_each_change_is_written_down() -> None:
    """Whatever a role below the operator's may not do, and is not only looked at."""
    high = AUDITED_RIGHTS
    assert {each for each in RIGHTS if RIGHTS[each] in high and each[0] != "GET"} <= AUDITED
    assert {each for each in AUDITED if each[0] == "GET"} == {("GET", "/api/v1/snapshot")}
    assert set(RIGHTS) >= AUDITED
