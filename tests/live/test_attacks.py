"""Garbage at every port: counted, logged at a limited rate; memory and peers stay."""

import random
import subprocess
from pathlib import Path

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import FORMED_WITHIN_S, Fleet
from tests.live.harness.network import Host
from tests.live.harness.programs import PORT, overhear, run_on, write_packets
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

API_PORT = 7780
TOML = f"""
[api]
listen = "0.0.0.0:{API_PORT}"
"""
OVERHEARD = 30
MEMORY_GROWTH_BYTES_MAX = 24 * 2**20
LOG_LINES_MAX = 200


def _attack(attacker: Host, target: Host, overheard: Path, seed: int) -> "subprocess.Popen[str]":
    return run_on(
        attacker, "attacker", target.ipv4, str(PORT), str(API_PORT), str(overheard), str(seed)
    )


def _dropped(agent: AgentProcess, kind: str) -> float:
    return agent.counters().get(f'covey_datagrams_dropped_total{{kind="{kind}"}}', 0.0)


def test_garbage_changes_nothing(fleet: Fleet) -> None:
    fleet.form("ash", "birch", "cedar", toml=TOML)
    ash = fleet.agents["ash"]
    assert ash.host
    attacker = fleet.network.add_host()
    overheard = write_packets(fleet.folder / "overheard.hex", overhear(ash.at, OVERHEARD))
    ash.must("kv", "put", "treasure", "gold")
    memory, refused = ash.rss_bytes(), ash.refused()
    lines = len(ash.log.splitlines())

    seed = random.randrange(1_000_000)
    print(f"seed of the attack: {seed}")
    attack = _attack(attacker, ash.host, overheard, seed)
    chronicle = Chronicle(fleet)
    while attack.poll() is None:
        assert ash.must("kv", "get", "treasure").stdout.rstrip("\n") == "gold"
    assert attack.returncode == 0

    assert not chronicle.deaths(), "the covey lost a member to noise"
    assert set(ash.states()) == set(fleet.agents), "noise became a member"
    assert ash.refused() > refused + 1000, "what is refused has to be counted"
    for kind in ("forged", "malformed", "replayed"):
        assert _dropped(ash, kind) > 0, f"nothing was counted as {kind}"
    growth = ash.rss_bytes() - memory
    print(f"memory grew by {growth / 2**20:.1f} MiB; refused {ash.refused() - refused:.0f}")
    assert growth < MEMORY_GROWTH_BYTES_MAX
    assert len(ash.log.splitlines()) - lines < LOG_LINES_MAX, "noise must not fill the disk"
    assert "Traceback" not in ash.log


def test_doors_open_again_after_half_open_connections(fleet: Fleet) -> None:
    """Who held all the doors is shown out; a device that is entitled to join then can."""
    fleet.form("ash", "birch", toml=TOML)
    ash = fleet.agents["ash"]
    assert ash.host
    nothing = fleet.folder / "nothing.hex"
    nothing.write_text("")
    attack = _attack(fleet.network.add_host(), ash.host, nothing, seed=1)
    full = 'covey_streams_refused_total{kind="no_place"}'
    eventually(ash.counters, lambda seen: seen.get(full, 0) > 0, 30.0, "doors are held")
    cedar = fleet.add("cedar")
    cedar.must("join", fleet.token(ash), "--node-name", "cedar")
    cedar.start()
    fleet.wait_formed(2 * FORMED_WITHIN_S, "one more, in the middle of an attack")
    attack.communicate()
    assert attack.returncode == 0
