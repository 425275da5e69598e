"""Changes of who votes and who learns (rules 4 and 5).

A change of voters goes through a joint configuration, which the leader leaves by itself as soon as
it is committed; a change of learners alone takes one entry. Each is in effect from the moment it is
in a log, so whoever has to be asked is asked from then on.
"""

from gossip.consensus.configuration import Configuration, check_target, encode_configuration
from gossip.consensus.messages import Entry, EntryKind
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.replication import Replication
from gossip.core.errors import InvalidRequest


class Reconfiguration:
    """The leader's hand on the configuration."""

    def __init__(self, state: ReplicaState, replication: Replication) -> None:
        self._state = state
        self._replication = replication

    def change(self, target: Configuration) -> None:
        """Begin a change. Raises InvalidRequest, which names the rule that it breaks."""
        now = self._state.configuration
        self.check_term_committed()
        self.check_alone()
        check_target(now, target)
        self.check_caught_up(now, target)
        if target == now:
            return
        is_small = set(target.voters) == set(now.voters)
        self._append(target if is_small else now.joint(target))

    def check_term_committed(self) -> None:
        """Refuse a change before an entry of this leader's term is committed (rule 4).

        Otherwise two leaders could each change the voters by one, from what each believes to be the
        configuration, and end with majorities that do not meet (Ongaro, raft-dev, 2015-07).
        """
        log = self._state.log
        if log.term_at(log.commit) != self._state.term:
            raise InvalidRequest(
                "this leader has not committed anything yet, so it does not know for sure who "
                "takes part; nothing was changed, try again in a moment"
            )

    def check_alone(self) -> None:
        """Refuse a change while another is under way (rule 5)."""
        state = self._state
        if state.configuration.is_joint or state.log.configuration_index > state.log.commit:
            raise InvalidRequest(
                "another change of who takes part is under way; nothing was changed, try again "
                "when it is done"
            )

    def check_caught_up(self, now: Configuration, target: Configuration) -> None:
        """Refuse a vote for who could not use it yet: learners first, until they keep up (rule 5).

        A new voter with an empty log counts in the majority from its first moment, and until it
        has copied everything nothing may be committed.
        """
        for voter in target.voters:
            progress = self._replication.followers.get(voter.store)
            if now.is_voter(voter.store):
                continue
            if progress is None:
                raise InvalidRequest(
                    f"store {voter.store:x} has not taken part yet; make it a learner first"
                )
            if voter.store in self._replication.fenced:
                raise InvalidRequest(f"store {voter.store:x} lives twice; end one of the two")
            progress.note_lag(self._state.log.last_index, self._state.now)
            if not progress.has_settled(self._state.now):
                raise InvalidRequest(
                    f"store {voter.store:x} is a learner that has not kept up for "
                    f"{self._state.tuning.learner_settle_s:g} s yet; nothing was changed"
                )

    def committed(self) -> None:
        """Leave a joint configuration once it is committed: both of its majorities know it."""
        state = self._state
        if state.configuration.is_joint and state.log.configuration_index <= state.log.commit:
            self._append(state.configuration.left())

    def is_out(self) -> bool:
        """Tell whether this leader has no vote any more, for good: it is not needed."""
        state = self._state
        return not state.is_voter and state.log.configuration_index <= state.log.commit

    def _append(self, configuration: Configuration) -> None:
        state = self._state
        data = encode_configuration(configuration)
        index = state.log.last_index + 1
        state.log.append([Entry(index, state.term, EntryKind.CONFIGURATION, data)])
        state.counts["consensus_changes/begun"] += 1
        self._replication.update_members()
