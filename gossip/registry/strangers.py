"""Who knocks and is not in the registry: remembered for people, and answered now and then.

A device that was removed keeps its certificate, and the keys until they are rotated. One that was
admitted a moment ago is as strange to whoever has not got the new registry. To both only one thing
is said: here is the registry that I follow. The one reads in it that it was removed; the other has
a newer one, and answers with it.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Address, Instant

STRANGERS_MAX = 64
NOTIFY_AGAIN_S = 30.0
"""How often one stranger is told; a datagram that proves nothing can name anybody."""
NOTIFY_ANYBODY_S = 0.25
REMEMBERED_S = 3600.0
PARTING_S = 10.0
"""So long the last packets of somebody who was taken out are on their way, and no knock."""


class DatagramRefused(msgspec.Struct, frozen=True):
    """Emitted for each datagram in the name of somebody who is not in the registry.

    That its sender has the covey's key is proved, unless that node was removed: then nothing is.
    """

    node: NodeId
    source: Address


class Stranger(msgspec.Struct, frozen=True):
    """Somebody who knocked, on our own clock."""

    id: NodeId
    source: Address | None
    """Where its last datagram came from; None when it only opened streams."""
    last_at: Instant
    knocks: int
    notified_at: Instant = -math.inf


class Strangers:
    """A bounded book of those who knock; the longest silent makes room."""

    def __init__(self) -> None:
        self._known: OrderedDict[NodeId, Stranger] = OrderedDict()
        self._notified_at = -math.inf
        self._parted_at: dict[NodeId, Instant] = {}

    def __iter__(self) -> Iterator[Stranger]:
        return iter(tuple(self._known.values()))

    def since(self, now: Instant) -> list[Stranger]:
        """Return who knocked within the last hour, but for who has just gone."""
        return [
            each
            for each in self
            if now - each.last_at < REMEMBERED_S
            and each.last_at - self._parted_at.get(each.id, -math.inf) >= PARTING_S
        ]

    def part(self, nodes: frozenset[NodeId], now: Instant) -> None:
        """Take down that these were members until now."""
        is_fresh = {node: at for node, at in self._parted_at.items() if now - at < REMEMBERED_S}
        self._parted_at = is_fresh | dict.fromkeys(nodes, now)

    def record(self, node: NodeId, source: Address | None, now: Instant) -> None:
        """Take down that somebody knocked."""
        assert node, "nobody has the id 0"
        known = self._known.pop(node, None) or Stranger(node, None, now, 0)
        self._known[node] = msgspec.structs.replace(
            known, source=source or known.source, last_at=now, knocks=known.knocks + 1
        )
        if len(self._known) > STRANGERS_MAX:
            self._known.popitem(last=False)

    def is_due(self, node: NodeId, now: Instant) -> bool:
        """Say whether to tell somebody who knocked which registry we follow; count it as done."""
        known = self._known[node]
        if now - known.notified_at < NOTIFY_AGAIN_S or now - self._notified_at < NOTIFY_ANYBODY_S:
            return False
        self._notified_at = now
        self._known[node] = msgspec.structs.replace(known, notified_at=now)
        return True

    def source_of(self, node: NodeId) -> list[Address]:
        """Return where a stranger knocked from, if anybody knows."""
        known = self._known.get(node)
        return [known.source] if known is not None and known.source is not None else []

    def admit(self, nodes: frozenset[NodeId]) -> None:
        """Forget those who are strangers no longer."""
        for node in nodes.intersection(self._known):
            del self._known[node]
