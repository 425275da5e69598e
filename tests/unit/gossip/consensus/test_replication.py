"""Replication: windows, backtracking, commits, and what is refused for want of room."""

from copy import deepcopy

import pytest

from gossip.consensus import messages as m
from gossip.consensus.requests import NotLeader, Overloaded
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.errors import InvalidRequest, LimitExceeded
from tests.support.raft_group import RaftGroup


def led(tuning: ConsensusTuning | None = None, voters: str = "abc") -> RaftGroup:
    group = RaftGroup(tuning or ConsensusTuning(learner_settle_s=0.0)).found(voters)
    group.elect("a")
    return group


def appends(group: RaftGroup, sender: str, receiver: str) -> list[m.Append]:
    messages = [m.CODEC.decode(data) for data in group.wire[sender, receiver]]
    return [each for each in messages if isinstance(each, m.Append)]


def test_commands_between_two_turns_share_an_append_and_a_batch() -> None:
    group = led()
    batches: list[str] = []
    group.on_persist = lambda name, _: batches.append(name)
    raft = group["a"]
    first = raft.propose([b"x", b"y"], group.now)
    assert raft.propose([b"z"], group.now) == first + 2
    group.collect("a")
    [append] = appends(group, "a", "b")
    assert [entry.data for entry in append.entries] == [b"x", b"y", b"z"]
    assert batches == ["a"]


def test_appends_follow_each_other_without_waiting_up_to_the_window() -> None:
    group = led(ConsensusTuning(inflight_max=3))
    for number in range(5):
        group.propose("a", f"{number}")
    assert len(appends(group, "a", "b")) == 3
    group.settle()
    assert group.stores["b"].state == list("01234")


def test_an_append_has_entries_up_to_its_bytes_and_its_count() -> None:
    group = led(ConsensusTuning(append_entries_max=2))
    group.propose("a", *"vwxyz")
    assert [len(each.entries) for each in appends(group, "a", "b")] == [2, 2, 1]
    group = led(ConsensusTuning(append_bytes_max=100))
    group.propose("a", "v" * 30, "w" * 30, "x" * 300)
    assert [len(each.entries) for each in appends(group, "a", "b")] == [1, 1, 1]


def test_a_long_log_that_differs_is_found_in_a_few_questions() -> None:
    group = led(voters="abcde")
    group.split("ab", "cde")
    group.propose("a", *(str(number) for number in range(200)))
    group.settle()
    group.crash("a")
    group.crash("b")
    group.run(30.0)
    leader = group.leader()
    group.propose(leader, "new")
    group.settle()
    group.heal()
    group.start("a")
    asked: list[str] = []
    group.on_deliver = lambda _, receiver, message: (
        asked.append(receiver) if isinstance(message, m.Append) else None
    )
    group.run(3.0)
    assert group.stores["a"].state == group.stores[leader].state
    assert asked.count("a") < 8, "200 entries of a term are passed over in one step"


def test_the_leaders_own_copy_counts_when_it_is_saved() -> None:
    group = led()
    group.stores["a"].is_slow = True
    group.split("ab", "c")
    group.propose("a", "x")
    group.settle()
    assert group["a"].commit_index < group["a"].last_index, "b alone is no majority"
    group.write("a")
    assert group["a"].commit_index == group["a"].last_index


def test_a_majority_without_the_leaders_disk_commits_all_the_same() -> None:
    group = led()
    group.stores["a"].is_slow = True
    group.propose("a", "x")
    group.settle()
    assert group["a"].commit_index == group["a"].last_index
    assert group.stores["b"].state == ["x"]
    assert group.stores["a"].state == [], "what is not on its own disk is not applied there"
    group.write("a")
    assert group.stores["a"].state == ["x"]


def test_who_does_not_lead_says_who_does() -> None:
    group = led()
    with pytest.raises(NotLeader) as caught:
        group["b"].propose([b"x"], group.now)
    assert caught.value.leader == group["a"].me


def test_nothing_is_no_proposal() -> None:
    with pytest.raises(InvalidRequest):
        led().propose("a")


def test_uncommitted_bytes_are_bounded() -> None:
    group = led(ConsensusTuning(uncommitted_bytes_max=1000))
    group.split("a", "bc")
    with pytest.raises(Overloaded):
        group.propose("a", *["x"] * 40)
    group.propose("a", "x" * 900)
    with pytest.raises(Overloaded, match="932 bytes"):
        group.propose("a", "y" * 100)
    group.heal()
    group.run(3.0)
    group.propose("a", "y" * 100)
    with pytest.raises(LimitExceeded):
        group.propose("a", "z" * (m.COMMAND_BYTES_MAX + 1))


def test_the_largest_command_fits_a_frame() -> None:
    group = led()
    group.propose("a", "x" * m.COMMAND_BYTES_MAX, "y" * m.COMMAND_BYTES_MAX)
    assert max(len(data) for data in group.wire["a", "b"]) < 2**20
    group.settle()
    assert [len(text) for text in group.stores["c"].state] == [m.COMMAND_BYTES_MAX] * 2


def test_a_hint_that_frames_were_lost_is_followed_at_once() -> None:
    group = led()
    group.propose("a", "x")
    group.lose("a", "b")
    group.do("a", lambda raft: raft.peer_unreachable(group["b"].me.node, group.now))
    group.settle()
    assert group.stores["b"].state == ["x"]


def test_what_was_lost_is_sent_again_after_a_heartbeat() -> None:
    group = led()
    group.propose("a", "x")
    group.lose("a", "b")
    group.lose("a", "c")
    group.run(2.5)
    assert group.stores["c"].state == ["x"]


def test_a_store_whose_disk_was_set_back_is_asked_once_a_heartbeat() -> None:
    """Nothing fits any more behind what it has said to have, until a term begins anew."""
    group = led()
    before = deepcopy(group.stores["b"].disk)
    group.propose("a", "x", "y")
    group.settle()
    group.run(2.0)
    group.crash("b")
    group.stores["b"].disk = before
    group.start("b")
    group.propose("a", "z")
    group.settle()
    asked: list[str] = []
    group.on_send = lambda _, receiver, message: (
        asked.append(receiver) if isinstance(message, m.Append) else None
    )
    group.run(10 * group.tuning.heartbeat_s)
    assert 0 < asked.count("b") <= 20
    assert group.stores["c"].state == list("xyz")
    group.crash("a")
    group.run(30.0)
    assert group.leader() == "c", "the other one has not all that was agreed on"
    assert group.stores["b"].state == list("xyz")
