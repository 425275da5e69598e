"""Devices that are let in and never run, and owners that are off for long."""

from typing import Any

import pytest

from agent.exits import NOT_FOUND
from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

GHOSTS = ("ghost-1", "ghost-2", "ghost-3", "ghost-4")
SETTLED_WITHIN_S = 20.0
MISSING_TOML = f'{LOCAL_TOML}[state]\nmissing_after = "10s"\n'


def owning(agent: AgentProcess) -> set[str]:
    """Return who owns a part of the keys, or is to."""
    nodes: list[dict[str, Any]] = agent.must("ring", "-o", "json").json()["nodes"]
    return {node["name"] for node in nodes if node["partitions"]}


def missing(agent: AgentProcess) -> list[str]:
    return [one["name"] for one in agent.api.get("/api/v1/status")["missing"]]


def absent(agent: AgentProcess) -> set[str]:
    return {one["name"] for one in agent.api.get("/api/v1/members")["absent"]}


def be_missing_and_back(fleet: Fleet, off: AgentProcess) -> None:
    """Have others get what one owned that is off; it comes back with what it had."""
    ash, birch, *_ = fleet.agents.values()
    ash.stop()
    ash.configure(MISSING_TOML)
    ash.start()
    eventually(lambda: missing(birch), lambda seen: seen == ["ghost-2"], 60.0, "it is missing")
    fleet.wait_settled(60.0, "others own what it owned")
    assert owning(birch) == {"ash", "birch", "cedar", "elm", "ghost-1"}
    assert "ghost-2 was not heard for long" in ash.log
    told = birch.must("ring")
    assert "others get their share: ghost-2." in told.stdout + told.stderr
    birch.must("kv", "delete", "k0")
    off.launch()
    eventually(lambda: missing(birch), lambda seen: not seen, 90.0, "it has stayed")
    fleet.wait_settled(60.0, "it has its share again")
    assert "ghost-2" in owning(birch)
    assert [off.covey("kv", "get", f"k{n}").status for n in range(3)] == [NOT_FOUND, 0, 0]


def test_who_never_runs_keeps_nobody_waiting_and_gets_its_share_when_it_does(fleet: Fleet) -> None:
    fleet.form("ash", "birch", "cedar", toml=LOCAL_TOML)
    ash, birch, cedar = fleet.agents.values()
    fleet.wait_settled(SETTLED_WITHIN_S, "three own every key")
    token = fleet.token(ash, "--uses", "5")
    ghosts = [fleet.add(name, toml=LOCAL_TOML) for name in GHOSTS]
    for ghost in ghosts:
        ghost.must("join", token, "--node-name", ghost.name)
    elm = fleet.add("elm", toml=LOCAL_TOML)
    elm.must("join", token, "--node-name", "elm")
    elm.start()
    for n in range(20):
        elm.must("kv", "put", f"k{n}", f"v{n}")
    fleet.wait_settled(SETTLED_WITHIN_S, "elm has its share, beside four that never ran")
    assert owning(birch) == {"ash", "birch", "cedar", "elm"}

    # Everybody says so.
    for agent in (ash, elm):
        assert absent(agent) == set(GHOSTS)
    shown = birch.must("members").stdout.splitlines()
    assert [line.split("\t")[:2] for line in shown if line.startswith("ghost-1")] == [
        ["ghost-1", "absent"]
    ]
    assert "let in, not heard\tghost-1, ghost-2, ghost-3, ghost-4" in birch.must("status").stdout
    told = {each["id"]: each for each in cedar.covey("doctor", "-o", "json").json()["checks"]}
    assert told["absent"]["status"] == "warn"
    assert "ghost-4" in told["absent"]["message"]
    assert told["owners"]["status"] == "ok"

    # All start anew, and nobody loses anything by that; two come at last, and one epoch says so.
    before = ash.api.get("/api/v1/registry")["epoch"]
    agents = (ash, birch, cedar, elm)
    for agent in agents:
        agent.kill()
    for agent in agents:
        agent.launch()
    fleet.wait_formed(20.0)
    assert ash.api.get("/api/v1/registry")["epoch"] == before
    first, second = ghosts[:2]
    first.start()
    second.start()
    fleet.wait_settled(SETTLED_WITHIN_S, "the late ones have their share")
    assert absent(ash) == set(GHOSTS[2:])
    assert owning(ash) == {"ash", "birch", "cedar", "elm", "ghost-1", "ghost-2"}
    logs = [agent.log for agent in agents]
    assert any("ghost-1 is there and gets its partitions" in log for log in logs)
    for n in range(20):
        assert first.must("kv", "get", f"k{n}").stdout.strip() == f"v{n}"

    # One that owns its share is switched off: it keeps it, and is no absent one.
    second.kill()
    ash.must("members", "remove", "ghost-3", "--yes")
    eventually(lambda: absent(ash), lambda seen: seen == {"ghost-4"}, 10.0, "one is left")
    assert owning(ash) == {"ash", "birch", "cedar", "elm", "ghost-1", "ghost-2"}
    be_missing_and_back(fleet, second)
