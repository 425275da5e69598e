"""When an app's functions are due: a fixed rate that never hurries to catch up.

A function that is due every 5 s is due at 0, 5, 10, ... seconds after the start, however long
each call takes, so that readings keep their distance. When the app was busy or the machine
slept through some of these moments, they are skipped: a burst of late samples would all
measure the same instant. Time is passed in: the real runner and the test harness use the same
schedule.
"""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Callable[..., object])


class _Entry(Generic[T]):
    def __init__(self, function: T, every_s: float, due: float) -> None:
        self.function = function
        self.every_s = every_s
        self.due = due


class Schedule(Generic[T]):
    """The functions of one app, and when each is next due. All are due at the ``start``."""

    def __init__(self, periods: Iterable[tuple[T, float]], start: float) -> None:
        self._entries = [_Entry(function, every_s, start) for function, every_s in periods]
        self.skipped = 0  # moments that passed while the app was busy or the machine asleep
        assert all(entry.every_s > 0 for entry in self._entries), "a period is longer than nothing"

    def deadline(self) -> float | None:
        """Return when the next function is due; None when there is none."""
        return min((entry.due for entry in self._entries), default=None)

    def take_due(self, now: float) -> T | None:
        """Return the function that has been due longest, and move it to its next moment."""
        due = [entry for entry in self._entries if entry.due <= now]
        if not due:
            return None
        entry = min(due, key=lambda entry: entry.due)
        missed = int((now - entry.due) // entry.every_s)
        self.skipped += missed
        entry.due += (missed + 1) * entry.every_s
        return entry.function
