"""How many bytes a day the gossip takes at the present rate, against what the owner allows.

On a link that is paid for by the byte, what matters is the bill at the end of the month. The agent
looks at its counters every minute and extrapolates the last hour (less, after a start) to a day.
All that the membership sends and receives is counted, as payload of UDP and of the streams; IP and
UDP headers add 28 bytes a datagram over IPv4. Replicated keys, readings and apps are not counted.
When the projection exceeds ``[gossip] bytes_per_day``, the log says so, and says when it is over.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable

SAMPLE_EVERY_S = 60.0
WINDOW_SAMPLES = 60
SETTLED_SAMPLES = 5
"""A start costs more than what follows: nothing is said before so many looks."""
DAY_S = 86_400.0
FAMILY = "gossip_bytes/"

log = logging.getLogger(__name__)


class TrafficBudget:
    """Extrapolates the traffic, and complains once when it is too much."""

    def __init__(
        self, counts: Callable[[], Counter[str]], clock: Callable[[], float], bytes_per_day: int
    ) -> None:
        self._counts = counts
        self._clock = clock
        self._bytes_per_day = bytes_per_day
        self._samples: deque[tuple[float, int]] = deque(maxlen=WINDOW_SAMPLES + 1)
        self.exceeded = False
        """Whether the last look found more than is allowed; never without a budget."""
        self.sample()

    async def run(self) -> None:
        """Look every minute, for ever."""
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            self.sample()

    def sample(self) -> None:
        """Read the counters, and say in the log when the budget is exceeded, or no longer."""
        self._samples.append((self._clock(), self._total()))
        if not self._bytes_per_day or len(self._samples) <= SETTLED_SAMPLES:
            return
        projected = self.projected()
        exceeded = projected > self._bytes_per_day
        if exceeded and not self.exceeded:
            log.warning(
                "the gossip takes %d bytes a day at the present rate, and bytes_per_day allows %d; "
                "the profile `metered` takes the least, and every member must use the same one",
                projected,
                self._bytes_per_day,
            )
        elif self.exceeded and not exceeded:
            log.info("the gossip is within its budget again: %d bytes a day", projected)
        self.exceeded = exceeded

    def projected(self) -> float:
        """Return the bytes a day, sent and received, at the rate of the last hour."""
        began, before = self._samples[0]
        elapsed_s = self._clock() - began
        return (self._total() - before) * DAY_S / elapsed_s if elapsed_s > 0 else 0.0

    def _total(self) -> int:
        return sum(count for key, count in self._counts().items() if key.startswith(FAMILY))
