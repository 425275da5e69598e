"""Coordinates: golden laws of Vivaldi on known networks, what is told to whom, what is refused."""

import itertools
import math
import random
import statistics
import struct
from collections import Counter

import pytest

from gossip.core.errors import Malformed
from gossip.core.tuning import LAN, METERED
from gossip.membership.detection.probe import ProbeState
from gossip.membership.model.messages import (
    FRAMES,
    Ack,
    CoordinateUpdate,
    Ping,
    RttReply,
    RttRequest,
)
from gossip.membership.network.coordinates import (
    ADJUSTMENT_SAMPLES,
    AGAIN_PERIODS,
    AGAIN_S,
    DIMENSIONS,
    ERROR_MAX,
    PLACE_BYTES,
    RTT_MAX_S,
    SOON_S,
    Coordinate,
    Coordinates,
    Vivaldi,
    decode_place,
    estimate_between,
)
from gossip.membership.rtt import Rtt, RttReported
from tests.support.membership_net import Net
from tests.support.membership_solo import ME, Solo, said, where

ROUNDS = 1000
SEEDS = (1, 2, 3, 4, 5)
Network = list[list[float]]


def line(nodes: int, spacing_s: float) -> Network:
    return [[abs(a - b) * spacing_s for b in range(nodes)] for a in range(nodes)]


def grid(side: int, spacing_s: float) -> Network:
    points = list(itertools.product(range(side), repeat=2))
    return [[spacing_s * math.dist(a, b) for b in points] for a in points]


def split(nodes: int, near_s: float, far_s: float) -> Network:
    half = nodes // 2
    return [
        [near_s if (a < half) == (b < half) else far_s for b in range(nodes)] for a in range(nodes)
    ]


def errors(network: Network, seed: int) -> list[float]:
    """Return the relative errors of all pairs after everybody measured somebody ROUNDS times."""
    rng = random.Random(seed)
    nodes = range(len(network))
    moved = [Vivaldi(random.Random(seed * 1000 + node)) for node in nodes]
    for _ in range(ROUNDS):
        for node in nodes:
            other = rng.choice(nodes)
            if other != node:
                assert moved[node].observe(moved[other].place, network[node][other])
    return [
        abs(moved[a].place.rtt_s(moved[b].place) - network[a][b]) / network[a][b]
        for a, b in itertools.combinations(nodes, 2)
    ]


@pytest.mark.parametrize(
    ("network", "mean_max", "worst_max"),
    [
        pytest.param(line(10, 0.01), 0.0031, 0.03, id="a line of 10"),
        pytest.param(grid(5, 0.01), 0.0025, 0.03, id="a grid of 25"),
        pytest.param(split(25, 0.001, 0.01), 0.01, 0.08, id="two sites"),
    ],
)
def test_known_networks_are_drawn_true(network: Network, mean_max: float, worst_max: float) -> None:
    runs = [errors(network, seed) for seed in SEEDS]
    assert statistics.median(statistics.mean(run) for run in runs) <= mean_max
    assert max(max(run) for run in runs) <= worst_max


def test_the_height_carries_what_no_direction_explains() -> None:
    """Leaves of a star: no two are near, and no plane has them all at one distance."""
    star = split(30, 0.02, 0.02)
    assert statistics.mean(errors(star, 1)) < 0.08


def test_a_new_place_is_worth_nothing_and_the_first_sample_moves_it() -> None:
    vivaldi = Vivaldi(random.Random(1))
    assert vivaldi.place.error == ERROR_MAX
    assert vivaldi.observe(Coordinate(), 0.1)
    assert vivaldi.place.raw_distance_s(Coordinate()) > 0.01


def test_the_adjustment_is_half_the_mean_of_the_misses() -> None:
    vivaldi = Vivaldi(random.Random(1))
    for _ in range(3 * ADJUSTMENT_SAMPLES):
        vivaldi.observe(Coordinate(error=0.1), 0.05)
    misses_s = 0.05 - vivaldi.place.raw_distance_s(Coordinate())
    assert vivaldi.place.adjustment_s == pytest.approx(misses_s / 2, abs=0.005)


def test_an_estimate_is_never_negative() -> None:
    one, other = Coordinate(adjustment_s=-1.0), Coordinate(adjustment_s=-1.0)
    assert estimate_between(one, other).rtt_s == pytest.approx(one.raw_distance_s(other))


# On the wire.


def test_a_place_comes_back_in_single_precision() -> None:
    place = Coordinate(tuple(0.01 * n for n in range(DIMENSIONS)), 0.002, 0.25, -0.001)
    data = place.encode()
    assert len(data) == PLACE_BYTES == 44
    back = decode_place(data)
    assert back.rtt_s(Coordinate()) == pytest.approx(place.rtt_s(Coordinate()), rel=1e-6)
    assert back.encode() == data


BAD = {
    "no number": (math.nan, *[0.0] * 10),
    "infinite": (math.inf, *[0.0] * 10),
    "too far": (RTT_MAX_S + 1, *[0.0] * 10),
    "too far in all directions": (*[RTT_MAX_S * 0.9] * 8, 0.0, 0.0, 0.0),
    "underground": (*[0.0] * 8, -0.1, 0.0, 0.0),
    "height is no number": (*[0.0] * 8, math.nan, 0.0, 0.0),
    "surer than sure": (*[0.0] * 9, -0.1, 0.0),
    "error is no number": (*[0.0] * 9, math.nan, 0.0),
    "no idea at all": (*[0.0] * 9, 2.0, 0.0),
    "adjusted away": (*[0.0] * 10, -11.0),
    "adjustment is no number": (*[0.0] * 10, math.nan),
}


@pytest.mark.parametrize("numbers", BAD.values(), ids=BAD.keys())
def test_places_that_cannot_be_are_refused_and_counted(numbers: tuple[float, ...]) -> None:
    solo = Solo(2)
    solo.hear(2, CoordinateUpdate(struct.pack(">11f", *numbers)))
    assert solo.swim.counts["coordinates/refused"] == 1
    assert solo.swim.rtt_service.between(ME, 2).estimated_s is None


@pytest.mark.parametrize("size", [0, 43, 45, 128])
def test_places_of_another_length_are_refused(size: int) -> None:
    with pytest.raises(Malformed):
        decode_place(bytes(size))


def test_strangers_leave_no_place_behind() -> None:
    solo = Solo(2)
    for stranger in range(100, 200):
        solo.hear(stranger, CoordinateUpdate(Coordinate().encode()), Ping(1, ME))
    assert len(solo.swim._reachability.coordinates) <= 1
    assert solo.swim.rtt_service.between(ME, 150).estimated_s is None


# What is told to whom.


def coordinates() -> Coordinates:
    return Coordinates(ME, random.Random(1), Counter())


def test_a_place_is_told_once_and_again_after_a_while() -> None:
    ours = coordinates()
    assert ours.news_for(2, now=0.0) == Coordinate().encode()
    assert ours.news_for(2, now=AGAIN_S - 1) is None
    assert ours.news_for(3, now=1.0) is not None
    assert ours.news_for(2, now=AGAIN_S) is not None


def test_who_probes_seldom_tells_its_place_again_as_seldom() -> None:
    ours = Coordinates(ME, random.Random(1), Counter(), METERED.probe_interval_s)
    assert ours.news_for(2, now=0.0) is not None
    again_s = AGAIN_PERIODS * METERED.probe_interval_s
    assert ours.news_for(2, now=again_s - 1) is None
    assert ours.news_for(2, now=again_s) is not None


def test_who_moved_tells_it_soon_and_who_is_surer_at_once() -> None:
    ours = coordinates()
    ours.news_for(2, now=0.0)
    ours.learn(3, Coordinate(error=0.1).encode())
    ours.measured(3, 0.1)
    assert ours.news_for(2, now=1.0) is None
    assert ours.news_for(2, now=SOON_S) is not None
    while ours.place.error > 0.2:
        ours.measured(3, 0.1)
    assert ours.news_for(2, now=SOON_S + 1) is not None


def test_the_median_of_three_samples_speaks_for_a_peer() -> None:
    ours = coordinates()
    ours.learn(2, Coordinate(error=0.1).encode())
    for _ in range(100):
        ours.measured(2, 0.05)
    before = ours.estimate(ME, 2)
    ours.measured(2, 9.0)
    after = ours.estimate(ME, 2)
    assert before is not None
    assert after is not None
    assert after.rtt_s == pytest.approx(before.rtt_s, rel=0.01)


@pytest.mark.parametrize("rtt_s", [-0.001, RTT_MAX_S + 0.1, math.nan, math.inf])
def test_samples_out_of_bounds_are_counted_and_move_nothing(rtt_s: float) -> None:
    counts: Counter[str] = Counter()
    ours = Coordinates(ME, random.Random(1), counts)
    ours.learn(2, Coordinate().encode())
    ours.measured(2, rtt_s)
    assert ours.place == Coordinate()
    assert counts == {"coordinates/sample out of bounds": 1}


def test_whoever_is_forgotten_is_at_no_place() -> None:
    ours = coordinates()
    ours.learn(2, Coordinate().encode())
    ours.forget(2)
    assert ours.estimate(ME, 2) is None
    assert len(ours) == 0


# In the machine.


def test_an_ack_takes_our_place_along_when_it_is_news() -> None:
    solo = Solo(2)
    solo.hear(2, Ping(7, ME))
    sent = solo.drain()
    assert said(sent, Ack, where(2)) == [Ack(7)]
    assert [len(each.place) for each in said(sent, CoordinateUpdate, where(2))] == [PLACE_BYTES]
    solo.hear(2, Ping(8, ME))
    assert not said(solo.drain(), CoordinateUpdate)


def test_the_repeated_ping_gives_a_sample_too() -> None:
    """Its number is its own, so a slow answer to the first is not taken for a fast one to it."""
    solo = Solo(2)
    probe = solo.probe(ProbeState.RETRIED)
    first, second = probe.pinged_at
    solo.now = probe.pinged_at[first] + 0.3
    solo.hear(2, Ack(first))
    assert solo.swim.rtt_s(2) == pytest.approx(0.3)
    solo.now = probe.pinged_at[second] + 0.3
    solo.hear(2, Ack(second))
    assert solo.swim.rtt_s(2) == pytest.approx(0.3)


def test_the_timeout_follows_the_round_trip_within_the_period() -> None:
    assert LAN.timeout_s(None) == LAN.timeout_s(0.001) == LAN.probe_timeout_s
    assert LAN.timeout_s(0.15) == pytest.approx(0.6)
    assert LAN.timeout_s(9.0) == LAN.probe_patience_share * LAN.probe_interval_s


def test_the_nearer_of_two_is_tried_first() -> None:
    solo = Solo(2, 3, 4)
    near = Coordinate((0.01, *[0.0] * 7), error=0.1)
    far = Coordinate((0.09, *[0.0] * 7), error=0.1)
    solo.hear(4, CoordinateUpdate(near.encode()))
    solo.hear(3, CoordinateUpdate(far.encode()))
    assert solo.swim.reachable_first([2, 3, 4, ME]) == [ME, 4, 3, 2]


def test_members_answer_how_far_somebody_is_from_them() -> None:
    net = Net(3)
    net.join_all()
    net.run(30)
    one, other = net.ids[1], net.ids[2]
    number = net.swims[0].rtt_service.ask(one, other)
    net.settle(0)
    net.run(0.1)
    [told] = [event for _, _, event in net.events if isinstance(event, RttReported)]
    assert (told.peer, told.number) == (one, number)
    known, theirs = told.round_trip, net.swims[1].rtt_service.between(one, other)
    assert known.measured_s == pytest.approx(theirs.measured_s, abs=1e-5)
    assert known.estimated_s == pytest.approx(theirs.estimated_s, abs=1e-5)
    assert known.is_known


def test_who_knows_nothing_says_so() -> None:
    solo = Solo(2)
    solo.swim.receive_frame(FRAMES.encode(RttRequest(5, 3)), 2, solo.now)
    [frame] = [effect for effect in solo.swim.effects() if hasattr(effect, "data")]
    assert FRAMES.decode(frame.data) == RttReply(5, None, None, None)
    assert not Rtt().is_known


@pytest.mark.parametrize(
    "data", [b"\x92\x28\xc0", b"\x95\x29\x01\xff\xc0\xc0", b"\x95\x29\x01\xcb\x7f\xf8\x00"]
)
def test_malformed_questions_are_counted(data: bytes) -> None:
    solo = Solo(2)
    solo.swim.receive_frame(data, 2, solo.now)
    assert solo.swim.counts["frames_dropped/malformed"] == 1
