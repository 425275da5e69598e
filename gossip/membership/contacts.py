"""What we found out about each member by talking with it: where from, how fast."""

from gossip.ids import NodeId
from gossip.machine import Address, Instant

RTT_WEIGHT = 1 / 8
"""How much a new round trip counts, as in TCP (RFC 6298)."""

PATH_HOLD_S = 5.0
"""A path that was used this recently is not given up for another: dual-stack peers alternate."""


class Contact:
    """One member, as we met it."""

    __slots__ = ("path_at", "rtt_s")

    def __init__(self) -> None:
        self.path_at: Instant = 0.0
        self.rtt_s: float | None = None


class Contacts:
    """Our own experience with the listed members; whoever unlists one says ``forget``."""

    def __init__(self) -> None:
        self._contacts: dict[NodeId, Contact] = {}

    def heard(self, node: NodeId, path: Address | None, source: Address, now: Instant) -> Address:
        """Note where a packet came from; return the path to prefer from now on to ``path``."""
        contact = self._contacts.setdefault(node, Contact())
        if path is not None and source != path and now - contact.path_at <= PATH_HOLD_S:
            return path
        contact.path_at = now
        return source

    def answered(self, node: NodeId, rtt_s: float) -> None:
        """Note a round trip."""
        contact = self._contacts.setdefault(node, Contact())
        before = contact.rtt_s
        contact.rtt_s = rtt_s if before is None else before + RTT_WEIGHT * (rtt_s - before)

    def rtt_s(self, node: NodeId) -> float | None:
        """Return the smoothed round trip in seconds; None before the first one."""
        contact = self._contacts.get(node)
        return contact.rtt_s if contact else None

    def forget(self, node: NodeId) -> None:
        """Drop what we know of a node."""
        self._contacts.pop(node, None)
