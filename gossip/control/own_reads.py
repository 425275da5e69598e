"""This node's linearizable reads: asked of a voter, and of another one, until one can answer.

A voter asks itself, and another if nothing comes of that: its disk may hang, its copy stand still.
"""

import msgspec

from gossip.control.directory import VoterDirectory
from gossip.control.lookups import Lookup, LookupResult
from gossip.control.messages import LookupAsk, RedirectAnswer, RedirectReason
from gossip.control.outbound import ControlOutbound
from gossip.control.proposals import NO_MAJORITY, NOT_UNDERSTOOD
from gossip.control.requests import ControlCompleted, UnavailableResult, sooner
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

RETRY_S = 2.0
"""A read that was not answered is asked again after this; reads may be repeated freely."""
REDIRECTED_S = 0.25


class PendingLookup(msgspec.Struct):
    """One read that is under way."""

    request: int
    lookup: Lookup
    until: Instant
    retry_at: Instant
    number: int = 0
    target: NodeId = 0


class OwnReads:
    """Manages the reads of this node."""

    def __init__(self, outbound: ControlOutbound, directory: VoterDirectory) -> None:
        self._outbound = outbound
        self._directory = directory
        self.takes_part = False
        """Whether this node can find out by itself what a read has to see."""
        self._pending: dict[int, PendingLookup] = {}
        self._asked: dict[int, PendingLookup] = {}
        self._due: Instant | None = None
        """No later than when something is due; looked up anew when it has come."""

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, request: int, lookup: Lookup, timeout_s: float, now: Instant) -> None:
        """Ask."""
        read = PendingLookup(request, lookup, now + timeout_s, now)
        self._pending[request] = read
        self._ask(read, now)

    def _ask(self, read: PendingLookup, now: Instant) -> None:
        self._asked.pop(read.number, None)
        directory = self._directory
        asks_itself = self.takes_part and read.target != self._outbound.me
        target = self._outbound.me if asks_itself else directory.leader or directory.any_voter()
        read.retry_at = now + (RETRY_S if target is not None else REDIRECTED_S)
        self._due = sooner(self._due, min(read.until, read.retry_at))
        if target is not None:
            read.number = self._outbound.ask(LookupAsk(read.lookup), target)
            read.target = target
            self._asked[read.number] = read

    def asked(self, number: int) -> NodeId | None:
        """Return whom a question under way was sent to."""
        read = self._asked.get(number)
        return read.target if read else None

    def answered(self, number: int, index: int, result: LookupResult) -> bool:
        """Take in an answer; False if nobody asked."""
        read = self._asked.pop(number, None)
        if read is None:
            return False
        del self._pending[read.request]
        self._directory.answered()
        self._outbound.emit(ControlCompleted(read.request, index, result))
        return True

    def redirected(self, number: int, answer: RedirectAnswer, now: Instant) -> bool:
        """Somebody could not answer; False if nobody asked."""
        read = self._asked.pop(number, None)
        if read is None:
            return False
        if answer.reason is RedirectReason.INVALID:
            self.cancel(read.request)
            self._outbound.emit(
                ControlCompleted(read.request, 0, UnavailableResult(NOT_UNDERSTOOD))
            )
            return True
        if read.target != self._outbound.me:
            self._directory.failed(read.target)
        self._retry(read, now)
        return True

    def _retry(self, read: PendingLookup, now: Instant) -> None:
        read.retry_at = min(read.retry_at, now + REDIRECTED_S)
        self._due = sooner(self._due, read.retry_at)

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """A peer cannot be reached: ask another one."""
        for read in self._pending.values():
            if read.target == peer:
                self._retry(read, now)

    def cancel(self, request: int) -> bool:
        """Forget a read; False if there is none."""
        read = self._pending.pop(request, None)
        if read is not None:
            self._asked.pop(read.number, None)
        return read is not None

    def wake(self, now: Instant) -> None:
        """Give up what is out of time; ask again what was not answered."""
        if self._due is None or now < self._due:
            return
        for read in [each for each in self._pending.values() if each.until <= now]:
            self.cancel(read.request)
            result = UnavailableResult(NO_MAJORITY)
            self._outbound.emit(ControlCompleted(read.request, 0, result))
        for read in [each for each in self._pending.values() if each.retry_at <= now]:
            if read.number in self._asked and read.target != self._outbound.me:
                self._directory.failed(read.target)
            self._ask(read, now)
        dues = [min(each.until, each.retry_at) for each in self._pending.values()]
        self._due = min(dues, default=None)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        return self._due
