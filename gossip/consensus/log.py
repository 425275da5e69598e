"""The log of one store: entries in memory, which of them are saved, committed and handed on.

::

      offset     snapshot         emitted     stable          last
    ──┼──────────┼────────────────┼───────────┼───────────────┼──
      │ trailing │                │ to apply  │ being saved   │
      compacted before                    commit may be anywhere from emitted on

Entries behind ``offset`` are in memory, for whoever is behind; so many of them that a voter which
was away for minutes needs no snapshot. The configuration in effect is the last one in the log,
committed or not (Ongaro and Ousterhout 2014, section 6).
"""

from collections import deque
from collections.abc import Sequence

from gossip.consensus.configuration import Configuration, decode_configuration
from gossip.consensus.messages import Entry, EntryKind, SnapshotMark, entry_bytes
from gossip.consensus.outbound import ConsensusOutbound, Token
from gossip.consensus.storage import (
    AppendChange,
    CompactChange,
    SnapshotChange,
    StoredState,
    TruncateChange,
    base_index,
)

Effective = tuple[int, Configuration]
"""A configuration and the index of its entry."""


class RaftLog:
    """The entries of one store. Raises ValueError for a log that is damaged."""

    def __init__(self, stored: StoredState, outbound: ConsensusOutbound) -> None:
        stored.check()
        self._outbound = outbound
        self.snapshot = stored.snapshot
        self.snapshot_batch: Token = 0
        """The batch with which the snapshot that counts is on disk."""
        self._offset, self._offset_term = base_index(stored.hard.generation), 0
        if stored.snapshot is not None:
            self._offset, self._offset_term = stored.snapshot.index, stored.snapshot.term
        entries = list(stored.entries)
        if entries and entries[0].index <= self._offset:
            # Nobody noted the term of the entry before it, so it only says what follows on it.
            self._offset, self._offset_term = entries[0].index, entries[0].term
            del entries[0]
        self._entries: list[Entry] = []
        self._configurations: list[Effective] = [(self._offset, Configuration())]
        if self.snapshot is not None:
            mark = self.snapshot
            self._configurations = [(mark.configuration_index, mark.configuration)]
        self.commit = self.emitted = self.snapshot.index if self.snapshot else self._offset
        self.applied = self._offset
        self.uncommitted_bytes = 0
        self._batches: deque[tuple[Token, int]] = deque()
        self._take(entries)
        self.stable = self.last_index

    # What is there.

    @property
    def last_index(self) -> int:
        """The index of the last entry."""
        return self._offset + len(self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._entries[-1].term if self._entries else self._offset_term

    @property
    def first_index(self) -> int:
        """The index of the first entry that can be sent to somebody."""
        return self._offset + 1

    @property
    def configuration(self) -> Configuration:
        """The configuration in effect."""
        return self._configurations[-1][1]

    @property
    def configuration_index(self) -> int:
        """The index of the entry of the configuration in effect."""
        return self._configurations[-1][0]

    @property
    def configuration_before(self) -> Configuration:
        """The configuration before the one in effect; the same where that is the first."""
        return self._configurations[-2:][0][1]

    @property
    def is_blank(self) -> bool:
        """Whether nothing was ever in this log."""
        return self.snapshot is None and not self._entries

    def configuration_at(self, index: int) -> Effective:
        """Return the last configuration up to an index, of those that are not compacted."""
        return next(each for each in reversed(self._configurations) if each[0] <= index)

    def term_at(self, index: int) -> int | None:
        """Return the term of an entry; None where it is compacted, or not there yet."""
        if index == self._offset:
            return self._offset_term
        if not self._offset < index <= self.last_index:
            return None
        return self._entries[index - self._offset - 1].term

    def between(self, first: int, last: int) -> Sequence[Entry]:
        """Return the entries from first to last, both included."""
        assert first > self._offset, "compacted"
        return self._entries[first - self._offset - 1 : last - self._offset]

    def portion(self, first: int, entries_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """Return entries from an index on, as many as fit; at least one where there is one."""
        portion: list[Entry] = []
        size_bytes = 0
        for entry in self.between(first, first + entries_max - 1):
            size_bytes += entry_bytes(entry)
            if portion and size_bytes > bytes_max:
                break
            portion.append(entry)
        return tuple(portion)

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Tell whether a log that ends like this has all that may be committed (section 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def agreement(self, index: int, term: int) -> tuple[int, int]:
        """Return the last entry up to this index whose term is at most this, as index and term.

        Two logs that differ at ``index`` agree there at the latest; so a whole term is passed over
        in one step (section 5.3). What is compacted here is taken as it is.
        """
        index = min(index, self.last_index)
        if index < self._offset:
            return index, term
        while index > self._offset:
            own = self._entries[index - self._offset - 1].term
            if own <= term:
                return index, own
            index -= 1
        return self._offset, self._offset_term

    # What changes it.

    def rebase(self, generation: int) -> None:
        """Begin where a group of this generation began; only for a blank log."""
        assert self.is_blank, "what is in a log has its index"
        base = base_index(generation)
        self._offset = self.stable = self.commit = self.emitted = self.applied = base
        self._configurations = [(base, Configuration())]

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries behind the last one, and have them saved."""
        self._take(entries)
        self._outbound.change(AppendChange(tuple(entries)))

    def _take(self, entries: Sequence[Entry]) -> None:
        index, term = self.last_index, self.last_term
        for entry in entries:
            assert entry.index == index + 1, "entries follow on each other"
            assert entry.term >= term, "terms only grow"
            index, term = entry.index, entry.term
            if index > self.commit:
                self.uncommitted_bytes += entry_bytes(entry)
            if entry.kind is EntryKind.CONFIGURATION and index > self.configuration_index:
                self._configurations.append((index, decode_configuration(entry.data)))
        self._entries += entries

    def follows(self, index: int, term: int) -> bool:
        """Tell whether our log agrees with another up to this entry of it."""
        return self.term_at(index) == term

    def accept(self, entries: Sequence[Entry]) -> bool:
        """Take over a leader's entries, the first of which follows on one that agrees (rule 2).

        Entries that are there stay, and so do those behind them: an Append that comes late or
        twice removes nothing. False, and nothing is done, where it contradicts what is committed.
        """
        fresh = self.first_conflict(entries)
        if fresh == len(entries):
            return True
        first = entries[fresh].index
        if first <= self.commit:
            return False
        if first <= self.last_index:
            self._truncate(first - 1)
        self.append(entries[fresh:])
        return True

    def first_conflict(self, entries: Sequence[Entry]) -> int:
        """Return the position of the first entry that is not in our log, or is another there."""
        for position, entry in enumerate(entries):
            if entry.index > self._offset and self.term_at(entry.index) != entry.term:
                return position
        return len(entries)

    def _truncate(self, after: int) -> None:
        assert after >= self.commit, "what is committed stays"
        for entry in self.between(after + 1, self.last_index):
            self.uncommitted_bytes -= entry_bytes(entry)
        del self._entries[after - self._offset :]
        while self.configuration_index > after:
            self._configurations.pop()
        self._unsave(after)
        self._outbound.change(TruncateChange(after))

    def _unsave(self, after: int) -> None:
        """What is being saved right now is removed again: its end proves nothing of what follows.

        The same entry may come a third time, from another leader, before the disk has the second.
        """
        self.stable = min(self.stable, after)
        self._batches = deque((token, min(last, after)) for token, last in self._batches)

    def restore(self, mark: SnapshotMark) -> None:
        """Begin anew with a snapshot in place of everything."""
        assert mark.index > self.commit, "what is committed stays"
        self._entries = []
        self.uncommitted_bytes = 0
        self.snapshot = mark
        self._offset, self._offset_term = mark.index, mark.term
        self._configurations = [(mark.configuration_index, mark.configuration)]
        self._unsave(mark.index)
        self.commit = self.emitted = self.stable = mark.index
        self._outbound.change(SnapshotChange(mark), TruncateChange(0))
        self.snapshot_batch = self._outbound.latest

    def compact(self, mark: SnapshotMark, trailing_entries: int, trailing_bytes: int) -> None:
        """Let a snapshot of ours count, and drop what is far enough behind it."""
        self.snapshot = mark
        self._outbound.change(SnapshotChange(mark))
        self.snapshot_batch = self._outbound.latest
        through = mark.index
        kept_bytes = 0
        while through > max(self._offset, mark.index - trailing_entries):
            kept_bytes += entry_bytes(self._entries[through - self._offset - 1])
            if kept_bytes > trailing_bytes:
                break
            through -= 1
        if through > self._offset:
            self._offset_term = self.term_at(through) or 0
            del self._entries[: through - self._offset]
            self._offset = through
            self._outbound.change(CompactChange(through))
        first = self.configuration_at(mark.index)
        self._configurations = [each for each in self._configurations if each[0] >= first[0]]

    def commit_to(self, index: int) -> bool:
        """Note that all up to an index is committed; False if that is no news."""
        if index <= self.commit:
            return False
        assert index <= self.last_index, "nobody commits what is not there"
        fresh = self.between(self.commit + 1, index)
        self.uncommitted_bytes -= sum([entry_bytes(entry) for entry in fresh])
        self.commit = index
        return True

    def flushed(self, token: Token) -> None:
        """A batch with all entries up to now is on its way to the disk."""
        self._batches.append((token, self.last_index))

    def saved(self, token: Token) -> None:
        """A batch is on disk, and all before it."""
        while self._batches and self._batches[0][0] <= token:
            self.stable = max(self.stable, self._batches.popleft()[1])

    def to_apply(self) -> tuple[Entry, ...]:
        """Take out what is committed and saved here, and was not handed on."""
        until = min(self.commit, self.stable)
        if until <= self.emitted:
            return ()
        entries = tuple(self.between(self.emitted + 1, until))
        self.emitted = until
        return entries
