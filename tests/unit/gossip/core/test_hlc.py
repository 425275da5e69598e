"""The hybrid clock: never back, follows causes, does not believe in 2099, survives 1970."""

from hypothesis import given
from hypothesis import strategies as st

from gossip.core.hlc import AHEAD_MS_MAX, COUNTER_BITS, STAMP_MAX, HybridClock, stamp_ms

NOON_MS = 1_800_000_000_000


def clock_at(wall_ms: int) -> HybridClock:
    return HybridClock(lambda now: wall_ms + int(now * 1000))


def test_it_shows_the_wall_clock() -> None:
    assert stamp_ms(clock_at(NOON_MS).tick(1.5)) == NOON_MS + 1500


def test_an_effect_is_stamped_after_its_cause_though_the_wall_is_behind() -> None:
    ahead, behind = clock_at(NOON_MS + 30_000), clock_at(NOON_MS)
    cause = ahead.tick(0.0)
    assert behind.merge(cause, 0.0)
    assert behind.tick(0.0) > cause


def test_a_stamp_from_2099_is_not_believed() -> None:
    clock = clock_at(NOON_MS)
    far = (NOON_MS + AHEAD_MS_MAX + 1) << COUNTER_BITS
    assert not clock.merge(far, 0.0)
    assert stamp_ms(clock.tick(0.0)) == NOON_MS
    assert clock.merge(far - (1 << COUNTER_BITS), 0.0)


def test_a_clock_in_1970_follows_what_it_hears() -> None:
    clock = clock_at(0)
    heard = NOON_MS << COUNTER_BITS
    assert clock.merge(heard, 0.0)
    assert clock.tick(0.0) == heard + 1


def test_a_wall_clock_that_jumps_back_does_not_take_stamps_back() -> None:
    walls = iter([NOON_MS, NOON_MS - 10_000, -5, NOON_MS - 1])
    clock = HybridClock(lambda _now: next(walls))
    stamps = [clock.tick(0.0) for _ in range(4)]
    assert stamps == sorted(set(stamps))


def test_a_full_counter_carries_over() -> None:
    clock = clock_at(NOON_MS)
    clock.merge((NOON_MS << COUNTER_BITS) | 0xFFFF, 0.0)
    assert clock.tick(0.0) == (NOON_MS + 1) << COUNTER_BITS


@given(st.lists(st.one_of(st.none(), st.integers(0, STAMP_MAX)), max_size=50))
def test_stamps_grow_whatever_is_heard(heard: list[int | None]) -> None:
    clock = clock_at(NOON_MS)
    last = -1
    for stamp in heard:
        if stamp is not None:
            believed = clock.merge(stamp, 0.0)
            assert believed == (stamp_ms(stamp) <= NOON_MS + AHEAD_MS_MAX)
            last = max(last, stamp) if believed else last
        ticked = clock.tick(0.0)
        assert last < ticked <= STAMP_MAX
        last = ticked
