"""Changes of who takes part: rules 4 and 5, blank stores, the leader's own removal."""

import pytest

from gossip.consensus.configuration import Configuration, Voter
from gossip.consensus.requests import ConfigurationChanged, NotLeader, Overloaded
from gossip.consensus.roles import Role
from gossip.consensus.storage import founded, recovered
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.errors import InvalidRequest
from tests.support.raft_group import RaftGroup


def voters(group: RaftGroup, names: str) -> tuple[Voter, ...]:
    return tuple(group.stores[name].voter for name in names)


def change(group: RaftGroup, leader: str, names: str, learners: str = "") -> None:
    target = Configuration(voters(group, names), (), voters(group, learners))
    group.do(leader, lambda raft: raft.change(target, group.now))


def grown() -> RaftGroup:
    """Return a founder alone, and two blank stores."""
    group = RaftGroup()
    [a] = group.add("a")
    group.stores["a"].disk.replace(founded(a))
    group.add("b", "c")
    for name in "abc":
        group.start(name)
    group.run(0.0)
    return group


def test_one_becomes_three_by_way_of_learners() -> None:
    group = grown()
    group.propose("a", "x")
    change(group, "a", "a", "bc")
    group.run(2.0)
    assert group.stores["c"].state == ["x"]
    assert group["b"].generation == 1, "a blank store learns where it belongs"
    change(group, "a", "abc")
    group.run(1.0)
    final = Configuration(voters(group, "abc"))
    assert {group[name].configuration for name in "abc"} == {final}
    told = [
        e.configuration for e in group.stores["c"].events if isinstance(e, ConfigurationChanged)
    ]
    assert [each.is_joint for each in told[-2:]] == [True, False]
    group.crash("a")
    group.run(30.0)
    assert group.leader() in "bc"


def test_who_has_not_caught_up_gets_no_vote() -> None:
    group = grown()
    with pytest.raises(InvalidRequest, match="make it a learner first"):
        change(group, "a", "abc")
    group.crash("c")
    change(group, "a", "a", "bc")
    group.run(2.0)
    with pytest.raises(InvalidRequest, match="not kept up"):
        change(group, "a", "abc")


def test_a_learner_keeps_up_for_a_while_before_it_votes() -> None:
    group = RaftGroup(ConsensusTuning(learner_settle_s=60.0)).found("abc", blanks="d")
    group.elect("a")
    change(group, "a", "abc", "d")
    group.run(50.0)
    with pytest.raises(InvalidRequest, match="60 s"):
        change(group, "a", "abd")
    group.run(12.0)
    change(group, "a", "abd")
    group.run(1.0)
    assert group["d"].configuration.voters == voters(group, "abd")


def test_no_change_before_the_leader_has_committed_in_its_term() -> None:
    group = RaftGroup().found("abc")
    group.campaign("a")
    for _ in range(2):
        group.deliver("a", "b")
        group.deliver("b", "a")
    assert group["a"].role is Role.LEADER
    with pytest.raises(InvalidRequest, match="not committed anything yet"):
        change(group, "a", "a")


def test_one_change_at_a_time() -> None:
    group = RaftGroup().found("abc", blanks="d")
    group.elect("a")
    change(group, "a", "abc", "d")
    with pytest.raises(InvalidRequest, match="under way"):
        change(group, "a", "a")
    group.settle()
    change(group, "a", "abc", "d")
    assert group["a"].counts["consensus_changes/begun"] == 1, "nothing to change"


def test_only_the_leader_changes_anything_and_only_while_it_stays_one() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    with pytest.raises(NotLeader):
        change(group, "b", "a")
    group.split("ac", "b")
    group.propose("a", "x")
    group.do("a", lambda raft: raft.transfer(group["b"].me.store, group.now))
    with pytest.raises(Overloaded, match="handed over"):
        change(group, "a", "a")


def test_while_joint_both_majorities_are_needed() -> None:
    group = RaftGroup().found("abc", learners="def")
    group.elect("a")
    group.run(1.0)
    group.split("abc", "def")
    change(group, "a", "def")
    group.propose("a", "x")
    group.settle()
    group.run(2.0)
    assert group["a"].commit_index < group["a"].last_index
    assert group.stores["a"].state == []
    group.heal()
    group.run(15.0)
    assert group["d"].configuration == Configuration(voters(group, "def"))
    assert group.stores["d"].state == ["x"]
    assert group.leader() in "def"


def test_a_leader_that_is_out_hands_over_at_once() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    group.run(1.0)
    change(group, "a", "b")
    group.settle()
    assert group.leader() == "b"
    assert group["a"].role is Role.FOLLOWER
    assert group["a"].deadline() is None, "who has no vote does not stand"
    group.propose("b", "x")
    assert group.stores["b"].state == ["x"]


def test_recovery_fences_everybody_of_before_until_they_are_wiped() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    group.propose("a", "x", "y")
    group.settle()
    last = group["c"].last_index
    for name in "abc":
        group.crash(name)
    store = group.stores["c"]
    alone = recovered(store.disk.stored(), store.voter, b"x y", 64)
    store.disk.replace(alone)
    group.start("c")
    group.start("a")
    group.start("b")
    group.run(30.0)
    assert (store.state, group["c"].role) == (["x", "y"], Role.LEADER)
    assert group["c"].last_index > last + 2**32
    assert group["c"].generation == 2
    group.propose("c", "z")
    group.settle()
    assert "z" not in group.stores["a"].state
    group.add("d")
    group.start("d")
    change(group, "c", "c", "d")
    group.run(3.0)
    assert group.stores["d"].state == ["x", "y", "z"]
    assert group["d"].generation == 2
