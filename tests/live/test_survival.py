"""Crashes, restarts and cut cables: the covey notices, and heals by itself."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge_apps.client import ApiError
from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar", "elm", "fir")
EAST = ("elm", "fir")
DEAD_WITHIN_S = 10.0
BACK_WITHIN_S = 10.0
HEALED_WITHIN_S = 60.0
CUT_FOR_S = 30.0
SETTLED_WITHIN_S = 15.0
WRITES = 10
WRITE_WITHIN_S = 1.0


@pytest.fixture(scope="module")
def five(networks: None) -> Iterator[Fleet]:
    """Give five agents on two bridges with a cable between; each test leaves them whole."""
    with Fleet() as fleet:
        fleet.form(*NAMES, east=EAST)
        yield fleet


def _with(**changed: str) -> dict[str, str]:
    return {**dict.fromkeys(NAMES, "alive"), **changed}


def test_crash_is_noticed_and_the_device_comes_back(five: Fleet) -> None:
    cedar = five.agents["cedar"]
    before = cedar.me()
    cedar.must("publish", "bench/temperature", "21.5")
    waiting = cedar.must("outbox", "-o", "json").json()["waiting"]
    assert waiting == 1, "there is no broker, so the reading waits"

    cedar.kill()
    five.wait_states(_with(cedar="dead"), DEAD_WITHIN_S, "all see the crash")

    cedar.start()
    five.wait_formed(BACK_WITHIN_S, "all see it back")
    after = cedar.me()
    assert after["id"] == before["id"]
    assert int(str(after["boot"]), 16 if isinstance(after["boot"], str) else 10) > int(
        str(before["boot"]), 16 if isinstance(before["boot"], str) else 10
    )
    assert cedar.must("outbox", "-o", "json").json()["waiting"] == waiting


def test_leaving_is_not_dying(five: Fleet) -> None:
    birch = five.agents["birch"]
    assert birch.stop() == 0
    five.wait_states(_with(birch="left"), DEAD_WITHIN_S, "all hear the good-bye")
    birch.start()
    five.wait_formed(BACK_WITHIN_S, "all see it back")


def test_value_survives_the_node_that_took_it(five: Fleet) -> None:
    ash, fir = five.agents["ash"], five.agents["fir"]
    ash.must("kv", "put", "lights/north", "on")
    # Of the two that owned a key before it came to three, both are needed until it has: writes to
    # some keys would wait for the founder.
    five.wait_settled(SETTLED_WITHIN_S, "three own every key")
    ash.kill()
    outcome = eventually(
        lambda: fir.covey("kv", "get", "lights/north"),
        lambda seen: seen.status == 0,
        DEAD_WITHIN_S,
        "the value is read elsewhere",
    )
    assert outcome.stdout.rstrip("\n") == "on"
    fir.must("kv", "put", "lights/north", "off")
    ash.start()
    five.wait_formed(BACK_WITHIN_S, "all see it back")
    eventually(
        lambda: ash.must("kv", "get", "lights/north").stdout.rstrip("\n"),
        lambda seen: seen == "off",
        BACK_WITHIN_S,
        "the first node reads what it missed",
    )


def _write(agents: list[AgentProcess], side: str) -> set[str]:
    """Write keys on one side of a split, a common one too; return those that were acknowledged."""
    accepted = set()
    for number in range(WRITES):
        agent, key = agents[number % len(agents)], f"split/{side}-{number}"
        if _put(agent, key, side) == "ok":
            accepted.add(key)
    _put(agents[0], "split/both", side)
    return accepted


def _put(agent: AgentProcess, key: str, value: str) -> str:
    """Write a key; return the outcome, "refused" where no owner is on this side."""
    within = {"timeout": WRITE_WITHIN_S}
    try:
        answer = agent.api.request("PUT", f"/api/v1/kv/{key}", query=within, body=value.encode())
    except ApiError:
        return "refused"
    return str(answer.json()["outcome"])


def _written(agent: AgentProcess) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = agent.api.get("/api/v1/kv", prefix="split/")["entries"]
    return listed


def _wait_dead(agent: AgentProcess, others: set[str]) -> None:
    # Fewer accusers on the small side: its suspicions take their full time.
    eventually(
        lambda: {name for name, state in agent.states().items() if state == "dead"},
        lambda dead: dead == others,
        3 * DEAD_WITHIN_S,
        f"{agent.name} sees the other side dead",
    )


def test_split_heals_by_itself(five: Fleet) -> None:
    """What both sides wrote meanwhile is there afterwards, and is the same everywhere."""
    west = [five.agents[name] for name in NAMES if name not in EAST]
    east = [five.agents[name] for name in EAST]
    five.network.cut()
    cut_at = time.monotonic()
    sides = ((west, set(EAST)), (east, set(NAMES) - set(EAST)))
    for agents, others in sides:
        for agent in agents:
            _wait_dead(agent, others)
    accepted = _write(west, "west") | _write(east, "east")
    print(f"{len(accepted)} of {2 * WRITES} writes had their quorum")
    assert accepted, "three of five devices are a quorum of some keys"
    time.sleep(max(0.0, CUT_FOR_S - (time.monotonic() - cut_at)))
    five.network.mend()
    five.wait_formed(HEALED_WITHIN_S, "one covey again")
    lists = eventually(
        lambda: [_written(agent) for agent in five.agents.values()],
        lambda seen: all(listed == seen[0] for listed in seen),
        HEALED_WITHIN_S,
        "all read the same",
    )
    assert {one["key"] for one in lists[0]} >= accepted
