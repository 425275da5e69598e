"""Saves the copy of a node that takes no part: as a snapshot, now and then.

It is saved in the file and by the changes of a voter's log, so that a node that is to take part
begins from there, as the same store.
"""

from collections.abc import Callable

from gossip.consensus.configuration import Configuration
from gossip.consensus.storage import (
    CompactChange,
    ConsensusChange,
    HardState,
    SnapshotChange,
    TruncateChange,
    arrival,
    mark_of,
)
from gossip.control.applier import LogApplier
from gossip.control.log_mirror import LogMirror
from gossip.core.machine import Instant

SAVE_S = 60.0
"""A copy that has changed is saved this long after that ..."""
SAVE_BYTES_PER_S = 2_048
"""... and seldom enough that it writes no more than this on average."""

CHUNK_BYTES = 64 * 1024


class CopySaver:
    """Says when a copy is to be saved, and by which changes."""

    def __init__(
        self, applier: LogApplier, disk: LogMirror, persist: Callable[[tuple[object, ...]], int]
    ) -> None:
        self._applier = applier
        self._disk = disk
        self._persist = persist
        self._saved_index = 0
        self._saving: int | None = None
        self._due: Instant | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a copy is on its way to the disk."""
        return self._saving is not None

    def restored(self, index: int) -> None:
        """The copy is as the disk has it."""
        self._saved_index = index

    def changed(self, now: Instant) -> None:
        """The copy is ahead of the disk."""
        if self._due is None:
            used_bytes = self._applier.state.space.used_bytes
            self._due = now + max(SAVE_S, used_bytes / SAVE_BYTES_PER_S)

    def hurry(self, now: Instant) -> None:
        """The copy is far ahead of the disk: do not wait."""
        self._due = now

    def stop(self) -> None:
        """Save nothing more: the log is kept otherwise now."""
        self._due = None

    def save_if_due(
        self, generation: int, term: int, effective: tuple[int, Configuration], now: Instant
    ) -> None:
        """Save the copy, which was applied in this term; ``effective`` as in ``mark_of``."""
        if self._due is None or self._due > now:
            return
        self._due = None
        index = self._applier.index
        if index <= self._saved_index or self.is_busy:
            return
        assert term > 0, "what is applied was written in some term"
        data = self._applier.state.snapshot()
        mark = mark_of(data, index, term, effective, chunk_bytes=CHUNK_BYTES)
        changes: list[ConsensusChange] = [*arrival(mark, data), SnapshotChange(mark)]
        if self._disk.hard.generation != generation:
            changes.insert(0, HardState(generation, term))
        changes.append(self._covered(index, term))
        self._saving = self._persist(tuple(changes))
        self._saved_index = index

    def _covered(self, index: int, term: int) -> ConsensusChange:
        """Return how to let go of entries that a snapshot covers.

        Behind it stays what this store may have acknowledged when it took part, and somebody may
        count on; unless its term is over at the snapshot, for then another log was committed there.
        """
        behind = (each for each in self._disk.entries if each.index > index)
        first = next(behind, None)
        is_over = first is None or first.term < term
        return TruncateChange(0) if is_over else CompactChange(index)

    def persisted(self, token: int) -> None:
        """A batch is on disk."""
        if token == self._saving:
            self._saving = None

    def deadline(self) -> Instant | None:
        """Return when to save."""
        return self._due
