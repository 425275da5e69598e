"""What a node keeps on disk of the state plane, and the changes by which it gets there.

The machine reads through ``Storage`` at any time and never writes: it emits ``Persist`` with
the changes below, in order, and the driver writes them in one transaction. What was read
is therefore always a state that some prefix of the batches led to, as after a crash.

Three things are kept: records; the coverage clock of each partition, which remembers records
that are gone; and *holdings*, which say for which era of its owners a partition is complete
here, so that a new owner that has not copied everything does not answer reads.

**What a disk lost.** A record that is gone while the clock still covers it reads as "seen, and
deleted", and would take the value from every other replica. So a storage that finds that it lost
anything, be it one row or the newest batches, must be given to the machine like this: the records
that are as they were written; *no clock*, of any partition it may be about; and the holding
``DAMAGED`` for each of them, and for ``PLACES``. Records without a clock are harmless, as late and
doubled messages are: they claim what was true once. A disk that is whole, but of an earlier moment,
keeps its clocks, which fit what it has; it is ``DAMAGED`` as well. The machine then answers no
reads, takes the copy over again from the other owners (``handoff.py``), and writes under a new
actor, as after every start.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from gossip.kv.dots import Actor, Coverage, Interval
from gossip.kv.records import Record, record_mark
from gossip.kv.typed_values import earliest_expiry_ms

DAMAGED = 0
"""In place of an epoch, which begins at 1: there was a copy here, and part of it may be gone."""


PLACES = -1
"""In place of a number: any partition beside the table (``gossip/registry/places.py``). A storage
that knows of no registry knows not which there are."""


class RecordChange(msgspec.Struct, frozen=True):
    """Store this record of a key; None to remove it."""

    partition: int
    key: str
    record: Record | None


class ClockChange(msgspec.Struct, frozen=True):
    """Store what the partition's clock covers of this actor. It only grows."""

    partition: int
    actor: Actor
    intervals: tuple[Interval, ...]


class HoldingChange(msgspec.Struct, frozen=True):
    """This partition is complete for the owners that it has since this epoch; None: it is not."""

    partition: int
    since: int | None


class DropPartition(msgspec.Struct, frozen=True):
    """Remove all that is kept of a partition: records, clock and holding."""

    partition: int


Change = RecordChange | ClockChange | HoldingChange | DropPartition


class RegistryChange(msgspec.Struct, frozen=True):
    """Keep this signed registry unless a newer one is kept; beside the storage, and synced."""

    epoch: int
    signed: bytes


Expiry = tuple[int, int, str]
"""When the first version of a record expires, in Unix milliseconds; its partition and key."""
FIRST_EXPIRY: Expiry = (0, 0, "")


class Storage(Protocol):
    """Reads of what is on disk. Cheap enough to be called between two packets."""

    def load(self, partition: int, key: str) -> Record | None:
        """Return a key's record."""

    def scan(self, partition: int, prefix: str, after: str, limit: int) -> list[tuple[str, Record]]:
        """Return up to ``limit`` records with this prefix after this key, in key order."""

    def digest(self, partition: int) -> int:
        """Return the exclusive or of ``record_mark`` over all records of a partition."""

    def marks(self, partition: int) -> dict[str, int]:
        """Return the ``record_mark`` of each key of a partition that has a live version."""

    def orphan_context(self, partition: int) -> list[tuple[str, Record]]:
        """Return the records that have a context but no live version."""

    def expired(self, until_ms: int, after: Expiry, limit: int) -> list[Expiry]:
        """Return records with a version that expires by then, in order, behind ``after``."""

    def clock(self, partition: int) -> Coverage:
        """Return the coverage clock of a partition."""

    def holdings(self) -> dict[int, int]:
        """Return for each complete partition the epoch of the owners it is complete for.

        ``DAMAGED`` for those of which the disk may have lost something.
        """

    def partitions(self) -> set[int]:
        """Return the partitions that have records."""


class MemoryStorage:
    """A storage that lives as long as its object: for the simulator, and for tests.

    A simulated crash makes a new node over the same object: what was not applied is gone.
    """

    def __init__(self) -> None:
        self.records: dict[int, dict[str, Record]] = {}
        self.clocks: dict[int, dict[int, tuple[Interval, ...]]] = {}
        self.complete: dict[int, int] = {}

    def apply(self, changes: Iterable[object]) -> None:
        """Write one batch, as the driver does for a Persist."""
        for change in changes:
            match change:
                case RecordChange(partition, key, None):
                    self.records.get(partition, {}).pop(key, None)
                case RecordChange(partition, key, Record() as record):
                    self.records.setdefault(partition, {})[key] = record
                case ClockChange(partition, actor, intervals):
                    self.clocks.setdefault(partition, {})[actor] = intervals
                case HoldingChange(partition, None):
                    self.complete.pop(partition, None)
                case HoldingChange(partition, int() as since):
                    self.complete[partition] = since
                case DropPartition(partition):
                    for kept in (self.records, self.clocks, self.complete):
                        kept.pop(partition, None)
                case _:
                    raise AssertionError(f"not a change of the state plane: {change!r}")

    def load(self, partition: int, key: str) -> Record | None:
        """Return a key's record."""
        return self.records.get(partition, {}).get(key)

    def scan(self, partition: int, prefix: str, after: str, limit: int) -> list[tuple[str, Record]]:
        """Return up to ``limit`` records with this prefix after this key, in key order."""
        records = self.records.get(partition, {})
        keys = sorted(key for key in records if key > after and key.startswith(prefix))
        return [(key, records[key]) for key in keys[:limit]]

    def digest(self, partition: int) -> int:
        """Return the exclusive or of ``record_mark`` over all records of a partition."""
        digest = 0
        for key, record in self.records.get(partition, {}).items():
            digest ^= record_mark(key, record.dots())
        return digest

    def marks(self, partition: int) -> dict[str, int]:
        """Return the ``record_mark`` of each key of a partition that has a live version."""
        records = self.records.get(partition, {})
        return {key: record_mark(key, r.dots()) for key, r in records.items() if r.live}

    def orphan_context(self, partition: int) -> list[tuple[str, Record]]:
        """Return the records that have a context but no live version."""
        records = self.records.get(partition, {})
        return [(key, record) for key, record in records.items() if not record.live]

    def expired(self, until_ms: int, after: Expiry, limit: int) -> list[Expiry]:
        """Return records with a version that expires by then, in order, behind ``after``."""
        found = [
            (expires_ms, partition, key)
            for partition, records in self.records.items()
            for key, record in records.items()
            if 0 < (expires_ms := earliest_expiry_ms(record.live)) <= until_ms
        ]
        return sorted(each for each in found if each > after)[:limit]

    def clock(self, partition: int) -> Coverage:
        """Return the coverage clock of a partition."""
        return tuple(sorted(self.clocks.get(partition, {}).items()))

    def holdings(self) -> dict[int, int]:
        """Return for each complete partition the epoch of the owners it is complete for."""
        return dict(self.complete)

    def partitions(self) -> set[int]:
        """Return the partitions that have records."""
        return {partition for partition, records in self.records.items() if records}
