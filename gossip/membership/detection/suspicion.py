"""How long a suspicion lasts before it becomes a death (Lifeguard section IV.B).

One accuser may simply be slow itself, so its word alone is given a long time to be refuted. Each
further *independent* accuser, who found the same by its own probe, shortens that time, the first
ones most::

    timeout = max - (max - min) * log(confirmations + 1) / log(needed + 1)

down to the minimum at ``needed`` confirmations. What somebody merely repeats counts for nothing.
"""

import math

from gossip.core.ids import NodeId
from gossip.core.machine import Instant


def timeout_s(confirmations: int, needed: int, minimum_s: float, maximum_s: float) -> float:
    """Return how long after its start a suspicion becomes a death.

    >>> timeout_s(0, 3, 2.0, 30.0), timeout_s(1, 3, 2.0, 30.0), timeout_s(3, 3, 2.0, 30.0)
    (30.0, 16.0, 2.0)
    """
    if needed == 0:
        return minimum_s
    share = math.log(confirmations + 1) / math.log(needed + 1)
    return max(minimum_s, maximum_s - share * (maximum_s - minimum_s))


class Suspicion:
    """Manages the timer of one suspicion: it ends in a death, sooner with each who confirms it."""

    def __init__(self, now: Instant, *, needed: int, minimum_s: float, maximum_s: float) -> None:
        assert 0 < minimum_s <= maximum_s, "an unconfirmed suspicion lasts longest"
        self.accusers: dict[NodeId, None] = {}
        self._started_at = now
        self._needed = needed
        self._minimum_s = minimum_s
        self._maximum_s = maximum_s
        self.deadline = self._deadline()
        """When the time for a refutation is up."""

    def accuse(self, accuser: NodeId) -> bool:
        """Note an accuser; say whether it is a new one that still makes a difference.

        The first accuser begins the suspicion; those after it confirm.
        """
        if accuser in self.accusers or len(self.accusers) > self._needed:
            return False
        self.accusers[accuser] = None
        self.deadline = self._deadline()
        return True

    @property
    def confirmations(self) -> int:
        """How many accusers there are beside the first."""
        return max(0, len(self.accusers) - 1)

    def _deadline(self) -> Instant:
        return self._started_at + timeout_s(
            self.confirmations, self._needed, self._minimum_s, self._maximum_s
        )

    def extend(self, pause_s: float) -> None:
        """Give back the time during which we were stopped and could not hear a refutation."""
        self._started_at += pause_s
        self.deadline = self._deadline()
