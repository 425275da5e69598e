"""What an agent tells about its machine keeps to the limits, whatever machine it is."""

from datetime import datetime
from pathlib import Path

from agent._version import __version__
from agent.facts import built_in
from gossip.membership.facts import flaw


def test_versions_and_capacities_are_told(tmp_path: Path) -> None:
    facts = built_in(tmp_path, 1_700_000_000.5, "wan")
    assert facts["covey"] == __version__
    assert facts["wire"] == "1"
    assert facts["profile"] == "wan"
    assert datetime.fromisoformat(facts["started_at"]).timestamp() == 1_700_000_000
    assert int(facts["memory_bytes"]) > 2**20
    assert int(facts["disk_bytes"]) > 2**20
    assert int(facts["cores"]) >= 1
    assert not flaw(facts)


def test_what_a_machine_does_not_tell_is_left_out(tmp_path: Path) -> None:
    facts = built_in(tmp_path / "missing", 0.0, "lan")
    assert "disk_bytes" not in facts
    assert all(facts.values())
