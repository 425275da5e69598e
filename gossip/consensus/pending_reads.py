"""The reads of this store: each ends as ready or as failed, in bounded time.

At the leader a read goes to ``read_index.py``; elsewhere it is forwarded to the leader, and asked
again when no answer comes or the leader changes, each time under a new number (rule 6). When it is
known which index the read has to see, it waits until the application has applied that.
"""

import itertools

import msgspec

from gossip.consensus import messages as m
from gossip.consensus.configuration import Voter
from gossip.consensus.read_index import ReadAttempt, ReadIndex
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.requests import Overloaded, ReadFailed, ReadReady
from gossip.core.machine import Instant

NUMBER_RANDOM_BITS, NUMBER_COUNT_BITS = 31, 32


class PendingRead(msgspec.Struct):
    """A read under way; ``index`` is what it has to see, once that is known."""

    id: int
    until: Instant
    number: int = 0
    retry: Instant = 0.0
    index: int | None = None


class PendingReads:
    """What was asked here and is not answered yet."""

    def __init__(self, state: ReplicaState, read_index: ReadIndex) -> None:
        self._state = state
        self._read_index = read_index
        # An answer to our former life may still be under way: start where it never was.
        self._number = state.rng.getrandbits(NUMBER_RANDOM_BITS) << NUMBER_COUNT_BITS
        self._reads: dict[int, PendingRead] = {}
        """In the order in which they fail."""
        self._attempts: dict[int, PendingRead] = {}
        """By their numbers, in the order in which they are asked again."""
        self._known: dict[int, PendingRead] = {}
        """Those that only wait for the application."""

    def __len__(self) -> int:
        return len(self._reads)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def begin(self) -> int:
        """Begin a read; return its id. Raises Overloaded."""
        state = self._state
        if len(self._reads) >= state.tuning.reads_max:
            raise Overloaded(f"{len(self._reads)} reads are under way here; try again in a moment")
        read = PendingRead(self._next(), state.now + state.tuning.read_timeout_s)
        self._reads[read.id] = read
        self._try(read)
        return read.id

    def _try(self, read: PendingRead) -> None:
        """Ask who leads, under a number of its own; an attempt of before counts no more."""
        state = self._state
        self._attempts.pop(read.number, None)
        read.number = self._next()
        self._wait(read)
        if state.is_leader:
            self._read_index.begin(ReadAttempt(read.number, None))
        elif state.leader is not None:
            state.send(m.ReadRequest, state.leader, number=read.number)

    def _wait(self, read: PendingRead) -> None:
        self._attempts.pop(read.number, None)
        read.retry = self._state.now + self._state.tuning.read_retry_s
        self._attempts[read.number] = read

    def known(self, number: int, index: int | None) -> None:
        """An attempt has found what its read has to see; None: not there, so ask elsewhere soon."""
        read = self._attempts.get(number)
        if read is None or index is None:
            return
        del self._attempts[number]
        read.index = index
        self._known[read.id] = read
        self.applied()

    def answered(self, message: m.ReadReply, sender: Voter) -> None:
        """The leader has said which index a read has to see; nobody else can know."""
        if sender == self._state.leader:
            self.known(message.number, message.index)
        else:
            self._state.drop("no_leader")

    def leader_changed(self) -> None:
        """Ask the new leader about everything that the one before left open."""
        if self._state.leader is not None:
            for read in list(self._attempts.values()):
                self._try(read)

    def applied(self) -> None:
        """Answer what only waited for what the application has applied by now."""
        for read in list(self._known.values()):
            if read.index is not None and read.index <= self._state.log.applied:
                self._forget(read)
                self._state.outbound.emit(ReadReady(read.id, read.index))

    def _forget(self, read: PendingRead) -> None:
        del self._reads[read.id]
        self._known.pop(read.id, None)
        self._attempts.pop(read.number, None)

    def deadline(self) -> Instant | None:
        """Return when a read fails, or has to be asked again."""
        if not self._reads:
            return None
        fails = [read.until for read in itertools.islice(self._reads.values(), 1)]
        tries = [read.retry for read in itertools.islice(self._attempts.values(), 1)]
        return min(fails + tries, default=None)

    def wake(self) -> None:
        """Fail what was not answered in time, and ask again for what may have been lost."""
        now = self._state.now
        for read in [each for each in self._reads.values() if each.until <= now]:
            self._forget(read)
            self._state.outbound.emit(ReadFailed(read.id))
        for read in [each for each in self._attempts.values() if each.retry <= now]:
            if self._state.is_leader:
                # Its followers are asked with each heartbeat anyway.
                self._wait(read)
            else:
                self._try(read)
