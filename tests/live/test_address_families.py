"""Some have IPv4 alone, some IPv6 alone, one both: what is written anywhere is read anywhere."""

import pytest

from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import LOCAL_TOML, Fleet

pytestmark = [pytest.mark.live]

FORMED_WITHIN_S = 20.0
KEYS = 8


def test_members_of_different_families_read_what_the_others_write(fleet: Fleet) -> None:
    """Three of five own a key, so that for some keys two owners are of the other family."""
    fleet.admit("both", "four", "four2", "six", "six2", toml=LOCAL_TOML)
    for name, agent in fleet.agents.items():
        if name != "both":
            fleet.network.keep_family(agent.at, "ipv4" if name.startswith("four") else "ipv6")
        agent.launch()
    fleet.wait_formed(FORMED_WITHIN_S)
    four, six, both = (fleet.agents[name] for name in ("four", "six", "both"))
    chronicle = Chronicle(fleet)
    for number in range(KEYS):
        writer, reader = (four, six) if number % 2 else (six, four)
        writer.must("kv", "put", f"k{number}", f"v{number}")
        assert reader.must("kv", "get", f"k{number}").stdout == f"v{number}"
    assert not chronicle.deaths()
    joined = [name for name in both.counters() if "relayed_streams" in name and "joined" in name]
    assert joined, "they do not reach each other but through it"
    checks = four.covey("doctor", "-o", "json").json()["checks"]
    [advice] = [check for check in checks if check["id"] == "families"]
    assert "four, four2 with IPv4 alone" in advice["message"]
    assert "through both" in advice["message"]
