"""Whom an issuer has not heard for so long that others are to have its partitions.

An owner that is off stays an owner for a time: most that are off are back soon, and each move of a
share wears flash at both its ends. When it was not heard for that time it is *missing*, which
stands in its entry of the registry (``registry.advance``): the placement passes it over, and its
partitions go to others by the stages of ``ownership.py``, as if it drained. It stays one of the
owners of before until those that follow are complete, so no majority is ever counted without it.

When it is heard again it is not an owner at once. It hands what it holds, with all that it took in
while it was alone, to those that are (``handoff.py``), and gets a share when it was heard at so
many looks one after the other; the more often it was missing lately, the more (*flapping*).

**Who judges.** Each issuer counts for itself what comes over its own streams, and asks who is
silent for a sign of life. Of these, the one that acts says so (``ownership_progress.py``), which is
the leader of the control plane; what it says counts when the log has it. No word of the
membership's is in this: a rumour moves nobody's data. And a judgement that is wrong moves data and
loses none, for it only ever sets a target.

**Looks are counted**, and not the time between them, so that an issuer that was suspended takes
nobody for missing on account of that; and a look at which nobody at all was heard is none, since
then it is we who are cut off.
"""

from collections import Counter

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.limits import (
    CONTACT_FLAPS_MAX,
    CONTACT_LOOKS,
    CONTACT_RETURN_LOOKS,
    CONTACT_STEADY_LOOKS,
)
from gossip.registry.registry import NOBODY, Registry, owners_of_any


class Contact:
    """What an issuer has heard of those who own something, and of those who are missing."""

    def __init__(self, me: NodeId, missing_after_s: float) -> None:
        """``missing_after_s``: for how long an owner may be silent; 0: for ever."""
        assert missing_after_s >= 0, "nobody is missed before it is silent"
        self._me = me
        self._half_look_s = missing_after_s / CONTACT_LOOKS / 2
        self._watched: frozenset[NodeId] = NOBODY
        self._missing: frozenset[NodeId] = NOBODY
        self._heard: set[NodeId] = set()
        self._in_vain: Counter[NodeId] = Counter()
        """At how many looks one after the other a node was not heard."""
        self._in_touch: Counter[NodeId] = Counter()
        """At how many looks one after the other it was."""
        self._flaps: Counter[NodeId] = Counter()
        self._at: Instant | None = None
        self._is_half = False

    def adopted(self, registry: Registry, now: Instant) -> None:
        """Watch those who own something in this registry, and those who are missing."""
        missing = frozenset(each.id for each in registry.nodes if each.missing)
        owning = owners_of_any(each for _, each in registry.ownerships)
        kept = {each.id for each in registry.nodes if each.id in owning and not each.drains}
        for node in self._missing - missing:
            self._flaps[node] = min(self._flaps[node] + 1, CONTACT_FLAPS_MAX)
        self._missing = missing
        self._watched = (missing | kept) - {self._me}
        assert self._me not in self._watched, "an issuer need not hear itself"
        for counts in (self._in_vain, self._in_touch, self._flaps):
            for node in counts.keys() - self._watched:
                del counts[node]
        if not self._half_look_s or not self._watched:
            self._at = None
        elif self._at is None:
            self._heard.clear()
            self._at, self._is_half = now + self._half_look_s, False

    def heard(self, node: NodeId) -> None:
        """Something came from a node over its own stream."""
        if node in self._watched:
            self._heard.add(node)

    def wake(self, now: Instant) -> tuple[NodeId, ...]:
        """Look, when it is time; return whom to ask for a sign of life."""
        if self._at is None or now < self._at:
            return ()
        self._at = now + self._half_look_s
        self._is_half = not self._is_half
        if not self._is_half and self._heard:
            self._look()
        return tuple(sorted(self._watched - self._heard)) if self._is_half else ()

    def _look(self) -> None:
        for node in self._watched:
            is_heard = node in self._heard
            self._in_vain[node] = 0 if is_heard else self._in_vain[node] + 1
            self._in_touch[node] = self._in_touch[node] + 1 if is_heard else 0
            if self._in_touch[node] >= CONTACT_STEADY_LOOKS:
                del self._flaps[node]
        self._heard.clear()

    @property
    def missing(self) -> frozenset[NodeId]:
        """Owners that were not heard for too long."""
        there = self._watched - self._missing - self._heard
        return frozenset(node for node in there if self._in_vain[node] >= CONTACT_LOOKS)

    @property
    def found(self) -> frozenset[NodeId]:
        """Missing ones that were heard again for long enough."""
        return frozenset(
            node
            for node in self._missing
            if self._in_touch[node] >= CONTACT_RETURN_LOOKS << self._flaps[node]
        )

    def deadline(self) -> Instant | None:
        """Return when to look, or to ask, next."""
        return self._at
