"""Ends what has expired: by a delete like any other, from one owner at a time.

Reads hide a value as soon as it has expired (``shown_values.py``). It ends when an owner deletes
the expired versions by their dots: that covers them for good in every owner's clock, spreads like
any delete, and leaves alone what was written beside them meanwhile. If each owner dropped them by
itself instead, whoever has not yet would look like one that has more, and hand them back.

The first of the owners does it, in the order of the placement, or the next one if those before it
are believed to be gone. That belief may be wrong, and the clock of an owner doubted: so the next
one does it anyway when it is a minute late, the third two. Two deletes of the same dots do no harm.

Nothing is looked for where no record expires, and of those that have, so many at a time.
"""

from gossip.core.machine import Instant
from gossip.kv.agreed_clock import AgreedClock
from gossip.kv.limits import (
    EXPIRING_MAX,
    EXPIRY_GRACE_S,
    EXPIRY_LOOK_S,
    EXPIRY_NEXT_PAGE_S,
    EXPIRY_PAGE,
    EXPIRY_RETRY_S,
    REQUEST_TIMEOUT_S,
)
from gossip.kv.parts import KvParts
from gossip.kv.requests import PutResult, Rejected
from gossip.kv.storage import FIRST_EXPIRY, Expiry
from gossip.kv.typed_values import expires_ms_of
from gossip.kv.writes import AskedWrite, Writes

Name = tuple[int, str]


class ExpiryKeeper:
    """Looks through this node's copy for what has expired, and deletes what is its turn."""

    def __init__(self, parts: KvParts, clock: AgreedClock, writes: Writes, now: Instant) -> None:
        self._replica, self._registry_sync = parts.replica, parts.registry_sync
        self._outbound, self._is_gone = parts.outbound, parts.view.is_gone
        self._clock, self._writes, self._home = clock, writes, parts.home
        self._look_at = now + EXPIRY_LOOK_S
        self._after = FIRST_EXPIRY
        self._under_way: set[Name] = set()
        self._put_off: dict[int, Instant] = {}
        """Partitions whose owners refused, until when nothing is tried there."""

    def __len__(self) -> int:
        return len(self._under_way)

    def wake(self, now: Instant) -> None:
        """Look at the next page of what has expired."""
        if now < self._look_at or not self._replica.has_expiries:
            return
        self._look_at = now + EXPIRY_LOOK_S
        wall_ms = self._clock.agreed_ms(now)
        if wall_ms is None:
            self._outbound.counts["expiries/clock_not_agreed"] += 1
            return
        page = self._replica.expired(wall_ms, self._after, EXPIRY_PAGE)
        assert all(each[0] <= wall_ms for each in page), "what has not expired is not looked at"
        for expiry in page:
            self._consider(expiry, wall_ms, now)
        is_more = len(page) == EXPIRY_PAGE
        self._after = page[-1] if is_more else FIRST_EXPIRY
        if is_more:
            self._look_at = now + EXPIRY_NEXT_PAGE_S

    def _consider(self, expiry: Expiry, wall_ms: int, now: Instant) -> None:
        expires_ms, partition, key = expiry
        name = partition, key
        is_full = len(self._under_way) >= EXPIRING_MAX or self._replica.is_held_back
        if is_full or name in self._under_way or now < self._put_off.get(partition, now):
            return
        if self._registry_sync.registry.partition_of(key) != partition:
            return  # its keys lie elsewhere by now, and what is here is on its way out
        if not self._is_our_turn(partition, (wall_ms - expires_ms) / 1000):
            return
        dots = tuple(
            version.dot
            for version in self._replica.record(partition, key).live
            if 0 < expires_ms_of(version.value) <= wall_ms
        )
        if dots:
            self._delete(name, dots, now)

    def _is_our_turn(self, partition: int, late_s: float) -> bool:
        """Tell whether we are the first owner that can be expected to do it."""
        readers, me = self._registry_sync.registry.ownership(partition).readers, self._outbound.me
        if me not in readers:
            return False
        place = readers.index(me)
        return late_s >= place * EXPIRY_GRACE_S or all(map(self._is_gone, readers[:place]))

    def _delete(self, name: Name, dots: tuple[tuple[int, int], ...], now: Instant) -> None:
        partition, key = name
        assert dots, "a delete of nothing would take a dot for nothing"
        assert name not in self._under_way, "one delete of a key at a time"
        self._under_way.add(name)

        def finish(result: PutResult | Rejected, now: Instant) -> None:
            self._under_way.discard(name)
            outcome = "refused" if isinstance(result, Rejected) else result.outcome
            self._outbound.counts[f"expiries/{outcome}"] += 1
            if outcome == "refused":
                self._put_off[partition] = now + EXPIRY_RETRY_S
            else:
                self._put_off.pop(partition, None)

        w = self._home.copies(key, None)
        asked = AskedWrite(key, None, w, dots, now + REQUEST_TIMEOUT_S, finish)
        self._writes.begin(asked, now)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due; None where nothing expires."""
        return self._look_at if self._replica.has_expiries else None
