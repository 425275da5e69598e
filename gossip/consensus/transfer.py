"""Handing leadership over: to whom an operator names, or whoever is left to lead (rule 7).

The leader takes nothing in while the other one catches up, then asks it to stand for election at
once. Its requests for votes say so, so that nobody holds on to the old leader.

A leader that can take nothing in (``holds.py``) hands over by itself, to whoever it heard lately
that has most of the log; and to another one if that does not come. Where our own disk is what holds
us we have no vote to give: then it goes only to who can win without it, for as long as we lead
sessions are renewed, and with no leader nobody is helped.
"""

from collections import Counter
from collections.abc import Callable

from gossip.consensus import messages as m
from gossip.consensus.configuration import StoreId, Voter
from gossip.consensus.holds import Hold
from gossip.consensus.progress import Progress
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.replication import Replication
from gossip.core.errors import InvalidRequest
from gossip.core.machine import Instant


class LeadershipTransfer:
    """The successor that is waited for, if there is one."""

    def __init__(self, state: ReplicaState, replication: Replication) -> None:
        self._state = state
        self._replication = replication
        self._to: StoreId | None = None
        self._until: Instant | None = None
        self._leads_since: Instant = state.now
        self._failed: Counter[StoreId] = Counter()
        """How often each did not come, while we have led."""
        self.takes_writes: Callable[[StoreId], bool] = lambda _store: True
        """Told by the application: whether a store's disk takes writes, in that store's own words.
        It says whom a leader that is held asks, and nothing else."""

    def begin_leading(self) -> None:
        """We lead: nobody has failed us yet."""
        self._leads_since = self._state.now
        self._failed.clear()

    @property
    def is_under_way(self) -> bool:
        """Whether somebody is to lead in our place."""
        return self._to is not None

    def begin(self, to: StoreId | None) -> None:
        """Hand over to this voter; None: to whoever has most of the log.

        Raises InvalidRequest for who cannot lead.
        """
        state = self._state
        assert state.is_leader, "who does not lead has nothing to hand over"
        if to is None:
            best = self.successor()
            to = best.store if best is not None else state.me.store
        voters = {voter.store for voter in state.configuration.voters}
        if to == state.me.store or to not in voters:
            raise InvalidRequest("leadership goes to another voter; nothing was changed")
        if to in self._replication.fenced:
            raise InvalidRequest(f"store {to:x} lives twice; end one of the two first")
        self._to, self._until = to, state.now + state.tuning.election_min_s
        self.accepted(self._replication.followers[to])

    def end(self) -> None:
        """We do not lead any more, or have waited long enough."""
        self._to = self._until = None

    def accepted(self, progress: Progress) -> None:
        """A follower has spoken: the successor is to stand when it has everything.

        It is asked with each of its words until it does, for the first time may be lost.
        """
        state = self._state
        if progress.member.store == self._to and progress.match == state.log.last_index:
            self.ask_to_stand(progress.member)

    def ask_to_stand(self, voter: Voter) -> None:
        """Tell a voter to stand for election now."""
        self._state.counts["consensus_elections/handed_over"] += 1
        self._state.send(m.TimeoutNow, voter, after=0)

    def successor(self) -> Voter | None:
        """Return the voter to ask: of those who keep up, who failed least, and has most."""
        best = max(self._able(), key=self._merit, default=None)
        return best.member if best is not None else None

    def _merit(self, each: Progress) -> tuple[float, ...]:
        return -self._failed[each.member.store], each.match, each.heard

    def _able(self) -> list[Progress]:
        """Return the voters that keep up with us, and could write."""
        state = self._state
        votes = {voter.store for voter in state.configuration.voters}
        return [
            each
            for each in self._replication.active()
            if each.member.store in votes
            and each.match
            and state.now - each.heard < state.tuning.election_min_s
            and self.takes_writes(each.member.store)
        ]

    def deadline(self) -> Instant | None:
        """Return when we go on leading, for the other one did not come."""
        return self._until

    def wake(self) -> None:
        """Give up waiting."""
        if self._until is not None and self._until <= self._state.now:
            self._state.counts["consensus_elections/transfer_failed"] += 1
            if self._to is not None:
                self._failed[self._to] += 1
            self.end()

    def yield_if_held(self) -> None:
        """Hand over once we could take nothing in for long; if nobody can lead, lead on.

        Asked at each answer to a heartbeat: who gives none cannot lead.
        """
        state = self._state
        hold = state.holds.current(state.now)
        if hold is None or self.is_under_way:
            return
        held_s = min(state.holds.lasted_s(state.now), state.now - self._leads_since)
        successor = self.successor()
        if held_s < state.tuning.election_min_s or successor is None:
            return
        if hold is not Hold.DISK or self._can_do_without_us():
            assert successor != state.me, "somebody else is to lead"
            state.counts["consensus_elections/yielded"] += 1
            self.begin(successor.store)

    def _can_do_without_us(self) -> bool:
        """Tell whether those who keep up are a quorum: our own vote needs our disk."""
        return self._state.configuration.is_quorum(each.member.store for each in self._able())
