"""A clock of a simulated device, as right or wrong as quartzes and suspensions make it."""

from gossip.core.machine import Instant
from gossip.sim.schedule import whole_tick


class DeviceClock:
    """A clock that never goes back: it began anywhere, is fast or slow, and may jump ahead.

    Suspended devices jump: CLOCK_BOOTTIME goes on meanwhile, and what was asleep sees a leap.
    """

    def __init__(self, offset_s: float) -> None:
        self._rate = 1.0
        self._since, self._read = 0.0, offset_s

    def set_rate(self, rate: float, now: Instant) -> None:
        """Let a second of the world be so many on this clock from now on."""
        self._read, self._since = self.local(now), now
        self._rate = rate

    def jump(self, ahead_s: float, now: Instant) -> None:
        """Let it be that much later at once."""
        self._read, self._since = self.local(now) + ahead_s, now

    def local(self, now: Instant) -> Instant:
        """Read it."""
        return self._read + (now - self._since) * self._rate

    def world_time(self, local: Instant) -> Instant:
        """Tell when it will have reached an instant, if nobody touches it."""
        return whole_tick(self._since + (local - self._read) / self._rate)
