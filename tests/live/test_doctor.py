"""The doctor on real agents: well, with a path that works in one direction only, and alone."""

from typing import Any

import pytest

from agent import exits
from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import Fleet
from tests.live.harness.network import Host, run
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

PORT = "7747"


def _drop_datagrams(at: Host, of: Host) -> None:
    """Let no datagram of one host in at another; streams still pass."""
    nft = (*at.enter(), "nft")
    run(*nft, "add", "table", "inet", "deaf")
    run(*nft, "add", "chain", "inet", "deaf", "input", "{ type filter hook input priority 0; }")
    for family, address in (("ip", of.ipv4), ("ip6", of.ipv6)):
        words = f"{family} saddr {address} udp dport {PORT} drop"
        run(*nft, "add", "rule", "inet", "deaf", "input", words)


def _examined(agent: AgentProcess) -> dict[str, Any]:
    answer: dict[str, Any] = agent.covey("doctor", "-o", "json").json()
    return answer


def _ways(answer: dict[str, Any]) -> dict[tuple[str, str], str]:
    names = answer["matrix"]["names"]
    return {
        (a, b): way
        for a, row in zip(names, answer["matrix"]["rows"], strict=True)
        for b, way in zip(names, row, strict=True)
    }


def test_a_one_way_path_shows_in_the_matrix(fleet: Fleet) -> None:
    fleet.form("ash", "birch", "cedar")
    ash, birch, cedar = (fleet.agents[name] for name in ("ash", "birch", "cedar"))
    well = eventually(
        lambda: _examined(cedar),
        lambda seen: set(_ways(seen).values()) == {"-", "udp"},
        15.0,
        "datagrams pass everywhere",
    )
    by_id = {check["id"]: check["status"] for check in well["checks"]}
    assert by_id.keys() >= {
        *("agent", "configuration", "certificate", "clock", "disk", "packages", "multicast"),
        *("mdns", "names", "seals", "other-coveys", "paths", "uplink", "apps"),
    }
    failed = {name for name, status in by_id.items() if status == "fail"}
    assert failed <= {"disk"}, "which others may be at work on: " + str(well["checks"])

    assert ash.host
    assert birch.host
    _drop_datagrams(birch.host, ash.host)
    ill = eventually(
        lambda: _examined(cedar),
        lambda seen: (
            _ways(seen)["ash", "birch"] != "udp"
            and _ways(seen)["birch", "ash"] == "udp"
            and "one-way" in {check["id"] for check in seen["checks"]}
        ),
        40.0,
        "ash does not reach birch, and birch reaches ash",
    )
    [advice] = [check for check in ill["checks"] if check["id"] == "one-way"]
    assert "from ash do not reach birch" in advice["message"]

    def paths() -> tuple[float, float | None]:
        shown = ash.must("members", "show", "birch", "-o", "json").json()["paths"]
        return shown["udp_in_s"], shown["udp_out_s"]

    eventually(
        paths,
        lambda seen: seen[1] is None or seen[1] > seen[0],
        15.0,
        "ash hears birch, and gets no answer",
    )


def test_alone_the_doctor_still_looks_at_the_device(fleet: Fleet) -> None:
    agent = fleet.add("ash")
    agent.must("init", "test", "--node-name", "ash")
    outcome = agent.covey("doctor", "-o", "json")
    assert outcome.status == exits.UNHEALTHY
    by_id = {check["id"]: check["status"] for check in outcome.json()["checks"]}
    assert by_id["agent"] == "fail"
    assert by_id["certificate"] == by_id["multicast"] == "ok"
    assert "disk" in by_id, "it is looked at, and others may have it write slowly"
    nft = (*agent.host.enter(), "nft") if agent.host else ()
    run(*nft, "add", "table", "inet", "deaf")
    run(*nft, "add", "chain", "inet", "deaf", "output", "{ type filter hook output priority 0; }")
    run(*nft, "add", "rule", "inet", "deaf", "output", "ip daddr 224.0.0.251 drop")
    [multicast] = [
        check
        for check in agent.covey("doctor", "-o", "json").json()["checks"]
        if check["id"] == "multicast"
    ]
    assert multicast["status"] == "warn", multicast
    assert "seeds" in multicast["hint"]
