"""Devices with more networks than one: containers, VPNs, cards that come and go."""

import pytest

from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.network import Host

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(240)]

BRIDGES = 9


def _containers(fleet: Fleet, host: Host, bridges: int) -> None:
    """Give a device bridges with the addresses that Docker gives everywhere, and then its card."""
    for number in range(bridges):
        name = f"br{number}" if number else "docker0"
        fleet.network.add_bridge(host, name, f"172.{17 + number}.0.1/16")
    fleet.network.replace_card(host)


def test_nine_bridges_before_the_card(fleet: Fleet) -> None:
    ash, birch = (fleet.add(name, toml=LOCAL_TOML) for name in ("ash", "birch"))
    for agent in (ash, birch):
        _containers(fleet, agent.at, BRIDGES)
    fleet.found(ash)
    outcome = birch.covey("join", fleet.token(ash), "--node-name", "birch")
    print(outcome)
    print(ash.me())
    birch.start()
    fleet.wait_formed(10.0)
    print(ash.members())
