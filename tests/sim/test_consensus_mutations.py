"""Each rule of Raft that we keep is broken here once, and something must notice.

A mutation switches one rule off in the code of the protocol; the rules have the numbers of ADR 33.
Then a number of schedules, or the scenario that is about the rule, must end with a complaint.
Without mutations the same ones pass. A kit that cannot fail proves nothing.
"""

import random
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest

from gossip.consensus import messages as m
from gossip.consensus import storage
from gossip.consensus.clones import CloneDetector
from gossip.consensus.configuration import Configuration, StoreId, Voter
from gossip.consensus.election import Election
from gossip.consensus.following import Following
from gossip.consensus.heartbeats import Heartbeats
from gossip.consensus.log import RaftLog
from gossip.consensus.messages import Entry
from gossip.consensus.misfits import misfit
from gossip.consensus.outbound import ConsensusOutbound
from gossip.consensus.pending_reads import PendingReads
from gossip.consensus.raft import Raft
from gossip.consensus.read_index import ReadIndex
from gossip.consensus.reconfiguration import Reconfiguration
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.replication import Replication
from gossip.consensus.requests import ReadReady
from gossip.consensus.roles import Role
from gossip.consensus.snapshot_arrival import SnapshotArrival
from gossip.consensus.transfer import LeadershipTransfer
from gossip.core.ids import NodeId
from gossip.core.machine import Durability, Instant, Persist
from gossip.sim.consensus_checkers import standard_checkers
from gossip.sim.consensus_host import ConsensusHost
from gossip.sim.invariants import Violation
from gossip.sim.log_disk import LogDisk
from tests.sim import consensus, consensus_scenarios

SEEDS = range(120)
Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]


# Rule 1: persist before reveal.


def nothing_waits_for_the_disk(patch: Patch) -> None:
    """Tell everything at once."""
    patch.setattr(ConsensusOutbound, "is_saved", lambda *_: True)


def votes_do_not_wait_for_the_disk(patch: Patch) -> None:
    """Let what rests on a term or a vote go at once; entries still wait."""
    patch.setattr(
        ConsensusOutbound, "promised", property(lambda _: 0, lambda *_: None), raising=False
    )


def the_leader_counts_what_it_has_not_saved(patch: Patch) -> None:
    """Count our own copy of an entry from the start."""
    reached = Replication.reached

    def mutant(self: Replication, store: StoreId) -> int:
        own = store == self._state.me.store
        return self._state.log.last_index if own else reached(self, store)

    patch.setattr(Replication, "reached", mutant)


def the_log_is_only_flushed(patch: Patch) -> None:
    """Ask the disk for less than a power cut takes."""
    flush = ConsensusOutbound.flush

    def mutant(self: ConsensusOutbound, now: Instant) -> Persist | None:
        batch = flush(self, now)
        return batch and msgspec.structs.replace(batch, durability=Durability.FLUSH)

    patch.setattr(ConsensusOutbound, "flush", mutant)


def heartbeats_are_saved(patch: Patch) -> None:
    """Save what was promised again with each heartbeat."""
    beat = Following.beat

    def mutant(self: Following, message: m.Heartbeat, leader: Voter) -> None:
        beat(self, message, leader)
        state = self._state
        state.outbound.change(storage.HardState(state.generation, state.term, state.vote))

    patch.setattr(Following, "beat", mutant)


# Rule 2: truncate only on conflict, count each store once, step down for a later term.


def a_shorter_append_truncates(patch: Patch) -> None:
    """Take the end of each Append for the end of the leader's log."""
    accept = RaftLog.accept

    def mutant(self: RaftLog, entries: Sequence[Entry]) -> bool:
        fits = accept(self, entries)
        if fits and entries and self.commit <= entries[-1].index < self.last_index:
            self._truncate(entries[-1].index)
        return fits

    patch.setattr(RaftLog, "accept", mutant)


def conflicts_are_kept(patch: Patch) -> None:
    """Look at indices alone, so that an entry of another leader stays in its place."""

    def mutant(self: RaftLog, entries: Sequence[Entry]) -> int:
        known = (place for place, entry in enumerate(entries) if entry.index > self.last_index)
        return next(known, len(entries))

    patch.setattr(RaftLog, "first_conflict", mutant)


def logs_need_not_agree(patch: Patch) -> None:
    """Append behind whatever stands at the index before."""
    patch.setattr(RaftLog, "follows", lambda self, index, _: index <= self.last_index)


def votes_are_counted_twice(patch: Patch) -> None:
    """Count answers and not stores, so that one that arrives twice is two."""
    poll = Election._poll

    def mutant(self: Election, store: StoreId, *, granted: bool) -> None:
        state = self._state
        if granted and store in self._granted:
            voters = state.configuration.voter_stores() - self._granted
            store = min(voters, default=store)
        poll(self, store, granted=granted)

    patch.setattr(Election, "_poll", mutant)


def votes_are_forgotten(patch: Patch) -> None:
    """Vote for whoever asks, also when another one has asked before."""
    asked = Election.vote_asked

    def mutant(self: Election, message: m.VoteRequest, sender: Voter) -> None:
        self._state.vote = storage.NOBODY
        asked(self, message, sender)

    patch.setattr(Election, "vote_asked", mutant)


def starts_forget_their_vote(patch: Patch) -> None:
    """Read back the term alone."""
    opened = LogDisk.open

    def mutant(self: LogDisk) -> storage.StoredState:
        stored = opened(self)
        forgetful = msgspec.structs.replace(stored.hard, vote=storage.NOBODY)
        return msgspec.structs.replace(stored, hard=forgetful)

    patch.setattr(LogDisk, "open", mutant)


def any_log_is_electable(patch: Patch) -> None:
    """Vote for whoever asks first."""
    patch.setattr(Election, "_is_electable", lambda *_: True)


def later_terms_are_ignored(patch: Patch) -> None:
    """Act on what somebody says, and not on the term in which it is said."""

    def mutant(self: Raft, message: m.Message, sender: Voter) -> None:
        self._handlers[type(message)](message, sender)

    patch.setattr(Raft, "_accept", mutant)


# Rule 3: ask before standing, hold on to a leader, step down without a quorum, answer the late.


def nobody_asks_first(patch: Patch) -> None:
    """Stand for election at once (no PreVote)."""

    def mutant(self: Election) -> None:
        self._state.step_down()
        self.stand()

    patch.setattr(Election, "ask_first", mutant)


def nobody_holds_on_to_a_leader(patch: Patch) -> None:
    """Vote while the leader is heard, too."""
    patch.setattr(Election, "is_sticky", lambda *_: False)


def leaders_stay_without_a_quorum(patch: Patch) -> None:
    """Lead on, whoever hears it (no CheckQuorum)."""
    check = Heartbeats.check_quorum
    patch.setattr(Heartbeats, "check_quorum", lambda self: check(self) or True)


def the_late_are_not_answered(patch: Patch) -> None:
    """Be silent to a leader whose term is over."""
    patch.setattr(Raft, "_is_over", lambda *_: True)


# Rule 4: commit by counting only in the own term, an entry of the own term first.


def old_terms_are_committed_by_counting(patch: Patch) -> None:
    """Take for committed whatever is on a majority."""
    patch.setattr(Replication, "may_commit", lambda *_: True)


def changes_do_not_wait_for_the_term(patch: Patch) -> None:
    """Change voters before an entry of this term is committed."""
    patch.setattr(Reconfiguration, "check_term_committed", lambda *_: None)


def leaders_begin_without_an_entry(patch: Patch) -> None:
    """Lead without an entry of one's own."""

    def mutant(self: Raft) -> None:
        self.replication.begin()
        self.heartbeats.begin()

    patch.setattr(Raft, "_begin_leading", mutant)


# Rule 5: joint consensus, one change at a time, learners first.


def voters_change_in_one_step(patch: Patch) -> None:
    """Go to any other voters without a joint configuration."""
    patch.setattr(Configuration, "joint", lambda _, target: target)


def one_side_is_enough(patch: Patch) -> None:
    """Ask only the incoming voters in a joint configuration."""
    patch.setattr(
        Configuration, "sides", lambda self: iter([tuple(each.store for each in self.voters)])
    )


def changes_overlap(patch: Patch) -> None:
    """Begin a change while another is under way."""
    patch.setattr(Reconfiguration, "check_alone", lambda *_: None)
    joint = Configuration.joint

    def mutant(self: Configuration, target: Configuration) -> Configuration:
        return joint(self.left(), target)

    patch.setattr(Configuration, "joint", mutant)


def joint_is_left_uncommitted(patch: Patch) -> None:
    """Leave a joint configuration at the next commit, whatever that is of."""

    def mutant(self: Reconfiguration) -> None:
        if self._state.configuration.is_joint:
            self._append(self._state.configuration.left())

    patch.setattr(Reconfiguration, "committed", mutant)


def the_empty_get_a_vote(patch: Patch) -> None:
    """Let whoever is asked for vote, however much it lacks."""
    patch.setattr(Reconfiguration, "check_caught_up", lambda *_: None)


def two_may_vote(patch: Patch) -> None:
    """Take any number of voters for a good one."""
    patch.setattr("gossip.consensus.configuration._check_sizes", lambda *_: None)


def learners_do_not_vote(patch: Patch) -> None:
    """Vote only if the own log says that one may."""
    asked = Election.vote_asked

    def mutant(self: Election, message: m.VoteRequest, sender: Voter) -> None:
        if self._state.is_voter:
            asked(self, message, sender)

    patch.setattr(Election, "vote_asked", mutant)


# Rule 6: reads.


def new_leaders_read_at_once(patch: Patch) -> None:
    """Read before an entry of this term is committed."""
    patch.setattr(ReadIndex, "knows_commit", lambda *_: True)


def nobody_confirms_reads(patch: Patch) -> None:
    """Read without asking whether one still leads."""
    patch.setattr(ReadIndex, "confirmed_round", _last_round)


def _last_round(reads: ReadIndex) -> int:
    return reads._heartbeats.answered_by(reads._state.me.store)


def old_answers_confirm_reads(patch: Patch) -> None:
    """Let a heartbeat that was sent before the read speak for it."""
    flush = ReadIndex.flush

    def mutant(self: ReadIndex) -> None:
        beats = self._heartbeats
        send_round = beats.send_round
        beats.send_round = lambda: _last_round(self)  # type: ignore[method-assign]
        flush(self)
        beats.send_round = send_round  # type: ignore[method-assign]

    patch.setattr(ReadIndex, "flush", mutant)


def read_numbers_begin_anew(patch: Patch) -> None:
    """Count reads from 1 in each life, so that an answer to the former life fits."""
    begin = PendingReads.__init__

    def mutant(self: PendingReads, *arguments: object) -> None:
        begin(self, *arguments)  # type: ignore[arg-type]
        self._number = 0

    patch.setattr(PendingReads, "__init__", mutant)


def reads_do_not_wait_for_the_application(patch: Patch) -> None:
    """Answer a read from a state that has not got there yet."""

    def mutant(self: PendingReads) -> None:
        for read in list(self._known.values()):
            assert read.index is not None, "it is known"
            self._forget(read)
            self._state.outbound.emit(ReadReady(read.id, read.index))

    patch.setattr(PendingReads, "applied", mutant)


# Rule 7: hand over leadership.


def nobody_is_asked_to_stand(patch: Patch) -> None:
    """Wait for the successor, and never tell it."""
    patch.setattr(LeadershipTransfer, "ask_to_stand", lambda *_: None)


def who_cannot_write_leads_on(patch: Patch) -> None:
    """Lead for as long as anybody follows, whatever the disk does."""
    patch.setattr(LeadershipTransfer, "yield_if_held", lambda *_: None)


def saves_that_hang_are_not_seen(patch: Patch) -> None:
    """Notice what the disk refuses, and never that it says nothing."""
    patch.setattr(ConsensusOutbound, "waits_since", property(lambda _: None, lambda *_: None),
                  raising=False)  # fmt: skip


def the_first_of_the_list_is_to_lead(patch: Patch) -> None:
    """Hand over to the first voter in the configuration, heard or not."""

    def mutant(self: LeadershipTransfer) -> Voter | None:
        state = self._state
        return next((each for each in state.configuration.voters if each != state.me), None)

    patch.setattr(LeadershipTransfer, "successor", mutant)


def successors_are_held_off(patch: Patch) -> None:
    """Hold on to a leader that has handed over, too."""
    stand = Election.stand

    def mutant(self: Election, *, transfer: bool = False) -> None:
        stand(self)

    patch.setattr(Election, "stand", mutant)


def who_is_out_leads_on(patch: Patch) -> None:
    """Lead without a vote, for as long as anybody follows."""
    patch.setattr(Reconfiguration, "is_out", lambda *_: False)


# Rule 8: snapshots.


def a_snapshot_replaces_a_longer_log(patch: Patch) -> None:
    """Take a snapshot although the log has its entry, and with it what follows on that."""
    arrived = SnapshotArrival.chunk

    def mutant(self: SnapshotArrival, message: m.SnapshotChunk, leader: Voter) -> None:
        log = self._state.log
        follows = log.follows
        if message.mark.index > log.commit:
            log.follows = lambda *_: False  # type: ignore[method-assign]
        arrived(self, message, leader)
        log.follows = follows  # type: ignore[method-assign]

    patch.setattr(SnapshotArrival, "chunk", mutant)


def nothing_is_kept_behind_a_snapshot(patch: Patch) -> None:
    """Drop all entries that a snapshot covers."""
    compact = RaftLog.compact

    def mutant(self: RaftLog, mark: m.SnapshotMark, entries_max: int, bytes_max: int) -> None:
        compact(self, mark, 0, bytes_max)

    patch.setattr(RaftLog, "compact", mutant)


def spoilt_snapshots_are_installed(patch: Patch) -> None:
    """Believe that what has arrived is what was sent."""
    patch.setattr("gossip.consensus.snapshot_arrival.checksum", lambda *_: 0)
    keep = SnapshotArrival._keep

    def mutant(self: SnapshotArrival, message: m.SnapshotChunk) -> None:
        keep(self, msgspec.structs.replace(message, mark=_without_crc(message.mark)))

    patch.setattr(SnapshotArrival, "_keep", mutant)


def _without_crc(mark: m.SnapshotMark) -> m.SnapshotMark:
    return msgspec.structs.replace(mark, crc=0)


def snapshots_begin_anew(patch: Patch) -> None:
    """Forget at a start what has arrived before it."""
    begin = SnapshotArrival.__init__

    def mutant(
        self: SnapshotArrival,
        state: ReplicaState,
        following: Following,
        stored: storage.StoredState,
    ) -> None:
        begin(self, state, following, msgspec.structs.replace(stored, arriving=None, arrived=0))

    patch.setattr(SnapshotArrival, "__init__", mutant)


# Rule 9: who lost its log is another store. Rule 13: nobody founds a group by itself.


def who_lost_its_log_stays_itself(patch: Patch) -> None:
    """Vote on with an empty log."""

    def mutant(self: ConsensusHost, _: random.Random) -> None:
        generation = self.disk.platter.hard.generation
        self.disk = LogDisk()
        self.disk.platter.hard = storage.HardState(generation)

    patch.setattr(ConsensusHost, "begin_log", mutant)


def who_lost_its_log_founds_a_group(patch: Patch) -> None:
    """Begin a group of one's own, of the same generation."""
    begin = ConsensusHost.begin_log

    def mutant(self: ConsensusHost, rng: random.Random) -> None:
        begin(self, rng)
        self.disk.platter.replace(storage.founded(self.voter))

    patch.setattr(ConsensusHost, "begin_log", mutant)


# Rule 10: who says that the leader is gone gives a hint, and no more.


def hints_are_believed(patch: Patch) -> None:
    """Stand for election when somebody says that the leader is gone."""
    patch.setattr(Election, "forget_leader", _stand_at_once)


def _stand_at_once(election: Election) -> None:
    if election._state.role is Role.FOLLOWER and election._state.is_voter:
        election.stand(transfer=True)


# Rule 14, and clones.


def indices_go_on_after_a_recovery(patch: Patch) -> None:
    """Give tokens again that others have, of entries that did not survive."""
    patch.setattr(storage, "GENERATION_INDEX_STEP", 0)


def generations_mix(patch: Patch) -> None:
    """Take messages of another generation for our own."""

    def mutant(state: ReplicaState, message: m.Message, peer: NodeId) -> str | None:
        return misfit(state, msgspec.structs.replace(message, generation=state.generation), peer)

    patch.setattr("gossip.consensus.raft.misfit", mutant)


def clones_are_heard(patch: Patch) -> None:
    """Take each answer as if there were one process of each store."""
    patch.setattr(CloneDetector, "answered", lambda *_: None)


def followers_do_not_persist(patch: Patch) -> None:
    """Acknowledge entries at once."""

    def mutant(self: Following, leader: Voter, index: int) -> None:
        self._state.send(m.AppendReply, leader, accepted=True, index=index)

    patch.setattr(Following, "_accept", mutant)


FOUND_BY_SCHEDULES: list[tuple[str, Plant]] = [
    ("PersistBeforeReveal", nothing_waits_for_the_disk),
    ("PersistBeforeReveal", votes_do_not_wait_for_the_disk),
    ("PersistBeforeReveal", followers_do_not_persist),
    ("PersistBeforeReveal", the_log_is_only_flushed),
    ("CommittedByQuorum", the_leader_counts_what_it_has_not_saved),
    ("CommittedStays", a_shorter_append_truncates),
    ("CommittedStays", conflicts_are_kept),
    ("LogMatching", logs_need_not_agree),
    ("ElectionSafety", later_terms_are_ignored),
    ("LeaderCompleteness", any_log_is_electable),
    ("CommittedByQuorum", old_terms_are_committed_by_counting),
    ("QuorumsIntersect", changes_do_not_wait_for_the_term),
    ("Liveness", leaders_begin_without_an_entry),
    ("QuorumsIntersect", voters_change_in_one_step),
    ("CommittedByQuorum", one_side_is_enough),
    ("QuorumsIntersect", changes_overlap),
    ("QuorumsIntersect", joint_is_left_uncommitted),
    ("ReadsAreFresh", new_leaders_read_at_once),
    ("ReadsAreFresh", nobody_confirms_reads),
    ("Linearizability", nobody_confirms_reads),
    ("ReadsAreFresh", old_answers_confirm_reads),
    ("ReadsAreFresh", reads_do_not_wait_for_the_application),
    ("OneVoteATerm", votes_are_forgotten),
    ("CommittedByQuorum", who_lost_its_log_stays_itself),
    ("ElectionSafety", who_lost_its_log_founds_a_group),
]
"""Which checker complains about what. It watches alone, so that no other one is before it."""

FOUND_BY_SCENARIOS: list[tuple[Callable[[], None], Plant]] = [
    (consensus_scenarios.who_was_cut_off_does_not_depose, nobody_asks_first),
    (
        consensus_scenarios.who_does_not_hear_the_leader_does_not_depose_it,
        nobody_holds_on_to_a_leader,
    ),
    (consensus_scenarios.heartbeats_write_nothing, heartbeats_are_saved),
    (consensus_scenarios.who_is_lied_to_does_not_depose, hints_are_believed),
    (consensus_scenarios.a_snapshot_goes_on_where_it_was_interrupted, snapshots_begin_anew),
    (consensus_scenarios.two_voters_are_not_enough, two_may_vote),
    (consensus_scenarios.a_leader_that_is_replaced_hands_over, who_is_out_leads_on),
    (
        consensus_scenarios.who_has_voted_remembers_it_over_a_restart,
        starts_forget_their_vote,
    ),
    (consensus_scenarios.two_of_five_elect_nobody, votes_are_counted_twice),
    (consensus_scenarios.an_answer_to_the_former_life_is_void, read_numbers_begin_anew),
    (consensus_scenarios.who_leads_nobody_steps_down, leaders_stay_without_a_quorum),
    (consensus_scenarios.who_is_ahead_in_terms_finds_back, the_late_are_not_answered),
    (consensus_scenarios.an_empty_log_gets_no_vote, the_empty_get_a_vote),
    (consensus_scenarios.who_does_not_know_that_it_votes_does, learners_do_not_vote),
    (consensus_scenarios.leadership_is_handed_over_in_a_moment, nobody_is_asked_to_stand),
    (
        consensus_scenarios.who_was_away_for_a_moment_gets_entries,
        nothing_is_kept_behind_a_snapshot,
    ),
    (
        consensus_scenarios.a_snapshot_that_comes_late_removes_nothing,
        a_snapshot_replaces_a_longer_log,
    ),
    (consensus_scenarios.a_spoilt_snapshot_is_not_installed, spoilt_snapshots_are_installed),
    (
        consensus_scenarios.tokens_do_not_go_back_when_one_survivor_goes_on,
        indices_go_on_after_a_recovery,
    ),
    (consensus_scenarios.who_is_of_the_former_generation_stays_outside, generations_mix),
    (consensus_scenarios.leadership_is_handed_over_in_a_moment, successors_are_held_off),
    (consensus_scenarios.a_leader_whose_disk_hangs_hands_over, who_cannot_write_leads_on),
    (consensus_scenarios.a_leader_whose_disk_hangs_hands_over, saves_that_hang_are_not_seen),
    (consensus_scenarios.a_leader_whose_disk_hangs_hands_over, the_first_of_the_list_is_to_lead),
    (consensus_scenarios.a_copied_card_is_not_heard, clones_are_heard),
]


CHECKERS = {type(checker).__name__: type(checker) for checker in standard_checkers()}
AT_THE_END = ("Liveness", "Linearizability")
"""These are not watched for: they are what every schedule ends with."""


def complaints(checker: str, seeds: Sequence[int]) -> Iterator[str]:
    """Run schedules under one checker, and yield how those end that do not end well."""
    for seed in seeds:
        try:
            consensus.run(seed, checkers=[] if checker in AT_THE_END else [CHECKERS[checker]()])
        except Exception as error:  # noqa: BLE001  a broken protocol fails in many ways
            yield f"{type(error).__name__} {error}"


def test_each_checker_is_tried() -> None:
    assert {checker for checker, _ in FOUND_BY_SCHEDULES} == {*CHECKERS, *AT_THE_END}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checker", "plant"),
    [pytest.param(*each, id=f"{each[0]}-{each[1].__name__}") for each in FOUND_BY_SCHEDULES],
)
def test_schedules_end_at_the_checker(
    checker: str, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    told = complaints(checker, SEEDS)
    assert any(each.startswith(f"Violation {checker}: ") for each in told)


@pytest.mark.parametrize(
    ("scenario", "plant"),
    [pytest.param(*each, id=each[1].__name__) for each in FOUND_BY_SCENARIOS],
)
def test_a_scenario_complains(
    scenario: Callable[[], None], plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario()
    plant(monkeypatch)
    with pytest.raises(Violation):
        scenario()
