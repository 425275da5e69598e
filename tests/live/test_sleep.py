"""Announced sleep, copied cards and frozen devices, with real agents."""

import shutil
import time
from collections.abc import Iterator

import pytest

from agent import exits
from tests.live.harness.fleet import Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar")
SOON_S = 10.0
FROZEN_S = 30.0
"""Long enough that a device which said nothing would be dead several times over."""


@pytest.fixture(scope="module")
def three(networks: None) -> Iterator[Fleet]:
    """Give three agents; each test leaves them whole."""
    with Fleet() as fleet:
        fleet.form(*NAMES)
        yield fleet


def _with(**changed: str) -> dict[str, str]:
    return {**dict.fromkeys(NAMES, "alive"), **changed}


def test_a_device_that_announced_its_sleep_is_suspended_and_comes_back(three: Fleet) -> None:
    cedar = three.agents["cedar"]
    told = cedar.must("sleep", "1h").stdout
    assert told == "The others know that this node sleeps for 1h.\n"
    three.wait_states(_with(cedar="asleep"), 2.0, "all were told before the command returned")
    [shown] = [one for one in three.agents["ash"].members() if one["name"] == "cedar"]
    assert 3500 < shown["until_s"] <= 3600

    cedar.pause()
    time.sleep(FROZEN_S)
    assert three.agents["ash"].states()["cedar"] == "asleep"
    assert three.agents["birch"].states()["cedar"] == "asleep"

    cedar.resume()
    three.wait_formed(SOON_S, "it says by itself that it is back")
    changes = three.agents["ash"].log
    assert "cedar is asleep (announced its sleep)" in changes
    assert "cedar is alive (woke up)" in changes
    assert "cedar is dead" not in changes


def test_wake_ends_a_sleep_early(three: Fleet) -> None:
    cedar = three.agents["cedar"]
    cedar.must("sleep", "2h")
    three.wait_states(_with(cedar="asleep"), 2.0, "all were told")
    three.agents["ash"].must("kv", "put", "lights/north", "on")
    assert cedar.must("wake").stdout == "This node is awake.\n"
    three.wait_formed(SOON_S, "all see it back")


def test_two_devices_cloned_from_one_card_are_named_by_the_others(three: Fleet) -> None:
    birch = three.agents["birch"]
    birch.stop()
    clone = three.add("clone")
    clone.log_file.unlink(missing_ok=True)
    sockets = shutil.ignore_patterns("*.sock", "agent.log")
    shutil.copytree(birch.directory, clone.directory, dirs_exist_ok=True, ignore=sockets)
    birch.start()
    clone.launch()
    try:
        eventually(
            lambda: three.agents["ash"].log + three.agents["cedar"].log,
            lambda log: "two devices say that they are birch" in log,
            90,
            "the others name the clone",
        )
        eventually(
            lambda: birch.log + clone.log,
            lambda log: "its identity was copied to another device" in log,
            90,
            "it is told so",
        )
        both = (birch, clone)
        eventually(
            lambda: [agent.covey("status") for agent in both],
            lambda told: any(
                "nobody listens to this one" in each.stdout and each.status == exits.UNHEALTHY
                for each in told
            ),
            90,
            "the device that lost knows it",
        )
        said = [agent.covey("doctor").stdout for agent in both]
        assert not any("every identity was heard from one device" in each for each in said)
    finally:
        clone.kill()
