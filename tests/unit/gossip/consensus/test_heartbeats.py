"""What keeps a leader in office, and what ends it (rule 3)."""

import pytest

from gossip.consensus import messages as m
from gossip.consensus.roles import Role
from tests.support.raft_group import RaftGroup


def led(learners: str = "") -> RaftGroup:
    group = RaftGroup().found("abc", learners=learners)
    group.elect("a")
    group.run(1.0)
    return group


def test_each_round_is_a_second_and_has_a_number_of_its_own() -> None:
    group = led()
    rounds: list[int] = []
    group.on_send = lambda *words: (
        rounds.append(words[2].round)
        if isinstance(words[2], m.Heartbeat) and words[1] == "b"
        else None
    )
    group.run(5.0)
    assert rounds == list(range(rounds[0], rounds[0] + 5))
    group.do("a", lambda raft: raft.read(group.now))
    assert rounds[-1] == rounds[0] + 5, "a read begins a round at once"


def test_a_leader_that_hears_no_majority_steps_down() -> None:
    group = led(learners="d")
    group.split("ad", "bc")
    group.run(11.0)
    assert group["a"].role is Role.FOLLOWER, "a learner's word is none"
    assert group["a"].counts["consensus_elections/lost_quorum"] == 1
    assert group.leader() in "bc"


def test_a_leader_that_hears_one_of_two_others_leads_on() -> None:
    group = led()
    term = group["a"].term
    group.crash("c")
    group.run(60.0)
    assert (group["a"].role, group["a"].term) == (Role.LEADER, term)


def test_a_founder_with_learners_needs_nobody() -> None:
    group = RaftGroup().found("a", learners="bc")
    group.run(1.0)
    group.crash("b")
    group.crash("c")
    group.run(60.0)
    group.propose("a", "x")
    assert group.stores["a"].state == ["x"]


@pytest.mark.parametrize("deaf", [True, False])
def test_a_link_that_works_in_one_direction_ends_no_leader_that_others_hear(deaf: bool) -> None:
    """Cloudflare's outage of 2020-11: one that hears nobody must not depose who is heard."""
    group = led()
    term = group["a"].term
    group.cut = {("a", "c")} if deaf else {("c", "a")}
    group.run(120.0)
    assert (group["a"].role, group["a"].term) == (Role.LEADER, term)
    group.propose("a", "x")
    group.settle()
    group.heal()
    group.run(12.0)
    assert (group["a"].role, group["a"].term) == (Role.LEADER, term)
    assert group.stores["c"].state == ["x"]


def test_a_leader_that_hears_nobody_gives_way_to_others() -> None:
    """Its heartbeats arrive, and no answer comes back: nothing could be committed any more."""
    group = led()
    group.cut = {("b", "a"), ("c", "a")}
    group.run(30.0)
    leader = group.leader()
    assert leader in "bc"
    group.propose(leader, "x")
    group.settle()
    assert group.stores[leader].state == ["x"]


def test_a_slow_disk_does_not_keep_heartbeats_from_being_answered() -> None:
    group = led()
    term = group["a"].term
    for name in "bc":
        group.stores[name].is_slow = True
    group.propose("a", "x")
    group.run(30.0)
    assert (group["a"].role, group["a"].term) == (Role.LEADER, term)
    assert group.stores["a"].state == []
    for name in "bc":
        group.write(name)
    group.settle()
    assert group.stores["a"].state == ["x"]
