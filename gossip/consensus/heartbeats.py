"""The leader's heartbeats: they keep it in office, and tell it when it is not any more.

Each has a number, the *round*. Who answers one followed this leader at a time after it was sent:
that is what a read waits for (``read_index.py``), and what proves which process is alive
(``clones.py``). A leader that most voters have not answered for a while steps down, so that its
clients look elsewhere, and voters that hear it badly may elect another (CheckQuorum, rule 3).
"""

from collections.abc import Callable

from gossip.consensus import messages as m
from gossip.consensus.clones import CloneDetector
from gossip.consensus.configuration import StoreId, Voter
from gossip.consensus.progress import Progress
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.replication import Replication
from gossip.consensus.requests import CloneSeen
from gossip.core.machine import Instant


class Heartbeats:
    """The rounds of one leader."""

    def __init__(self, state: ReplicaState, replication: Replication) -> None:
        self._state = state
        self._replication = replication
        self._clones = CloneDetector()
        self._due: Instant | None = None
        self._checked: Instant = state.now
        """When we looked last whether most follow us ..."""
        self._check_due: Instant = state.now
        """... and when we shall again."""
        self.on_answer: Callable[[Progress], None] = lambda _progress: None
        self.on_round: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """We lead: say so at once."""
        self._clones = CloneDetector()
        self._checked = self._state.now
        self._check_due = self._checked + self._state.tuning.election_min_s
        self.send_round()

    def end(self) -> None:
        """We do not lead any more."""
        self._due = None

    def deadline(self) -> Instant | None:
        """Return when the next heartbeat, or the next look at our quorum, is due."""
        if self._due is None or not self._replication.followers:
            return None
        return min(self._due, self._check_due)

    def wake(self) -> None:
        """Look whether most still follow, and send what is due."""
        if self.deadline() is None:
            return
        if self._check_due <= self._state.now:
            self._look()
        if self._due is not None and self._due <= self._state.now:
            self.send_round()

    def _look(self) -> None:
        """Step down unless most still follow."""
        state = self._state
        is_followed = self.check_quorum()
        self._checked, self._check_due = state.now, state.now + state.tuning.election_min_s
        if not is_followed:
            state.counts["consensus_elections/lost_quorum"] += 1
            state.step_down()

    def send_round(self) -> int:
        """Send a heartbeat to everybody; return its number."""
        state = self._state
        self._replication.round += 1
        for progress in self._replication.active():
            commit = min(progress.match, state.log.commit)
            state.send(
                m.Heartbeat, progress.member, round=self._replication.round, commit=commit, after=0
            )
        self._due = state.now + state.tuning.heartbeat_s
        return self._replication.round

    def check_quorum(self) -> bool:
        """Tell whether a quorum was heard since the last look (rule 3)."""
        active = self._replication.active()
        heard = {each.member.store for each in active if each.heard > self._checked}
        return self._state.configuration.is_quorum(heard | {self._state.me.store})

    def answered(self, message: m.HeartbeatReply, _sender: Voter) -> None:
        """Note who followed us in which round."""
        if message.round > self._replication.round:
            self._state.drop("ahead")
            return
        clone = self._clones.answered(
            message.sender, message.boot, message.round, self._replication.round
        )
        if clone is not None:
            self._fence(clone)
            return
        progress = self._replication.heard(message.sender)
        if progress is not None:
            progress.round = max(progress.round, message.round)
            self._replication.beat(progress, message.round)
            self.on_answer(progress)
            self.on_round()

    def _fence(self, clone: CloneSeen) -> None:
        """Hear and tell a store nothing any more, as long as we lead."""
        self._replication.fenced.add(clone.store)
        self._state.counts["consensus_clones/seen"] += 1
        self._state.outbound.emit(clone)

    def answered_by(self, store: StoreId) -> int:
        """Return the last round that a store answered; we ourselves follow us in each."""
        if store == self._state.me.store:
            return self._replication.round
        progress = self._replication.followers.get(store)
        fenced = store in self._replication.fenced
        return progress.round if progress is not None and not fenced else 0
