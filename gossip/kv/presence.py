"""Who is there to own partitions: those whom the issuer has heard itself.

A device is admitted before it runs, and may never run. While it is *absent*, which stands in its
entry of the registry from its admission on, it is no target of the placement, so nothing waits for
it. It says that it is there as soon as it runs (``ownership_progress.py``); whatever comes of it
over its own stream will do. Then the next registry has it present, and gives it its share.

Back to absent goes only who owns nothing (*idle*), most of all a newcomer whose partitions wait in
copying for it. When the issuer has looked for it ten times in vain, a minute apart, they go to
others. Looks are counted and not time, so an issuer that was paused, suspended or started anew
takes nobody for gone on account of that. A member that others reach and the issuer does not is
away as well: what it has copied cannot be told, so it cannot go on.

Who owns something is never absent. While it is off it stays an owner, and when it is off for long
others get its share, while its copy counts on (``contact.py``): an acknowledged write may depend on
it, and only an operator knows that it never comes back (``registry.remove``).

This is no word of the membership's: who is alive there may be out of date, and decides nothing.
"""

from collections import Counter

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.limits import PRESENCE_CHECK_S, PRESENCE_CHECKS_MAX
from gossip.registry.registry import NOBODY, Registry


class Presence:
    """What an issuer has heard of those who own nothing."""

    def __init__(self) -> None:
        self.here: frozenset[NodeId] = NOBODY
        """Absent ones that were heard."""
        self._absent: frozenset[NodeId] = NOBODY
        self._idle: frozenset[NodeId] = NOBODY
        self._failed_checks: Counter[NodeId] = Counter()
        self._check_at: Instant | None = None

    def adopted(self, registry: Registry, now: Instant) -> None:
        """Watch those who own nothing in this registry."""
        self._absent = frozenset(each.id for each in registry.absent)
        self._idle = registry.idle
        self.here &= self._absent
        for node in self._failed_checks.keys() - self._idle:
            del self._failed_checks[node]
        if not self._idle:
            self._check_at = None
        elif self._check_at is None:
            self._check_at = now + PRESENCE_CHECK_S

    def saw_frame(self, node: NodeId) -> bool:
        """A frame of this node came; say whether that is news."""
        self._failed_checks.pop(node, None)
        if node not in self._absent or node in self.here:
            return False
        self.here |= {node}
        return True

    @property
    def away(self) -> frozenset[NodeId]:
        """Idle ones that were not heard for too long."""
        vain = self._failed_checks
        return frozenset(node for node in vain if vain[node] > PRESENCE_CHECKS_MAX)

    def wake(self, now: Instant) -> bool:
        """Look for those who own nothing, when it is time; say whether it was."""
        if self._check_at is None or now < self._check_at:
            return False
        self._check_at = now + PRESENCE_CHECK_S
        self._failed_checks.update(self._idle)
        return True

    def deadline(self) -> Instant | None:
        """Return when to look next."""
        return self._check_at
