"""Cables that work in one direction only, or for streams only: flagged, and nobody dies of it.

A frame that cannot come back breaks more than datagrams: no TCP connection survives it either. So
over a path that is dead in one direction, only others can say that the member lives.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from gossip.core.tuning import LOCAL
from tests.live.harness.agents import AgentProcess
from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar", "elm", "fir")
HELD_S = 5.0
"""Long enough for a death of which several members are convinced ..."""
HELD_ALONE_S = 10.0
"""... and for one that a single member believes in."""
FLAGGED_WITHIN_S = 10.0
DEAD_WITHIN_S = 15.0
BACK_WITHIN_S = 20.0
STALE_S = 4.0
FRESH_S = 3.0

assert LOCAL.suspicion_min_s(len(NAMES)) < HELD_S / 2, "the others have confirmed by then"
assert LOCAL.suspicion_max_s(len(NAMES)) < HELD_ALONE_S - 2, "nobody had to confirm"


@pytest.fixture(scope="module")
def whole(networks: None) -> Iterator[Fleet]:
    """Give five agents on one switch."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES, toml=LOCAL_TOML)
        yield fleet


@pytest.fixture
def five(whole: Fleet) -> Iterator[Fleet]:
    """Give the five, all well; the test may cut cables and leave them so."""
    yield whole
    whole.network.pass_all()
    whole.wait_formed(BACK_WITHIN_S, "whole again")


def _paths(at: AgentProcess, to: AgentProcess) -> dict[str, Any]:
    paths: dict[str, Any] = at.api.get(f"/api/v1/members/{to.name}")["paths"]
    return paths


def _wait_both_ways(one: AgentProcess, other: AgentProcess) -> None:
    """Wait until each hears the other's datagrams, and is answered."""

    def oldest_s() -> float:
        ways = _paths(one, other), _paths(other, one)
        assert not any(way["udp_blocked"] for way in ways)
        return max(float(way[name]) for way in ways for name in ("udp_in_s", "udp_out_s"))

    eventually(oldest_s, lambda age_s: age_s < FRESH_S, BACK_WITHIN_S, "datagrams pass again")


def test_one_does_not_hear_one(five: Fleet) -> None:
    ash, birch = five.agents["ash"], five.agents["birch"]
    _wait_both_ways(ash, birch)
    chronicle = Chronicle(five)
    five.network.drop(birch.at, ash.at)
    time.sleep(HELD_ALONE_S)
    assert not chronicle.deaths(), "relays reach both"
    at_ash, at_birch = eventually(
        lambda: (_paths(ash, birch), _paths(birch, ash)),
        lambda seen: seen[1]["udp_in_s"] < FRESH_S,
        FLAGGED_WITHIN_S,
        "ash is heard",
    )
    assert at_ash["udp_in_s"] > STALE_S, "nothing of birch comes to ash"
    assert at_birch["udp_out_s"] > STALE_S, "but never answers birch"
    shown = ash.must("members", "show", "birch").stdout
    assert "UDP in" in shown

    five.network.pass_all()
    _wait_both_ways(ash, birch)
    assert not chronicle.deaths()


def test_streams_alone_pass(five: Fleet) -> None:
    """A firewall that lets TCP through and no UDP."""
    elm, chronicle = five.agents["elm"], Chronicle(five)
    others = [agent for agent in five.agents.values() if agent is not elm]
    five.network.drop(source=elm.at, what="datagrams")
    five.network.drop(target=elm.at, what="datagrams")
    eventually(
        lambda: [_paths(agent, elm)["udp_blocked"] for agent in others],
        all,
        FLAGGED_WITHIN_S,
        "all know that only streams reach elm",
    )
    assert "blocked, a stream alone passes" in others[0].must("members", "show", "elm").stdout
    time.sleep(HELD_S)
    assert not chronicle.deaths()
    assert all(_paths(agent, elm)["udp_in_s"] > STALE_S for agent in others), "really blocked"
    elm.must("kv", "put", "by", "stream")
    assert others[0].must("kv", "get", "by").stdout == "stream"

    five.network.pass_all()
    for agent in others:
        _wait_both_ways(agent, elm)
    assert not chronicle.deaths()


def test_streams_alone_pass_anywhere(five: Fleet) -> None:
    chronicle = Chronicle(five)
    five.network.drop(what="datagrams")
    time.sleep(HELD_ALONE_S)
    assert not chronicle.deaths()
    five.agents["ash"].must("kv", "put", "all", "by-stream")
    assert five.agents["fir"].must("kv", "get", "all").stdout == "by-stream"


def test_a_deaf_member_takes_nobody_with_it(five: Fleet) -> None:
    """It hears nobody and accuses all, and all hear that: each says that it lives."""
    cedar, chronicle = five.agents["cedar"], Chronicle(five)
    five.network.drop(target=cedar.at)
    eventually(
        lambda: [told for told in chronicle.accusations() if told.by == "cedar"],
        lambda told: len({change.name for change in told}) == len(NAMES) - 1,
        DEAD_WITHIN_S,
        "cedar accuses everybody",
    )
    time.sleep(HELD_S)
    wrong = [told for told in chronicle.deaths() if "cedar" not in (told.by, told.name)]
    assert not wrong, "those who hear each other believe each other"


def test_a_mute_member_dies_alone_and_comes_back(five: Fleet) -> None:
    """Nobody hears it, so it is as good as gone; it hears all, and blames nobody."""
    cedar, chronicle = five.agents["cedar"], Chronicle(five)
    others = [agent for agent in five.agents.values() if agent is not cedar]
    before = cedar.me()
    five.network.drop(source=cedar.at)
    eventually(
        lambda: [agent.states()["cedar"] for agent in others],
        lambda seen: set(seen) == {"dead"},
        DEAD_WITHIN_S,
        "all miss cedar",
    )
    assert {told.name for told in chronicle.deaths() if told.by != "cedar"} == {"cedar"}

    five.network.pass_all()
    five.wait_formed(BACK_WITHIN_S, "cedar is back")
    after = cedar.me()
    assert after["boot"] == before["boot"]
    assert after["incarnation"] > before["incarnation"]
