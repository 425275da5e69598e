"""What a follower does with its leader's words: entries, commits, and answers to both."""

from gossip.consensus import messages as m
from gossip.consensus.configuration import Voter
from gossip.consensus.election import Election
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.roles import Role


class Following:
    """The follower's side of replication."""

    def __init__(self, state: ReplicaState, election: Election) -> None:
        self._state = state
        self._election = election

    def follow(self, leader: Voter) -> bool:
        """Follow who leads this term; False if that are we: then the other one is a fault."""
        state = self._state
        if state.is_leader:
            state.drop("second_leader")
            return False
        if state.role is not Role.FOLLOWER or state.leader != leader:
            state.become(Role.FOLLOWER, leader)
        self._election.heard_leader()
        return True

    def append(self, message: m.Append, leader: Voter) -> None:
        """Take entries over if they follow on ours; say how far our log is the leader's."""
        if not self.follow(leader):
            return
        log = self._state.log
        if message.previous_index < log.commit:
            # What is committed agrees: say how far that is.
            self._accept(leader, log.commit)
        elif not log.follows(message.previous_index, message.previous_term):
            self._refuse(message, leader)
        elif log.accept(message.entries):
            last = message.previous_index + len(message.entries)
            log.commit_to(min(message.commit, last))
            self._accept(leader, last)
        else:
            self._state.drop("against_commit")

    def _accept(self, leader: Voter, index: int) -> None:
        """Acknowledge what is on our disk: all of it, before it is said (rule 1)."""
        state = self._state
        state.send(m.AppendReply, leader, accepted=True, index=index, after=state.outbound.latest)

    def _refuse(self, message: m.Append, leader: Voter) -> None:
        index = message.previous_index
        hint_index, hint_term = self._state.log.agreement(index, message.previous_term)
        self._state.send(
            m.AppendReply,
            leader,
            accepted=False,
            index=index,
            hint_index=hint_index,
            hint_term=hint_term,
        )

    def beat(self, message: m.Heartbeat, leader: Voter) -> None:
        """Stay with the leader; nothing is written for it."""
        if self.follow(leader):
            log = self._state.log
            log.commit_to(min(message.commit, log.last_index))
            self._state.send(m.HeartbeatReply, leader, round=message.round)

    def accept_snapshot(self, leader: Voter) -> None:
        """Acknowledge what a snapshot has brought, or what was there without it."""
        self._accept(leader, self._state.log.commit)
