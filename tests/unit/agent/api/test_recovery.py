"""Copies, recovery and snapshots over HTTP, on a real control plane of one voter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.cluster.snapshot_file import read_snapshot, write_snapshot
from edge_apps.client import ApiError, Client
from gossip.control.recovery import SavedState, note_of, state_at_end
from gossip.core.ids import NodeId, format_cluster_id
from gossip.registry.node import ISSUER
from tests.support.fake_agent import CLUSTER, ME, OTHER, Served, serving
from tests.unit.agent.store.test_set_aside import saved_log, set_aside

COVEY = format_cluster_id(CLUSTER)


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("recovery")) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served.paths.socket)


def refused(client: Client, method: str, path: str, **more: Any) -> ApiError:
    with pytest.raises(ApiError) as refusal:
        client.request(method, path, **more)
    return refusal.value


def make_issuer(served: Served, node: NodeId) -> None:
    registry = served.agent.registry
    nodes = (
        msgspec.structs.replace(each, roles=(ISSUER,)) if each.id == node else each
        for each in registry.nodes
    )
    served.agent.registry = msgspec.structs.replace(registry, nodes=tuple(nodes))


def test_copies_are_shown_and_a_majority_is_never_recovered(served: Served, client: Client) -> None:
    shown = client.get("/api/v1/copies")
    assert (shown["majority"], shown["is_newest"], shown["lost"]) == (True, True, [])
    ada, bob = shown["copies"]
    assert (ada["name"], ada["newest"], ada["takes_part"], ada["self"]) == ("ada", True, True, True)
    assert (bob["name"], bob["answered"], bob["generation"]) == ("bob", False, None)
    looked_at = {"generation": shown["generation"], "last": shown["last"]}
    refusal = refused(client, "POST", "/api/v1/recovery", json=looked_at)
    assert "a majority of the voters is there" in refusal.message
    assert "Nothing forces" in refusal.hint
    assert served.agent.gone_on == []


def test_the_copy_that_goes_on_is_the_one_that_was_looked_at(
    served: Served, client: Client
) -> None:
    """A fork is where a majority may be there, and an operator decides all the same."""
    client.post("/api/v1/txn", {"then": [{"put": "lamp", "value": "on"}]})
    served.agent.solo.plane.standings.forked(5, OTHER)
    assert not client.get("/api/v1/copies")["forked"], "bob neither votes nor is an issuer"
    make_issuer(served, OTHER)
    assert client.get("/api/v1/voters")["forks"][0]["name"] == "bob"
    assert client.get("/api/v1/status")["agreement"]["forks"] == 1
    shown = client.get("/api/v1/copies")
    assert shown["forked"]
    looked_at = {"generation": shown["generation"], "last": shown["last"] - 1}
    assert "has changed" in refused(client, "POST", "/api/v1/recovery", json=looked_at).message
    looked_at["last"] += 1
    assert client.post("/api/v1/recovery", looked_at) == {"generation": 2}
    (log,) = served.agent.gone_on
    state = state_at_end(log)
    note = note_of(state)
    assert note is not None
    assert (note.kind, note.node, note.generation) == ("recovered", ME, 2)
    assert refused(client, "POST", "/api/v1/recovery", json={"generation": 1}).code == "usage"


def test_what_was_saved_is_restored_and_nothing_else(served: Served, client: Client) -> None:
    client.post("/api/v1/txn", {"then": [{"put": "lamp", "value": "saved"}]})
    data = client.request("GET", "/api/v1/snapshot").body
    header = read_snapshot(data).header
    assert (header.covey, header.name, header.generation) == (COVEY, "farm", 1)
    client.post("/api/v1/txn", {"then": [{"put": "lamp", "value": "later"}]})
    answer = client.request("PUT", "/api/v1/snapshot", body=data).json()
    assert (answer["restored"], answer["index"]) == (2, header.index)
    (log,) = served.agent.gone_on
    lamp = state_at_end(log).keys.get("lamp")
    assert lamp is not None
    assert lamp.value == b"saved"
    assert log.last_index > served.agent.solo.plane.state.index + 2**31


def test_a_foreign_or_damaged_snapshot_is_refused(served: Served, client: Client) -> None:
    data = client.request("GET", "/api/v1/snapshot").body
    for spoiled in (b"", data[:-1], data[:20] + b"x" + data[21:], b"PK\x03\x04"):
        refusal = refused(client, "PUT", "/api/v1/snapshot", body=spoiled)
        assert "nothing was changed" in refusal.message
    state = read_snapshot(data).saved
    other = write_snapshot(SavedState(state.data, 5, 4 * 2**32 + 9), "ff" * 16, "barn", "")
    refusal = refused(client, "PUT", "/api/v1/snapshot", body=other)
    assert "another covey" in refusal.message
    assert f"--of {'ff' * 16}" in refusal.hint
    unreadable = write_snapshot(SavedState(b"?", 1, 4), COVEY, "farm", "")
    assert refused(client, "PUT", "/api/v1/snapshot", body=unreadable).code == "usage"
    assert served.agent.gone_on == []
    named = {"of": "ff" * 16}
    answer = client.request("PUT", "/api/v1/snapshot", body=other, query=named).json()
    assert answer["restored"] == 6, "later than both"


def test_who_is_left_out_neither_votes_nor_holds_the_key(served: Served, client: Client) -> None:
    looked_at = {"generation": 1, "last": 1}
    for name in ("ada", "bob"):
        make_issuer(served, OTHER)
        refusal = refused(client, "POST", "/api/v1/recovery", json={**looked_at, "without": [name]})
        assert f"{name} votes by this copy, or holds the authority's key" in refusal.message
        assert "cut it off" in refusal.hint
    refusal = refused(client, "POST", "/api/v1/recovery", json={**looked_at, "without": ["cyd"]})
    assert refusal.code == "not-found"
    for wrong in ({"without": "bob"}, {"without": [1]}, {"set_aside": 1}, {"follow": "bob"}):
        assert refused(client, "POST", "/api/v1/recovery", json={**looked_at, **wrong}).code == (
            "usage"
        )
    assert served.agent.gone_on == []


def test_who_does_not_answer_or_follows_nothing_later_is_not_followed(
    served: Served, client: Client
) -> None:
    refusal = refused(client, "POST", "/api/v1/recovery", json={"follow": "bob"})
    assert "does not answer" in refusal.message
    refusal = refused(client, "POST", "/api/v1/recovery", json={"follow": "cyd"})
    assert refusal.code == "not-found"
    assert served.agent.solo.plane.standings._trusted == set()


def test_no_log_that_was_set_aside_is_used_while_a_majority_is_there(client: Client) -> None:
    assert client.get("/api/v1/copies")["set_aside"] == []
    asked = {"generation": 1, "last": 1, "set_aside": "consensus.db.damaged-1"}
    refusal = refused(client, "POST", "/api/v1/recovery", json=asked)
    assert "no such log" in refusal.message


def test_a_log_that_was_set_aside_is_gone_on_with_where_no_majority_is(
    served: Served, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_aside(tmp_path, saved_log())
    monkeypatch.setattr(served.agent.recovery, "_log_path", tmp_path / "consensus.db")
    (shown,) = client.get("/api/v1/copies")["set_aside"]
    asked = {"generation": shown["generation"], "last": shown["last"], "set_aside": shown["file"]}
    refusal = refused(client, "POST", "/api/v1/recovery", json=asked)
    assert "a majority of the voters is there" in refusal.message
    monkeypatch.setattr(served.agent.solo.plane, "_has_majority", lambda _now: False)
    changed = {**asked, "last": shown["last"] - 1}
    assert "has changed" in refused(client, "POST", "/api/v1/recovery", json=changed).message
    assert client.post("/api/v1/recovery", asked) == {"generation": shown["generation"] + 1}
    (log,) = served.agent.gone_on
    assert state_at_end(log).keys.get("more2") is not None
