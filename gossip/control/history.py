"""What has changed lately, revision by revision, for watches that begin in the past.

Each replica remembers the last HISTORY_CHANGES_MAX changes, or HISTORY_BYTES_MAX of them. This is
no part of the replicated state: a copy that was installed from a snapshot begins with an empty
history. Whoever asks for what is not remembered any more is told so, and never gets a gap.
"""

from collections import deque
from collections.abc import Iterator

import msgspec

from gossip.control.barriers import BarrierChange
from gossip.control.bounds import ENTRY_BYTES, HISTORY_BYTES_MAX, HISTORY_CHANGES_MAX
from gossip.control.keys import KeyChange
from gossip.control.locks import LockChange

ControlChange = KeyChange | LockChange | BarrierChange


class RevisionChanges(msgspec.Struct, frozen=True, gc=False):
    """Everything that one entry of the log has changed: they are seen together or not at all."""

    revision: int
    changes: tuple[ControlChange, ...]
    size_bytes: int


class History:
    """Remembers the changes after ``floor``."""

    def __init__(self, floor: int, changes_max: int = HISTORY_CHANGES_MAX) -> None:
        self.floor = floor
        """All changes of later revisions are here."""
        self._changes_max = changes_max
        self._batches: deque[RevisionChanges] = deque()
        self._count = 0
        self._size_bytes = 0

    def __len__(self) -> int:
        return self._count

    def record(self, revision: int, changes: tuple[ControlChange, ...]) -> RevisionChanges:
        """Remember what an entry has changed, and forget the oldest in exchange."""
        assert not self._batches or revision > self._batches[-1].revision, "revisions grow"
        assert revision > self.floor, "what is forgotten does not come again"
        batch = RevisionChanges(revision, changes, sum([change_bytes(each) for each in changes]))
        self._batches.append(batch)
        self._count += len(changes)
        self._size_bytes += batch.size_bytes
        while self._count > self._changes_max or self._size_bytes > HISTORY_BYTES_MAX:
            self._forget_oldest()
        return batch

    def after(self, revision: int) -> Iterator[RevisionChanges] | None:
        """Return what changed after a revision, in order; None: that is not remembered."""
        if revision < self.floor:
            return None
        return (batch for batch in self._batches if batch.revision > revision)

    def _forget_oldest(self) -> None:
        batch = self._batches.popleft()
        self.floor = batch.revision
        self._count -= len(batch.changes)
        self._size_bytes -= batch.size_bytes


def change_bytes(change: ControlChange) -> int:
    """Return roughly what a change takes in memory."""
    match change:
        case KeyChange():
            return change.entry.size_bytes if change.entry else ENTRY_BYTES
        case LockChange():
            return change.lock.size_bytes if change.lock else ENTRY_BYTES
        case BarrierChange():
            return change.barrier.size_bytes if change.barrier else ENTRY_BYTES
