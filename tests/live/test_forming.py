"""Devices with nothing but a token find each other, by real multicast on a real bridge."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import FORMED_WITHIN_S, Fleet
from tests.live.harness.network import Network
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar", "elm", "fir")
FIELDS = {"id", "name", "addresses", "state", "boot", "incarnation", "tags"}


@pytest.fixture(scope="module")
def five(networks: None) -> Iterator[Fleet]:
    """Give five agents that form one covey; the time it took is printed and asserted."""
    with Fleet() as fleet:
        fleet.form(*NAMES)
        yield fleet


def _listed(agent: AgentProcess) -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = agent.must("members", "-o", "json").json()["members"]
    return sorted(members, key=lambda member: member["name"])


def _shared(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep what has to be the same on every node: not which entry is its own, nor since when."""
    return [{name: member[name] for name in FIELDS} for member in members]


def test_five_agents_with_nothing_but_a_token(five: Fleet) -> None:
    five.wait_formed(FORMED_WITHIN_S)


def test_members_are_the_same_everywhere(five: Fleet) -> None:
    def look() -> list[list[dict[str, Any]]]:
        return [_shared(_listed(agent)) for agent in five.agents.values()]

    views = eventually(
        look,
        lambda seen: (
            all(view == seen[0] for view in seen)
            and {member["state"] for member in seen[0]} == {"alive"}
        ),
        FORMED_WITHIN_S,
        "same lists",
    )
    assert [member["name"] for member in views[0]] == sorted(NAMES)
    assert len({member["id"] for member in views[0]}) == len(NAMES)
    for member in views[0]:
        assert member["addresses"], "the others must know where it is"


def test_facts_of_each_reach_all(five: Fleet) -> None:
    def look() -> list[dict[str, str]]:
        agents = five.agents.values()
        return [
            agent.api.get(f"/api/v1/members/{name}")["facts"] for agent in agents for name in NAMES
        ]

    seen = eventually(look, all, 30, "everybody has the facts of everybody")
    assert len({facts["started_at"] for facts in seen}) > 1, "each tells its own"
    for facts in seen:
        assert int(facts["memory_bytes"]) > 0
        assert facts["wire"] == "1"


def test_addresses_are_those_of_the_device(five: Fleet) -> None:
    """What is gossiped are the addresses that others can use: no loopback, no link-local."""
    hosts = {agent.name: agent.host for agent in five.agents.values()}
    for member in five.agents["ash"].members():
        host = hosts[member["name"]]
        assert host is not None
        text = " ".join(str(address) for address in member["addresses"])
        assert host.ipv4 in text
        assert host.ipv6 in text
        assert "127.0.0.1" not in text
        assert "fe80" not in text


def test_name_and_id_outlive_the_list(five: Fleet) -> None:
    """`covey members` prints a table for people and tabs for pipes; both name everybody."""
    outcome = five.agents["birch"].must("members")
    rows = [line.split("\t") for line in outcome.stdout.splitlines()]
    assert len({len(row) for row in rows}) == 1, outcome.stdout
    for name in NAMES:
        assert any(name in row[0] for row in rows)


def test_a_covey_on_ipv6_alone(networks: None) -> None:
    with Fleet() as fleet:
        fleet.form("ash", "birch", toml='[network]\nbind = ["::"]\n')
        for member in fleet.agents["ash"].members():
            assert all(str(address).startswith("[fd77::") for address in member["addresses"])
        fleet.agents["birch"].must("kv", "put", "key", "value")
        assert fleet.agents["ash"].must("kv", "get", "key").stdout == "value"


def test_two_coveys_on_one_bridge_stay_apart(networks: None) -> None:
    with Network() as network, Fleet(network) as larks, Fleet(network) as finches:
        larks.form("lark-1", "lark-2")
        finches.form("finch-1", "finch-2")
        # Every agent has now met every other one: mDNS announced each of the four on the bridge.
        for fleet in (larks, finches):
            names = set(fleet.agents)
            for agent in fleet.agents.values():
                assert set(agent.states()) == names
        larks.agents["lark-1"].must("kv", "put", "song", "lark")
        assert finches.agents["finch-1"].covey("kv", "get", "song").status == 3
        for fleet in (larks, finches):
            fleet.wait_formed(FORMED_WITHIN_S, "still two coveys")


def test_round_trips_of_others_are_asked_for(five: Fleet) -> None:
    """Ash asks birch how far cedar is from it; on one bridge that is not far."""
    ash = five.agents["ash"]

    def look() -> dict[str, Any]:
        answer = ash.covey("rtt", "birch", "cedar", "-o", "json")
        return dict(answer.json()) if answer.status == 0 else {}

    known = eventually(
        look,
        lambda seen: bool(seen.get("measured_ms")) and bool(seen.get("estimated_ms")),
        FORMED_WITHIN_S,
        "birch has measured cedar",
    )
    assert (known["a"], known["b"]) == ("birch", "cedar")
    assert 0 < known["measured_ms"] < 1000
    assert ash.covey("rtt", "nobody").status == 3
