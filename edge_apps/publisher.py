"""Carries an app's readings to the agent in batches, and keeps them while the agent is away.

Sampling must not wait for the agent: readings go into a buffer, and a thread of its own
(``edge_apps/runner.py``) calls ``flush``. What the agent did not take stays in front of the
buffer and is tried again, with pauses that double up to half a minute.

The buffer is bounded, because a device has little memory and an agent can be away for long.
When it is full, the **oldest** reading makes room: what a sensor says now is worth more than
what it said an hour ago. Each reading that is lost is counted, and the log says how many. An
accepted reading is another matter: from then on it is on the agent's disk.

A batch whose answer got lost may have been accepted; it is sent again, and then its readings
exist twice, under different ids. The SDK promises "at least once" up to the bound above.
"""

import logging
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence

from edge_apps.client import AgentUnreachable, ApiError, ClientError
from edge_apps.reading import Reading

BUFFER_READINGS_MAX = 10_000
BATCH_READINGS_MAX = 500
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 30.0
LOSS_LOG_INTERVAL_S = 30.0

TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500
SENSORS_TOLD_MAX = 100
"""An app that makes its sensors' names up fills neither the memory nor the log."""

Post = Callable[[Sequence[Reading]], None]


class Publisher:
    """A bounded buffer in front of ``post``, which hands one batch to the agent.

    ``offer`` may be called by any thread; ``flush`` by one. Times are seconds on a clock that
    never goes back. ``counts`` has ``readings/sent``, and ``readings_dropped/`` with ``overflow``,
    ``refused`` (by the agent) and ``bad`` (already here).
    """

    def __init__(
        self,
        post: Post,
        log: logging.Logger,
        rng: random.Random,
        buffer_max: int = BUFFER_READINGS_MAX,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._post = post
        self._log = log
        self._rng = rng
        self._buffer: deque[Reading] = deque()
        self._buffer_max = buffer_max
        self._lock = threading.Lock()
        self._failures = 0
        self._retry_at = 0.0
        self._next_loss_log = 0.0
        self._losses_told = 0
        self._dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many readings wait."""
        return len(self._buffer)

    def offer(self, reading: Reading) -> None:
        """Take a reading; the oldest one is dropped and counted when the buffer is full."""
        with self._lock:
            if len(self._buffer) >= self._buffer_max:
                self._buffer.popleft()
                self.counts["readings_dropped/overflow"] += 1
            self._buffer.append(reading)

    def drop(self, sensor: str, why: str) -> None:
        """Count a reading that no agent would take, and say so."""
        with self._lock:
            self.counts["readings_dropped/bad"] += 1
            self._tell_drop(sensor, why)

    def deadline(self) -> float:
        """Return when ``flush`` may try again; in the past while the agent answers."""
        return self._retry_at

    def flush(self, now: float) -> None:
        """Send what waits, batch after batch, until the buffer is empty or a batch fails."""
        if now < self._retry_at:
            return
        while batch := self._take():
            if unsent := self._send(batch, now):
                self._keep(unsent)
                break
        self.tell_losses(now)

    def _send(self, batch: list[Reading], now: float) -> list[Reading]:
        """Send a batch; return what the agent cannot take now.

        What it refuses is halved until the readings are found that it refuses by themselves: one
        bad reading costs no other.
        """
        parts = [batch]
        while parts:
            part = parts.pop(0)
            try:
                self._post(part)
            except (AgentUnreachable, ApiError) as error:
                if not _is_refusal(error):
                    self._wait(now, error.message)
                    return [reading for each in (part, *parts) for reading in each]
                if len(part) == 1:
                    self._refused(part[0], error)
                else:
                    middle = len(part) // 2
                    parts[:0] = [part[:middle], part[middle:]]
            else:
                self._sent(part)
        return []

    def tell_losses(self, now: float) -> None:
        """Log how many readings overflowed, at most every ``LOSS_LOG_INTERVAL_S``."""
        lost = self.counts["readings_dropped/overflow"]
        if lost > self._losses_told and now >= self._next_loss_log:
            self._log.warning(
                "the buffer of %d readings is full: dropped the oldest, %d so far",
                self._buffer_max,
                lost,
            )
            self._losses_told = lost
            self._next_loss_log = now + LOSS_LOG_INTERVAL_S

    def _take(self) -> list[Reading]:
        with self._lock:
            size = min(len(self._buffer), BATCH_READINGS_MAX)
            return [self._buffer.popleft() for _ in range(size)]

    def _keep(self, batch: list[Reading]) -> None:
        """Put a batch back in front; what meanwhile took its place costs the oldest theirs."""
        with self._lock:
            room = self._buffer_max - len(self._buffer)
            kept = batch[max(0, len(batch) - room) :]
            self.counts["readings_dropped/overflow"] += len(batch) - len(kept)
            self._buffer.extendleft(reversed(kept))

    def _wait(self, now: float, reason: str) -> None:
        """Try again later, and later each time."""
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**self._failures)
        # Jitter: many apps lose the same agent at the same moment, and find it again.
        self._retry_at = now + pause_s * self._rng.uniform(0.5, 1.0)
        if self._failures == 0:
            self._log.warning("readings wait: %s; trying again", reason)
        self._failures = min(self._failures + 1, 10)

    def _refused(self, reading: Reading, error: ClientError) -> None:
        self.counts["readings_dropped/refused"] += 1
        self._tell_drop(reading.sensor, f"the agent refused it: {error.message}")

    def _tell_drop(self, sensor: str, why: str) -> None:
        """Log a dropped reading: the first of each sensor, and then each tenfold of them."""
        if sensor not in self._dropped and len(self._dropped) >= SENSORS_TOLD_MAX:
            return
        self._dropped[sensor] += 1
        count = self._dropped[sensor]
        if count == 10 ** (len(str(count)) - 1):
            self._log.warning("dropped a reading of %s (%d so far): %s", sensor, count, why)

    def _sent(self, batch: list[Reading]) -> None:
        self.counts["readings/sent"] += len(batch)
        if self._failures:
            self._log.info("the agent takes readings again; %d wait", len(self._buffer))
        self._failures = 0


def _is_refusal(error: ClientError) -> bool:
    """Say whether the agent will refuse the same again; all else passes by itself."""
    if not isinstance(error, ApiError):
        return False
    return error.status < SERVER_ERROR and error.status != TOO_MANY_REQUESTS
