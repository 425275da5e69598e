"""Crashes, restarts, cut cables and lossy networks: the covey notices, and heals by itself."""

import time
from collections.abc import Iterator

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(400)]

NAMES = ("ash", "birch", "cedar", "elm", "fir")
EAST = ("elm", "fir")
DEAD_WITHIN_S = 10.0
BACK_WITHIN_S = 10.0
HEALED_WITHIN_S = 60.0
CUT_FOR_S = 60.0
LOSS_PERCENT = 10
LOSS_FOR_S = 30.0


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


def test_frozen_device_is_not_lost(five: Fleet) -> None:
    """A device that swaps for a moment may be suspected; when it wakes up, it accuses nobody."""
    elm = five.agents["elm"]
    elm.pause()
    time.sleep(3)
    elm.resume()
    five.wait_formed(BACK_WITHIN_S, "nobody is lost after a pause")


def _wait_dead(agent: AgentProcess, others: set[str]) -> None:
    # Fewer accusers on the small side: its suspicions take their full time.
    eventually(
        lambda: {name for name, state in agent.states().items() if state == "dead"},
        lambda dead: dead == others,
        3 * DEAD_WITHIN_S,
        f"{agent.name} sees the other side dead",
    )


def test_split_heals_by_itself(five: Fleet) -> None:
    west = [five.agents[name] for name in NAMES if name not in EAST]
    east = [five.agents[name] for name in EAST]
    five.network.cut()
    cut_at = time.monotonic()
    sides = ((west, set(EAST)), (east, set(NAMES) - set(EAST)))
    for agents, others in sides:
        for agent in agents:
            _wait_dead(agent, others)
    time.sleep(max(0.0, CUT_FOR_S - (time.monotonic() - cut_at)))
    five.network.mend()
    five.wait_formed(HEALED_WITHIN_S, "one covey again")


def test_lossy_network_kills_nobody(five: Fleet) -> None:
    five.network.lose(LOSS_PERCENT)
    seen: set[str] = set()
    give_up = time.monotonic() + LOSS_FOR_S
    while time.monotonic() < give_up:
        for agent in five.running():
            seen |= set(agent.states().values())
        time.sleep(0.5)
    five.network.lose(0)
    assert not seen & {"dead", "left"}, f"at {LOSS_PERCENT} % loss members were seen {seen}"
    five.wait_formed(BACK_WITHIN_S, "all alive")
