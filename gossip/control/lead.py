"""What a leader does beside replicating: measures sessions and delays, and ends what is due.

The rule (etcd#15247, #12528): a leader that was stuck, and deposed meanwhile, must not end sessions
that its successor has renewed. Three things hold it together. What a leader finds is carried out
only from an entry of its own term. A renewal is answered only once a majority has confirmed, after
the renewal came, that this leader still leads: so its successor, whose clock starts later, never
counts from before an answered renewal. And a session whose end was proposed is not renewed again.
"""

from collections import Counter
from collections.abc import Callable

from gossip.consensus.raft import Raft
from gossip.consensus.requests import NotLeader, Overloaded
from gossip.control.commands import Command, EndDelay, ExpireSession, encode_command
from gossip.control.confirmed_reads import ConfirmedReads
from gossip.control.history import RevisionChanges
from gossip.control.locks import Lock, LockChange
from gossip.control.outcomes import EndedResult, SessionResult
from gossip.control.renewals import DelayTimer, LeaderTimer, Renewals, SessionTimer
from gossip.control.state_machine import AppliedCommand, ControlState
from gossip.core.machine import Instant

AGAIN_S = 1.0
"""What could not be proposed is tried again after this."""

Renewed = Callable[[tuple[int, ...] | None, Instant], None]
"""Called with the sessions that are renewed; None: we do not lead, or cannot tell."""


class Leadership:
    """Manages what only the leader does, while we lead."""

    def __init__(
        self, state: Callable[[], ControlState], reads: ConfirmedReads, counts: Counter[str]
    ) -> None:
        self._state = state
        self._reads = reads
        self._renewals = Renewals(counts)
        self._term: int | None = None
        self._delays: dict[str, set[DelayTimer]] = {}

    @property
    def leads(self) -> bool:
        """Whether we lead."""
        return self._term is not None

    @property
    def begun_anew_at(self) -> Instant | None:
        """When we last gave all sessions their full time again, because we had stood still."""
        return self._renewals.begun_anew_at

    def role_changed(self, term: int | None, now: Instant) -> None:
        """We lead in this term; None: we do not."""
        if term == self._term:
            return
        assert term is None or self._term is None or term > self._term, "terms only grow"
        self._term = term
        self._renewals.clear()
        self._delays.clear()
        if term is not None:
            self._measure_all(now)

    def replaced(self, now: Instant) -> None:
        """A snapshot has taken the place of the state: measure what is in it."""
        if self._term is not None:
            self._renewals.clear()
            self._delays.clear()
            self._measure_all(now)

    def _measure_all(self, now: Instant) -> None:
        """Give everything that is there its full time, from now on."""
        state = self._state()
        for session in state.sessions:
            self._renewals.start(SessionTimer(session.number), session.ttl_ms / 1000, now)
        for lock in state.locks:
            self._measure_delays(lock.name, lock, now)

    def applied(self, applied: AppliedCommand, now: Instant) -> None:
        """Follow what a command did to sessions."""
        if self._term is None:
            return
        outcome, action = applied.outcome, applied.action
        if isinstance(outcome, SessionResult) and outcome.session in self._state().sessions:
            self._renewals.start(SessionTimer(outcome.session), outcome.ttl_ms / 1000, now)
        elif isinstance(outcome, EndedResult) and not isinstance(action, EndDelay):
            session = getattr(action, "session", 0)
            if session not in self._state().sessions:
                self._renewals.stop(SessionTimer(session))

    def changed(self, batch: RevisionChanges, now: Instant) -> None:
        """Follow what an entry did to locks."""
        if self._term is None:
            return
        for change in batch.changes:
            if isinstance(change, LockChange):
                self._measure_delays(change.name, change.lock, now)

    def _measure_delays(self, name: str, lock: Lock | None, now: Instant) -> None:
        delays = lock.delays if lock else ()
        there = {DelayTimer(name, each.since): each.delay_ms for each in delays}
        for over in self._delays.pop(name, set()) - there.keys():
            self._renewals.stop(over)
        for timer, delay_ms in there.items():
            self._renewals.start(timer, delay_ms / 1000, now)
        if there:
            self._delays[name] = set(there)

    def renew(self, sessions: tuple[int, ...], answer: Renewed, now: Instant) -> None:
        """Renew sessions; the answer comes when it is sure that we still lead."""
        if self._term is None:
            answer(None, now)
            return
        term = self._term
        for session in sessions:
            self._renewals.renew(session, now)

        def confirmed(now: Instant) -> None:
            still_leads = self._term == term
            living = tuple(each for each in sessions if self._lives(each))
            answer(living if still_leads else None, now)

        self._reads.confirm(confirmed, lambda now: answer(None, now))

    def _lives(self, session: int) -> bool:
        is_there = session in self._state().sessions
        return is_there and not self._renewals.is_ending(SessionTimer(session))

    def wake(self, raft: Raft, now: Instant) -> None:
        """Propose the end of what is due."""
        if self._term is None:
            return
        for timer in self._renewals.pop_due(now):
            try:
                raft.propose([encode_command(Command(_end_of(timer, self._term)))], now)
            except (NotLeader, Overloaded):
                self._renewals.not_proposed(timer, now + AGAIN_S)

    def deadline(self) -> Instant | None:
        """Return when something is due."""
        return self._renewals.deadline()


def _end_of(timer: LeaderTimer, term: int) -> ExpireSession | EndDelay:
    if isinstance(timer, SessionTimer):
        return ExpireSession(timer.session, term)
    return EndDelay(timer.name, timer.since, term)
