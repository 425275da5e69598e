"""Transactions, locks, sessions and settings over HTTP, on a real control plane of one voter."""

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from agent.exits import AgentError
from agent.loop.bounded_queue import WAITING_MAX
from agent.runtime.control_requests import CHANGES_WAITING_BYTES_MAX
from edge_apps.agreement import AgentAgreement, Compare, Delete, Get, Put
from edge_apps.barriers import Barrier
from edge_apps.client import ApiError, Client
from edge_apps.locks import Lock, NotHeld, boot_time_s
from gossip.control.bounds import HISTORY_CHANGES_MAX, OPERATIONS_MAX, VALUE_BYTES_MAX
from gossip.control.messages import OverviewAnswer
from gossip.control.transactions import PutKey
from gossip.control.watchers import ControlWatch
from tests.support.fake_agent import Served, serving
from tests.support.patience import GIVE_UP_S

PAST = WAITING_MAX + 100
"""More changes than may wait for a reader who watches from now on."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("agreement")) as served:
        served.agent.app_keys = {"k1": "scale", "k2": "pump"}
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Client:
    return Client(served.paths.socket)


def app(served: Served, key: str = "k1") -> Client:
    return Client(served.paths.app_door, token=key)


def refused(client: Client, method: str, path: str, **more: Any) -> ApiError:
    with pytest.raises(ApiError) as refusal:
        client.request(method, path, **more)
    return refusal.value


def opened(client: Client, **wish: Any) -> str:
    session: str = client.post("/api/v1/sessions", wish)["session"]
    return session


def later(served: Served, seconds: float) -> None:
    async def pass_on() -> None:
        served.agent.solo.later(seconds)

    served.call(pass_on())


def test_a_transaction_is_done_whole_and_read_again(client: Client) -> None:
    asked = {
        "compare": [{"key": "t/a", "field": "version", "operand": 0}],
        "then": [{"put": "t/a", "value": "1"}, {"put": "t/b", "value_base64": "/w=="}],
        "else": [{"get": "t/a"}],
    }
    first, second = client.post("/api/v1/txn", asked), client.post("/api/v1/txn", asked)
    assert (first["succeeded"], first["results"]) == (True, [{"version": 1}, {"version": 1}])
    assert not second["succeeded"]
    assert second["results"][0]["entries"][0]["value"] == "1"
    page = client.get("/api/v1/control", prefix="t/")
    assert [each["key"] for each in page["entries"]] == ["t/a", "t/b"]
    assert page["entries"][1]["value_base64"] == "/w=="
    assert client.get("/api/v1/control/t/a", stale=True)["modified"] == first["revision"]
    assert refused(client, "GET", "/api/v1/control/t/none").code == "not-found"


@pytest.mark.parametrize(
    "asked",
    [
        {"compare": [{"key": "a", "field": "size"}]},
        {"compare": [{"key": "a", "relation": "~", "operand": "x"}]},
        {"compare": [{"key": "a", "field": "version", "operand": "x"}]},
        {"compare": [{"key": "a", "operand": "x", "operand_base64": "eA=="}]},
        {"then": [{"put": "a", "value_base64": "?"}]},
        {"then": [{"put": "a", "get": "a"}]},
        {"then": [{"put": "a", "value": 1}]},
        {"then": [{"get": "a", "limit": 1}]},
        {"then": "put"},
        {"then": [{"range": "a", "limit": 0}]},
    ],
)
def test_what_is_not_understood_is_refused(client: Client, asked: dict[str, Any]) -> None:
    assert refused(client, "POST", "/api/v1/txn", json=asked).status == 400


def test_keys_of_covey_itself_are_not_written_by_transactions(client: Client) -> None:
    for operation in (
        {"put": "covey/x", "value": ""},
        {"delete": "covey/x"},
        {"delete_prefix": "c"},
    ):
        error = refused(client, "POST", "/api/v1/txn", json={"then": [operation]})
        assert error.code == "not-permitted", operation


def test_a_lock_goes_from_holder_to_holder_with_a_larger_token(client: Client) -> None:
    one, other = opened(client), opened(client)
    first = client.request("PUT", "/api/v1/locks/door/a", json={"session": one}).json()
    assert first["token"] > 0
    taken = client.request("PUT", "/api/v1/locks/door/a", json={"session": other}).json()
    assert (taken["token"], taken["position"]) == (0, 0), "it did not wish to wait"
    wish = {"session": other, "wait_s": 0.05, "value": "me"}
    waits = client.request("PUT", "/api/v1/locks/door/a", json=wish).json()
    assert (waits["token"], waits["position"]) == (0, 1)
    assert client.request(
        "PATCH", "/api/v1/locks/door/a", json={"session": one, "value": "busy"}
    ).json() == {"name": "door/a", "token": first["token"]}
    shown = client.get("/api/v1/locks/door/a")
    assert (shown["holders"][0]["value"], shown["waiters"][0]["value"]) == ("busy", "me")
    let_go = client.request("DELETE", "/api/v1/locks/door/a", query={"session": one})
    assert let_go.json()["held"]
    second = client.request("PUT", "/api/v1/locks/door/a", json=wish).json()
    assert second["token"] > first["token"]
    assert [each["name"] for each in client.get("/api/v1/locks", prefix="door")["locks"]] == [
        "door/a"
    ]
    assert client.request("DELETE", f"/api/v1/sessions/{other}").json() == {"ended": True}
    assert client.get("/api/v1/locks/door/a")["holders"] == []


def test_a_session_is_there_as_long_as_it_is_renewed(served: Served, client: Client) -> None:
    answer = client.post("/api/v1/sessions", {"ttl_s": 6, "lock_delay_s": 0, "label": "tried"})
    session = answer["session"]
    assert answer["sure_for_s"] == pytest.approx(5.4)
    assert "tried" in [each["label"] for each in client.get("/api/v1/sessions")["sessions"]]
    for _ in range(3):
        later(served, 3.0)
        renewed = client.request("PUT", f"/api/v1/sessions/{session}").json()
        assert renewed["sure_for_s"] == pytest.approx(5.4)
    for _ in range(14):
        later(served, 0.5)
    assert refused(client, "PUT", f"/api/v1/sessions/{session}").code == "not-found"
    assert refused(client, "PUT", "/api/v1/sessions/zz").code == "usage"


def test_changes_are_told_by_revision_from_where_one_has_come(client: Client) -> None:
    first = client.post("/api/v1/txn", {"then": [{"put": "w/a", "value": "1"}]})["revision"]
    second = client.post("/api/v1/txn", {"then": [{"put": "w/b", "value": "2"}]})["revision"]
    stream = client.stream("/api/v1/changes", query={"prefix": "w/", "after": first - 1})
    told = [next(stream), next(stream)]
    assert [each["revision"] for each in told] == [first, second]
    assert [each["changes"][0]["key"] for each in told] == ["w/a", "w/b"]
    client.post("/api/v1/txn", {"then": [{"delete": "w/a"}]})
    assert next(stream)["changes"] == [{"kind": "delete", "key": "w/a"}]
    assert refused(client, "GET", "/api/v1/changes").status == 400
    assert refused(client, "GET", "/api/v1/changes", query={"name": "a", "kind": "x"}).status == 400


def test_settings_are_checked_before_anybody_has_to_take_them(client: Client) -> None:
    client.post("/api/v1/settings", {"setting": "log.level", "scope": "tag:a=b", "value": "debug"})
    [told] = client.get("/api/v1/settings")["settings"]
    assert (told["setting"], told["scope"], told["value"]) == ("log.level", "tag:a=b", "debug")
    for setting, scope, value in (
        ("log.level", "all", "loud"),
        ("log.levle", "all", "debug"),
        ("api.listen", "all", ":80"),
        ("log.level", "everybody", "debug"),
    ):
        wish = {"setting": setting, "scope": scope, "value": value}
        assert refused(client, "POST", "/api/v1/settings", json=wish).status == 400, wish
    back = {"setting": "log.level", "scope": "tag:a=b", "value": None}
    client.post("/api/v1/settings", back)
    assert refused(client, "POST", "/api/v1/settings", json=back).code == "not-found"


def test_what_is_not_remembered_any_more_is_said(client: Client) -> None:
    """More than the history holds is changed: who comes from before that gets no gap."""
    put = {"then": [{"put": f"many/{n}", "value": ""} for n in range(OPERATIONS_MAX)]}
    first = client.post("/api/v1/txn", put)["revision"]
    for _ in range(HISTORY_CHANGES_MAX // OPERATIONS_MAX + 1):
        last = client.post("/api/v1/txn", put)["revision"]
    query = {"prefix": "many/", "after": first}
    (told,) = client.stream("/api/v1/changes", query=query)
    assert first < told["compacted"] <= last
    query["after"] = told["compacted"]
    following = next(client.stream("/api/v1/changes", query=query))
    assert following["revision"] == told["compacted"] + 1, "and goes on without a gap"
    assert refused(client, "GET", "/api/v1/changes", query={"name": "a", "after": "x"})
    client.post("/api/v1/txn", {"then": [{"delete_prefix": "many/"}]})


def test_a_barrier_opens_with_the_last_and_is_over_with_the_last(client: Client) -> None:
    one, other, third = opened(client), opened(client), opened(client)
    path = "/api/v1/barriers/start"
    waits = client.request("PUT", path, json={"session": one, "count": 2, "wait_s": 0.05}).json()
    assert waits == {"name": "start", "count": 2, "open": False, "inside": [one]}
    other_count = refused(client, "PUT", path, json={"session": other, "count": 3})
    assert other_count.code == "usage"
    begun = client.request("PUT", path, json={"session": other, "count": 2}).json()
    assert (begun["open"], begun["inside"]) == (True, [one, other])
    again = client.request("PUT", path, json={"session": one, "count": 2}).json()
    assert again["open"], "asking again is safe"
    late = refused(client, "PUT", path, json={"session": third, "count": 2})
    assert (late.code, late.status) == ("unhealthy", 503)
    assert client.get("/api/v1/barriers")["barriers"] == [begun]
    left = client.request("DELETE", path, query={"session": one, "wait_s": 0.05}).json()
    assert (left["open"], left["inside"]) == (True, [other]), "the other one is inside still"
    over = client.request("DELETE", path, query={"session": other, "wait_s": 5}).json()
    assert over == {"name": "start", "count": None, "open": False, "inside": []}
    again = client.request("DELETE", path, query={"session": one}).json()
    assert not again["open"]
    for body in ({"session": one}, {"session": one, "count": True}, {"count": 2}):
        assert refused(client, "PUT", path, json=body).code == "usage"
    assert refused(client, "PUT", "/api/v1/barriers/", json={"session": one}).status == 404


def test_programs_begin_together_and_end_together(client: Client) -> None:
    began, ended = [], []

    def take_part(number: int) -> None:
        with Barrier(client, "race", 3, wait_s=20.0) as barrier:
            began.append(number)
            assert len(inside) == 3
            assert not barrier.lost
        ended.append(len(began))

    inside: list[int] = []
    threads = [threading.Thread(target=take_part, args=(n,)) for n in range(3)]
    for number, thread in enumerate(threads):
        inside.append(number)
        thread.start()
    for thread in threads:
        thread.join(GIVE_UP_S)
    assert sorted(began) == [0, 1, 2]
    assert ended == [3, 3, 3], "nobody ends before all have begun"
    with pytest.raises(NotHeld, match="1 of 2 have entered"):
        Barrier(client, "alone", 2, wait_s=0.1).enter()
    assert client.get("/api/v1/barriers")["barriers"] == [], "who gives up is out of it"


def test_who_goes_on_from_long_ago_gets_all_that_is_remembered(
    client: Client, served: Served
) -> None:
    first = client.post("/api/v1/txn", {"then": [{"put": "old/0", "value": "0"}]})["revision"]

    async def write_many() -> None:
        for number in range(1, PAST):
            key = f"old/{number}"
            await served.agent.agreement.transact((), (PutKey(key, b"x"),))

    served.call(write_many())
    stream = client.stream("/api/v1/changes", query={"prefix": "old/", "after": first - 1})
    assert [next(stream)["changes"][0]["key"] for _ in range(PAST)][-1] == f"old/{PAST - 1}"


def test_who_reads_nothing_holds_so_many_bytes_and_no_more(served: Served) -> None:
    """And what it did not get is counted."""

    async def test() -> None:
        agent = served.agent
        watch = agent.agreement._calls.watch(ControlWatch("heavy/", is_prefix=True))
        value = bytes(VALUE_BYTES_MAX)
        for _ in range(1 + CHANGES_WAITING_BYTES_MAX // VALUE_BYTES_MAX):
            await agent.agreement.transact((), (PutKey("heavy/a", value),))
        assert agent.solo.counts["events_dropped/watch_overrun"] == 1
        assert watch._waiting_bytes <= CHANGES_WAITING_BYTES_MAX
        with pytest.raises(AgentError, match="bytes of events"):
            async for _ in watch:
                pass

    served.call(test())


def test_a_watch_tells_how_a_barrier_is(client: Client) -> None:
    session = opened(client)
    revision = client.get("/api/v1/barriers")["revision"]
    client.request("PUT", "/api/v1/barriers/w", json={"session": session, "count": 1})
    query = {"name": "w", "kind": "barriers", "after": revision}
    (change,) = next(client.stream("/api/v1/changes", query=query))["changes"]
    assert change == {"kind": "barrier", "name": "w", "count": 1, "open": True, "inside": [session]}
    client.request("DELETE", f"/api/v1/sessions/{session}")


def test_voters_are_shown_with_what_the_leader_knows(client: Client) -> None:
    shown = client.get("/api/v1/voters")
    (ada,) = shown["voters"]
    assert (ada["lag"], ada["settled"], ada["fenced"]) == (0, True, False)
    assert ada["match"] == shown["commit"]
    assert (shown["wanted"], shown["changing"], shown["forks"]) == (1, False, [])
    refusal = refused(client, "POST", "/api/v1/voters", json={"old": "ada", "new": "bob"})
    assert refusal.code == "failed"
    assert "does not belong" in refusal.message, "the plane of this test knows nobody else"
    for body in ({"old": "ada"}, {"old": 1, "new": "bob"}):
        assert refused(client, "POST", "/api/v1/voters", json=body).code == "usage"
    unknown = refused(client, "POST", "/api/v1/voters", json={"old": "ada", "new": "eve"})
    assert unknown.code == "not-found"


def test_a_node_with_two_stores_is_shown_as_two(
    client: Client, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lost the log with which it votes, and learns with another."""
    told: OverviewAnswer = served.call(served.agent.voters.overview())
    (ada,) = told.members
    lost = msgspec.structs.replace(ada, store=5, silent_ms=60_000, is_fenced=True, match=1)
    learns = msgspec.structs.replace(lost, store=6, votes=False, silent_ms=0, is_fenced=False)

    async def overview() -> OverviewAnswer:
        return msgspec.structs.replace(told, members=(ada, learns, lost))

    monkeypatch.setattr(served.agent.voters, "overview", overview)
    shown = client.get("/api/v1/voters")["voters"]
    assert [(each["store"][-1], each["role"], each["fenced"]) for each in shown] == [
        (f"{ada.store:016x}"[-1], "leader", False), ("5", "voter", True), ("6", "learner", False),
    ]  # fmt: skip
    assert [each["heard_s_ago"] for each in shown] == [0, 60, 0]


def test_voters_are_shown(client: Client) -> None:
    shown = client.get("/api/v1/voters")
    assert (shown["role"], shown["leader"], shown["has_majority"]) == ("leader", "ada", True)
    assert [(each["name"], each["role"]) for each in shown["voters"]] == [("ada", "leader")]


def test_an_app_has_its_own_names_and_no_others(served: Served, client: Client) -> None:
    scale, pump = app(served), app(served, "k2")
    session = opened(scale)
    own = {"then": [{"put": "apps/scale/x", "value": "1", "session": session}]}
    assert scale.post("/api/v1/txn", own)["succeeded"]
    foreign = (
        ("POST", "/api/v1/txn", {"then": [{"put": "apps/pump/x", "value": ""}]}),
        ("POST", "/api/v1/txn", {"then": [{"get": "x"}]}),
        ("POST", "/api/v1/txn", {"then": [{"range": ""}]}),
        ("POST", "/api/v1/txn", {"compare": [{"key": "x", "field": "version", "operand": 0}]}),
        ("PUT", "/api/v1/locks/apps/pump/x", {"session": session}),
        ("PUT", "/api/v1/barriers/apps/pump/x", {"session": session, "count": 1}),
        ("POST", "/api/v1/settings", {"setting": "log.level", "value": "debug"}),
        ("POST", "/api/v1/voters", {"old": "ada", "new": "bob"}),
        ("POST", "/api/v1/recovery", {"generation": 1, "last": 1}),
    )
    for method, path, body in foreign:
        assert refused(scale, method, path, json=body).code == "not-permitted", (path, body)
    put = {"then": [{"put": "apps/pump/x", "value": "1", "session": session}]}
    assert refused(pump, "POST", "/api/v1/txn", json=put).code == "not-permitted"
    for method in ("PUT", "DELETE"):
        error = refused(pump, method, f"/api/v1/sessions/{session}")
        assert error.code == "not-permitted", "another app's session"
    assert refused(scale, "PUT", f"/api/v1/sessions/{opened(client)}").code == "not-permitted"
    assert [each["label"] for each in scale.get("/api/v1/sessions")["sessions"]] == ["app:scale"]
    assert scale.request("DELETE", f"/api/v1/sessions/{session}").json()["ended"]


def test_what_an_app_is_written_with(served: Served) -> None:
    scale = AgentAgreement(app(served), "apps/scale/")
    with scale.lock("belt", wait_s=0) as lock:
        assert lock.token > 0
        assert not lock.lost
        with pytest.raises(NotHeld) as refusal, scale.lock("belt", wait_s=0):
            pass
        assert refusal.value.is_taken
        holds = Compare("belt", "token", "=", lock.token)
        done = scale.transact([holds], [Put("log", b"\xff"), Get("log"), Get("", is_prefix=True)])
    assert lock.lost
    assert done.succeeded
    assert [(each.key, each.value) for each in done.read] == [("log", b"\xff")] * len(done.read)
    assert not scale.transact([holds], [Put("log", "x")]).succeeded, "the lock was let go"
    gone = scale.transact([Compare("log", "value", "=", b"\xff")], [Delete("log")])
    assert gone.succeeded


def test_a_lock_that_nobody_confirms_is_lost_by_its_own_clock(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Lock(Client(served.paths.socket), "clock", ttl_s=5)
    with lock:
        assert not lock.lost
        now = boot_time_s()
        monkeypatch.setattr("edge_apps.locks.boot_time_s", lambda: now + 4.6)
        assert lock.lost, "four and a half seconds are over, and nothing was heard"
