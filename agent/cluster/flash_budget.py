"""How much the databases write to the flash an hour, against what the owner allows.

A card dies of what is written to it, and a device that writes ten times what it did yesterday looks
just like one that does not. So the agent looks every minute at what the writer thread of each
database has had written, as the kernel counts it: pages, not payload, with logs and checkpoints.
What the card's own controller makes of that nobody outside knows. Not in it: logs of the agent and
of apps, the copy of ``control.db``, and what other programs write.

When the rate of the last hour (less, after a start) exceeds ``[flash] bytes_per_hour``, the log,
``covey status``, the doctor and the metrics say so; nothing is held back.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

SAMPLE_EVERY_S = 60.0
WINDOW_SAMPLES = 60
SETTLED_SAMPLES = 10
"""A start writes more than what follows: nothing is said before so many looks."""
HOUR_S = 3600.0

log = logging.getLogger(__name__)


class WrittenDatabase(Protocol):
    """One database: ``agent/store/database.py``."""

    @property
    def name(self) -> str:
        """What it is called."""

    def written_bytes(self) -> int:
        """Return what was written since it was opened; 0 where the kernel does not count that."""


class FlashReport(NamedTuple):
    """How it stands."""

    bytes_per_hour: int
    budget: int
    """What is allowed; 0 for no limit."""
    exceeded: bool


class FlashBudget:
    """Extrapolates what is written, and complains once when it is too much."""

    def __init__(
        self,
        databases: Sequence[WrittenDatabase],
        bytes_per_hour: int,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._databases = databases
        self._bytes_per_hour = bytes_per_hour
        self._clock = clock
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque(maxlen=WINDOW_SAMPLES + 1)
        self.exceeded = False
        """Whether the last look found more than is allowed; never without a budget."""
        self.sample()

    async def run(self) -> None:
        """Look every minute, for ever."""
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            self.sample()

    def sample(self) -> None:
        """Look, and say in the log when the budget is exceeded, or no longer."""
        self._samples.append((self._clock(), self._totals()))
        if not self._bytes_per_hour or len(self._samples) <= SETTLED_SAMPLES:
            return
        rates = self.rates()
        total = sum(rates.values())
        exceeded = total > self._bytes_per_hour
        if exceeded and not self.exceeded:
            log.warning(
                "the databases write %d bytes an hour, most of it %s, and bytes_per_hour in "
                "[flash] allows %d; nothing is held back",
                *(total, max(rates, key=lambda name: rates[name]), self._bytes_per_hour),
            )
        elif self.exceeded and not exceeded:
            log.info("the databases are within their budget again: %d bytes an hour", total)
        self.exceeded = exceeded

    def rates(self) -> dict[str, float]:
        """Return the bytes an hour of each database, at the rate of the last hour."""
        began, before = self._samples[0]
        elapsed_s = self._clock() - began
        if elapsed_s <= 0:
            return dict.fromkeys(before, 0.0)
        now = self._totals()
        return {name: (now[name] - before[name]) * HOUR_S / elapsed_s for name in before}

    def report(self) -> FlashReport:
        """Return how it stands, for people."""
        return FlashReport(round(sum(self.rates().values())), self._bytes_per_hour, self.exceeded)

    def _totals(self) -> dict[str, int]:
        return {each.name: each.written_bytes() for each in self._databases}
