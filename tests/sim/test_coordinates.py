"""Coordinates of whole nodes on a map with known distances."""

import itertools
import math
import random

import pytest

from gossip.sim.network import Conditions
from gossip.sim.world import World

NAMES = [f"n{number}" for number in range(10)]
AIR = Conditions(delay_s=0.001, jitter_s=0.0005)
SIDE_S = 0.1
"""The map is a square; a corner is this far from the next, there and back."""


def world_on_a_map(seed: int) -> tuple[World, dict[tuple[str, str], float]]:
    """Return a world of members at random points, and the true round trips between them."""
    world = World(seed, conditions=AIR)
    rng = random.Random(seed)
    points = {name: (rng.uniform(0, SIDE_S), rng.uniform(0, SIDE_S)) for name in NAMES}
    truth = {}
    for one, other in itertools.combinations(NAMES, 2):
        distance_s = math.dist(points[one], points[other])
        world.network.lengthen(one, other, distance_s / 2)
        truth[one, other] = distance_s + 2 * (AIR.delay_s + AIR.jitter_s)
    world.add(*NAMES)
    return world, truth


def share_within(world: World, truth: dict[tuple[str, str], float], share: float) -> float:
    """Return which part of all estimates, of all pairs by all nodes, is off by at most a share."""
    ids = {name: world.hosts[name].id for name in NAMES}
    good = []
    for name in NAMES:
        swim = world.hosts[name].node.swim
        for (one, other), rtt_s in truth.items():
            estimated_s = swim.rtt_service.between(ids[one], ids[other]).estimated_s
            good.append(estimated_s is not None and abs(estimated_s - rtt_s) <= share * rtt_s)
    return sum(good) / len(good)


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))]
)
def test_two_minutes_draw_the_map(seed: int) -> None:
    world, truth = world_on_a_map(seed)
    world.run(120)
    assert share_within(world, truth, 0.25) >= 0.8
    assert world.counts["coordinates/moved"] > 0
    assert not world.counts["coordinates/refused"]


@pytest.mark.slow
def test_places_cost_little_once_they_are_known() -> None:
    world, _ = world_on_a_map(seed=4)
    world.run(120)
    before = world.counts
    world.run(120)
    after = world.counts
    told = after["messages_sent/coordinate"] - before["messages_sent/coordinate"]
    acks = after["messages_sent/ack"] - before["messages_sent/ack"]
    assert 0 < told < acks / 2
