"""Linearizable reads without a log entry, and without a clock (rule 6; Ongaro 2014, 6.4).

The leader notes its commit index, and asks a quorum by heartbeats that are sent *after* that
whether it still leads. If they follow it, no later leader had committed anything when the read
began. A leader whose own term has no committed entry does not know yet what is committed: its
reads wait for that. There is no read by lease, which would trust clocks.

Each attempt has its own number, which is never used again, and each batch of reads its own round.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from gossip.consensus import messages as m
from gossip.consensus.configuration import Voter
from gossip.consensus.heartbeats import Heartbeats
from gossip.consensus.replica_state import ReplicaState


class ReadAttempt(msgspec.Struct, frozen=True):
    """One attempt to find out what a read has to see; ``asker`` None: one of ours."""

    number: int
    asker: Voter | None


class ReadRound(msgspec.Struct, frozen=True):
    """Reads that wait until a quorum has answered this round or a later one."""

    round: int
    index: int
    attempts: tuple[ReadAttempt, ...]


class ReadIndex:
    """The reads of one leader that wait for its followers' word."""

    def __init__(self, state: ReplicaState, heartbeats: Heartbeats) -> None:
        self._state = state
        self._heartbeats = heartbeats
        self._fresh: list[ReadAttempt] = []
        self._rounds: deque[ReadRound] = deque()
        self.on_known: Callable[[int, int | None], None] = lambda _number, _index: None
        """Told what one of our own attempts found: the index, or None."""

    def __len__(self) -> int:
        return len(self._fresh) + sum(len(each.attempts) for each in self._rounds)

    def begin(self, attempt: ReadAttempt) -> None:
        """Find out what a read that begins now has to see."""
        self._fresh.append(attempt)

    def asked(self, message: m.ReadRequest, asker: Voter) -> None:
        """A follower forwards a read."""
        state = self._state
        if state.is_leader and len(self) < state.tuning.reads_max:
            self.begin(ReadAttempt(message.number, asker))
        else:
            state.send(m.ReadReply, asker, number=message.number, index=None)

    def knows_commit(self) -> bool:
        """Tell whether we know what is committed: an entry of our own term is (rule 6)."""
        return self._state.log.term_at(self._state.log.commit) == self._state.term

    def flush(self) -> None:
        """Ask the followers on behalf of all reads that came since the last time."""
        if self._fresh and self.knows_commit():
            index = self._state.log.commit
            attempts, self._fresh = tuple(self._fresh), []
            self._rounds.append(ReadRound(self._heartbeats.send_round(), index, attempts))
            self.confirm()

    def confirmed_round(self) -> int:
        """Return the last round after which a quorum still followed us (rule 6)."""
        return self._state.configuration.agreed(self._heartbeats.answered_by)

    def confirm(self) -> None:
        """Answer the reads whose round a quorum has answered."""
        confirmed = self.confirmed_round()
        while self._rounds and self._rounds[0].round <= confirmed:
            done = self._rounds.popleft()
            for attempt in done.attempts:
                self._answer(attempt, done.index)

    def end(self) -> None:
        """We do not lead any more: nobody gets an answer from us."""
        attempts = [*self._fresh, *(each for done in self._rounds for each in done.attempts)]
        self._fresh, self._rounds = [], deque()
        for attempt in attempts:
            self._answer(attempt, None)

    def _answer(self, attempt: ReadAttempt, index: int | None) -> None:
        if attempt.asker is None:
            self.on_known(attempt.number, index)
        else:
            self._state.send(m.ReadReply, attempt.asker, number=attempt.number, index=index)
