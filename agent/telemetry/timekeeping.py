"""When a reading was taken, as far as this device can know, and what is to be said of it.

A reading that came without a time of its own carries that of this device's clock, and that clock
may be wrong: 1970 before NTP has set it, an hour slow after a power cut, years ahead after
somebody's mistake. So such a reading is also stamped on CLOCK_BOOTTIME, which nobody sets
(*taken*). As long as the kernel runs, the two tell what the clock says now of the moment then; a
clock that is set later corrects all readings that have not left.

What is left to doubt leaves with the reading, as its *mark*:

``""``                  nothing: the time is its source's, or no reason for doubt is known
``"corrected"``         the clock was set after it was taken, and this is what it says now
``"unsynchronised"``    the kernel says that nobody keeps this device's clock right
``"implausible"``       the clock cannot have been right, and it cannot be told how wrong it was

What has left is not called back: a clock that is off by an hour, and that the kernel believes to be
kept, shows only when it is set.
"""

import ctypes
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.system.wall_clock import EARLIEST_S
from edge_apps.reading import UNTIMED, Reading, boot_time_ns

NS_PER_S = 1_000_000_000
LATEST_S = (2**63 - 1) / NS_PER_S
CORRECTED_NS = NS_PER_S // 2
"""What is off by less was stamped right: clocks are slewed all the time."""
KERNEL = Path("/proc/sys/kernel/random/boot_id")
TIMESYNC = Path("/run/systemd/timesync")
TIME_ERROR = 5
"""adjtimex(2): the clock is not kept by anybody."""
TIMEX_BYTES = 256  # more than struct timex has anywhere
KEPT_FOR_NS = NS_PER_S

CORRECTED, UNSYNCHRONISED, IMPLAUSIBLE = "corrected", "unsynchronised", "implausible"


class Stamp(NamedTuple):
    """How this device's clock was when it stamped a reading."""

    kernel: int
    """Which run of the kernel it was: CLOCK_BOOTTIME means something within one only."""
    is_kept: bool
    """Whether the clock was kept right, as far as anybody says."""


class Moment(NamedTuple):
    """One instant on all of a device's clocks."""

    wall_ns: int
    steady_ns: int
    stamp: Stamp

    def timed(self, reading: Reading) -> Reading:
        """Return the reading with a time, and with when it was taken unless its source timed it.

        What claims to be taken later than now was not taken on this device: now counts then.
        """
        if reading.taken_ns:
            taken_ns = min(reading.taken_ns, self.steady_ns)
            time_ns = max(0, self.wall_ns - (self.steady_ns - taken_ns))
        elif reading.time_ns == UNTIMED:
            taken_ns, time_ns = self.steady_ns, self.wall_ns
        else:
            return reading
        return msgspec.structs.replace(reading, time_ns=time_ns, taken_ns=taken_ns)


class Judge(NamedTuple):
    """What is thought at one moment of the times that this device's clock gave, then and before."""

    kernel: int
    offset_ns: int
    """What the wall clock is ahead of CLOCK_BOOTTIME."""
    earliest_ns: int
    latest_ns: int
    """From when to when the clock can be right."""
    is_plausible: bool
    """Whether it can be right now."""
    mark: str
    """What is to be said of a time that it gives now."""

    def __call__(self, reading: Reading, kernel: int, *, is_kept: bool) -> tuple[Reading, str]:
        """Return a reading with the best time that is known for it, and its mark.

        The last two are of the stamp that it was given.
        """
        if not reading.taken_ns:
            return reading, ""
        if kernel == self.kernel and self.is_plausible:
            right_ns = self.offset_ns + reading.taken_ns
            if -CORRECTED_NS < right_ns - reading.time_ns < CORRECTED_NS:
                return reading, self.mark
            return msgspec.structs.replace(reading, time_ns=right_ns), self.mark or CORRECTED
        if not self.earliest_ns <= reading.time_ns <= self.latest_ns:
            return reading, IMPLAUSIBLE
        return reading, "" if is_kept else UNSYNCHRONISED


class Timekeeper:
    """Stamps readings, and judges stamps. All clocks count nanoseconds."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = boot_time_ns,
        kernel: int | None = None,
        is_kept: "Callable[[], bool | None] | None" = None,
        valid: tuple[float, float] = (EARLIEST_S, LATEST_S),
    ) -> None:
        """``valid``: from when to when the clock can be right, in Unix time."""
        self.wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._kernel = this_kernel() if kernel is None else kernel
        self._ask = is_kept or kernel_keeps_clock
        self._earliest_ns, self._latest_ns = (int(each * NS_PER_S) for each in valid)
        self._is_kept, self._asked_at_ns = self._ask(), steady_ns()

    @property
    def is_kept(self) -> bool | None:
        """Whether the kernel says that the clock is kept right; None when it cannot be told."""
        return self._is_kept_at(self._steady_ns())

    def now(self) -> Moment:
        """Return this moment, to time what has just come."""
        steady_ns = self._steady_ns()
        stamp = Stamp(self._kernel, self._is_kept_at(steady_ns) is not False)
        return Moment(max(0, self.wall_ns()), steady_ns, stamp)

    def _is_kept_at(self, now_ns: int) -> bool | None:
        if now_ns - self._asked_at_ns >= KEPT_FOR_NS:
            self._is_kept, self._asked_at_ns = self._ask(), now_ns
        return self._is_kept

    def judge(self) -> Judge:
        """Return who judges readings at this moment: one for all that are looked at together."""
        wall_ns = self.wall_ns()
        return Judge(
            self._kernel,
            wall_ns - self._steady_ns(),
            self._earliest_ns,
            self._latest_ns,
            self._earliest_ns <= wall_ns <= self._latest_ns,
            UNSYNCHRONISED if self.is_kept is False else "",
        )


def this_kernel() -> int:
    """Return a number for this run of the kernel, 32 bits; another each time if it is not told."""
    try:
        told = uuid.UUID(KERNEL.read_text().strip())
    except (OSError, ValueError):
        told = uuid.uuid4()
    return told.int & 0xFFFF_FFFF


def kernel_keeps_clock() -> bool | None:
    """Ask the kernel whether somebody keeps its clock right (adjtimex(2)).

    Where a service may not ask (systemd's ProtectClock), timesyncd's own note serves. None when
    nothing is known.
    """
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    if state >= 0:
        return bool(state != TIME_ERROR)
    if TIMESYNC.is_dir():
        return (TIMESYNC / "synchronized").exists()
    return None
