"""Which other owners take no puts because their disks are nearly full, as they have said.

An owner above its mark refuses puts, and takes all else: deletes, and what a read brings it. So a
coordinator that has heard of too many such refuses a put before it has written anything, instead
of one after the other that ends as indeterminate. Who said so is asked again every few seconds,
with the question for a sign of life, and counts as soon as it says that there is room.
"""

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.limits import FULL_AGAIN_S
from gossip.kv.messages import Ready
from gossip.kv.outbound import OutboundFrames
from gossip.kv.registry_sync import RegistrySync
from gossip.kv.timers import TimerQueue


class FullDisks:
    """Knows who takes no puts; membership has no say in it."""

    def __init__(self, outbound: OutboundFrames, registry_sync: RegistrySync) -> None:
        self._outbound = outbound
        self._registry_sync = registry_sync
        self._asked: TimerQueue[NodeId] = TimerQueue()

    def __contains__(self, node: NodeId) -> bool:
        return node in self._asked

    def heard(self, node: NodeId, now: Instant, *, is_full: bool) -> None:
        """Take note of what an owner says of its own disk."""
        if is_full and node in self._registry_sync.members:
            self._asked.set(node, now + FULL_AGAIN_S)
        else:
            self._asked.cancel(node)

    def wake(self, now: Instant) -> None:
        """Ask again whoever said so a while ago; forget who belongs no more."""
        for node in self._asked.pop_due(now):
            if node in self._registry_sync.members:
                self._asked.set(node, now + FULL_AGAIN_S)
                self._outbound.send(Ready(self._outbound.number()), node)

    def deadline(self) -> Instant | None:
        """Return when somebody is to be asked again."""
        return self._asked.deadline()
