"""Who watches whom: each node keeps a stream open to a few members, to hear when it ends.

When a process dies, its kernel closes its connections at once, whereas a probe comes round only
once in a while. So every node keeps idle streams to the members that follow it on a ring of ids,
and each member is thus watched by as many. The ring is made of what a node believes about who is
alive. Two nodes that believe differently watch somewhat differently, and nothing else follows from
that: the end of a stream is only a reason to look (``crash_detector.py``).
"""

import math
from bisect import bisect_left

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.tuning import Tuning
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.model.members import MemberTable


class SubjectsChanged(msgspec.Struct, frozen=True):
    """Told to the driver: keep streams open to these members, and to nobody else for their sake."""

    watched: tuple[NodeId, ...]


class Observers:
    """Says to whom to keep a stream open, and tells the driver when that changes."""

    def __init__(
        self, me: NodeId, members: MemberTable, outbound: Outbound, tuning: Tuning, now: Instant
    ) -> None:
        self.watched: tuple[NodeId, ...] = ()
        self._me = me
        self._members = members
        self._outbound = outbound
        self._tuning = tuning
        self._changes_seen = members.changes
        self._due_at: Instant = now + tuning.observers_settle_s

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due; infinity while nobody came or went."""
        return self._due_at

    def notice(self, now: Instant) -> None:
        """Look at the end of each input whether the list has changed."""
        if self._changes_seen != self._members.changes:
            self._changes_seen = self._members.changes
            if self._due_at == math.inf:
                self._due_at = now + self._tuning.observers_settle_s

    def wake(self, now: Instant) -> None:
        """Look up whom to watch, some time after the first change."""
        if self._due_at > now:
            return
        self._due_at = math.inf
        watched = self._near(self._me, range(self._tuning.observers_per_member))
        if watched != self.watched:
            self.watched = watched
            self._outbound.emit(SubjectsChanged(watched))

    def watchers_of(self, node: NodeId) -> list[NodeId]:
        """Return the other members that should be watching this one."""
        before = range(-1, -self._tuning.observers_per_member - 1, -1)
        return [other for other in self._near(node, before) if other != self._me]

    def _near(self, node: NodeId, steps: range) -> tuple[NodeId, ...]:
        """Return the members so many places behind (or before) a node on the ring of ids."""
        ring = self._members.live_ids
        at = bisect_left(ring, node)
        listed = at < len(ring) and ring[at] == node
        if len(ring) == listed:
            return ()
        # The ring without the node itself, whose place those behind it take.
        size = len(ring) - listed
        places = [(at + step) % size for step in steps]
        return tuple(dict.fromkeys(ring[n + (listed and n >= at)] for n in places))
