"""Handing leadership over: to whom, when, and what if nobody comes (rule 7)."""

import pytest

from gossip.consensus import messages as m
from gossip.consensus.holds import Hold
from gossip.consensus.requests import Overloaded
from gossip.consensus.roles import Role
from gossip.core.errors import InvalidRequest
from tests.support.raft_group import RaftGroup


def test_leadership_goes_to_who_was_named() -> None:
    group = RaftGroup().found("abc", learners="d")
    group.elect("a")
    group.propose("a", "x")
    for bad in (group["a"].me.store, group["d"].me.store, 99):
        with pytest.raises(InvalidRequest, match="another voter"):
            group["a"].transfer(bad, group.now)
    group.do("a", lambda raft: raft.transfer(group["c"].me.store, group.now))
    with pytest.raises(Overloaded):
        group.propose("a", "y")
    group.settle()
    assert group.leader() == "c"
    assert group.stores["c"].state == ["x"]


def test_a_leader_that_ends_hands_over_to_who_has_most_and_asks_until_it_does() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    group.split("ab", "c")
    group.propose("a", "x")
    group.settle()
    group.do("a", lambda raft: raft.transfer(None, group.now))
    group.lose("a", "b")
    group.heal()
    group.run(1.5)
    assert group.leader() == "b"
    alone = RaftGroup().found("a")
    alone.run(0.0)
    with pytest.raises(InvalidRequest, match="another voter"):
        alone["a"].transfer(None, alone.now)


def test_a_leader_goes_on_when_its_successor_does_not_come() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    group.crash("c")
    group.do("a", lambda raft: raft.transfer(group.stores["c"].voter.store, group.now))
    group.run(6.0)
    group.propose("a", "x")
    group.settle()
    assert group.stores["a"].state == ["x"]
    assert group["a"].counts["consensus_elections/transfer_failed"] == 1


def test_a_successor_first_gets_all_that_it_lacks() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    group.split("ab", "c")
    group.propose("a", "x")
    group.settle()
    group.heal()
    group.do("a", lambda raft: raft.transfer(group["c"].me.store, group.now))
    group.run(3.0)
    assert group.leader() == "c"
    assert group.stores["c"].state == ["x"]


def test_only_the_leader_that_is_followed_can_ask() -> None:
    group = RaftGroup().found("abc", learners="d")
    group.elect("a")
    for name, asker in (("c", "b"), ("d", "a")):
        raft, other = group[name], group[asker]
        message = m.TimeoutNow(1, other.me.store, raft.me.store, 2001, raft.term)
        raft.receive(m.CODEC.encode(message), other.me.node, group.now)
        assert raft.role is Role.FOLLOWER
        assert raft.counts["consensus_dropped/no_successor"] == 1


def test_a_leader_whose_disk_takes_nothing_takes_nothing_in_and_hands_over() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    group.do("a", lambda raft: raft.hold_back(group.now, held=True))
    with pytest.raises(Overloaded, match="disk takes nothing"):
        group.propose("a", "x")
    found = group.do("a", lambda raft: raft.read(group.now))
    group.settle()
    assert any(getattr(event, "id", None) == found for event in group.stores["a"].events)
    group.run(4.0)
    assert group.leader() == "a", "it may be over in a moment"
    group.run(3.0)
    assert group.leader() != "a"


def test_who_is_alone_leads_on_with_a_disk_that_takes_nothing_until_it_does() -> None:
    group = RaftGroup().found("a")
    group.run(0.0)
    group.do("a", lambda raft: raft.hold_back(group.now, held=True))
    group.run(60.0)
    assert group.leader() == "a"
    group.do("a", lambda raft: raft.hold_back(group.now, held=False))
    group.propose("a", "x")
    assert group.stores["a"].state == ["x"]


def hang(group: RaftGroup, *names: str) -> None:
    """Let disks write nothing more, and say nothing of it."""
    for name in names:
        group.stores[name].is_slow = True


def yielded(group: RaftGroup, name: str = "a") -> int:
    return group[name].counts["consensus_elections/yielded"]


def test_a_save_that_does_not_end_is_one_that_is_refused() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    hang(group, "a")
    group.propose("a", "x")
    group.run(4.0)
    assert group.leader() == "a", "a card stalls for seconds"
    group.propose("a", "y")
    group.run(3.0)
    assert group.leader() != "a"
    assert yielded(group) == 1
    for name in "bc":
        assert group.stores[name].state == ["x", "y"]
    assert group.stores["a"].state == [], "it does not know"
    group.stores["a"].is_slow = False
    group.write("a")
    group.run(3.0)
    assert group.stores["a"].state == ["x", "y"]


def test_saves_that_end_late_and_one_after_the_other_hold_nobody() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    hang(group, "a")
    for number in range(10):
        group.propose("a", str(number))
        group.run(3.0)
        group.write("a", 1)
    assert group.leader() == "a"
    assert yielded(group) == 0


def test_who_is_alone_refuses_while_a_save_hangs() -> None:
    group = RaftGroup().found("a")
    group.run(0.0)
    hang(group, "a")
    group.propose("a", "x")
    group.run(4.9)
    group.propose("a", "y")
    group.run(0.2)
    with pytest.raises(Overloaded, match="disk takes nothing; nothing was begun"):
        group.propose("a", "z")
    assert group["a"].counts["consensus_proposals/held"] == 1
    group.run(60.0)
    assert group.leader() == "a"
    group.write("a")
    group.settle()
    assert group.stores["a"].state == ["x", "y"]
    group.propose("a", "z")
    group.write("a")
    assert group.stores["a"].state == ["x", "y", "z"]


def test_it_goes_to_who_was_heard_and_never_to_the_first_of_the_list() -> None:
    group = RaftGroup().found("abcde")
    group.elect("a")
    group.settle()
    group.crash("b")
    group.run(6.0)
    group.do("a", lambda raft: raft.hold_back(group.now, held=True))
    group.run(7.0)
    assert group.leader() in "cde"
    assert group["a"].counts["consensus_elections/transfer_failed"] == 0


@pytest.mark.parametrize("deaf", ["bcd", "cde", "bde"])
def test_who_does_not_come_is_asked_after_the_others(deaf: str) -> None:
    """They answer heartbeats and never stand: one may have just started, or not know its vote."""
    group = RaftGroup().found("abcde")
    group.elect("a")
    group.settle()
    for name in deaf:
        group[name]._handlers[m.TimeoutNow] = lambda *_: None
    group.do("a", lambda raft: raft.hold_back(group.now, held=True))
    group.run(5.0 + 4 * 6.0)
    assert group.leader() not in {"a", *deaf}
    assert group["a"].counts["consensus_elections/transfer_failed"] <= len(deaf)


def test_who_said_that_it_cannot_write_is_not_asked() -> None:
    group = RaftGroup().found("abcde")
    group.elect("a")
    full = {group["b"].me.store, group["c"].me.store}
    group["a"].transferring.takes_writes = lambda store: store not in full
    hang(group, "b", "c")
    group.do("a", lambda raft: raft.hold_back(group.now, held=True))
    group.run(30.0)
    assert group.leader() == "a", "two of five cannot elect anybody"
    full.remove(group["b"].me.store)
    group.stores["b"].is_slow = False
    group.write("b")
    group.run(3.0)
    assert group.leader() in "bde"
    assert group["a"].counts["consensus_elections/transfer_failed"] == 0


def test_who_cannot_write_leads_on_where_its_vote_is_needed() -> None:
    """While it leads, sessions are renewed; without a leader nobody is helped."""
    group = RaftGroup().found("abc")
    group.elect("a")
    group.settle()
    group.crash("c")
    group.do("a", lambda raft: raft.hold_back(group.now, held=True))
    term = group["a"].term
    group.run(60.0)
    assert group.leader() == "a"
    assert group["a"].term == term
    assert yielded(group) == 0
    found = group.do("a", lambda raft: raft.read(group.now))
    group.settle()
    assert any(getattr(event, "id", None) == found for event in group.stores["a"].events)
    group.start("c")
    group.run(12.0)
    assert group.leader() != "a"


def test_a_leader_whose_application_has_halted_takes_nothing_in_and_hands_over() -> None:
    """Its disk is good, so its vote counts: one successor is enough."""
    group = RaftGroup().found("abc")
    group.elect("a")
    group.settle()
    group.crash("c")
    group.do("a", lambda raft: raft.hold_back(group.now, Hold.APPLICATION, held=True))
    with pytest.raises(Overloaded, match="does not understand"):
        group.propose("a", "x")
    group.run(7.0)
    assert group.leader() == "b"
    assert yielded(group) == 1


def test_those_who_have_all_halted_do_not_hand_over_in_a_circle() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    group.settle()
    for name in "abc":
        group[name].transferring.takes_writes = lambda _store: False
        group.do(name, lambda raft: raft.hold_back(group.now, Hold.APPLICATION, held=True))
    term = group["a"].term
    group.run(60.0)
    assert (group.leader(), group["a"].term) == ("a", term)


def test_who_halted_long_ago_leads_for_a_while_before_it_hands_over() -> None:
    """In that time the others tell it how they are."""
    group = RaftGroup().found("abc")
    group.elect("a")
    group.settle()
    group.do("b", lambda raft: raft.hold_back(group.now, Hold.APPLICATION, held=True))
    group.run(60.0)
    group.do("a", lambda raft: raft.transfer(group["b"].me.store, group.now))
    group.settle()
    group.run(4.0)
    assert group.leader() == "b"
    group.run(3.0)
    assert group.leader() != "b"


def test_both_holds_end_each_for_itself() -> None:
    group = RaftGroup().found("a")
    group.run(0.0)
    for hold in Hold:
        group["a"].hold_back(group.now, hold, held=True)
    for hold in Hold:
        with pytest.raises(Overloaded, match=hold.value):
            group.propose("a", "x")
        group["a"].hold_back(group.now, hold, held=False)
    group.propose("a", "x")
    assert group.stores["a"].state == ["x"]
