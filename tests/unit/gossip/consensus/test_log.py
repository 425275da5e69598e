"""The log of one store: what is kept, cut, saved, committed and handed on."""

import pytest

from gossip.consensus.configuration import Configuration, Voter, encode_configuration
from gossip.consensus.log import RaftLog
from gossip.consensus.messages import Entry, EntryKind, SnapshotMark
from gossip.consensus.outbound import ConsensusOutbound
from gossip.consensus.storage import HardState, MemoryLog, StoredState, TruncateChange

A, B = Voter(1, 101), Voter(2, 102)


def entry(index: int, term: int = 1, data: bytes = b"") -> Entry:
    return Entry(index, term, EntryKind.COMMAND, data)


def voting(index: int, *voters: Voter) -> Entry:
    data = encode_configuration(Configuration(voters))
    return Entry(index, 1, EntryKind.CONFIGURATION, data)


def log_of(*entries: Entry, snapshot: SnapshotMark | None = None) -> RaftLog:
    stored = StoredState(HardState(1, 9), entries, MemoryLog(), snapshot)
    return RaftLog(stored, ConsensusOutbound())


def mark(index: int, term: int = 1) -> SnapshotMark:
    return SnapshotMark(index, term, Configuration((A,)), 1, 0, 0, 9)


def flush(log: RaftLog) -> int:
    persist = log._outbound.flush(0.0)
    assert persist is not None
    log.flushed(persist.token)
    return persist.token


def test_a_log_begins_on_nothing_or_on_its_snapshot() -> None:
    assert (log_of().last_index, log_of().last_term, log_of().first_index) == (0, 0, 1)
    covered = log_of(snapshot=mark(5, 2))
    assert (covered.last_index, covered.last_term, covered.commit) == (5, 2, 5)
    behind = log_of(entry(6, 2), snapshot=mark(5, 2))
    assert (behind.last_index, behind.first_index, behind.term_at(5)) == (6, 6, 2)


def test_trailing_entries_survive_a_restart_and_can_be_sent() -> None:
    log = log_of(*(entry(index) for index in range(3, 9)), snapshot=mark(6))
    assert (log.commit, log.emitted, log.last_index) == (6, 6, 8)
    # Nobody noted the term before entry 3, so only what follows on it can be sent.
    assert log.first_index == 4
    assert [each.index for each in log.portion(4, 2, 10**6)] == [4, 5]


def test_a_damaged_log_is_not_taken() -> None:
    with pytest.raises(ValueError, match="missing"):
        log_of(entry(3))


def test_entries_that_are_there_stay_with_those_behind_them() -> None:
    """Rule 2: a duplicate that is shorter than the log removes nothing."""
    log = log_of(*(entry(index) for index in range(1, 6)))
    assert log.accept([entry(2), entry(3)])
    assert log.last_index == 5
    assert log._outbound.flush(0.0) is None, "nor is anything written"


def test_a_conflict_cuts_what_follows_and_nothing_before() -> None:
    log = log_of(*(entry(index) for index in range(1, 6)))
    assert log.accept([entry(3), entry(4, 2), entry(5, 2)])
    assert [log.term_at(index) for index in range(1, 7)] == [1, 1, 1, 2, 2, None]
    persist = log._outbound.flush(0.0)
    assert persist is not None
    assert persist.changes[0] == TruncateChange(3)


def test_what_is_committed_is_never_cut() -> None:
    log = log_of(*(entry(index) for index in range(1, 6)))
    log.commit_to(4)
    assert not log.accept([entry(4, 2)])
    assert log.term_at(4) == 1


def test_what_was_cut_off_is_not_saved_by_a_batch_of_before() -> None:
    """A, then B, then A again in one place, and the disk has only the first of them."""
    log = log_of(entry(1))
    log.append([entry(2, 1, b"a")])
    first = flush(log)
    assert log.accept([entry(2, 2, b"b")])
    second = flush(log)
    assert log.accept([entry(2, 3, b"a")])
    third = flush(log)
    log.saved(first)
    assert log.stable == 1
    log.saved(second)
    assert log.stable == 1
    log.saved(third)
    assert log.stable == 2


def test_what_is_committed_is_handed_on_once_it_is_saved_here() -> None:
    log = log_of(entry(1))
    log.append([entry(2), entry(3)])
    token = flush(log)
    log.commit_to(3)
    assert [each.index for each in log.to_apply()] == [1]
    log.saved(token)
    assert [each.index for each in log.to_apply()] == [2, 3]
    assert log.to_apply() == ()


def test_the_last_configuration_is_in_effect_and_goes_with_its_entry() -> None:
    log = log_of(voting(1, A), voting(2, A, B))
    assert log.configuration.voters == (A, B)
    assert log.configuration_before.voters == (A,)
    assert log.configuration_at(1) == (1, Configuration((A,)))
    assert log.accept([entry(2, 2)])
    assert (log.configuration.voters, log.configuration_index) == ((A,), 1)


def test_logs_agree_before_a_whole_term_that_differs() -> None:
    terms = [1, 1, 4, 4, 5, 5, 6, 6, 6, 6]
    log = log_of(*(entry(index, term) for index, term in enumerate(terms, 1)))
    # Section 5.3: terms above the other's last one are passed over in one step.
    assert log.agreement(9, 5) == (6, 5)
    assert log.agreement(9, 3) == (2, 1)
    assert log.agreement(99, 9) == (10, 6)
    assert log.agreement(9, 0) == (0, 0)
    compacted = log_of(entry(6, 2), snapshot=mark(5, 2))
    assert compacted.agreement(3, 1) == (3, 1), "nothing is known of what is compacted"


def test_compaction_keeps_trailing_entries_within_their_bytes() -> None:
    for entries, size, first in [(3, 10**6, 7), (0, 10**6, 10), (100, 10**6, 1), (100, 70, 8)]:
        log = log_of(*(entry(index) for index in range(1, 13)))
        log.commit_to(9)
        log.to_apply()
        log.compact(mark(9), entries, size)
        assert log.first_index == first, (entries, size)
        assert log.last_index == 12
        assert log.term_at(first - 1) is not None, "what follows on it can be sent"


def test_a_snapshot_in_place_of_a_log() -> None:
    log = log_of(*(entry(index) for index in range(1, 5)))
    log.append([entry(5)])
    token = flush(log)
    log.restore(mark(9, 3))
    log.append([entry(10, 3)])
    log.saved(token)
    assert (log.last_index, log.last_term, log.stable) == (10, 3, 9)
    assert (log.commit, log.emitted, log.uncommitted_bytes) == (9, 9, 32)


def test_uncommitted_bytes_are_those_behind_the_commit() -> None:
    log = log_of(entry(1, 1, b"xxxx"), entry(2, 1, b"xx"))
    assert log.uncommitted_bytes == 2 * 32 + 6
    log.commit_to(1)
    assert log.uncommitted_bytes == 34
    assert log.accept([entry(2, 2, b"x")])
    assert log.uncommitted_bytes == 33


def test_a_log_is_up_to_date_by_its_last_term_then_by_its_length() -> None:
    log = log_of(entry(1), entry(2, 3))
    assert log.is_up_to_date(1, 4)
    assert log.is_up_to_date(2, 3)
    assert not log.is_up_to_date(1, 3)
    assert not log.is_up_to_date(99, 2)
