"""Each transcript of a Raft group says today what it said when it was recorded.

And it would not if the rule were broken that it is about: for a number of rules a mutation breaks
one in the code, and the transcript named beside it must then say something else.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gossip.consensus.election import Election
from gossip.consensus.following import Following
from gossip.consensus.heartbeats import Heartbeats
from gossip.consensus.log import RaftLog
from gossip.consensus.outbound import ConsensusOutbound
from gossip.consensus.raft import Raft
from gossip.consensus.read_index import ReadIndex
from gossip.consensus.reconfiguration import Reconfiguration
from gossip.consensus.replication import Replication
from tests.support.raft_script import RaftScript, replay

FOLDER = Path(__file__).resolve().parents[1] / "transcripts" / "consensus"
TRANSCRIPTS = sorted(FOLDER.glob("*.txt"))
INDEX = (FOLDER / "README.md").read_text()
LINES_MAX = 110

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    recorded = path.read_text()
    answered = replay(recorded)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(answered)
        return
    assert answered == recorded, "run `pytest tests/sim --rewrite`, then read the difference"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_can_be_read(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# "), "it begins with what it shows, and where that comes from"
    assert "----" in lines, "it asks at least one question"
    assert len(lines) <= LINES_MAX


def test_the_index_names_every_transcript_and_no_other() -> None:
    named = re.findall(r"^\| \[([a-z0-9-]+)\]\(\1\.txt\) \|", INDEX, flags=re.MULTILINE)
    assert named == sorted(named)
    assert named == [path.stem for path in TRANSCRIPTS]


def test_the_language_has_no_word_that_nobody_uses() -> None:
    lines = [line for path in TRANSCRIPTS for line in path.read_text().splitlines()]
    assert not set(RaftScript().words) - {line.split()[0] for line in lines if line}


# Mutations: each breaks one rule.


def whatever_waits_is_said_at_once(patch: Patch) -> None:
    patch.setattr(ConsensusOutbound, "is_saved", lambda *_: True)


def a_shorter_append_cuts_the_log(patch: Patch) -> None:
    """Take each Append for the end of the log, as PySyncObj does."""
    accept = RaftLog.accept

    def mutant(self: RaftLog, entries: Any) -> bool:
        done = accept(self, entries)
        if entries and self.commit <= entries[-1].index < self.last_index:
            self._truncate(entries[-1].index)
        return done

    patch.setattr(RaftLog, "accept", mutant)


def nobody_holds_on_to_a_leader(patch: Patch) -> None:
    patch.setattr(Election, "is_sticky", lambda _: False)


def nobody_asks_first(patch: Patch) -> None:
    patch.setattr(Election, "ask_first", Election.stand)


def a_leader_leads_on_alone(patch: Patch) -> None:
    patch.setattr(Heartbeats, "check_quorum", lambda _: True)


def any_entry_is_committed_by_counting(patch: Patch) -> None:
    patch.setattr(Replication, "may_commit", lambda *_: True)


def a_leader_believes_itself(patch: Patch) -> None:
    patch.setattr(ReadIndex, "confirmed_round", lambda self: self._heartbeats.answered_by(0) or 99)


def a_joint_configuration_is_for_ever(patch: Patch) -> None:
    patch.setattr(Reconfiguration, "committed", lambda _: None)


def learners_do_not_vote(patch: Patch) -> None:
    vote = Election.vote_asked

    def mutant(self: Election, *words: Any) -> None:
        if self._state.is_voter:
            vote(self, *words)

    patch.setattr(Election, "vote_asked", mutant)


def an_earlier_term_is_not_answered(patch: Patch) -> None:
    over = Raft._is_over

    def mutant(self: Raft, message: Any, sender: Any) -> bool:
        send, self._state.send = self._state.send, lambda *_, **__: None  # type: ignore[method-assign]
        try:
            return over(self, message, sender)
        finally:
            self._state.send = send  # type: ignore[method-assign]

    patch.setattr(Raft, "_is_over", mutant)


def heartbeats_commit_nothing(patch: Patch) -> None:
    beat = Following.beat

    def mutant(self: Following, message: Any, leader: Any) -> None:
        log = self._state.log
        commit_to, log.commit_to = log.commit_to, lambda index: False  # type: ignore[method-assign]
        beat(self, message, leader)
        log.commit_to = commit_to  # type: ignore[method-assign]

    patch.setattr(Following, "beat", mutant)


def hints_are_not_given(patch: Patch) -> None:
    patch.setattr(RaftLog, "agreement", lambda _, index, term: (index - 1, term))


MUTATIONS: list[tuple[Callable[[Patch], None], str]] = [
    (whatever_waits_is_said_at_once, "persist-before-reveal"),
    (whatever_waits_is_said_at_once, "append-aba-on-a-slow-disk"),
    (a_shorter_append_cuts_the_log, "duplicate-append"),
    (nobody_holds_on_to_a_leader, "stickiness"),
    (nobody_asks_first, "pre-vote-and-check-quorum"),
    (a_leader_leads_on_alone, "check-quorum"),
    (any_entry_is_committed_by_counting, "figure-eight"),
    (a_leader_believes_itself, "read-index"),
    (a_joint_configuration_is_for_ever, "replace-the-leader"),
    (learners_do_not_vote, "campaign-learner-must-vote"),
    (an_earlier_term_is_not_answered, "stuck-in-a-later-term"),
    (heartbeats_commit_nothing, "lagging-commit"),
    (hints_are_not_given, "slow-follower-after-compaction"),
]


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("mutation", "stem"), MUTATIONS, ids=[f"{each[0].__name__}-{each[1]}" for each in MUTATIONS]
)
def test_a_broken_rule_is_told(
    mutation: Callable[[Patch], None], stem: str, monkeypatch: Patch
) -> None:
    recorded = (FOLDER / f"{stem}.txt").read_text()
    assert replay(recorded) == recorded
    mutation(monkeypatch)
    try:
        told = replay(recorded)
    except (AssertionError, IndexError):
        return
    assert told != recorded
