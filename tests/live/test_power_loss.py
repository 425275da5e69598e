"""The mains go off, for all devices but one or for the switch; and a device leaves for good.

Whoever comes back finds the others by what it wrote down itself and by who looks for it, and
nobody has to be told by hand. Whoever left does not come back by words that somebody recorded.
"""

from collections.abc import Iterator

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.programs import overhear, send, write_packets
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar", "elm", "fir")
DEAD_WITHIN_S = 10.0
BACK_WITHIN_S = 15.0
OVERHEARD = 60
KEYS = 10


@pytest.fixture(scope="module")
def five(networks: None) -> Iterator[Fleet]:
    """Give five agents; each test leaves them whole."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES, toml=LOCAL_TOML)
        yield fleet


def _with(**changed: str) -> dict[str, str]:
    return {**dict.fromkeys(NAMES, "alive"), **changed}


def _boots(fleet: Fleet) -> dict[str, int]:
    return {agent.name: int(agent.me()["boot"], 16) for agent in fleet.running()}


def test_all_but_one_are_killed_and_start_at_once(five: Fleet) -> None:
    ash, *others = (five.agents[name] for name in NAMES)
    for number in range(KEYS):
        ash.must("kv", "put", f"mains/{number}", str(number))
    before = _boots(five)
    for agent in others:
        agent.kill()
    alone = {**dict.fromkeys(NAMES, "dead"), "ash": "alive"}
    five.wait_states(alone, DEAD_WITHIN_S, "ash knows that it is alone")
    for agent in others:
        agent.launch()
    five.wait_formed(BACK_WITHIN_S, "one covey")
    after = _boots(five)
    assert all(after[agent.name] > before[agent.name] for agent in others)
    assert after["ash"] == before["ash"]
    for number in range(KEYS):
        reader = five.agents[NAMES[number % len(NAMES)]]
        assert reader.must("kv", "get", f"mains/{number}").stdout == str(number)


def test_the_switch_goes_off(five: Fleet) -> None:
    """Nobody reaches anybody, all bury all; when the switch is on again, no one is dead."""
    before = _boots(five)
    for agent in five.agents.values():
        five.network.unplug(agent.at)

    def lonely() -> list[bool]:
        views = {agent.name: agent.states() for agent in five.running()}
        return [
            view == {**dict.fromkeys(NAMES, "dead"), name: "alive"} for name, view in views.items()
        ]

    # Nobody confirms what anybody suspects, so the suspicions take their full time.
    eventually(lonely, all, 3 * DEAD_WITHIN_S, "each is alone")
    for agent in five.agents.values():
        five.network.plug_in(agent.at)
    five.wait_formed(BACK_WITHIN_S, "one covey")
    assert _boots(five) == before, "nobody had to be started again"


def test_words_of_one_who_left_bring_nobody_back(five: Fleet) -> None:
    """Datagrams of a member that left, sent once more by somebody who recorded them."""
    elm, others = five.agents["elm"], [five.agents[name] for name in NAMES if name != "elm"]
    stranger = five.network.add_host()
    overheard = write_packets(five.folder / "overheard.hex", overhear(elm.at, OVERHEARD))
    assert elm.stop() == 0
    five.wait_states(_with(elm="left"), DEAD_WITHIN_S, "all hear the good-bye")

    before = [_replayed(agent) for agent in others]
    for agent in others:
        assert send(stranger, agent.at, overheard, per_second=1000).wait() == 0
    for agent, seen in zip(others, before, strict=True):
        eventually(
            lambda: _replayed(agent) - seen,  # noqa: B023
            lambda more: more > 0,
            BACK_WITHIN_S,
            f"{agent.name} counts them",
        )
        assert agent.states()["elm"] == "left"
    elm.start()
    five.wait_formed(BACK_WITHIN_S, "it may come back itself")


def _replayed(agent: AgentProcess) -> float:
    return agent.counters().get('covey_datagrams_dropped_total{kind="replayed"}', 0.0)
