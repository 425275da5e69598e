"""The profiles, measured: what docs/configuration.md says of them is what the simulator finds.

Whole nodes in virtual time; bytes are payload of UDP and of streams, sent and received.
"""

import re
from pathlib import Path

import pytest

from gossip.core.tuning import PROFILES
from gossip.membership.model.members import MemberState
from gossip.sim.world import World

MEMBERS = 10
PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
SPANS_S = {"local": 60, "lan": 300, "wan": 900, "metered": 14400}
TOLD = {
    name: (float(megabytes), float(seconds))
    for name, megabytes, seconds in re.findall(
        r"^\| `(\w+)` \|.*\| ([\d.]+) MB \| ([\d.]+) s \|", PAGE.read_text(), flags=re.MULTILINE
    )
}


def settled(profile: str) -> World:
    world = World(7, tuning=PROFILES[profile])
    world.add(*(f"n{index}" for index in range(MEMBERS)))
    assert world.run_until(world.is_whole, within_s=600) is not None
    tuning = PROFILES[profile]
    first_looks_s = MEMBERS * tuning.path_rounds * tuning.path_check_s
    world.run(max(3 * tuning.exchange_interval_s, first_looks_s))
    return world


def gossip_bytes(world: World) -> int:
    return sum(n for key, n in world.counts.items() if key.startswith("gossip_bytes/"))


def test_every_profile_is_in_the_table() -> None:
    assert set(TOLD) == set(PROFILES)


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_bytes_a_day_and_detection_are_as_told(profile: str) -> None:
    world = settled(profile)
    before = gossip_bytes(world)
    world.run(SPANS_S[profile])
    per_day = (gossip_bytes(world) - before) / MEMBERS / SPANS_S[profile] * 86_400
    megabytes, seconds = TOLD[profile]
    assert per_day == pytest.approx(megabytes * 1e6, rel=0.15)
    world.vanish("n3")
    others = [name for name in world.up() if name != "n3"]
    took_s = world.run_until(
        lambda: all(world.members(name)["n3"] is MemberState.DEAD for name in others),
        within_s=10 * seconds,
    )
    assert took_s is not None
    assert took_s <= 2.5 * seconds, "the table tells a typical time"


@pytest.mark.slow
def test_a_split_heals_in_time_with_every_profile() -> None:
    for profile, tuning in PROFILES.items():
        world = settled(profile)
        names = world.up()
        world.partition(names[:4], names[4:])
        world.run(10 * tuning.suspicion_max_s(MEMBERS) + 20 * tuning.probe_interval_s)
        assert len(world.alive("n0")) == 4, profile
        world.heal()
        healed = world.run_until(world.is_whole, within_s=tuning.healed_s)
        assert healed is not None, f"{profile} takes longer than {tuning.healed_s} s"
