"""``covey facts`` and the routes behind it, against a fake agent whose facts are real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent import exits
from agent.exits import AgentError
from edge_apps.client import ApiError, Client
from tests.support.command_line import Covey
from tests.support.fake_agent import Served


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served.paths.socket)


# ---- the routes ----------------------------------------------------------------------------------


def test_the_facts_of_all_that_are_there(client: Client) -> None:
    assert client.get("/api/v1/facts")["members"] == [
        {
            "id": "000000000000000a",
            "name": "ada",
            "state": "alive",
            "self": True,
            "facts": {"covey": "1.2.3", "rack": "north", "service/web": ":80/http"},
        },
        {
            "id": "000000000000000b",
            "name": "bob",
            "state": "suspect",
            "self": False,
            "facts": {"covey": "1.2.3", "memory_bytes": "1024"},
        },
    ]


def test_the_facts_of_one_by_name_or_id_and_of_some_names(client: Client) -> None:
    def names(**query: str) -> list[list[str]]:
        return [list(one["facts"]) for one in client.get("/api/v1/facts", **query)["members"]]

    assert names(node="bob") == names(node="000000000000000b") == [["covey", "memory_bytes"]]
    assert names(name="*c*", node="ada") == [["covey", "rack", "service/web"]]
    assert names(name="service/*") == [["service/web"], []]
    assert names(node="cy") == [[]], "of one that is dead as well, if anything is known"
    with pytest.raises(ApiError, match="no member is called 'eve'"):
        client.get("/api/v1/facts", node="eve")


def test_facts_are_set_and_dropped_together(served: Served, client: Client) -> None:
    answer = client.post("/api/v1/facts", {"set": {"litres": "120", "pump": "off"}})
    assert answer == {"facts": {"litres": "120", "pump": "off"}}
    answer = client.post("/api/v1/facts", {"set": {"litres": "80"}, "unset": ["pump"]})
    assert answer == {"facts": {"litres": "80"}}
    assert client.post("/api/v1/facts", {}) == answer
    assert served.agent.fact_store.kept == {"litres": "80"}
    assert served.agent.fact_store.published[-1]["litres"] == "80"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"facts": {}}, "unknown: facts"),
        ({"set": ["a"]}, "`set`: an object"),
        ({"set": {"a": 1}}, "`set`: an object of names and their values, which are texts"),
        ({"unset": "a"}, "`unset`: a list of names"),
        ({"unset": [1]}, "`unset`: a list of names"),
        ({"set": {"a": "1"}, "unset": ["a"]}, "'a' is in both set and unset"),
        ({"set": {"a b": "1"}}, "cannot be a fact's name"),
        ({"set": {"a": "\udcff"}}, "the body is not JSON: 'utf-8' codec"),
        ({"set": {"app/\udcff": "1"}}, "the body is not JSON: 'utf-8' codec"),
        ({"set": {"service/ftp": "21"}}, "is no service; write HOST:PORT/PROTOCOL"),
    ],
)
def test_bad_changes(served: Served, client: Client, body: object, says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        client.post("/api/v1/facts", body)
    assert (caught.value.status, caught.value.code) == (400, "usage")
    assert served.agent.fact_store.kept == {}


def test_as_much_as_a_node_may_tell_fits_a_request(served: Served, client: Client) -> None:
    """However JSON writes it: control characters take six bytes each there."""
    client.post("/api/v1/facts", {"set": {str(n): "\x01" * 4096 for n in range(15)}})
    with pytest.raises(ApiError, match="bytes, of 65536 allowed; nothing was changed") as caught:
        client.post("/api/v1/facts", {"set": {"15": "x" * 4096}})
    assert (caught.value.status, caught.value.code) == (413, "usage")
    assert len(served.agent.fact_store.kept) == 15
    with pytest.raises(ApiError, match="more than 524288 bytes"):
        client.post("/api/v1/facts", {"set": {"a": "x" * 600_000}})


@pytest.mark.parametrize(("name", "status"), [("app/\n", 403), ("a\nb" * 1000, 404)])
def test_names_that_nothing_can_have_are_told_back_in_print(
    client: Client, name: str, status: int
) -> None:
    with pytest.raises(ApiError, match="nothing was changed") as caught:
        client.post("/api/v1/facts", {"unset": [name]})
    assert caught.value.status == status
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_full_is_told(served: Served, client: Client) -> None:
    served.agent.fact_store.refusal = AgentError("the disk is full", "make room")
    with pytest.raises(ApiError, match="the disk is full") as caught:
        client.post("/api/v1/facts", {"set": {"a": "1"}})
    assert (caught.value.status, caught.value.hint) == (409, "make room")


# ---- the commands --------------------------------------------------------------------------------


def test_who_says_what(served: Served, covey: Covey) -> None:
    rows = [line.split("\t") for line in covey("facts", "list").stdout.splitlines()]
    assert rows == [
        ["ada", "covey", "1.2.3"],
        ["ada", "rack", "north"],
        ["ada", "service/web", ":80/http"],
        ["bob", "covey", "1.2.3"],
        ["bob", "memory_bytes", "1024"],
    ]
    assert covey("facts", "list", "bob", "--name", "co*").stdout == "bob\tcovey\t1.2.3\n"
    found = json.loads(covey("facts", "list", "bob", "-o", "json").stdout)
    assert found["members"][0]["facts"]["memory_bytes"] == "1024"
    assert covey("facts", "list", "eve").status == exits.NOT_FOUND


def test_a_person_sees_a_header_and_the_beginning_of_long_values(
    served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert covey("facts", "set", f"long={'x' * 200}").status == exits.YES
    assert f"{'x' * 200}\n" in covey("facts", "list").stdout
    monkeypatch.setattr("agent.cli.output.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    shown = covey("facts", "list", "--name", "long").stdout.splitlines()
    assert shown[0].split() == ["NODE", "NAME", "VALUE"]
    assert shown[1].split() == ["ada", "long", "x" * 67 + "…"]
    assert "x" * 200 in covey("facts", "list", "--name", "long", "--wide").stdout


def test_facts_are_set_and_unset(served: Served, covey: Covey) -> None:
    assert covey("facts", "set", "litres=120", "note=a=b", "empty=") == (exits.YES, "", "")
    assert served.agent.fact_store.kept == {"litres": "120", "note": "a=b", "empty": ""}
    outcome = covey("facts", "unset", "litres", "empty", "-o", "json")
    assert json.loads(outcome.stdout) == {"facts": {"note": "a=b"}}


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["set", "covey=2"], exits.NOT_PERMITTED, "'covey' is told by the agent itself"),
        (["set", "rack=south"], exits.NOT_PERMITTED, "'rack' is given by [node] in covey.toml"),
        (["unset", "rack"], exits.NOT_PERMITTED, "'rack' is given by [node] in covey.toml"),
        (["unset", "litres"], exits.NOT_FOUND, "no fact called 'litres' was set here"),
        (["set", f"{'a' * 65}=1"], exits.USAGE, "it has 1 to 64 letters"),
        (["set", f"a={'x' * 4097}"], exits.USAGE, "a takes 4097 bytes, of 4096 allowed"),
        (["set", *(f"{n}=" for n in range(254))], exits.USAGE, "257 facts, and 256 are allowed"),
        (["set", "litres"], exits.USAGE, "'litres' is no fact; write NAME=VALUE"),
        (["set"], exits.USAGE, "NAME=VALUE"),
        (["unset"], exits.USAGE, "NAME"),
    ],
)
def test_refusals(
    served: Served, covey: Covey, arguments: list[str], status: int, says: str
) -> None:
    outcome = covey("facts", *arguments)
    assert (outcome.status, outcome.stdout) == (status, "")
    assert says in outcome.stderr
    assert served.agent.fact_store.kept == {}


@pytest.mark.parametrize("arguments", [["list"], ["set", "a=1"], ["unset", "a"]])
def test_without_an_agent(covey: Covey, arguments: list[str]) -> None:
    outcome = covey("facts", *arguments)
    assert (outcome.status, outcome.stdout) == (exits.UNREACHABLE, "")
    assert outcome.stderr.startswith("error: no agent listens on ")


def test_names_of_nodes_are_completed(served: Served, tmp_path: Path) -> None:
    asked = {
        "_COVEY_COMPLETE": "bash_complete",
        "COMP_WORDS": "covey facts list b",
        "COMP_CWORD": "3",
        "COVEY_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "agent"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, check=True)
    assert done.stdout.decode() == "plain,bob\n"
