"""What the leader believes of a follower, and what it may send it."""

from gossip.consensus.configuration import Configuration, Voter
from gossip.consensus.messages import SnapshotMark
from gossip.consensus.progress import Progress, ReplicationPhase
from gossip.consensus.tuning import ConsensusTuning

TUNING = ConsensusTuning(
    inflight_max=3, inflight_bytes_max=100, learner_lag_entries=2, learner_settle_s=60.0
)
MARK = SnapshotMark(9, 1, Configuration(), 1, 0, 0, 9)


def progress(following: int = 8) -> Progress:
    return Progress(Voter(2, 102), following, TUNING, 0.0)


def replicating(match: int = 7) -> Progress:
    found = progress()
    found.accepted(match)
    return found


def test_one_question_at_a_time_until_the_logs_agree() -> None:
    asked = progress()
    assert asked.has_room
    asked.sent(7, 0)
    assert not asked.has_room
    assert asked.accepted(7)
    assert (asked.phase, asked.following, asked.has_room) == (ReplicationPhase.REPLICATE, 8, True)


def test_the_window_is_of_appends_and_of_bytes() -> None:
    busy = replicating()
    for index in (8, 9, 10):
        assert busy.has_room
        busy.sent(index, 10)
    assert not busy.has_room
    busy.accepted(9)
    assert busy.has_room
    busy.sent(11, 95)
    assert not busy.has_room, "105 bytes are under way"
    busy.accepted(11)
    assert busy.has_room


def test_a_refusal_goes_back_to_where_the_logs_may_agree() -> None:
    lost = replicating(match=3)
    lost.sent(20, 10)
    assert lost.refused(15, 9)
    assert (lost.phase, lost.following) == (ReplicationPhase.PROBE, 10)
    assert lost.refused(9, 2)
    assert lost.following == 4, "never behind what is known to be there"


def test_answers_to_questions_that_are_not_open_change_nothing() -> None:
    asked = progress(following=8)
    assert not asked.refused(5, 4)
    assert asked.following == 8
    sure = replicating(match=7)
    assert not sure.refused(6, 5)
    assert sure.phase is ReplicationPhase.REPLICATE
    sure.probe()
    sure.sent(7, 0)
    assert not sure.refused(7, 5)
    assert not sure.has_room, "it is asked again when it has answered a heartbeat"
    sure.send_snapshot(MARK, 0.0)
    assert not sure.refused(7, 5)
    assert not sure.accepted(5), "an old acknowledgement is no news"
    assert sure.match == 7


def test_a_full_window_opens_by_one_when_a_heartbeat_is_answered() -> None:
    full = replicating()
    for index in (8, 9, 10):
        full.sent(index, 10)
    full.unblock()
    assert full.has_room
    full.sent(11, 10)
    assert not full.has_room


def test_a_learner_has_settled_when_it_kept_up_for_long_enough() -> None:
    learner = progress()
    learner.note_lag(8, 5.0)
    assert learner.caught_up is None, "of a log that is being looked for, nothing is known"
    learner.accepted(7)
    learner.note_lag(9, 10.0)
    assert not learner.has_settled(69.0)
    assert learner.has_settled(70.0)
    learner.note_lag(10, 71.0)
    assert not learner.has_settled(500.0), "it fell behind, and begins anew"
    learner.accepted(9)
    learner.note_lag(10, 80.0)
    assert learner.has_settled(140.0)
