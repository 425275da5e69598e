"""What a voter keeps on disk, the changes by which it gets there, and what a start reads back.

The machine emits ``Persist`` with the changes below, in order, and asks for an fsync: when
``persisted`` is called, a power cut takes none of it (rule 1). Batches are written in the order of
their emission; a crash leaves a prefix of them. Heartbeats change nothing.

A disk of which anything but a tail that was never acknowledged is lost or wrong must not be given
back as if it were whole: the store that it was has voted and acknowledged what is gone. It starts
as another store, with ``blank()``, and learns everything anew (rule 9).

Snapshots are read through ``ChunkSource``, piece by piece, so that nobody holds one in memory. The
chunks of one that is still arriving lie beside the one that counts, until ``SnapshotChange`` puts
it in its place.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from gossip.consensus.configuration import Configuration, StoreId, Voter, encode_configuration
from gossip.consensus.messages import GENERATION_MAX, Entry, EntryKind, SnapshotMark

GENERATION_INDEX_STEP = 2**32
"""By how much all indices grow with a recovery: more than any group has written before it, so that
an index which was a fencing token stays below all that follow (rule 14)."""

CLOCK_EPOCH_S, CLOCK_UNIT_S, CLOCK_STEP = 1_767_225_600, 60, 2**28
"""From the year 2026 on, so many indices for each minute: more than a group writes in one, and few
enough that they stay below 2^53 until 2089, for programs that read JSON's numbers as floats."""

NOBODY: StoreId = 0


def base_index(generation: int) -> int:
    """Return the index on which the first entry of a group of this generation follows.

    >>> base_index(1), base_index(2)
    (0, 4294967296)
    """
    return max(0, generation - 1) * GENERATION_INDEX_STEP


def index_of_next(last: int, at_s: float = 0.0) -> int:
    """Return the index at which the next generation begins, whose former one ended at ``last``.

    ``at_s`` is Unix time by an operator's clock. What two recoveries give that know nothing of each
    other is apart, too, and in the order of their times, if both clocks are right, the two are a
    minute apart, and no recovery that both know of was within 16 minutes before. Where that is not
    so, it is still above all that was known.
    """
    by_clock = min(max(0.0, at_s - CLOCK_EPOCH_S) / CLOCK_UNIT_S, GENERATION_MAX)
    return max(last + GENERATION_INDEX_STEP, int(by_clock) * CLOCK_STEP)


class HardState(msgspec.Struct, frozen=True, array_like=True):
    """What a store has promised; as a change, it replaces the one before.

    ``generation`` 0 has taken part in nothing yet; ``vote`` is whom it voted for in ``term``.
    """

    generation: int = 0
    term: int = 0
    vote: StoreId = NOBODY


class AppendChange(msgspec.Struct, frozen=True):
    """Add these entries behind the last one."""

    entries: tuple[Entry, ...]


class TruncateChange(msgspec.Struct, frozen=True):
    """Remove all entries behind this index; 0: all."""

    after: int


class CompactChange(msgspec.Struct, frozen=True):
    """Remove all entries up to this index; the snapshot that counts covers them."""

    through: int


class ArrivalChange(msgspec.Struct, frozen=True):
    """A snapshot begins to arrive: note its mark, and drop the chunks of another; None: only drop.

    The snapshot that counts is not touched.
    """

    mark: SnapshotMark | None


class ChunkChange(msgspec.Struct, frozen=True):
    """Keep the next chunk of the snapshot that is arriving."""

    number: int
    data: bytes


class SnapshotChange(msgspec.Struct, frozen=True):
    """The snapshot that was arriving is whole, and is the one that counts; drop the one before."""

    mark: SnapshotMark


ConsensusChange = (
    HardState
    | AppendChange
    | TruncateChange
    | CompactChange
    | ArrivalChange
    | ChunkChange
    | SnapshotChange
)


class ChunkSource(Protocol):
    """Reads of chunks on disk. Cheap enough to be called between two packets."""

    def chunk(self, mark: SnapshotMark, number: int) -> bytes:
        """Return a chunk of the snapshot that counts, or of the one that is arriving.

        Raises KeyError for a chunk that is in neither.
        """


class StoredState(msgspec.Struct, frozen=True):
    """What a start reads back.

    ``entries`` follow on each other; the first follows on ``snapshot``, or is covered by it, or is
    the first of its generation. ``arriving`` is a snapshot of which ``arrived`` chunks are there.
    """

    hard: HardState
    entries: tuple[Entry, ...]
    chunks: ChunkSource
    snapshot: SnapshotMark | None = None
    arriving: SnapshotMark | None = None
    arrived: int = 0

    @property
    def last_index(self) -> int:
        """The index of the last entry."""
        if self.entries:
            return self.entries[-1].index
        return self.snapshot.index if self.snapshot else base_index(self.hard.generation)

    @property
    def newness(self) -> tuple[int, int, int]:
        """Generation, term and index of the last entry: larger for who has more."""
        term = self.snapshot.term if self.snapshot else 0
        if self.entries:
            term = max(term, self.entries[-1].term)
        return self.hard.generation, term, self.last_index

    def check(self) -> None:
        """Raise ValueError where this cannot have been written by a machine: the log is damaged."""
        covered = self.snapshot.index if self.snapshot else base_index(self.hard.generation)
        if self.entries and self.entries[0].index > covered + 1:
            raise ValueError(f"entries {covered + 1} to {self.entries[0].index - 1} are missing")
        if self.entries and not self.snapshot and self.entries[0].index <= covered:
            raise ValueError("the log has entries from before its generation")
        if self.entries and self.snapshot and self.entries[-1].index < covered:
            raise ValueError(f"the log ends at {self.entries[-1].index}, before its snapshot")
        for before, after in zip(self.entries, self.entries[1:], strict=False):
            if after.index != before.index + 1 or after.term < before.term:
                raise ValueError(f"entry {after.index} does not follow on entry {before.index}")
        if self.entries and self.entries[-1].term > self.hard.term:
            raise ValueError("the log has entries of a term that this store has not seen")


class MemoryLog:
    """A log that lives as long as its object: for the simulator, and for tests.

    A simulated crash makes a new machine over what ``stored()`` returns: what was not applied is
    gone.
    """

    def __init__(self) -> None:
        self.hard = HardState()
        self.entries: list[Entry] = []
        self.snapshot: SnapshotMark | None = None
        self.arriving: SnapshotMark | None = None
        self.kept: list[bytes] = []
        """Chunks of the snapshot that counts."""
        self.arrived: list[bytes] = []

    def apply(self, changes: Iterable[object]) -> None:
        """Write one batch, as the driver does for a Persist."""
        for change in changes:
            match change:
                case HardState():
                    self.hard = change
                case AppendChange(entries):
                    self._append(entries)
                case TruncateChange(after):
                    self.entries = [each for each in self.entries if each.index <= after]
                case CompactChange(through):
                    self.entries = [each for each in self.entries if each.index > through]
                case ArrivalChange(mark):
                    self.arriving, self.arrived = mark, []
                case ChunkChange(number, data):
                    assert number == len(self.arrived), "chunks arrive in their order"
                    self.arrived.append(data)
                case SnapshotChange(mark):
                    assert mark == self.arriving, "a snapshot arrives before it counts"
                    self.snapshot, self.kept = mark, self.arrived
                    self.arriving, self.arrived = None, []
                case _:
                    raise AssertionError(f"not a change of a Raft log: {change!r}")

    def _append(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert not self.entries or entry.index == self.entries[-1].index + 1, "no gap"
            self.entries.append(entry)

    def chunk(self, mark: SnapshotMark, number: int) -> bytes:
        """Return a chunk of the snapshot that counts, or of the one that is arriving."""
        for known, chunks in ((self.snapshot, self.kept), (self.arriving, self.arrived)):
            if mark == known and number < len(chunks):
                return chunks[number]
        raise KeyError(number)

    def stored(self) -> StoredState:
        """Return what a start reads back."""
        return StoredState(
            self.hard, tuple(self.entries), self, self.snapshot, self.arriving, len(self.arrived)
        )

    def replace(self, stored: StoredState) -> None:
        """Take over a whole state: one that was founded, or recovered."""
        kept: list[bytes] = []
        if stored.snapshot is not None:
            kept = [
                stored.chunks.chunk(stored.snapshot, number)
                for number in range(stored.snapshot.chunks)
            ]
        self.hard, self.entries = stored.hard, list(stored.entries)
        self.snapshot, self.kept = stored.snapshot, kept
        self.arriving, self.arrived = None, []


def blank() -> StoredState:
    """Return the state of a store that has taken part in nothing: it learns all from a leader."""
    return StoredState(HardState(), (), MemoryLog())


def founded(me: Voter) -> StoredState:
    """Return the state of the only voter of a new group; nothing else ever begins one (rule 13)."""
    first = Entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(Configuration((me,))))
    return StoredState(HardState(generation=1, term=1), (first,), MemoryLog())


def founded_again(me: Voter, data: bytes, index: int, chunk_bytes: int) -> StoredState:
    """Return the state of the only node there is, whose log is lost: nobody has a copy of it.

    ``data`` is the application's first state. Entries follow on ``index``, which has to lie behind
    all that were ever given: the time in milliseconds does, so that no fencing token is given
    twice. The generation follows from it.
    """
    generation = 1 + index // GENERATION_INDEX_STEP
    mark = mark_of(data, index, 1, (index, Configuration((me,))), chunk_bytes)
    log = MemoryLog()
    log.apply([*arrival(mark, data), SnapshotChange(mark)])
    return StoredState(HardState(generation, 2), (), log, mark)


def mark_of(
    data: bytes, index: int, term: int, effective: tuple[int, Configuration], chunk_bytes: int
) -> SnapshotMark:
    """Describe a snapshot; ``effective`` is the configuration at its index, and its own index."""
    since, configuration = effective
    return SnapshotMark(index, term, configuration, since, len(data), checksum(data), chunk_bytes)


def pieces(mark: SnapshotMark, data: bytes, first: int, until: int) -> Iterator[ChunkChange]:
    """Yield some chunks of a snapshot that was made here."""
    size = mark.chunk_bytes
    for number in range(first, until):
        yield ChunkChange(number, data[number * size : (number + 1) * size])


def arrival(mark: SnapshotMark, data: bytes) -> tuple[ConsensusChange, ...]:
    """Return the changes by which a whole snapshot arrives, but for the last one."""
    return ArrivalChange(mark), *pieces(mark, data, 0, mark.chunks)


def recovered(
    stored: StoredState, me: Voter, data: bytes, chunk_bytes: int, at_s: float = 0.0
) -> StoredState:
    """Return the state by which one survivor goes on alone after the majority is lost (rule 14).

    All that it has counts as committed: ``data`` is the application's state when it has applied
    everything up to the last entry. The indices that follow are 2^32 larger at least, so that no
    fencing token is ever given twice (``index_of_next`` says what ``at_s`` is for); what was
    applied keeps the indices that it knows. The configuration
    is the survivor alone. The new generation makes all other stores of before strangers: they take
    part again once they are wiped. Raises ValueError for a store that has taken part in nothing.
    """
    if not stored.hard.generation:
        raise ValueError("this store has taken part in nothing: there is nothing to go on with")
    hard = HardState(stored.hard.generation + 1, stored.hard.term + 1)
    index = index_of_next(stored.last_index, at_s)
    alone = (index, Configuration((me,)))
    mark = mark_of(data, index, stored.hard.term, alone, chunk_bytes)
    log = MemoryLog()
    log.apply([*arrival(mark, data), SnapshotChange(mark)])
    return StoredState(hard, (), log, mark)


def checksum(data: bytes, before: int = 0) -> int:
    """Return the CRC-32 of data that follows on data with the CRC ``before``."""
    return zlib.crc32(data, before)
