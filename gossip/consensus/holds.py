"""Why a store can take nothing in, and since when: what makes its leader refuse, and hand over.

A disk may say that it takes nothing, or say nothing at all: a save that neither ends nor fails
within the shortest election wait counts as refused. And an application that does not understand
what was agreed on can answer nobody. Heartbeats need neither, so such a leader would lead for ever:
commit what the others have, and never hand it on (hashicorp/raft#503, tikv/tikv#18916).
"""

import enum

from gossip.consensus.outbound import ConsensusOutbound
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.machine import Instant


class Hold(enum.Enum):
    """What keeps a store from taking anything in; in words for whoever is refused."""

    DISK = "the leader's disk takes nothing"
    APPLICATION = "the leader does not understand what was agreed on"


class Holds:
    """What keeps one store from taking anything in, in any role."""

    def __init__(self, outbound: ConsensusOutbound, tuning: ConsensusTuning) -> None:
        self._outbound = outbound
        self._patience_s = tuning.election_min_s
        self._since: dict[Hold, Instant] = {}

    def set(self, hold: Hold, now: Instant, *, held: bool) -> None:
        """Something begins to hold us, goes on to, or does not any more."""
        if held:
            self._since.setdefault(hold, now)
        else:
            self._since.pop(hold, None)

    def current(self, now: Instant) -> Hold | None:
        """Return what holds us; the disk first, for without it we have no vote either."""
        waits_since = self._outbound.waits_since
        hangs = waits_since is not None and now - waits_since >= self._patience_s
        if hangs or Hold.DISK in self._since:
            return Hold.DISK
        return Hold.APPLICATION if Hold.APPLICATION in self._since else None

    def lasted_s(self, now: Instant) -> float:
        """Return for how long we have been held; 0 if we are not."""
        if self.current(now) is None:
            return 0.0
        waits_since = self._outbound.waits_since
        return now - min([*self._since.values(), now if waits_since is None else waits_since])
