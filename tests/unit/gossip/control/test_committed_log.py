"""What a voter hands to copies: at once after a rest, together while one commit follows another."""

from types import SimpleNamespace
from typing import cast

from gossip.consensus.configuration import Configuration
from gossip.consensus.messages import Entry, EntryKind
from gossip.control.committed_log import GATHER_S, CommittedLog, LogState
from gossip.control.messages import AnswerBody, Hearsay, PullAnswer, PullAsk
from gossip.control.outbound import ControlOutbound
from gossip.control.state_machine import ControlState

GENERATION = 1
WAIT_MS = 55_000


class Answers:
    """Takes down who was told up to which index."""

    def __init__(self) -> None:
        self.told: list[tuple[int, list[int]]] = []

    def answer(self, number: int, body: AnswerBody, peer: int) -> None:
        """Take in an answer to a pull."""
        del number
        assert isinstance(body, PullAnswer), body
        self.told.append((peer, [entry.index for entry in body.entries]))

    def taken(self) -> list[tuple[int, list[int]]]:
        """Return what came since the last call."""
        told, self.told = self.told, []
        return told


class Voter:
    """A committed log, and the state behind it."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.state = SimpleNamespace(index=0)
        standing = LogState(GENERATION, 1, Configuration(), 0, Hearsay(1, 1, (1,), 0))
        self.log = CommittedLog(
            lambda: cast("ControlState", self.state),
            lambda: standing,
            cast("ControlOutbound", self.answers),
        )

    def commit(self, now: float) -> None:
        """Apply one more entry."""
        self.state.index += 1
        self.log.applied((Entry(self.state.index, 1, EntryKind.COMMAND),), now)

    def pull(self, peer: int, after: int, now: float) -> None:
        """Let a copy ask."""
        self.log.pull(0, PullAsk(GENERATION, after, WAIT_MS), peer, now)


def waiting_voter() -> Voter:
    """Return a voter with one entry, which the copy 7 has and waits behind."""
    voter = Voter()
    voter.commit(0.0)
    voter.pull(7, 1, 0.0)
    assert not voter.answers.taken()
    return voter


def test_news_after_a_rest_is_told_at_once() -> None:
    voter = waiting_voter()
    voter.commit(10.0)
    assert voter.answers.taken() == [(7, [2])]


def test_what_is_committed_in_a_row_is_told_together() -> None:
    voter = waiting_voter()
    voter.commit(10.0)
    voter.answers.taken()
    voter.pull(7, 2, 10.01)
    for number in range(5):
        voter.commit(10.02 + number / 100)
    assert not voter.answers.taken(), "two frames for each commit would be what a voter does"
    assert voter.log.deadline() == 10.0 + GATHER_S
    voter.log.wake(10.0 + GATHER_S)
    assert voter.answers.taken() == [(7, [3, 4, 5, 6, 7])]


def test_a_copy_that_asks_amid_news_waits_for_the_others() -> None:
    voter = waiting_voter()
    voter.commit(10.0)
    voter.answers.taken()
    voter.commit(10.02)
    voter.pull(7, 2, 10.03)
    assert not voter.answers.taken()
    voter.log.wake(10.0 + GATHER_S)
    assert voter.answers.taken() == [(7, [3])]


def test_who_is_further_behind_is_told_at_once() -> None:
    voter = waiting_voter()
    voter.commit(10.0)
    voter.answers.taken()
    voter.pull(8, 1, 10.01)
    assert voter.answers.taken() == [(8, [2])]


def test_who_waited_long_enough_hears_that_there_is_nothing() -> None:
    voter = waiting_voter()
    until = voter.log.deadline()
    assert until == WAIT_MS / 1000
    voter.log.wake(until)
    assert voter.answers.taken() == [(7, [])]
    assert voter.log.deadline() is None
