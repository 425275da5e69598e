"""What the log says of members, and what it leaves out."""

import logging

import pytest

from agent.cluster.member_log import log_member
from gossip.core.machine import Address
from gossip.membership.members.id_conflicts import IdConflictDetected
from gossip.membership.model.members import FORGOTTEN, Member, MemberChanged, MemberState

BOB = Member(0xB, "bob", (), {}, MemberState.DEAD, 1, 1, 0.0)


def test_changes_are_told_and_those_of_a_flapping_member_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "agent.cluster.member_log")
    log_member(MemberChanged(BOB, MemberState.ALIVE, "did not answer"))
    log_member(MemberChanged(BOB, MemberState.ALIVE, "did not answer", muted=True))
    log_member(MemberChanged(BOB, MemberState.ALIVE, "comes and goes", not_told=7))
    log_member("something else")
    assert caplog.messages == [
        "bob is dead (did not answer)",
        "bob is dead (comes and goes); it changed 7 times more since it was last told here",
    ]


def test_a_clone_is_named_with_both_addresses(caplog: pytest.LogCaptureFixture) -> None:
    log_member(
        IdConflictDetected(0xB, "bob", (Address("10.0.0.1", 7747), Address("10.0.0.2", 7747)))
    )
    [message] = caplog.messages
    assert "bob (000000000000000b), from 10.0.0.1:7747 and 10.0.0.2:7747" in message


def test_who_is_no_longer_listed_is_not_told_of_as_alive(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_member(MemberChanged(BOB, MemberState.ALIVE, FORGOTTEN))
    assert caplog.messages == [f"bob is no longer listed; it was {BOB.state.value}"]
