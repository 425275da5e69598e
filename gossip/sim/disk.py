"""A simulated disk: what a process committed outlives it, and what was synced outlives the power.

The state plane's database is synced about once a second (WAL with ``synchronous=NORMAL``): when the
power fails, the last batches are gone, from some batch on. The storage is then marked as its
contract asks (``gossip/kv/storage.py``). What is to be kept with FSYNC goes to a file of its own,
in which each commit is synced: a power cut takes nothing of it. The registry is there, too.
"""

import random
from collections import deque
from collections.abc import Iterable

from gossip.consensus.storage import MemoryLog
from gossip.core.ids import NodeId
from gossip.core.machine import Durability, Instant, Persist
from gossip.kv.storage import DAMAGED, PLACES, MemoryStorage, RegistryChange
from gossip.registry.registry import Registry

SYNC_INTERVAL_S = 1.0


class Disk:
    """``storage`` is what the process reads: all that was committed."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self._synced = MemoryStorage()
        self._unsynced: deque[tuple[Instant, Persist]] = deque()
        self._batches_synced = 0
        self.registry = RegistryChange(0, b"")
        """The newest signed registry."""
        self.log = MemoryLog()
        """What voters agree on, and this one has promised; the other thing that is synced."""

    @property
    def is_doubtful(self) -> bool:
        """Whether something may be gone that was not made up for since."""
        return any(since == DAMAGED for p, since in self.storage.complete.items() if p != PLACES)

    def commit(self, batch: Persist, now: Instant) -> None:
        """Take in a batch; it is on the platter a sync later, or at once if it is to be."""
        if batch.durability is Durability.FSYNC:
            self._commit_synced(batch.changes)
            return
        assert not self._unsynced or self._unsynced[-1][0] <= now, "batches come in their order"
        self.storage.apply(batch.changes)
        self._unsynced.append((now, batch))
        self._sync(now - SYNC_INTERVAL_S)

    def _commit_synced(self, changes: Iterable[object]) -> None:
        for change in changes:
            if isinstance(change, RegistryChange):
                self.registry = max(self.registry, change, key=lambda kept: kept.epoch)
            else:
                self.log.apply([change])

    @property
    def committed(self) -> int:
        """How many batches were committed so far, by all lives of the process."""
        return self._batches_synced + len(self._unsynced)

    def sync(self, committed: int) -> None:
        """Put onto the platter what had been committed when so many batches had."""
        while self._batches_synced < committed and self._unsynced:
            self._put_onto_platter()

    def _put_onto_platter(self) -> None:
        self._batches_synced += 1
        self._synced.apply(self._unsynced.popleft()[1].changes)

    def _sync(self, until: Instant) -> None:
        while self._unsynced and self._unsynced[0][0] < until:
            self._put_onto_platter()

    def lose_power(self, rng: random.Random, partitions: int, now: Instant) -> int:
        """Forget what was not synced, from some batch on; return how many batches that were."""
        self._sync(now - SYNC_INTERVAL_S)
        lost = rng.randint(0, len(self._unsynced))
        while len(self._unsynced) > lost:
            self._put_onto_platter()
        self._unsynced.clear()
        self.mark(partitions, clocks_fit=rng.random() < 0.5)
        self.storage = _copied(self._synced)
        return lost

    def image(self) -> MemoryStorage:
        """Return a copy of what is on it now."""
        return _copied(self.storage)

    def set_back(self, image: MemoryStorage, partitions: int) -> None:
        """Have what a copy of an earlier moment has, which is marked as such; its clocks fit it."""
        self._synced = _copied(image)
        self._unsynced.clear()
        self.mark(partitions, clocks_fit=True)
        self.storage = _copied(self._synced)

    def mark(self, partitions: int, *, clocks_fit: bool) -> None:
        """Say of every partition that something may be gone; records and clocks may still fit."""
        if not clocks_fit:
            self._synced.clocks.clear()
        self._synced.complete = dict.fromkeys((*range(partitions), PLACES), DAMAGED)


def others_have_all_of(node: NodeId, registry: Registry, disks: Iterable[Disk]) -> bool:
    """Tell whether no acknowledged write is lost when this node loses its last batches.

    So it is while all owners are there, no set of them is one alone, and no disk is in doubt.
    """
    members = set(registry.ids())
    return (
        node in members
        and not any(disk.is_doubtful for disk in disks)
        and all(members.issuperset(each.holders) for _, each in registry.ownerships)
        and all(len(nodes) > 1 for _, each in registry.ownerships for nodes in each.writers)
    )


def _copied(storage: MemoryStorage) -> MemoryStorage:
    """Return a storage with the same in it; what is in it is never changed in place."""
    copy = MemoryStorage()
    copy.records = {partition: dict(records) for partition, records in storage.records.items()}
    copy.clocks = {partition: dict(clock) for partition, clock in storage.clocks.items()}
    copy.complete = dict(storage.complete)
    return copy
