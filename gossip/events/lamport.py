"""The covey's Lamport time, by which events are ordered, and an allowance of events a node.

A Lamport clock (Lamport 1978) makes one step for each event, and never shows less than any time
that was heard. So whatever was sent by somebody who knew of an event has a larger time than it.

Whoever could push the clock to its end would leave no time for the events that follow. Honest
times move in small steps, so a time that jumps is not believed.
"""

from gossip.core.machine import Instant

JUMP_MAX = 2**24
"""More events than happen while one node misses all of them."""

TIME_MAX = 2**62
LEARNT_MAX = 2**40
"""A newcomer believes nobody who says that it is later: no covey has seen so many events."""


class LamportClock:
    """The largest time that we know of."""

    def __init__(self, time: int) -> None:
        assert 0 <= time <= TIME_MAX, "a time that was believed before"
        self.time = time

    def tick(self) -> int:
        """Return the time of an event that happens now, here."""
        self.time = min(self.time + 1, TIME_MAX)
        return self.time

    def witness(self, time: int) -> bool:
        """Note a time that was heard; False, and nothing noted, if it cannot be honest."""
        if not self.is_plausible(time):
            return False
        self.time = max(self.time, time)
        return True

    def is_plausible(self, time: int) -> bool:
        """Say whether the covey may have come to this time."""
        return time <= TIME_MAX and time - self.time <= JUMP_MAX


class TokenBucket:
    """Allows so many at once, and so many a second in the long run."""

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, burst: float, per_s: float, now: Instant) -> None:
        assert burst >= 1, "a bucket that never holds one allows nothing"
        self._burst = burst
        self._per_s = per_s
        self._left = burst
        self._at = now

    def take(self, now: Instant) -> bool:
        """Say whether one more is allowed now, and if so use it."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
