"""What one log has to be by the changes that its machine had written: terms and configurations.

Checkers compare logs with it without asking the machine that they check.
"""

from collections.abc import Iterator

from gossip.consensus.configuration import Configuration, decode_configuration
from gossip.consensus.messages import Entry, EntryKind
from gossip.consensus.storage import (
    AppendChange,
    CompactChange,
    HardState,
    SnapshotChange,
    StoredState,
    TruncateChange,
)


class LogShadow:
    """The terms of a log by index, its configurations, its snapshot and its promises."""

    def __init__(self, stored: StoredState) -> None:
        self.hard = stored.hard
        self.terms: dict[int, int] = {}
        self.configurations: list[tuple[int, Configuration]] = []
        self.snapshot = 0, 0
        """Index and term."""
        self.last = 0
        if stored.snapshot is not None:
            self.apply(SnapshotChange(stored.snapshot))
        for entry in stored.entries:
            self._append(entry)

    @property
    def configuration(self) -> tuple[int, Configuration]:
        """The index and value of the last configuration, committed or not."""
        return self.configurations[-1] if self.configurations else (0, Configuration())

    def term_at(self, index: int) -> int | None:
        """Return the term of an entry; None when it is not there any more, or not yet."""
        if index == self.snapshot[0]:
            return self.snapshot[1]
        return self.terms.get(index)

    def covers(self, index: int, term: int) -> bool:
        """Tell whether this entry is in the log, or in its snapshot."""
        return index <= self.snapshot[0] or self.terms.get(index) == term

    def removed_by(self, change: TruncateChange) -> Iterator[tuple[int, int]]:
        """Yield index and term of the entries that this change removes."""
        for index in self._behind(change.after):
            yield index, self.terms[index]

    def _behind(self, after: int) -> list[int]:
        """Return the indices behind this one; between two generations are 2^32 that nobody has."""
        return sorted(index for index in self.terms if index > after)

    def apply(self, change: object) -> None:
        """Follow a change."""
        match change:
            case HardState():
                self.hard = change
            case AppendChange(entries):
                for entry in entries:
                    self._append(entry)
            case TruncateChange(after):
                for index in self._behind(after):
                    del self.terms[index]
                self.last = max(min(self.last, after), self.snapshot[0])
                self._drop_configurations(after)
            case CompactChange(through):
                for index in [each for each in self.terms if each <= through]:
                    del self.terms[index]
            case SnapshotChange(mark):
                self.snapshot = mark.index, mark.term
                self.last = max(self.last, mark.index)
                newer = [each for each in self.configurations if each[0] > mark.index]
                self.configurations = [(mark.configuration_index, mark.configuration), *newer]

    def _append(self, entry: Entry) -> None:
        self.terms[entry.index] = entry.term
        self.last = entry.index
        if entry.kind is EntryKind.CONFIGURATION:
            self._drop_configurations(entry.index - 1)
            self.configurations.append((entry.index, decode_configuration(entry.data)))

    def _drop_configurations(self, after: int) -> None:
        while self.configurations and self.configurations[-1][0] > max(after, self.snapshot[0]):
            self.configurations.pop()
