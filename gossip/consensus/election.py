"""Who leads: asking whether one would be elected, standing for election, and voting (rule 3).

A voter that hears no leader for a random 5 to 10 s asks the others first (*pre-vote*); only when
most would vote for it does it raise its term. Who has heard a leader within the shortest such wait
answers neither request, so that a device which hears badly cannot depose a leader that serves all
others; unless that leader asked for it. (Ongaro 2014, sections 4.2.3 and 9.6.)
"""

from typing import Any

from gossip.consensus import messages as m
from gossip.consensus.configuration import StoreId, Voter
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.roles import Role
from gossip.consensus.storage import NOBODY
from gossip.core.machine import Instant

LONG_AGO: Instant = float("-inf")


class Election:
    """The election timer of one store, its ballot while it stands, and its votes for others."""

    def __init__(self, state: ReplicaState) -> None:
        self._state = state
        self._granted: set[StoreId] = set()
        self._refused: set[StoreId] = set()
        self._heard: Instant = LONG_AGO
        self._due: Instant = state.now
        self.rest()
        self._silent_until = state.now + state.tuning.election_min_s
        if state.configuration.voter_stores() <= {state.me.store}:
            # The only voter waits for nobody, and a store without voters may just be needed.
            self._due = self._silent_until = state.now

    # The timer.

    def rest(self) -> None:
        """Begin to wait anew, for a time that is drawn each time."""
        tuning = self._state.tuning
        self._due = self._state.now + self._state.rng.uniform(
            tuning.election_min_s, tuning.election_max_s
        )

    def heard_leader(self) -> None:
        """The leader of this term has spoken."""
        self._heard = self._state.now
        self.rest()

    def forget_leader(self) -> None:
        """Somebody says that the leader is gone: be ready to vote, and ask soon (rule 10).

        It is a hint, however wrong: if most others hear the leader they do not answer, and its next
        word is followed again.
        """
        state = self._state
        if state.role is Role.FOLLOWER and state.leader is not None:
            state.step_down()
            self._heard = LONG_AGO
            self._due = state.now + state.rng.uniform(0, state.tuning.heartbeat_s)

    def is_sticky(self) -> bool:
        """Tell whether we hold on to a leader: we are it, or heard it a moment ago (rule 3)."""
        state = self._state
        if state.is_leader:
            return True
        since = state.now - self._heard
        return state.leader is not None and since < state.tuning.election_min_s

    def is_silent(self) -> bool:
        """Tell whether we have just started over a log that others know, and vote for nobody yet.

        A disk that was set back as a whole, as by an image of its card, has forgotten votes that
        were given. Its node's membership shows that within seconds, and then it is another store
        (rule 9); until then it makes no promise twice.
        """
        return self._state.now < self._silent_until

    def deadline(self) -> Instant | None:
        """Return when we shall ask for votes, if we may."""
        waits = not self._state.is_leader and self._state.may_stand
        return self._due if waits else None

    def wake(self) -> None:
        """Ask for votes when no leader was heard in time."""
        due = self.deadline()
        if due is not None and due <= self._state.now:
            self.ask_first()

    # Standing for election.

    def ask_first(self) -> None:
        """Ask the others whether they would vote for us, at no term's cost (rule 3)."""
        state = self._state
        state.counts["consensus_elections/asked"] += 1
        state.become(Role.PRE_CANDIDATE)
        self._open_ballot()
        self._ask(m.PreVoteRequest, term=state.term + 1)
        self._poll(state.me.store, granted=True)

    def stand(self, *, transfer: bool = False) -> None:
        """Stand for election in the next term; our own vote is the first, once it is saved."""
        state = self._state
        state.counts["consensus_elections/stood"] += 1
        state.become(Role.CANDIDATE, None, state.term + 1, state.me.store)
        self._open_ballot()
        self._ask(m.VoteRequest, transfer=transfer)
        term = state.term

        def voted() -> None:
            if (state.role, state.term) == (Role.CANDIDATE, term):
                self._poll(state.me.store, granted=True)

        state.outbound.when_saved(state.outbound.promised, voted)

    def _open_ballot(self) -> None:
        self._granted, self._refused = set(), set()
        self.rest()

    def _ask(self, kind: type[m.PreVoteRequest | m.VoteRequest], **more: Any) -> None:
        state = self._state
        for voter in state.others():
            if state.configuration.is_voter(voter.store):
                last_index, last_term = state.log.last_index, state.log.last_term
                state.send(kind, voter, last_index=last_index, last_term=last_term, **more)

    def _poll(self, store: StoreId, *, granted: bool) -> None:
        """Count an answer; each store has one, however often it comes (rule 2)."""
        state = self._state
        (self._granted if granted else self._refused).add(store)
        if state.configuration.is_quorum(self._granted):
            self._won()
        elif not state.configuration.is_quorum(state.configuration.voter_stores() - self._refused):
            state.step_down()

    def _won(self) -> None:
        state = self._state
        if state.role is Role.PRE_CANDIDATE:
            self.stand()
        else:
            state.counts["consensus_elections/won"] += 1
            state.become(Role.LEADER, state.me)

    def pre_vote_answered(self, message: m.PreVoteReply, _sender: Voter) -> None:
        """Count who would vote for us."""
        state = self._state
        is_due = message.term == state.term + 1 if message.granted else message.term <= state.term
        if state.role is Role.PRE_CANDIDATE and is_due:
            self._poll(message.sender, granted=message.granted)

    def vote_answered(self, message: m.VoteReply, _sender: Voter) -> None:
        """Count a vote for us, or one that we do not get."""
        if self._state.role is Role.CANDIDATE:
            self._poll(message.sender, granted=message.granted)

    # Voting. Who is asked votes, whether or not its own log says that it may: it may be behind.

    def pre_vote_asked(self, message: m.PreVoteRequest, sender: Voter) -> None:
        """Say whether we would vote for somebody; we promise nothing."""
        state = self._state
        granted = message.term > state.term and self._is_electable(message)
        term = message.term if granted else state.term
        state.send(m.PreVoteReply, sender, granted=granted, term=term)

    def vote_asked(self, message: m.VoteRequest, sender: Voter) -> None:
        """Vote for somebody in this term, or not; the vote is saved before it is given."""
        state = self._state
        granted = state.vote in (NOBODY, message.sender) and self._is_electable(message)
        if granted:
            state.promise(state.term, message.sender)
            if state.role is not Role.FOLLOWER:
                state.step_down()
            self.rest()
        state.send(m.VoteReply, sender, granted=granted)

    def _is_electable(self, message: m.PreVoteRequest | m.VoteRequest) -> bool:
        return self._state.log.is_up_to_date(message.last_index, message.last_term)
