"""What is on disk of the log, known without reading it again.

A node changes sides while it runs: its copy becomes a voter's log, or the reverse. Both begin from
what the disk has, and all that gets there passes here; only chunks are read.
"""

from collections.abc import Iterable

from gossip.consensus.configuration import Configuration, decode_configuration
from gossip.consensus.messages import Entry, EntryKind, SnapshotMark
from gossip.consensus.storage import (
    AppendChange,
    ArrivalChange,
    ChunkChange,
    CompactChange,
    HardState,
    SnapshotChange,
    StoredState,
    TruncateChange,
)


class LogMirror:
    """Follows the changes that are persisted; the entries are those of the log itself."""

    def __init__(self, stored: StoredState) -> None:
        self.hard = stored.hard
        self.snapshot = stored.snapshot
        self.entries: list[Entry] = list(stored.entries)
        self._chunks = stored.chunks
        self._arriving: SnapshotMark | None = stored.arriving
        self._arrived = stored.arrived

    def apply(self, changes: Iterable[object]) -> None:
        """Take note of a batch that is on its way to the disk."""
        for change in changes:
            match change:
                case HardState():
                    self.hard = change
                case AppendChange(entries):
                    self.entries.extend(entries)
                case TruncateChange(after):
                    while self.entries and self.entries[-1].index > after:
                        self.entries.pop()
                case CompactChange(through):
                    covered = sum(each.index <= through for each in self.entries)
                    del self.entries[:covered]
                case ArrivalChange(mark):
                    self._arriving, self._arrived = mark, 0
                case ChunkChange():
                    self._arrived += 1
                case SnapshotChange(mark):
                    self.snapshot, self._arriving, self._arrived = mark, None, 0
                case _:
                    raise AssertionError(f"not a change of the log: {change!r}")

    @property
    def configuration_index(self) -> int:
        """Where the last configuration of the log is, committed or not; 0 in an empty log."""
        entry = self._last_configuration()
        if entry is not None:
            return entry.index
        return self.snapshot.configuration_index if self.snapshot else 0

    @property
    def configuration(self) -> Configuration:
        """The last configuration of the log, committed or not."""
        entry = self._last_configuration()
        if entry is not None:
            return decode_configuration(entry.data)
        return self.snapshot.configuration if self.snapshot else Configuration()

    def _last_configuration(self) -> Entry | None:
        found = (e for e in reversed(self.entries) if e.kind is EntryKind.CONFIGURATION)
        return next(found, None)

    def stored(self) -> StoredState:
        """Return what a start would read back, once everything is on disk."""
        return StoredState(
            self.hard, tuple(self.entries), self._chunks, self.snapshot, self._arriving,
            self._arrived,
        )  # fmt: skip

    def snapshot_data(self) -> bytes:
        """Return the snapshot that counts, put together."""
        mark = self.snapshot
        assert mark is not None, "asked for where there is one"
        return b"".join(self._chunks.chunk(mark, number) for number in range(mark.chunks))
