"""Virtual time: a heap of what will happen, and a clock that jumps from one event to the next.

Events at the same instant happen in the order in which they were scheduled, so a run depends on
nothing but its inputs. Time moves in steps of 2**-20 s (about a microsecond): such numbers, and
their sums with the offset of a host's own clock, are exact in a float, so that a deadline that
was computed on one clock and is waited for on another can never be missed by half a bit, which
would fire its timer early, for ever.
"""

import heapq
import math
from collections.abc import Callable

from gossip.core.machine import Instant

TICKS_PER_S = 2**20


def whole_tick(instant: Instant) -> Instant:
    """Round up to a moment at which events may happen."""
    return math.ceil(instant * TICKS_PER_S) / TICKS_PER_S


class Schedule:
    """The events to come, and the present."""

    def __init__(self) -> None:
        self.now: Instant = 0.0
        self.happened = 0
        self._number = 0
        self._events: list[tuple[Instant, int, Callable[..., None], tuple[object, ...]]] = []

    def at(self, instant: Instant, action: Callable[..., None], *arguments: object) -> None:
        """Let this happen at that instant, or now if it has passed."""
        due = max(whole_tick(instant), self.now)
        self._number += 1
        heapq.heappush(self._events, (due, self._number, action, arguments))

    def after(self, delay_s: float, action: Callable[..., None], *arguments: object) -> None:
        """Let this happen after that many seconds."""
        self.at(self.now + delay_s, action, *arguments)

    def run_to(self, instant: Instant) -> None:
        """Let everything happen that is due up to an instant; the clock then stands there."""
        events, end = self._events, whole_tick(instant)
        while events and events[0][0] <= end:
            due, _, action, arguments = heapq.heappop(events)
            assert due >= self.now, "time does not go back"
            self.now = due
            self.happened += 1
            action(*arguments)
        self.now = end
