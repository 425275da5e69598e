"""Reads: what they wait for, whom they ask, and how they end."""

import pytest

from gossip.consensus import messages as m
from gossip.consensus.requests import Overloaded, ReadFailed, ReadReady
from gossip.consensus.tuning import ConsensusTuning
from tests.support.raft_group import RaftGroup


def led(**tuning: float) -> RaftGroup:
    group = RaftGroup(ConsensusTuning(**tuning)).found("abc")  # type: ignore[arg-type]
    group.elect("a")
    return group


def read(group: RaftGroup, name: str) -> int:
    found = group[name].read(group.now)
    group.collect(name)
    return found


def ready(group: RaftGroup, name: str) -> list[int]:
    return [each.id for each in group.stores[name].events if isinstance(each, ReadReady)]


def failed(group: RaftGroup, name: str) -> list[int]:
    return [each.id for each in group.stores[name].events if isinstance(each, ReadFailed)]


def test_answers_to_heartbeats_of_before_do_not_count() -> None:
    """Rule 6, and etcd #20418: the word must be from after the read began."""
    group = led()
    group.run(1.0, settle=False)
    group.deliver("a", "b")
    group.deliver("a", "c")
    number = read(group, "a")
    group.deliver("b", "a")
    group.deliver("c", "a")
    assert ready(group, "a") == []
    group.settle()
    assert ready(group, "a") == [number]


def test_reads_of_one_turn_share_a_round() -> None:
    group = led()
    raft = group["a"]
    numbers = [raft.read(group.now) for _ in range(10)]
    group.collect("a")
    assert len(group.wire["a", "b"]) == 1
    group.settle()
    assert ready(group, "a") == numbers


def test_a_new_leader_waits_until_its_own_entry_is_committed() -> None:
    group = led()
    group.propose("a", "x")
    group.settle()
    group.crash("a")
    group.do("b", lambda raft: raft.election.stand(transfer=True))
    group.deliver("b", "c")
    group.deliver("c", "b")
    number = read(group, "b")
    assert not [
        each
        for each in map(m.CODEC.decode, group.wire["b", "c"])
        if isinstance(each, m.Heartbeat) and each.round > 1
    ]
    group.settle()
    assert ready(group, "b") == [number]
    [event] = [each for each in group.stores["b"].events if isinstance(each, ReadReady)]
    assert event.index >= 4


def test_a_deposed_leader_answers_nothing() -> None:
    group = led()
    group.split("a", "bc")
    number = read(group, "a")
    for name in "bc":
        group.do(name, lambda raft: raft.forget_leader(group.now))
    group.run(2.0)
    group.propose(group.leader(), "new")
    group.settle()
    group.run(10.0)
    assert (ready(group, "a"), failed(group, "a")) == ([], [number])


def test_a_forwarded_read_is_asked_again_under_another_number() -> None:
    group = led()
    number = read(group, "b")
    [first] = [m.CODEC.decode(data) for data in group.wire["b", "a"]]
    group.lose("b", "a")
    group.run(1.1, settle=False)
    seconds = [m.CODEC.decode(data) for data in group.wire["b", "a"]]
    [second] = [each for each in seconds if isinstance(each, m.ReadRequest)]
    assert isinstance(first, m.ReadRequest)
    assert second.number != first.number != number
    group.settle()
    assert ready(group, "b") == [number]


def test_a_read_is_passed_on_to_the_next_leader() -> None:
    group = led(read_timeout_s=30.0)
    number = read(group, "b")
    group.lose("b", "a")
    group.crash("a")
    group.run(20.0)
    assert ready(group, "b") == [number]


@pytest.mark.parametrize("name", ["a", "b"])
def test_without_a_majority_a_read_fails_in_time(name: str) -> None:
    group = led()
    group.split("a", "b", "c")
    number = read(group, name)
    group.run(4.9)
    assert failed(group, name) == []
    group.run(0.2)
    assert failed(group, name) == [number]
    assert group[name].reads.deadline() is None


def test_a_read_waits_until_the_application_has_applied() -> None:
    group = led()
    group.propose("a", "x")
    log = group["b"].following._state.log
    group.settle()
    log.applied = 2
    number = read(group, "b")
    group.settle()
    assert ready(group, "b") == []
    group.do("b", lambda raft: raft.applied(3))
    assert ready(group, "b") == [number]


def test_reads_are_bounded() -> None:
    group = led(reads_max=2)
    group["a"].read(group.now)
    group["a"].read(group.now)
    with pytest.raises(Overloaded):
        group["a"].read(group.now)
    group.collect("a")
    for _ in range(2):
        group["b"].read(group.now)
    group.collect("b")
    group.deliver("b", "a")
    assert len(group["a"].read_index) == 2, "those of others are refused, and asked again"


def test_numbers_of_two_lives_differ() -> None:
    group = led()
    before = {group["b"].read(group.now) for _ in range(3)}
    group.crash("b")
    group.start("b")
    assert not before & {group["b"].read(group.now) for _ in range(3)}
