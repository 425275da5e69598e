"""Values expire in the midst of trouble: nothing stays, nothing comes back, nothing else goes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from gossip.core.machine import Instant
from gossip.kv.agreed_clock import AgreedClock
from gossip.kv.expiry_keeper import ExpiryKeeper
from gossip.kv.records import NOTHING, KeyState
from gossip.kv.replica import Replica
from gossip.kv.storage import FIRST_EXPIRY, Expiry
from gossip.kv.typed_values import earliest_expiry_ms
from tests.sim.expiring import MUST_HAPPEN, Schedule, run

FEW = range(6)
MORE = range(6, 30)
PLANTED = (0, 1, 2, 11, 13, 39, 15)
"""The seeds that once found the faults below; when they do no more, others must."""

Patch = pytest.MonkeyPatch


def test_nothing_is_lost_and_nothing_comes_back() -> None:
    for seed in FEW:
        run(seed)


@pytest.mark.slow
def test_schedules_are_not_vacuous() -> None:
    """``make soak-expiring`` runs many of them (``tests/sim/expiring_campaign.py``)."""
    counts: Counter[str] = Counter()
    for seed in MORE:
        counts += run(seed).counts
    assert not [name for name in MUST_HAPPEN if not counts[name]]


# What the end of values stands on


def _each_node_drops_rows_by_its_own_clock(patch: Patch) -> None:
    def wake(self: Any, now: Instant) -> None:
        if now < self._look_at or not self._replica.has_expiries:
            return
        self._look_at = now + 2.0
        wall_ms = self._clock._wall_ms(now)
        for _, partition, key in self._replica.expired(wall_ms, FIRST_EXPIRY, 128):
            record = self._replica.record(partition, key)
            self._replica._commit(partition, key, record, NOTHING, frozenset())

    patch.setattr(ExpiryKeeper, "wake", wake)


def _what_has_expired_is_not_taken_in(patch: Patch) -> None:
    """As where a storage engine expires rows: each node by itself, and without a word of it."""

    def merge(self: Any, partition: int, key: str, state: KeyState, now: Instant) -> None:
        wall_ms = self._clock._wall_ms(now)
        if not 0 < earliest_expiry_ms(state.live) <= wall_ms:
            original(self, partition, key, state, now)

    original = Replica._merge
    patch.setattr(Replica, "_merge", merge)


def _each_clock_is_believed(patch: Patch) -> None:
    patch.setattr(AgreedClock, "agreed_ms", lambda self, now: self._wall_ms(now))


def _a_clock_that_was_set_is_followed(patch: Patch) -> None:
    def agreed_ms(self: Any, now: Instant) -> int | None:
        agreed = original(self, now)
        return agreed if agreed is None else int(self._wall_ms(now))

    original = AgreedClock.agreed_ms
    patch.setattr(AgreedClock, "agreed_ms", agreed_ms)


def _all_versions_go_with_the_expired_one(patch: Patch) -> None:
    def delete(self: Any, name: Any, dots: Any, now: Instant) -> None:
        del dots
        live = self._replica.record(*name).live
        original(self, name, tuple(version.dot for version in live), now)

    original = ExpiryKeeper._delete
    patch.setattr(ExpiryKeeper, "_delete", delete)


def _nothing_is_ended(patch: Patch) -> None:
    def consider(self: Any, expiry: Expiry, wall_ms: int, now: Instant) -> None:
        del self, expiry, wall_ms, now

    patch.setattr(ExpiryKeeper, "_consider", consider)


PLANTS = (
    _each_node_drops_rows_by_its_own_clock,
    _what_has_expired_is_not_taken_in,
    _each_clock_is_believed,
    _a_clock_that_was_set_is_followed,
    _all_versions_go_with_the_expired_one,
    _nothing_is_ended,
)


@pytest.mark.slow
@pytest.mark.interpreted
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    assert any(Schedule(seed).run().faults for seed in PLANTED)
