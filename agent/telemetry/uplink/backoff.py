"""Waiting longer after each failure, at random, so that a fleet does not knock in step.

Decorrelated jitter: each delay is drawn between the base and three times the one before, up to
a cap. A thousand devices that lost one broker come back spread out, and keep spreading.
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)
"""

import random

GROWTH = 3.0


class Backoff:
    """Draws the delays between attempts; ``reset`` after real progress, not after a greeting."""

    def __init__(self, rng: random.Random, base_s: float, cap_s: float) -> None:
        assert 0 < base_s <= cap_s
        self._rng = rng
        self._base_s = base_s
        self._cap_s = cap_s
        self._last_s = base_s

    def fresh(self) -> "Backoff":
        """Return another one with the same limits, for waits that have another reason."""
        return Backoff(self._rng, self._base_s, self._cap_s)

    def next_s(self) -> float:
        """Return how long to wait before the next attempt, in seconds."""
        self._last_s = min(self._cap_s, self._rng.uniform(self._base_s, self._last_s * GROWTH))
        return self._last_s

    def slow_s(self) -> float:
        """Return a long wait, for refusals that only a person can end."""
        self._last_s = self._rng.uniform(self._cap_s / 2, self._cap_s)
        return self._last_s

    def reset(self) -> None:
        """Begin again with short waits."""
        self._last_s = self._base_s
