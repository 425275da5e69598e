"""What the log says of members, and what it leaves out."""

import logging

import pytest

from agent.cluster.member_log import log_member
from gossip.core.machine import Address
from gossip.membership.members.id_conflicts import IdConflictDetected
from gossip.membership.model.members import FORGOTTEN, Member, MemberChanged, MemberState
from gossip.membership.model.signatures import FORGED, UNSIGNED, WordsRefused

BOB = Member(0xB, "bob", (), {}, MemberState.DEAD, 1, 1, 0.0)


def test_changes_are_told_and_those_of_a_flapping_member_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "agent.cluster.member_log")
    log_member(MemberChanged(BOB, MemberState.ALIVE, "did not answer"))
    log_member(MemberChanged(BOB, MemberState.ALIVE, "did not answer", muted=True))
    log_member(MemberChanged(BOB, MemberState.ALIVE, "comes and goes", suppressed=7))
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


def test_who_speaks_in_the_name_of_another_is_named(caplog: pytest.LogCaptureFixture) -> None:
    source = Address("10.0.0.3", 7747)
    log_member(WordsRefused(0xB, FORGED, 0xC, source, "bob", "cy"))
    log_member(WordsRefused(0xB, FORGED, 0xC, None, "bob", "cy"))
    log_member(WordsRefused(0xB, FORGED, 0xC, source))
    told = [message.partition(" what it")[0] for message in caplog.messages]
    assert told == [
        "somebody at 10.0.0.3:7747, as cy, tells in the name of bob",
        "member cy, by its certificate, tells in the name of bob",
        "somebody at 10.0.0.3:7747, as 000000000000000c, tells in the name of 000000000000000b",
    ]


def test_an_earlier_version_that_passes_words_on_is_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "agent.cluster.member_log")
    log_member(WordsRefused(0xB, UNSIGNED, 0xC, None, "bob", "cy"))
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert "An earlier version does so" in record.getMessage()
