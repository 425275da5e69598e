"""A killed agent is known to be dead at once, because its kernel says so."""

import time
from collections.abc import Iterator

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar", "elm", "fir")
VICTIM = "cedar"
SETTLED_S = 8.0
"""Everybody has dialled those whom it watches."""
KNOWN_TO_ALL_S = 2.0
"""What is promised; by silence alone it would take longer. The log says which of both it was."""
BACK_WITHIN_S = 10.0
AGAIN = 3


@pytest.fixture(scope="module")
def five(networks: None) -> Iterator[Fleet]:
    """Give five agents that know each other and watch each other."""
    with Fleet() as fleet:
        fleet.form(*NAMES)
        yield fleet


def _time_until_dead(fleet: Fleet, victim: AgentProcess) -> float:
    killed_at = time.monotonic()
    victim.kill()
    others = [agent for agent in fleet.agents.values() if agent is not victim]
    eventually(
        lambda: {agent.states()[victim.name] for agent in others},
        lambda seen: seen == {"dead"},
        KNOWN_TO_ALL_S,
        "known to all",
    )
    return time.monotonic() - killed_at


def test_kill_is_known_to_all_at_once(five: Fleet) -> None:
    took_s = []
    for _ in range(AGAIN):
        time.sleep(SETTLED_S)
        took_s.append(_time_until_dead(five, five.agents[VICTIM]))
        five.agents[VICTIM].start()
        five.wait_formed(BACK_WITHIN_S, "all see it back")
    print("known to all after", ", ".join(f"{each:.2f} s" for each in took_s))


def test_the_log_says_how_it_is_known(five: Fleet) -> None:
    logs = [agent.log for agent in five.agents.values() if agent.name != VICTIM]
    assert any("its host says that it no longer runs" in log for log in logs)
