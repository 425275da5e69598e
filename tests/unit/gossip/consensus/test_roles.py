"""Which role may follow on which."""

from gossip.consensus.roles import TRANSITIONS, Role


def test_nobody_leads_who_was_not_a_candidate() -> None:
    assert [role for role in Role if Role.LEADER in TRANSITIONS[role]] == [Role.CANDIDATE]


def test_a_leader_ends_as_a_follower_and_everybody_may_follow() -> None:
    assert TRANSITIONS[Role.LEADER] == {Role.FOLLOWER}
    assert all(Role.FOLLOWER in TRANSITIONS[role] for role in Role)
