"""Firewalls that let a part through: said to people, worked around, and nobody dies of them."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import LAN_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(240)]

NAMES = ("ash", "birch", "cedar")
REJECTED_S = 12.0
"""Each member looks a dozen times; on refusals alone, the first look kills."""
FLAGGED_WITHIN_S = 10.0
BACK_WITHIN_S = 20.0


@pytest.fixture(scope="module")
def whole(networks: None) -> Iterator[Fleet]:
    """Give three agents on one switch."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES, toml=LAN_TOML)
        yield fleet


@pytest.fixture
def three(whole: Fleet) -> Iterator[Fleet]:
    """Give the three, all well; the test may leave firewalls on the switch."""
    yield whole
    whole.network.pass_all()
    whole.wait_formed(BACK_WITHIN_S, "whole again")


def _paths(at: AgentProcess, to: AgentProcess) -> dict[str, Any]:
    paths: dict[str, Any] = at.api.get(f"/api/v1/members/{to.name}")["paths"]
    return paths


def test_a_firewall_that_rejects_datagrams_accuses_nobody(three: Fleet) -> None:
    cedar, chronicle = three.agents["cedar"], Chronicle(three)
    others = [agent for agent in three.agents.values() if agent is not cedar]
    three.network.reject_datagrams(cedar.at)
    time.sleep(REJECTED_S)
    eventually(
        lambda: [_paths(agent, cedar)["udp_blocked"] for agent in others],
        all,
        FLAGGED_WITHIN_S,
        "all know that only streams reach cedar",
    )
    assert not chronicle.accusations(), "its streams answer"
    refused = [agent.counters() for agent in others]
    assert all(any("proved wrong" in name for name in each) for each in refused), "really rejected"
    cedar.must("kv", "put", "from", "behind")
    assert others[0].must("kv", "get", "from").stdout == "behind"
    three.network.open_firewall(cedar.at)


def test_a_path_of_1280_bytes_is_wide_enough(three: Fleet) -> None:
    """Whatever VPN, PPPoE or VLAN is in between, and whether or not ICMP gets through."""
    three.network.narrow(1280)
    for agent in three.agents.values():  # so that no stream is from before
        agent.kill()
        agent.start()
    three.wait_formed(BACK_WITHIN_S, "all see each other")
    ash, birch, cedar = three.agents.values()
    large = "x" * 100_000
    ash.must("kv", "put", "large", large)
    assert birch.must("kv", "get", "large").stdout == large
    assert cedar.must("kv", "get", "large").stdout == large
