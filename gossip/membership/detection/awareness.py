"""Our own health, as far as we can tell (Lifeguard section IV.A).

A member that is slow itself finds everybody else slow. Lost probes, missing nacks and suspicions
of ourselves that we had to refute raise a score; answered probes lower it. The score stretches
both the interval and the timeout of our probes, so that a struggling member accuses less and later.
"""

from gossip.core.tuning import Tuning

PROBE_ANSWERED = -1
PROBE_LOST = 1
REFUTED = 1


class Awareness:
    """Manages our health score, from 0 (well) to ``awareness_max``."""

    def __init__(self, tuning: Tuning) -> None:
        self.score = 0
        self._max = tuning.awareness_max

    def record(self, delta: int) -> None:
        """Add to the score, within its bounds."""
        self.score = max(0, min(self._max, self.score + delta))

    def record_lost_probe(self, relays: int, nacks: int) -> None:
        """Note a probe that nobody answered.

        A relay that says nack proves that our own links work; each that kept silent speaks against
        us. Without relays there is no such proof.
        """
        assert 0 <= nacks <= relays, "only relays that were asked say nack"
        self.record(relays - nacks if relays else PROBE_LOST)

    def stretch(self, duration_s: float) -> float:
        """Return the duration as a member of our health should take it."""
        return duration_s * (self.score + 1)
