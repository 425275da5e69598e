"""The disk under a Raft log: what was synced outlives the power, and the rest may or may not.

The log is synced before anybody hears of it (``Durability.FSYNC``), so a batch is *under way* from
the moment of its emission, and on the platter when its sync is over. When the process dies or the
power fails in between, any first part of what was being written may have reached the platter, in
whole batches: they are transactions. The batch behind that part may be torn: half of it was
written, and a start finds it by its checksum and drops it, which is right because nobody was ever
told of it.

A start syncs what it finds before it hands it over. Otherwise a vote that a killed process had
written, and not synced, would be told by the next process and taken by the next power cut.

Batches that ask for less (``Durability.FLUSH``) count as written before they are synced. The end of
a process keeps them, and a power cut takes any last part of them. No change of a Raft log may be
among those: that it is noticed when one is, is what they are here for.
"""

import random
from collections import deque

from gossip.consensus.storage import MemoryLog, StoredState
from gossip.core.machine import Durability, Instant, Persist

SYNC_INTERVAL_S = 1.0
"""What was only flushed is on the platter after about so long, as with data.db."""


class LogDisk:
    """The log of one store. ``platter`` is what a power cut leaves."""

    def __init__(self) -> None:
        self.platter = MemoryLog()
        self._flushed: deque[tuple[Instant, Persist]] = deque()

    def commit(self, batch: Persist, now: Instant) -> None:
        """Take in a batch whose transaction is over."""
        if batch.durability is Durability.FLUSH:
            self._flushed.append((now, batch))
        else:
            # There is one file: a sync takes along what was only flushed before.
            self._sync(now)
            self.platter.apply(batch.changes)

    def end_process(self, writing: list[Persist], rng: random.Random) -> int:
        """Keep a first part of what is being written; return how many batches are lost."""
        kept = rng.randint(0, len(writing))
        for batch in writing[:kept]:
            self._flushed.append((0.0, batch))
        return len(writing) - kept

    def lose_power(self, writing: list[Persist], rng: random.Random, now: Instant) -> int:
        """Forget a last part of what was not synced; return how many batches are lost."""
        self._sync(now - SYNC_INTERVAL_S)
        pending = [batch for _, batch in self._flushed] + writing
        self._flushed.clear()
        return self.end_process(pending, rng)

    def open(self) -> StoredState:
        """Return what a start reads, now on the platter."""
        while self._flushed:
            self.platter.apply(self._flushed.popleft()[1].changes)
        stored = self.platter.stored()
        stored.check()
        return stored

    def _sync(self, until: Instant) -> None:
        while self._flushed and self._flushed[0][0] <= until:
            self.platter.apply(self._flushed.popleft()[1].changes)
