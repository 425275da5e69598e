"""A clone is proved by the order of lives, and a restart never is one."""

import itertools
import random

from gossip.consensus.clones import CloneDetector
from gossip.consensus.requests import CloneSeen
from tests.support.raft_group import RaftGroup


def test_a_boot_that_comes_back_proves_a_clone() -> None:
    detector = CloneDetector()
    assert detector.answered(1, 10, 1, 1) is None
    assert detector.answered(1, 20, 2, 2) is None, "a restart, for all that is known"
    assert detector.answered(1, 20, 3, 3) is None
    assert detector.answered(1, 10, 4, 4) == CloneSeen(1, (10, 20))


def test_a_late_answer_proves_nothing() -> None:
    """It was sent before the other boot was heard of."""
    detector = CloneDetector()
    detector.answered(1, 10, 1, 1)
    detector.answered(1, 20, 3, 5)
    assert detector.answered(1, 10, 2, 6) is None
    assert detector.answered(1, 10, 5, 6) is None
    assert detector.answered(1, 10, 6, 6) == CloneSeen(1, (10, 20))


def test_restarts_are_never_taken_for_clones_however_late_frames_are() -> None:
    """Lives follow on each other; each answers some rounds; answers come in any order."""
    for seed in range(300):
        rng = random.Random(seed)
        answers = []
        sent = 0
        for boot in range(rng.randint(1, 5)):
            for _ in range(rng.randint(0, 4)):
                sent += rng.randint(0, 2)
                # It may answer an old round, too: that was late on its way to it.
                answers.append((sent, boot, max(1, sent - rng.choice((0, 0, 1, 4)))))
        answers = [(at + rng.choice((0, 0, 1, 7)), boot, round_) for at, boot, round_ in answers]
        detector = CloneDetector()
        for at, boot, round_ in sorted(answers):
            if round_ <= at:
                assert detector.answered(1, boot, round_, max(at, 1)) is None, seed


def test_a_fenced_store_is_neither_heard_nor_told_until_another_leads() -> None:
    group = RaftGroup().found("abc")
    group.elect("a")
    twin = group.stores["b"]
    first = twin.running
    group.start("b")
    second = twin.running
    for raft in itertools.islice(itertools.cycle((first, second)), 4):
        twin.raft = raft
        group.run(1.0)
    assert [e for e in group.stores["a"].events if isinstance(e, CloneSeen)]
    assert group["a"].counts["consensus_clones/seen"] == 1
    leader = group["a"]
    assert [each.is_fenced for each in leader.status().members] == [True, False]
    group.split("c", "ab")
    group.propose("a", "x")
    group.run(2.0)
    assert leader.commit_index < leader.last_index, "the clone's word counts for nothing"
    group.heal()
    group.run(2.0)
    assert twin.running.last_index < leader.last_index
    group.elect("c")
    group.run(2.0)
    assert [each.is_fenced for each in group["c"].status().members] == [False, False]
    assert twin.running.last_index == group["c"].last_index, "one of the two has ended since"
