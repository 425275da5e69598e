"""What a start reads back is what the changes led to; founding and recovery make such states."""

import pytest

from gossip.consensus.configuration import Configuration, Voter, decode_configuration
from gossip.consensus.messages import Entry, EntryKind, SnapshotMark
from gossip.consensus.storage import (
    AppendChange,
    ArrivalChange,
    ChunkChange,
    CompactChange,
    HardState,
    MemoryLog,
    SnapshotChange,
    StoredState,
    TruncateChange,
    arrival,
    base_index,
    blank,
    checksum,
    founded,
    recovered,
)

ME = Voter(7, 70)
ALONE = Configuration((ME,))
STEP = 2**32


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(
        Entry(index, term, EntryKind.COMMAND, b"%d" % index) for index in range(first, last + 1)
    )


def mark(index: int, data: bytes = b"state") -> SnapshotMark:
    return SnapshotMark(index, 1, ALONE, 1, len(data), checksum(data), 2)


def log_with(*changes: object) -> MemoryLog:
    log = MemoryLog()
    log.apply(changes)
    return log


def test_entries_are_appended_and_removed_at_both_ends() -> None:
    log = log_with(HardState(1, 2, 7), AppendChange(entries(1, 9)))
    log.apply([TruncateChange(7), AppendChange(entries(8, 8, 2)), CompactChange(5)])
    assert [(each.index, each.term) for each in log.stored().entries] == [(6, 1), (7, 1), (8, 2)]
    assert log.stored().hard == HardState(1, 2, 7)


def test_a_snapshot_counts_when_it_is_whole_and_not_before() -> None:
    log = log_with(ArrivalChange(mark(3, b"old")), ChunkChange(0, b"ol"), ChunkChange(1, b"d"))
    log.apply([SnapshotChange(mark(3, b"old"))])
    log.apply([ArrivalChange(mark(5)), ChunkChange(0, b"st")])
    stored = log.stored()
    assert (stored.snapshot, stored.arriving, stored.arrived) == (mark(3, b"old"), mark(5), 1)
    assert stored.chunks.chunk(mark(5), 0) == b"st"
    assert stored.chunks.chunk(mark(3, b"old"), 1) == b"d"
    with pytest.raises(KeyError):
        stored.chunks.chunk(mark(5), 1)
    log.apply([ChunkChange(1, b"at"), ChunkChange(2, b"e"), SnapshotChange(mark(5))])
    assert (log.stored().snapshot, log.stored().arriving) == (mark(5), None)
    with pytest.raises(KeyError):
        log.chunk(mark(3, b"old"), 0)


def test_another_snapshot_drops_the_chunks_of_one_that_was_arriving() -> None:
    log = log_with(ArrivalChange(mark(3)), ChunkChange(0, b"st"), ArrivalChange(mark(4, b"x")))
    assert (log.stored().arriving, log.stored().arrived) == (mark(4, b"x"), 0)
    log.apply([ArrivalChange(None)])
    assert log.stored().arriving is None


def test_a_founder_is_the_only_voter_and_a_blank_store_knows_nothing() -> None:
    first = founded(ME)
    first.check()
    assert first.hard == HardState(1, 1, 0)
    assert [decode_configuration(each.data) for each in first.entries] == [ALONE]
    blank().check()
    assert blank().hard.generation == 0


def stored(first: int, last: int, snapshot: SnapshotMark | None = None) -> StoredState:
    return StoredState(HardState(1, 1), entries(first, last), MemoryLog(), snapshot)


@pytest.mark.parametrize(
    "state",
    [
        stored(2, 5),
        stored(5, 9, mark(3)),
        stored(1, 2, mark(3)),
        StoredState(HardState(2, 1), entries(1, 3), MemoryLog()),
        StoredState(HardState(1, 1), (*entries(1, 2), *entries(4, 5)), MemoryLog()),
        StoredState(HardState(1, 2), (*entries(1, 2, 2), *entries(3, 3, 1)), MemoryLog()),
        StoredState(HardState(1, 1), entries(1, 2, 2), MemoryLog()),
    ],
)
def test_a_log_with_a_gap_is_damaged(state: StoredState) -> None:
    with pytest.raises(ValueError, match=r"missing|before its snapshot|follow|term|generation"):
        state.check()


@pytest.mark.parametrize("state", [stored(1, 3), stored(2, 5, mark(3)), stored(4, 5, mark(3))])
def test_a_whole_log_is_not(state: StoredState) -> None:
    state.check()


def test_recovery_goes_on_alone_at_larger_indices_in_a_new_generation() -> None:
    log = log_with(HardState(1, 4, 7), AppendChange(entries(1, 3)))
    after = recovered(log.stored(), ME, b"state", 2)
    after.check()
    assert after.hard == HardState(2, 5, 0)
    assert after.snapshot is not None
    assert (after.snapshot.index, after.snapshot.term) == (3 + STEP, 4)
    assert (after.snapshot.configuration, after.entries) == (ALONE, ())
    again = recovered(after, ME, b"state", 2)
    assert again.last_index == 3 + 2 * STEP
    assert again.last_index > base_index(again.hard.generation)


def test_a_recovered_state_takes_the_place_of_what_was_there() -> None:
    log = log_with(
        HardState(1, 1), AppendChange(entries(1, 4)),
        *arrival(mark(3), b"state"), SnapshotChange(mark(3)), CompactChange(4),
    )  # fmt: skip
    assert (log.stored().snapshot, log.stored().last_index) == (mark(3), 3)
    log.replace(recovered(log.stored(), ME, b"later", 2))
    again = log.stored()
    assert again.snapshot is not None
    assert [log.chunk(again.snapshot, number) for number in range(3)] == [b"la", b"te", b"r"]


def test_there_is_nothing_to_recover_of_a_blank_store() -> None:
    with pytest.raises(ValueError, match="nothing"):
        recovered(blank(), ME, b"", 2)
