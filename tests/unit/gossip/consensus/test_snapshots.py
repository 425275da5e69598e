"""Snapshots: when one is taken, how it travels, and how it takes the place of a log."""

import pytest

from gossip.consensus import messages as m
from gossip.consensus import snapshots
from gossip.consensus.configuration import Configuration
from gossip.consensus.requests import Snapshot, SnapshotInstalled
from gossip.consensus.storage import ChunkChange
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.errors import InvalidRequest
from tests.support.raft_group import RaftGroup

WORDS = [f"word-{number}" for number in range(20)]


def behind(**tuning: float) -> RaftGroup:
    """Return a group in which c needs a snapshot of some forty chunks."""
    plain: dict[str, float] = {"trailing_entries": 0, "chunk_bytes": 4} | tuning
    group = RaftGroup(ConsensusTuning(**plain)).found("abc")  # type: ignore[arg-type]
    group.elect("a")
    group.split("ab", "c")
    group.propose("a", *WORDS)
    group.settle()
    assert group.compact("a")
    group.heal()
    return group


def exchange(group: RaftGroup, times: int) -> None:
    for _ in range(times):
        group.deliver("a", "c")
        group.deliver("c", "a")


def test_it_arrives_in_chunks_and_is_installed_whole() -> None:
    group = behind()
    chunks: list[int] = []
    group.on_deliver = lambda *words: (
        chunks.append(words[2].number) if isinstance(words[2], m.SnapshotChunk) else None
    )
    group.run(3.0)
    assert group.stores["c"].state == WORDS
    assert chunks == list(range(len(chunks)))
    assert len(chunks) > 30
    disk = group.stores["c"].disk
    assert (disk.snapshot is not None, disk.entries, disk.arriving) == (True, [], None)
    group.propose("a", "more")
    group.settle()
    assert group.stores["c"].state == [*WORDS, "more"]


def test_never_more_than_a_window_of_chunks_is_under_way() -> None:
    group = behind(chunk_window=3)
    group.run(1.0, settle=False)
    most = 0
    for _ in range(300):
        for pair in list(group.wire):
            if group.wire[pair]:
                group.deliver(*pair, 1)
        waiting = map(m.CODEC.decode, group.wire["a", "c"])
        most = max(most, sum(isinstance(each, m.SnapshotChunk) for each in waiting))
    assert 1 <= most <= 3
    assert group.stores["c"].state == WORDS


def test_it_goes_on_where_it_was_interrupted() -> None:
    group = behind()
    group.run(1.0, settle=False)
    exchange(group, 9)
    arrived = len(group.stores["c"].disk.arrived)
    assert 10 < arrived < 40
    group.crash("c")
    group.start("c")
    numbers: list[int] = []
    group.on_deliver = lambda *words: (
        numbers.append(words[2].number) if isinstance(words[2], m.SnapshotChunk) else None
    )
    group.run(4.0)
    assert group.stores["c"].state == WORDS
    assert sum(number < arrived for number in numbers) <= 5, "what was there is not sent again"


def test_lost_chunks_are_sent_again() -> None:
    group = behind()
    lost: list[int] = []

    def lose(sender: str, receiver: str, message: m.Message) -> None:
        if isinstance(message, m.SnapshotChunk) and message.number % 5 == 0:
            if message.number not in lost:
                lost.append(message.number)
                group.cut = {(sender, receiver)}
            else:
                group.cut = set()
        else:
            group.cut = set()

    group.on_send = lose
    group.run(40.0)
    group.cut = set()
    group.run(2.0)
    assert len(lost) > 3
    assert group.stores["c"].state == WORDS


def test_a_snapshot_whose_whole_does_not_fit_is_not_installed() -> None:
    group = behind()
    disk = group.stores["a"].disk
    disk.kept[3] = b"lies"
    group.run(3.0)
    assert group.stores["c"].state == []
    assert group["c"].counts["consensus_dropped/snapshot_crc"] > 0
    disk.kept[3] = " ".join(WORDS).encode()[12:16]
    group.run(5.0)
    assert group.stores["c"].state == WORDS


def test_none_takes_the_place_of_one_that_somebody_is_getting() -> None:
    group = behind(transfer_patience_s=60.0)
    group.run(1.0, settle=False)
    exchange(group, 4)
    group.propose("a", "more")
    group.deliver("a", "b")
    group.deliver("b", "a")
    assert not group.compact("a")
    assert group["a"].counts["consensus_snapshots/not_taken"] == 1
    group.split("ab", "c")
    group.run(6.0)
    assert group.compact("a"), "c is not heard any more"


def test_after_a_start_the_snapshot_comes_first() -> None:
    group = behind()
    group.propose("a", "more")
    group.settle()
    group.crash("a")
    group.stores["a"].events.clear()
    group.start("a")
    first = group.stores["a"].events[0]
    assert isinstance(first, SnapshotInstalled)
    group.run(20.0)
    assert group.stores["a"].state == [*WORDS, "more"]


def test_only_what_is_applied_can_be_in_a_snapshot() -> None:
    group = behind()
    raft = group["a"]
    with pytest.raises(InvalidRequest, match="ahead of what is applied"):
        raft.compacted(Snapshot(raft.last_index + 1, b""), group.now)
    assert not raft.compacted(Snapshot(3, b""), group.now), "it has a newer one"
    with pytest.raises(InvalidRequest):
        raft.applied(raft.last_index + 1)


def test_an_empty_state_is_a_snapshot_too() -> None:
    group = RaftGroup(ConsensusTuning(trailing_entries=0)).found("abc", blanks="d")
    group.elect("a")
    group.run(1.0)
    group.do("a", lambda raft: raft.compacted(Snapshot(2, b""), group.now))
    both = Configuration(group["a"].configuration.voters, (), (group["d"].me,))
    group.do("a", lambda raft: raft.change(both, group.now))
    group.run(3.0)
    assert group["d"].status().snapshot_index == 2
    assert group["d"].configuration == both
    assert group.stores["d"].applied == 3


def test_one_of_ours_goes_to_the_disk_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a vote would have to wait behind is a portion, and not all of it."""
    monkeypatch.setattr(snapshots, "PORTION_BYTES", 40)
    group = RaftGroup(ConsensusTuning(trailing_entries=0, chunk_bytes=4)).found("abc")
    group.elect("a")
    group.propose("a", *WORDS)
    group.settle()
    store = group.stores["b"]
    store.is_slow = True
    assert group.compact("b")
    assert not group.compact("b"), "one at a time"
    portions = 0
    while store.batches:
        assert len(store.batches) == 1
        assert sum(isinstance(each, ChunkChange) for each in store.batches[0].changes) <= 10
        group.write("b", 1)
        portions += 1
    assert portions == -(-len(" ".join(WORDS)) // 40)
    assert store.disk.snapshot is not None
    assert b"".join(store.disk.kept).decode().split() == WORDS
    assert group["b"].status().first_index == group["b"].last_index + 1


def test_one_that_arrives_takes_the_place_of_one_that_is_being_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "PORTION_BYTES", 8)
    group = RaftGroup(ConsensusTuning(trailing_entries=0, chunk_bytes=4)).found("abc")
    group.elect("a")
    group.propose("a", "x" * 20)
    group.settle()
    group.split("ab", "c")
    group.propose("a", *WORDS)
    group.settle()
    assert group.compact("a")
    group.stores["c"].is_slow = True
    assert group.compact("c")
    group.heal()
    for _ in range(60):
        group.run(1.0)
        group.write("c", 1)
    group.stores["c"].is_slow = False
    group.write("c")
    group.run(5.0)
    assert group.stores["c"].state == ["x" * 20, *WORDS]
    assert b"".join(group.stores["c"].disk.kept).decode().split() == group.stores["c"].state


def test_one_that_was_cut_short_by_a_crash_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "PORTION_BYTES", 8)
    group = RaftGroup(ConsensusTuning(trailing_entries=0, chunk_bytes=4)).found("abc")
    group.elect("a")
    group.propose("a", *WORDS)
    group.settle()
    group.stores["b"].is_slow = True
    assert group.compact("b")
    group.write("b", 2)
    group.crash("b")
    group.stores["b"].is_slow = False
    group.start("b")
    assert group["b"].status().snapshot_index == 0
    group.run(3.0)
    assert group.stores["b"].state == WORDS
    assert group.compact("b")
    assert group["b"].status().snapshot_index == group["b"].last_index
