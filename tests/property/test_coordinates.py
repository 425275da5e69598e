"""Laws of the coordinates: whatever is measured and claimed, our place stays a place."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.membership.network.coordinates import (
    ERROR_MAX,
    PLACE_BYTES,
    RTT_MAX_S,
    Coordinate,
    Coordinates,
    Vivaldi,
    estimate_between,
)

ME = 1
ROUNDING_S = 1e-9
FAR = st.floats(-3.5, 3.5, width=32)  # eight of them stay within ten seconds of the origin
PLACES = st.builds(
    Coordinate,
    vector=st.tuples(*[FAR] * 8),
    height_s=st.floats(0.0, RTT_MAX_S, width=32),
    error=st.floats(0.0, ERROR_MAX, width=32),
    adjustment_s=st.floats(-RTT_MAX_S, RTT_MAX_S, width=32),
)
ROUND_TRIPS_S = st.floats(0.0, RTT_MAX_S)


@given(st.lists(st.tuples(PLACES, ROUND_TRIPS_S), max_size=60), st.integers(0, 99))
def test_no_history_leads_out_of_the_space(
    history: list[tuple[Coordinate, float]], seed: int
) -> None:
    vivaldi = Vivaldi(random.Random(seed))
    for place, rtt_s in history:
        vivaldi.observe(place, rtt_s)
        assert vivaldi.place.is_sound
        assert vivaldi.place.rtt_s(place) >= 0.0


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=2 * PLACE_BYTES),
            st.binary(min_size=PLACE_BYTES, max_size=PLACE_BYTES),
            st.floats(),
        ),
        max_size=60,
    )
)
def test_no_bytes_and_no_sample_spoil_it(inputs: list[bytes | float]) -> None:
    ours = Coordinates(ME, random.Random(1), Counter())
    for node, each in enumerate(inputs):
        if isinstance(each, bytes):
            ours.learn(2 + node % 3, each)
        else:
            ours.measured(2 + node % 3, each)
        assert ours.place.is_sound
        for other in (2, 3, 4):
            estimate = ours.estimate(ME, other)
            assert estimate is None or 0.0 <= estimate.rtt_s <= RTT_MAX_S


@given(PLACES, PLACES)
def test_the_way_back_is_as_long(one: Coordinate, other: Coordinate) -> None:
    raw_s = one.raw_distance_s(other)
    assert raw_s == pytest.approx(other.raw_distance_s(one))
    estimate, back = estimate_between(one, other), estimate_between(other, one)
    adjusted_s = raw_s + one.adjustment_s + other.adjustment_s
    if abs(adjusted_s) > ROUNDING_S:  # at zero, the last bit decides whether to adjust at all
        assert estimate.rtt_s == pytest.approx(back.rtt_s, abs=ROUNDING_S)
    assert 0.0 <= estimate.error_s <= ERROR_MAX * RTT_MAX_S
