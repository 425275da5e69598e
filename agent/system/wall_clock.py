"""The device's wall clock: what it says, whether it can be right, and when it was set.

Small devices have no battery for a clock: after a power cut it is 1970, or the hour of the last
shutdown, until NTP has set it. All that the agent thinks about that is here.

**Whether it can be right** is judged by what is certain: Covey is not older than its first release,
and a certificate says from when to when it is valid. A clock that passes may still be off by hours.

**When it was set** shows against CLOCK_BOOTTIME, which nobody sets and which goes on while the
device sleeps: the difference of the two changes by more than a clock that is merely slewed could
make it. Reading both costs a microsecond, so whoever stamps something may look each time.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from agent.loop.periodic import until_next
from agent.readiness import Lack
from gossip.core.machine import Instant

EARLIEST_S = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""Unix time before which no covey existed."""
STEP_S = 0.5
"""A change at once that is no slewing: chrony's fastest is a twelfth of the time that passes."""
LOOK_S = 1.0
BACKDATED_S = 86400.0
"""Certificates begin so long before they are made: clocks differ."""


class ClockStep(NamedTuple):
    """The clock was set."""

    at: Instant
    """On CLOCK_BOOTTIME, when it was noticed: at most a second later."""
    by_s: float
    """How far; negative when it was set back."""


def boot_time() -> Instant:
    """Return the seconds since the kernel's start, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class WallClock:
    """One device's clock. ``wall`` gives Unix time, ``steady`` what nobody sets."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], Instant] = boot_time,
    ) -> None:
        self._wall, self._steady = wall, steady
        self._offset_s = wall() - steady()
        self.last_step: ClockStep | None = None
        """The newest step that was noticed."""

    def now_s(self) -> float:
        """Return what the clock says, as Unix time."""
        return self._wall()

    def sample(self) -> ClockStep | None:
        """Return how the clock was set since the last look; None when it was not."""
        at = self._steady()
        offset_s = self._wall() - at
        by_s, self._offset_s = offset_s - self._offset_s, offset_s
        if abs(by_s) < STEP_S:
            return None
        self.last_step = ClockStep(at, by_s)
        return self.last_step

    async def follow(self, on_step: Callable[[ClockStep], None]) -> None:
        """Look every second until cancelled, and call back for each step."""
        while True:
            if (step := self.sample()) is not None:
                on_step(step)
            await until_next(LOOK_S)

    async def until_plausible(self, valid_from: float, valid_until: float) -> None:
        """Return when the clock can be right."""
        while self.lack(valid_from, valid_until) is not None:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(LOOK_S)

    def lack(self, valid_from: float, valid_until: float) -> Lack | None:
        """Say why the clock cannot be right for a certificate with these dates; None if it can."""
        return flaw(self._wall(), valid_from, valid_until)


def flaw(now_s: float, valid_from: float = EARLIEST_S, valid_until: float = 0.0) -> Lack | None:
    """Say why the clock cannot be right at ``now_s``; None if it can be.

    ``valid_from`` and ``valid_until`` are a certificate's; 0 stands for no end.
    """
    earliest = max(valid_from, EARLIEST_S)
    if now_s >= earliest and (not valid_until or now_s <= valid_until):
        return None
    told = f"this device's clock says {date(now_s)}, and "
    hint = "set the clock (NTP: `timedatectl set-ntp true`)"
    if not valid_until:
        return Lack(f"{told}Covey is younger than that", hint)
    late = now_s > valid_until
    return Lack(
        f"{told}this node's certificate is valid from {date(valid_from)} to {date(valid_until)}",
        hint + ("; if it is right, the certificate is too old: join again" if late else ""),
    )


def date(unix_s: float) -> str:
    """Return an instant for people, whatever number it is."""
    try:
        return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):  # a damaged file says anything
        return f"{unix_s:g} s after 1970"
