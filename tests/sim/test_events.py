"""Events among whole nodes, in bad weather, with crashes and splits."""

import random
from collections import defaultdict

import pytest

from gossip.core.tuning import LAN
from gossip.sim.network import Conditions
from gossip.sim.world import World

NAMES = tuple("abcdefghi")
BAD = Conditions(loss=0.2, burst=0.005, jitter_s=0.02, duplicate=0.1, late=0.02, late_s=2.0)


def formed(seed: int) -> World:
    world = World(seed)
    world.add(*NAMES)
    assert world.run_until(world.is_whole, within_s=60) is not None
    world.run(10)
    return world


def lives(world: World) -> dict[tuple[str, int], list[str]]:
    """Return the names of the events that each life of each node delivered, in their order."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for host, life, one in world.delivered:
        found[host, life].append(one.event.name)
    return found


def check_order(world: World) -> None:
    """No life delivers an event twice, or before an earlier one, unless it says so."""
    times: dict[tuple[str, int], int] = defaultdict(int)
    for host, life, one in world.delivered:
        assert one.is_late == (one.event.time < times[host, life])
        times[host, life] = max(times[host, life], one.event.time)
    for heard in lives(world).values():
        assert len(heard) == len(set(heard))
    everywhere: dict[str, list[str]] = defaultdict(list)
    for (host, _), heard in lives(world).items():
        everywhere[host] += heard
    for host, heard in everywhere.items():
        assert len(heard) == len(set(heard)), f"{host} got one again after a restart"


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_events_reach_all_in_bad_weather(seed: int) -> None:
    world = formed(seed)
    world.weather(BAD)
    rng = random.Random(seed)
    sent = [f"event {number}" for number in range(30)]
    for event in sent:
        world.send_event(rng.choice(NAMES), event)
        world.run(rng.expovariate(3))
    world.run(LAN.event_recent_s)
    check_order(world)
    for name in NAMES:
        assert sorted(lives(world)[name, 0]) == sorted(sent), name
    late = sum(one.is_late for _, _, one in world.delivered)
    assert late < len(world.delivered) / 10, f"{late} of {len(world.delivered)} were late"
    assert world.counts["events_ignored/heard before"] > 100
    assert world.counts["world/datagrams/duplicated"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_crashes_and_restarts_repeat_nothing(seed: int) -> None:
    world = formed(seed)
    rng = random.Random(seed)
    for number in range(12):
        name = rng.choice(NAMES)
        world.send_event(name, f"event {number}")
        world.run(rng.uniform(0, 2))
        world.crash(name)
        world.run(rng.uniform(0.2, 3))
        world.restart(name)
        world.run(5)
    world.run(LAN.event_recent_s)
    check_order(world)
    # Who did not crash meanwhile has everything that the others have.
    steady = [name for name in NAMES if world.hosts[name].life == 0]
    heard = [set(lives(world)[name, 0]) for name in steady]
    assert all(one == heard[0] for one in heard)
    assert len(heard[0]) >= 9


@pytest.mark.slow
def test_whoever_is_cut_off_for_long_has_missed_it() -> None:
    world = formed(1)
    world.partition(["a", "b"], [name for name in NAMES if name not in "ab"])
    world.send_event("c", "there")
    world.send_event("a", "here")
    world.run(LAN.event_recent_s + 60)
    world.heal()
    assert world.run_until(world.is_whole, within_s=120) is not None
    world.run(10)
    world.send_event("b", "again")
    world.run(LAN.event_recent_s)
    check_order(world)
    for name in NAMES:
        assert lives(world)[name, 0] == [("here" if name in "ab" else "there"), "again"]


def test_a_short_split_is_made_up_for() -> None:
    world = formed(2)
    world.partition(["a", "b"], [name for name in NAMES if name not in "ab"])
    world.send_event("c", "there")
    world.run(5)
    world.heal()
    world.run(LAN.event_recent_s)
    check_order(world)
    assert lives(world)["a", 0] == ["there"]
