"""Devices with more networks than one: containers, VPNs, cards that come and go."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.network import Host, run
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NETWORK_PAGE = Path(__file__).resolve().parents[2] / "docs" / "network.md"
BRIDGES = 9
KNOWN_WITHIN_S = 10.0
OF_THE_MACHINE = {"disk", "clock", "loop"}
"""What the doctor may find where others are at work: it says nothing of networks."""
FRESH_S = 3.0
SEES_EACH_OTHER_S = 6.0


def _containers(fleet: Fleet, host: Host) -> None:
    """Give a device bridges with the addresses that Docker gives everywhere, and then its card."""
    for number in range(BRIDGES):
        name = f"br{number}" if number else "docker0"
        fleet.network.add_bridge(host, name, f"172.{17 + number}.0.1/16")
    fleet.network.replace_card(host)


def _told(agent: AgentProcess) -> list[str]:
    addresses: list[str] = agent.me()["addresses"]
    return addresses


def _joins(fleet: Fleet, issuer: AgentProcess, newcomer: AgentProcess) -> None:
    newcomer.must("join", fleet.token(issuer), "--node-name", newcomer.name)
    newcomer.start()
    fleet.wait_formed(KNOWN_WITHIN_S)


@pytest.fixture(scope="module")
def pair(networks: None) -> Iterator[Fleet]:
    """Give two devices that have the same nine networks of containers before their cards."""
    with Fleet() as fleet:
        ash, birch = (fleet.add(name, toml=LOCAL_TOML) for name in ("ash", "birch"))
        for agent in (ash, birch):
            _containers(fleet, agent.at)
        fleet.found(ash)
        _joins(fleet, ash, birch)
        yield fleet


def test_container_networks_are_not_told_and_nobody_is_sought_there(pair: Fleet) -> None:
    for agent in pair.agents.values():
        assert _told(agent) == [f"{agent.at.ipv4}:7747", f"[{agent.at.ipv6}]:7747"]
    pair.wait_settled(60.0, "both were heard, and own keys")
    for agent in pair.agents.values():
        counters = agent.counters()
        assert counters.get('covey_streams_total{kind="wrong_node"}', 0) == 0
        checks = eventually(
            lambda: agent.covey("doctor", "-o", "json").json()["checks"],  # noqa: B023
            lambda seen: {each["id"] for each in seen if each["status"] != "ok"} <= OF_THE_MACHINE,
            KNOWN_WITHIN_S,
            "the doctor finds nothing else",
        )
        asked = " ".join(each["message"] for each in checks if each["id"] == "multicast")
        assert "eth0" in asked
        assert "docker0" not in asked, "nobody else is there"


def test_a_vpn_that_comes_up_later_is_told(pair: Fleet) -> None:
    ash, birch = pair.agents.values()
    inside = ("ip", "-n", ash.at.namespace)
    # A cable stands in for the tunnel: the kernel of a test machine may lack WireGuard.
    run(*inside, "link", "add", "wg0", "mtu", "1420", "type", "veth", "peer", "name", "far")
    run(*inside, "address", "add", "10.66.0.1/24", "dev", "wg0")
    run(*inside, "link", "set", "far", "up")
    run(*inside, "link", "set", "wg0", "up")
    eventually(
        lambda: next(each for each in birch.members() if not each["self"])["addresses"],
        lambda seen: "10.66.0.1:7747" in seen,
        KNOWN_WITHIN_S,
        "birch knows the address of ash's VPN",
    )
    run(*inside, "link", "delete", "wg0")
    eventually(
        lambda: next(each for each in birch.members() if not each["self"])["addresses"],
        lambda seen: "10.66.0.1:7747" not in seen,
        KNOWN_WITHIN_S,
        "birch knows that it is gone",
    )


def _without_ipv6(host: Host) -> None:
    for which in ("all", "default"):
        run(*host.enter(), "sysctl", "-qw", f"net.ipv6.conf.{which}.disable_ipv6=1")


def test_a_card_that_is_put_back_hears_and_is_heard(fleet: Fleet) -> None:
    """By mDNS alone: a newcomer has nothing else to find it by."""
    ash, birch = (fleet.add(name, toml=LOCAL_TOML) for name in ("ash", "birch"))
    for agent in (ash, birch):
        _without_ipv6(agent.at)
    fleet.found(ash)
    number = _index(ash)
    fleet.network.replace_card(ash.at)
    assert _index(ash) != number
    _joins(fleet, ash, birch)


def _index(agent: AgentProcess) -> int:
    return int(run(*agent.at.enter(), "cat", "/sys/class/net/eth0/ifindex"))


def test_link_local_addresses_alone_make_a_covey(fleet: Fleet) -> None:
    """No DHCP server, no router: three devices on a cable."""
    ash, birch, cedar = (fleet.add(name, toml=LOCAL_TOML) for name in ("ash", "birch", "cedar"))
    for agent in (ash, birch, cedar):
        run("ip", "-n", agent.at.namespace, "address", "flush", "dev", "eth0", "scope", "global")
    fleet.found(ash)
    _joins(fleet, ash, birch)
    _joins(fleet, ash, cedar)
    assert _told(ash) == []
    checks = {each["id"]: each for each in ash.covey("doctor", "-o", "json").json()["checks"]}
    assert checks["addresses"]["status"] == checks["multicast"]["status"] == "ok", checks
    assert "link-local addresses alone" in checks["addresses"]["message"]
    eventually(
        lambda: [
            agent.api.get(f"/api/v1/members/{other.name}")["paths"]["udp_out_s"]
            for agent in fleet.agents.values()
            for other in fleet.agents.values()
            if other is not agent
        ],
        lambda ages: all(age_s is not None and age_s < FRESH_S for age_s in ages),
        SEES_EACH_OTHER_S,
        "each answers each",
    )
    ash.must("kv", "put", "lights", "on")
    assert cedar.must("kv", "get", "lights").stdout.strip() == "on"
    cedar.kill()
    fleet.wait_states(
        {"ash": "alive", "birch": "alive", "cedar": "dead"}, KNOWN_WITHIN_S, "its death is known"
    )
    cedar.start()
    fleet.wait_formed(KNOWN_WITHIN_S, "it finds back by its book and by mDNS")


def test_the_firewall_of_the_manual_lets_a_covey_form(fleet: Fleet) -> None:
    """Everything else is dropped; so the page names all ports that there are."""
    rules = NETWORK_PAGE.read_text().partition("```nft\n")[2].partition("```")[0]
    assert "policy drop" in rules
    ash, birch = (fleet.add(name, toml=LOCAL_TOML) for name in ("ash", "birch"))
    for agent in (ash, birch):
        file = agent.directory / "nftables.conf"
        file.write_text(rules)
        run(*agent.at.enter(), "nft", "-f", str(file))
    fleet.found(ash)
    _joins(fleet, ash, birch)
    ash.must("kv", "put", "lights", "on")
    assert birch.must("kv", "get", "lights").stdout.strip() == "on"
