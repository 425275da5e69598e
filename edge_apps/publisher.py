"""Carries an app's readings to the agent in batches, and keeps them while the agent is away.

Sampling must not wait for the agent: readings go into a buffer, and a thread of its own
(``edge_apps/running.py``) calls ``flush``. What the agent did not take stays in front of the
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

from edge_apps.client import AgentUnreachable, ApiError
from edge_apps.reading import Reading

BUFFER_READINGS_MAX = 10_000
BATCH_READINGS_MAX = 500
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 30.0
LOSS_LOG_INTERVAL_S = 30.0

TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500

Post = Callable[[Sequence[Reading]], None]


class Publisher:
    """A bounded buffer in front of ``post``, which hands one batch to the agent.

    ``offer`` may be called by any thread; ``flush`` by one. Times are seconds on a clock that
    never goes back. ``counts`` has ``readings/sent``, ``readings_dropped/overflow`` and
    ``readings_dropped/refused``.
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

    def deadline(self) -> float:
        """Return when ``flush`` may try again; in the past while the agent answers."""
        return self._retry_at

    def flush(self, now: float) -> None:
        """Send what waits, batch after batch, until the buffer is empty or a batch fails."""
        if now < self._retry_at:
            return
        while batch := self._take():
            try:
                self._post(batch)
            except AgentUnreachable as error:
                self._keep(batch, now, error.message)
            except ApiError as error:
                if error.status >= SERVER_ERROR or error.status == TOO_MANY_REQUESTS:
                    self._keep(batch, now, error.message)
                else:
                    self._refused(batch, error)
            else:
                self._sent(batch)
            if self._retry_at > now:
                break
        self.tell_losses(now)

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

    def _keep(self, batch: list[Reading], now: float, reason: str) -> None:
        """Put a batch back in front; what meanwhile took its place costs the oldest theirs."""
        with self._lock:
            room = self._buffer_max - len(self._buffer)
            kept = batch[max(0, len(batch) - room) :]
            self.counts["readings_dropped/overflow"] += len(batch) - len(kept)
            self._buffer.extendleft(reversed(kept))
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**self._failures)
        # Jitter: many apps lose the same agent at the same moment, and find it again.
        self._retry_at = now + pause_s * self._rng.uniform(0.5, 1.0)
        if self._failures == 0:
            self._log.warning("readings wait: %s; trying again", reason)
        self._failures = min(self._failures + 1, 10)

    def _refused(self, batch: list[Reading], error: ApiError) -> None:
        self.counts["readings_dropped/refused"] += len(batch)
        self._log.error("the agent refused %d readings: %s", len(batch), error.message)

    def _sent(self, batch: list[Reading]) -> None:
        self.counts["readings/sent"] += len(batch)
        if self._failures:
            self._log.info("the agent takes readings again; %d wait", len(self._buffer))
        self._failures = 0
