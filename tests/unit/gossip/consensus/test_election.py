"""Elections: who stands when, who votes for whom, and what a vote rests on."""

from collections.abc import Callable

import pytest

from gossip.consensus import messages as m
from gossip.consensus.configuration import Configuration
from gossip.consensus.raft import Raft
from gossip.consensus.requests import RoleChanged
from gossip.consensus.roles import Role
from gossip.consensus.storage import founded
from gossip.consensus.tuning import ConsensusTuning
from tests.support.raft_group import RaftGroup


def test_the_founder_leads_at_once() -> None:
    group = RaftGroup()
    [a] = group.add("a")
    group.stores["a"].disk.replace(founded(a))
    group.start("a")
    group.run(0.0)
    assert group.leader() == "a"
    group.propose("a", "x")
    assert group.stores["a"].state == ["x"]


@pytest.mark.parametrize("seed", range(5))
def test_somebody_leads_within_a_few_waits(seed: int) -> None:
    group = RaftGroup(seed=seed).found("abcde")
    group.run(20.0)
    leader = group.leader()
    assert all(group[name].leader == group[leader].me for name in "abcde")
    term = group[leader].term
    group.run(100.0)
    assert group[leader].term == term, "nobody disturbs a leader that is heard"


def test_waits_are_drawn_between_the_two_limits() -> None:
    waits = set()
    for seed in range(40):
        group = RaftGroup(seed=seed).found("abc")
        deadline = group["a"].deadline()
        assert deadline is not None
        waits.add(deadline)
    assert min(waits) >= 5.0
    assert max(waits) < 10.0
    assert max(waits) - min(waits) > 3.0


def test_nobody_votes_twice_in_one_term_not_even_after_a_restart() -> None:
    group = RaftGroup().found("abc")
    group.do("a", lambda raft: raft.election.stand())
    group.deliver("a", "c")
    group.crash("c")
    group.start("c")
    group.now += 5.0
    group.do("b", lambda raft: raft.election.stand())
    group.deliver("b", "c")
    group.deliver("c", "b")
    assert group["c"].term == group["b"].term, "it has heard the request, and refused"
    assert group["b"].role is not Role.LEADER
    assert group.stores["c"].disk.hard.vote == group["a"].me.store


def stand_by(transfer: bool) -> Callable[[Raft], object]:
    return lambda raft: raft.election.stand(transfer=transfer)


def test_who_has_just_started_over_a_log_votes_for_nobody_and_does_not_stand() -> None:
    """Its disk may have been set back as a whole; that shows within seconds."""
    group = RaftGroup().found("abc")
    group.run(20.0)
    leader = group.leader()
    first, second = (name for name in "abc" if name != leader)
    group.crash(second)
    group.start(second)
    group.crash(leader)
    for transfer in (False, True):
        group.do(first, stand_by(transfer))
        group.settle()
        assert group[first].role is Role.CANDIDATE
        group.do(first, lambda raft: raft.election.ask_first())
        group.settle()
    assert group[second].counts["consensus_dropped/silent"] == 4
    group.run(20.0)
    assert group.leader() in (first, second)


def test_a_blank_store_votes_at_once() -> None:
    """It has promised nothing, and may be needed: a joint change may be about to count on it."""
    group = RaftGroup().found("ab", blanks="c")
    group.crash("c")
    group.start("c")
    group.do("a", lambda raft: raft.election.stand())
    raft = group["c"]
    message = m.VoteRequest(1, 1, raft.me.store, 7, 2, 9, 1, False)
    raft.receive(m.CODEC.encode(message), group["a"].me.node, group.now)
    group.collect("c")
    assert group.stores["c"].disk.hard.vote == group["a"].me.store


def test_a_vote_is_given_when_it_is_on_disk() -> None:
    group = RaftGroup().found("abc")
    group.stores["c"].is_slow = True
    group.split("ac", "b")
    group.campaign("a")
    group.settle()
    assert group["a"].role is Role.CANDIDATE
    group.write("c")
    group.settle()
    assert group["a"].role is Role.LEADER


def test_a_candidate_s_own_vote_counts_when_it_is_on_disk() -> None:
    group = RaftGroup().found("abc")
    group.stores["a"].is_slow = True
    group.campaign("a")
    group.settle()
    assert group["a"].role is Role.CANDIDATE
    assert not any(group.wire.values()), "nobody hears of a term that may be forgotten"
    group.write("a")
    group.settle()
    group.write("a")
    assert group.leader() == "a"


def test_who_lacks_entries_is_not_elected() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    group.split("ab", "c")
    group.propose("a", "x")
    group.settle()
    group.crash("a")
    group.heal()
    group.run(40.0)
    assert group.leader() == "b"
    assert group.stores["c"].state == ["x"]


def test_learners_and_blank_stores_never_stand() -> None:
    group = RaftGroup().found("a", learners="b", blanks="c")
    group.crash("a")
    group.run(100.0)
    assert [group[name].role for name in "bc"] == [Role.FOLLOWER, Role.FOLLOWER]
    assert group["b"].deadline() is None


def test_who_is_out_by_an_open_entry_still_stands() -> None:
    """It may be the only one with the whole log (Ongaro 2014, 4.2.2)."""
    group = RaftGroup(ConsensusTuning(learner_settle_s=0.0)).found("b", learners="a")
    group.run(1.0)
    a, b = (group.stores[name].voter for name in "ab")
    group.do("b", lambda raft: raft.change(Configuration((a,), (), (b,)), group.now))
    group.deliver("b", "a")
    group.stores["b"].is_slow = False
    group.deliver("a", "b")
    assert not group["b"].configuration.is_joint, "b is out, by its own log"
    group.crash("b")
    group.crash("a")
    group.start("a")
    group.start("b")
    assert group["a"].configuration.is_joint
    group.run(60.0)
    assert group.leader() == "a"
    assert group["b"].configuration == Configuration((a,), (), (b,))


def test_each_change_of_role_is_told_once() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    told = [e for e in group.stores["a"].events if isinstance(e, RoleChanged)]
    assert [(e.role, e.term) for e in told] == [
        (Role.PRE_CANDIDATE, 1), (Role.CANDIDATE, 2), (Role.LEADER, 2),
    ]  # fmt: skip
    assert told[-1].leader == group["a"].me


def test_idle_stores_write_nothing() -> None:
    """Rule 1: heartbeats leave no trace on a disk."""
    group = RaftGroup().found("abc")
    group.elect("a")
    group.run(5.0)
    written: list[object] = []
    group.on_persist = lambda name, persist: written.append((name, persist))
    group.run(600.0)
    assert not written
