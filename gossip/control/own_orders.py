"""What operators order from this node, or want to know of the leader alone.

It is asked of the leader, and of the next one while nobody has answered.
"""

import msgspec

from gossip.control.directory import VoterDirectory
from gossip.control.leader_search import LeaderSearch
from gossip.control.messages import OverviewAnswer, OverviewAsk, ReplaceAnswer, ReplaceAsk
from gossip.control.outbound import ControlOutbound
from gossip.control.proposals import NO_MAJORITY
from gossip.control.requests import (
    ControlCompleted,
    ControlOrder,
    ControlOverview,
    ReplacementResult,
    UnavailableResult,
)
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

RETRY_S = 2.0
"""An order may be repeated freely: the newest counts, and it is the same one."""
REDIRECTED_S = 0.5


ANSWERS: dict[type, type] = {ReplaceAsk: ReplaceAnswer, OverviewAsk: OverviewAnswer}


class PendingOrder(msgspec.Struct):
    """One order that nobody has answered yet."""

    request: int
    ask: ReplaceAsk | OverviewAsk
    until: Instant
    retry_at: Instant
    number: int = 0
    target: NodeId = 0


class OwnOrders:
    """Manages the orders of this node."""

    def __init__(
        self, outbound: ControlOutbound, directory: VoterDirectory, search: LeaderSearch
    ) -> None:
        self._outbound = outbound
        self._directory = directory
        self._search = search
        self._pending: dict[int, PendingOrder] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, request: int, order: ControlOrder | ControlOverview, now: Instant) -> None:
        """Ask the leader."""
        ask: ReplaceAsk | OverviewAsk = OverviewAsk()
        if isinstance(order, ControlOrder):
            ask = ReplaceAsk(order.old, order.new)
        self._pending[request] = PendingOrder(request, ask, now + order.timeout_s, now)
        self.wake(now)

    def asked(self, number: int) -> NodeId | None:
        """Return whom a question under way was sent to."""
        pending = self._asked(number)
        return pending.target if pending else None

    def _asked(self, number: int) -> PendingOrder | None:
        return next((each for each in self._pending.values() if each.number == number), None)

    def answered(self, number: int, answer: ReplaceAnswer | OverviewAnswer) -> bool:
        """Take in an answer; False if nobody asked, or for something else."""
        pending = self._asked(number)
        if pending is None or ANSWERS[type(pending.ask)] is not type(answer):
            return False
        del self._pending[pending.request]
        result = ReplacementResult(answer.refusal) if isinstance(answer, ReplaceAnswer) else answer
        self._outbound.emit(ControlCompleted(pending.request, 0, result))
        return True

    def redirected(self, number: int, now: Instant) -> bool:
        """Somebody else leads; False if nobody asked."""
        pending = self._asked(number)
        if pending is not None:
            pending.number = 0
            pending.retry_at = min(pending.retry_at, now + REDIRECTED_S)
        return pending is not None

    def cancel(self, request: int) -> bool:
        """Forget an order; False if there is none. What the leader has begun goes on."""
        return self._pending.pop(request, None) is not None

    def wake(self, now: Instant) -> None:
        """Give up what is out of time; ask again what was not answered."""
        for pending in list(self._pending.values()):
            if pending.until <= now:
                del self._pending[pending.request]
                result = UnavailableResult(NO_MAJORITY)
                self._outbound.emit(ControlCompleted(pending.request, 0, result))
            elif pending.retry_at <= now:
                self._ask(pending, now)

    def _ask(self, pending: PendingOrder, now: Instant) -> None:
        if pending.number:
            # Not answered since the last time: perhaps another one leads by now.
            self._directory.failed(pending.target)
            pending.number = 0
        pending.retry_at = now + RETRY_S
        leader = self._search.leader(now)
        if leader is not None:
            pending.target = leader
            pending.number = self._outbound.ask(pending.ask, leader)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        if not self._pending:
            return None
        dues = [min(each.until, each.retry_at) for each in self._pending.values()]
        return min(dues, default=None)
