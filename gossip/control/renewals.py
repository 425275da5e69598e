"""A leader's clock for sessions and lock delays: in memory, never in the log, never on disk.

A time to live is a *lower* bound. It runs in full from the last renewal that this leader heard;
from the beginning of its leadership for sessions that it took over, whose last renewal only its
predecessor heard (Chubby does so in a fail-over: Burrows 2006 section 2.9). And nobody is judged by
time in which this leader stood still, for what was sent to it then it has not read yet. It asks to
be woken STALL_S before anything is due, and again when it is; if it comes later than asked by
STALL_S, everything has its full time again, from then on. So it notices each stop of twice STALL_S
that something came due in; a shorter one may count. A leader that is late each time ends nothing:
that is counted as ``control_renewals/begun_anew``.

What is due is put into the log as a command. Until that is applied, or fails, the session is
*ending*: it is not renewed any more, since its end may already be decided.
"""

import math
from collections import Counter

import msgspec

from gossip.control.requests import sooner
from gossip.core.machine import Instant

STALL_S = 1.0
"""Woken later than asked by so much: we were stopped, and judge nobody by that time."""


class SessionTimer(msgspec.Struct, frozen=True):
    """What names the time of a session."""

    session: int


class DelayTimer(msgspec.Struct, frozen=True):
    """What names the delay of one permit of a lock."""

    name: str
    since: int


LeaderTimer = SessionTimer | DelayTimer


class Renewals:
    """Measures how long sessions were not renewed, and locks have been shut, while we lead."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self.begun_anew_at: Instant | None = None
        """When all were last given their full time again, because we had stood still."""
        self._length_s: dict[LeaderTimer, float] = {}
        self._due: dict[LeaderTimer, Instant] = {}
        self._ending: set[LeaderTimer] = set()
        self._wake_at: Instant | None = None
        """When to look: STALL_S before the first is due, then when it is; or earlier."""

    def __len__(self) -> int:
        return len(self._length_s)

    def clear(self) -> None:
        """Measure nothing any more: somebody else leads."""
        self._length_s.clear()
        self._due.clear()
        self._ending.clear()
        self._wake_at = None

    def start(self, timer: LeaderTimer, length_s: float, now: Instant) -> None:
        """Measure from now on; what is measured already goes on as it is."""
        if timer not in self._length_s:
            self._length_s[timer] = length_s
            self._due[timer] = now + length_s
            self._wake_at = sooner(self._wake_at, now + max(0.0, length_s - STALL_S))

    def stop(self, timer: LeaderTimer) -> None:
        """Forget what is over."""
        self._length_s.pop(timer, None)
        self._due.pop(timer, None)
        self._ending.discard(timer)

    def renew(self, session: int, now: Instant) -> bool:
        """Begin a session's time anew. False: it is unknown here, or ending."""
        timer = SessionTimer(session)
        if timer not in self._length_s or timer in self._ending:
            return False
        self._due[timer] = now + self._length_s[timer]
        return True

    def pop_due(self, now: Instant) -> list[LeaderTimer]:
        """Return what is due, longest overdue first; each is *ending* from then on."""
        if self._wake_at is None or now < self._wake_at:
            return []
        if now - self._wake_at >= STALL_S and self._due:
            self._begin_anew(now)
        due = sorted(
            (at, index, timer) for index, (timer, at) in enumerate(self._due.items()) if at <= now
        )
        for _, _, timer in due:
            assert timer not in self._ending, "its end is proposed once"
            del self._due[timer]
            self._ending.add(timer)
        self._look_again(now)
        return [timer for _, _, timer in due]

    def _begin_anew(self, now: Instant) -> None:
        """Give everything that is not ending its full time again."""
        self._counts["control_renewals/begun_anew"] += 1
        self.begun_anew_at = now
        for timer in self._due:
            self._due[timer] = now + self._length_s[timer]

    def _look_again(self, now: Instant) -> None:
        first = min(self._due.values(), default=math.inf)
        wake_at = first - STALL_S if now < first - STALL_S else first
        self._wake_at = wake_at if self._due else None

    def not_proposed(self, timer: LeaderTimer, again_at: Instant) -> None:
        """Its end did not get into the log: try again then."""
        if timer in self._ending:
            self._ending.discard(timer)
            self._due[timer] = again_at
            self._wake_at = sooner(self._wake_at, again_at)

    def is_ending(self, timer: LeaderTimer) -> bool:
        """Tell whether its end may be in the log already."""
        return timer in self._ending

    def deadline(self) -> Instant | None:
        """Return when to look what is due."""
        return self._wake_at
