"""Devices whose addresses change: an address is where a member is, never who it is."""

from collections.abc import Iterator

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar", "elm")
KNOWN_WITHIN_S = 5.0
FRESH_S = 3.0


@pytest.fixture(scope="module")
def four(networks: None) -> Iterator[Fleet]:
    """Give four agents; each test leaves them whole, wherever they are."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES, toml=LOCAL_TOML)
        yield fleet


def _move(fleet: Fleet, leases: dict[str, int]) -> None:
    """Let all these leases expire, and then give each device its new one."""
    agents = {fleet.agents[name]: number for name, number in leases.items()}
    for agent in agents:
        fleet.network.expire(agent.at)
    for agent, number in agents.items():
        agent.host = fleet.network.lease(agent.at, number)
    fleet.network.announce_leases()


def _wait_known(fleet: Fleet, *moved: AgentProcess) -> None:
    """Wait until all list the new addresses and no others, and reach the devices there."""

    def where(agent: AgentProcess) -> dict[str, set[str]]:
        return {one["name"]: set(one["addresses"]) for one in agent.members()}

    for each in moved:
        here = {f"{each.at.ipv4}:7747", f"[{each.at.ipv6}]:7747"}
        eventually(
            lambda: [where(agent)[each.name] for agent in fleet.agents.values()],  # noqa: B023
            lambda seen: all(addresses == here for addresses in seen),  # noqa: B023
            KNOWN_WITHIN_S,
            f"all know where {each.name} is now",
        )
    fleet.wait_formed(KNOWN_WITHIN_S, "all alive")
    for each in moved:
        eventually(
            lambda: [
                agent.api.get(f"/api/v1/members/{each.name}")["paths"]["udp_out_s"]  # noqa: B023
                for agent in fleet.agents.values()
                if agent is not each  # noqa: B023
            ],
            lambda seen: all(age_s is not None and age_s < FRESH_S for age_s in seen),
            KNOWN_WITHIN_S,
            f"{each.name} answers all there",
        )


def test_a_new_lease_while_it_runs(four: Fleet) -> None:
    elm, chronicle = four.agents["elm"], Chronicle(four)
    before = elm.me()
    _move(four, {"elm": 201})
    _wait_known(four, elm)
    assert elm.me()["boot"] == before["boot"]
    assert not chronicle.deaths()


def test_a_restart_at_another_address(four: Fleet) -> None:
    cedar = four.agents["cedar"]
    before = cedar.me()
    cedar.kill()
    _move(four, {"cedar": 202})
    cedar.start()
    _wait_known(four, cedar)
    after = cedar.me()
    assert after["id"] == before["id"]
    assert int(after["boot"], 16) > int(before["boot"], 16)


def test_two_devices_swap_addresses(four: Fleet) -> None:
    """What is sent to the old address of one reaches the other, which is not meant by it."""
    ash, birch, chronicle = four.agents["ash"], four.agents["birch"], Chronicle(four)
    ids = {agent.name: agent.me()["id"] for agent in (ash, birch)}
    _move(four, {"ash": 2, "birch": 1})
    _wait_known(four, ash, birch)
    assert {agent.name: agent.me()["id"] for agent in (ash, birch)} == ids
    assert not chronicle.deaths()
    told = "".join(agent.log for agent in four.agents.values())
    assert "two devices say that they are" not in told, "no clone: each is who it was"


def test_everybody_moves_at_once(four: Fleet) -> None:
    """A new router with another range: nobody is left who could tell the rest."""
    _move(four, {name: 210 + number for number, name in enumerate(NAMES)})
    _wait_known(four, *four.agents.values())
