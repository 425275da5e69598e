"""Hybrid logical clock: one 64-bit stamp that follows the wall clock and never goes back.

A stamp is 48 bits of Unix milliseconds over 16 bits of counter. It grows with every event and
with every stamp that was heard, so that an effect is stamped later than its cause even where
the wall clocks disagree (Kulkarni and others, "Logical Physical Clocks", OPODIS 2014).

Covey uses stamps for display and to order *concurrent* values, never to decide which of two
values replaces the other: causality decides that first (``gossip/kv/records.py``). A device
whose clock stands in 2099 therefore cannot poison a key for ever, but it could still drag every
clock of the covey along. So a stamp that lies more than a minute ahead of a believable wall
clock is kept as data and does not move ours. A device without a battery-backed clock starts in
1970: a wall clock before the year of this program is not believable, and such a node simply
follows what it hears.
"""

from collections.abc import Callable

from gossip.core.machine import Instant

Stamp = int
"""48 bits of Unix milliseconds, then 16 bits of counter."""

COUNTER_BITS = 16
STAMP_MAX = 2**64 - 1
AHEAD_MS_MAX = 60_000
BELIEVABLE_MS_MIN = 1_735_689_600_000
"""2025-01-01: no device that runs this program has a true wall clock before it."""


def stamp_ms(stamp: Stamp) -> int:
    """Return the Unix milliseconds of a stamp, as shown to people."""
    return stamp >> COUNTER_BITS


class HybridClock:
    """Gives stamps that only grow. ``wall_ms`` tells the wall clock's Unix milliseconds."""

    def __init__(self, wall_ms: Callable[[Instant], int]) -> None:
        self._wall_ms = wall_ms
        self._last: Stamp = 0

    def tick(self, now: Instant) -> Stamp:
        """Return a stamp for an event that happens now; larger than all stamps before."""
        # A full counter carries into the milliseconds by itself: the stamp is one integer.
        wall = max(0, self._wall_ms(now)) << COUNTER_BITS
        self._last = min(max(self._last + 1, wall), STAMP_MAX)
        return self._last

    def merge(self, stamp: Stamp, now: Instant) -> bool:
        """Learn from a stamp that was heard; False when it is too far ahead to be believed."""
        wall = self._wall_ms(now)
        if wall >= BELIEVABLE_MS_MIN and stamp_ms(stamp) > wall + AHEAD_MS_MAX:
            return False
        self._last = max(self._last, min(stamp, STAMP_MAX))
        return True
