"""Firewalls that let a part through: said to people, worked around, and nobody dies of them."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar")
REJECTED_S = 8.0
"""Each member looks many times; on refusals alone, the first look kills."""
FLAGGED_WITHIN_S = 60.0
"""Several looks at each member, and a dial that nobody answers takes six seconds."""
SETTLED_WITHIN_S = 15.0
BACK_WITHIN_S = 20.0
WRITTEN_WITHIN_S = 15.0


@pytest.fixture(scope="module")
def whole(networks: None) -> Iterator[Fleet]:
    """Give three agents on one switch."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES, toml=LOCAL_TOML)
        # Streams of one that has just started may be slow to open, and who is accused is judged.
        fleet.wait_settled(SETTLED_WITHIN_S, "the first work is done")
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


def _checks(at: AgentProcess) -> dict[str, dict[str, str]]:
    return {check["id"]: check for check in at.covey("doctor", "-o", "json").json()["checks"]}


def _impaired(at: AgentProcess) -> dict[str, list[str]]:
    return {member["name"]: member["impaired"] for member in at.members() if member["impaired"]}


def _restart(fleet: Fleet) -> None:
    """Let no stream be from before."""
    for agent in fleet.agents.values():
        agent.kill()
        agent.start()


def test_a_firewall_that_was_opened_for_datagrams_alone(three: Fleet) -> None:
    cedar = three.agents["cedar"]
    others = [agent for agent in three.agents.values() if agent is not cedar]
    three.network.drop(target=cedar.at, what="streams")
    _restart(three)
    # Who is being restarted is dead, and nobody may have been told why.
    chronicle = Chronicle(three)
    eventually(
        lambda: [_impaired(agent) for agent in others],
        lambda seen: all(each == {"cedar": ["no streams"]} for each in seen),
        FLAGGED_WITHIN_S,
        "both know that no stream reaches cedar",
    )
    assert not [
        told for told in chronicle.deaths() if told.reason == "did not refute the suspicion"
    ]
    found = eventually(
        lambda: _checks(others[0]),
        lambda seen: (
            seen["streams"]["status"] == "fail"
            and "from ash, birch" in seen["no-streams"]["message"]
        ),
        FLAGGED_WITHIN_S,
        "the doctor has heard of it from both",
    )
    assert "no stream to cedar" in found["streams"]["message"]
    assert re.search(
        r"TCP port 7747 at (10\.77\.0\.3|fd77::3) does not answer", found["streams"]["message"]
    )
    advice = _checks(cedar)["streams"]
    assert "let TCP to port 7747 of this device in" in advice["hint"]

    three.network.pass_all()
    eventually(lambda: [_impaired(agent) for agent in others], lambda seen: not any(seen),
               FLAGGED_WITHIN_S, "all is well again")  # fmt: skip
    eventually(
        lambda: _checks(others[0])["streams"]["status"],
        lambda status: status == "ok",
        FLAGGED_WITHIN_S,
        "the doctor says so, too",
    )


def test_a_path_that_is_narrower_than_allowed(three: Fleet) -> None:
    """No IPv6 may pass it; it is worked around all the same, and said."""
    ash, *others = three.agents.values()
    three.network.narrow(600)
    _restart(three)
    for agent in three.agents.values():
        eventually(
            lambda agent=agent: _impaired(agent),  # type: ignore[misc]
            lambda seen: [words[-1] for words in seen.values()] == ["narrow path"] * 2,
            FLAGGED_WITHIN_S,
            f"{agent.name} knows that large packets are lost",
        )
    eventually(
        lambda: ash.must("kv", "put", "through", "the needle"),
        lambda _: True,
        WRITTEN_WITHIN_S,
        "segments are cut",
    )
    for agent in others:
        assert agent.must("kv", "get", "through").stdout == "the needle"
    assert "packets of 1280 bytes do not reach" in _checks(ash)["narrow"]["message"]
