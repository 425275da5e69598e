"""How far two members are from each other: asked of one of them, else estimated here.

A member's own measurements are the best answer, so one of the two is asked over its stream. A
member that is down, busy, or of an earlier version does not answer in time; then the coordinates
that this node has of both have to do.
"""

from agent.loop.rpc import PendingReplies
from agent.runtime.driver import Driver
from gossip.core.ids import NodeId
from gossip.membership.rtt import Rtt, RttReported

ANSWER_TIMEOUT_S = 2.0


class RttClient:
    """Asks members for their round trips, and matches what they answer."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._known = driver.node.swim.rtt_service
        self._replies: PendingReplies[Rtt] = PendingReplies()
        driver.listen(self._on_event)

    async def between(self, one: NodeId, other: NodeId) -> Rtt:
        """Return what is known of the way between two nodes; nothing in it may be."""
        here = self._known.between(one, other)
        if one == other or self._driver.node.settings.me in (one, other):
            return here
        told = await self._ask(one, other)
        return told if told is not None and told.is_known else here

    async def _ask(self, peer: NodeId, target: NodeId) -> Rtt | None:
        number = self._driver.call(lambda now: self._driver.node.ask_round_trip(peer, target, now))
        try:  # the node numbers what it asks, and has sent it
            return await self._replies.request(peer, number, lambda: None, ANSWER_TIMEOUT_S)
        except TimeoutError:
            return None

    def _on_event(self, event: object) -> None:
        """Hand an answer to whoever waits for it; a late one is nobody's any more."""
        if isinstance(event, RttReported):
            self._replies.receive(event.peer, event.number, event.round_trip)
