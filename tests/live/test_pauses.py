"""Devices that stand still for a while: nobody is lost by it, and nobody is accused afterwards.

A stopped process keeps its ports open, so its host refuses nothing: only its silence tells. The
timing is that of ``lan``, because "three seconds are safe, thirty are not" is a promise about it.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from gossip.core.tuning import LAN
from tests.live.harness.agents import AgentProcess
from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

SETTLED_WITHIN_S = 15.0
NAMES = ("ash", "birch", "cedar", "elm", "fir")
SHORT_S, LONG_S = 3.0, 30.0
DEAD_WITHIN_S = 12.0
BACK_WITHIN_S = 5.0
JUDGED_WITHIN_S = 2 * LAN.probe_interval_s
"""By then a woken agent has finished the first probe of its own."""

assert LAN.pause_s < SHORT_S < LAN.suspicion_min_s(len(NAMES)) < LONG_S, "safe, and not safe"


@pytest.fixture(scope="module")
def five(networks: None) -> Iterator[Fleet]:
    """Give five agents; each test leaves them whole."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES)
        fleet.wait_settled(SETTLED_WITHIN_S, "three own every key, so that one may be missing")
        yield fleet


def _pauses(agent: AgentProcess) -> float:
    samples = agent.counters().items()
    return sum(value for name, value in samples if name.startswith("covey_pauses_total"))


def _seen(fleet: Fleet, name: str) -> list[dict[str, Any]]:
    """Return the entry of one member, from every agent's list."""
    agents = fleet.running()
    return [one for agent in agents for one in agent.members() if one["name"] == name]


def _stand_still(agents: list[AgentProcess], seconds: float) -> None:
    for agent in agents:
        agent.pause()
    time.sleep(seconds)
    for agent in agents:
        agent.resume()


def test_three_seconds_harm_nobody(five: Fleet) -> None:
    elm, chronicle = five.agents["elm"], Chronicle(five)
    before = _pauses(elm)
    _stand_still([elm], SHORT_S)
    eventually(lambda: _pauses(elm), lambda count: count > before, BACK_WITHIN_S, "elm noticed it")
    five.wait_formed(BACK_WITHIN_S, "nobody is lost")
    time.sleep(JUDGED_WITHIN_S)
    assert not chronicle.deaths()
    assert {change.name for change in chronicle.accusations()} <= {"elm"}
    assert not [change for change in chronicle.accusations() if change.by == "elm"]


def test_most_stand_still_at_once(five: Fleet) -> None:
    """Four of five, as on a host that swaps: the one that runs must not bury them all."""
    chronicle = Chronicle(five)
    frozen = [five.agents[name] for name in NAMES if name != "ash"]
    _stand_still(frozen, SHORT_S)
    five.wait_formed(BACK_WITHIN_S, "nobody is lost")
    time.sleep(JUDGED_WITHIN_S)
    assert not chronicle.deaths()
    accused = {change.name for change in chronicle.accusations()}
    assert accused <= {agent.name for agent in frozen}, "who slept does not accuse who was awake"


def test_thirty_seconds_are_a_death_that_ends_without_a_restart(five: Fleet) -> None:
    elm, chronicle = five.agents["elm"], Chronicle(five)
    others = [agent for agent in five.agents.values() if agent is not elm]
    before, process = elm.me(), elm.pid
    elm.pause()
    paused_at = time.monotonic()
    eventually(
        lambda: [agent.states()["elm"] for agent in others],
        lambda seen: set(seen) == {"dead"},
        DEAD_WITHIN_S,
        "all see that it is silent",
    )
    reasons = {change.reason for change in chronicle.deaths()}
    assert reasons <= {"did not refute the suspicion", "declared dead by others"}, reasons
    others[0].must("kv", "put", "while", "elm-slept")
    time.sleep(max(0.0, LONG_S - (time.monotonic() - paused_at)))

    elm.resume()
    five.wait_formed(BACK_WITHIN_S, "it is back by itself")
    assert elm.must("kv", "get", "while").stdout == "elm-slept"
    after = eventually(
        lambda: _seen(five, "elm"),
        lambda seen: len({one["incarnation"] for one in seen}) == 1,
        BACK_WITHIN_S,
        "all believe the same words of it",
    )
    assert elm.pid == process
    assert {one["boot"] for one in after} == {before["boot"]}, "the same life ..."
    assert after[0]["incarnation"] > before["incarnation"], "... that outbid its obituary"

    time.sleep(JUDGED_WITHIN_S)
    assert {change.name for change in chronicle.accusations()} == {"elm"}, "nobody else suffered"
    assert not [change for change in chronicle.accusations() if change.by == "elm"]
    assert chronicle.changes(lambda told: told[1:] == ("elm", "alive", "came back"))
