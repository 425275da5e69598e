"""Departed peers with their addresses: kept for ever, so that no split is for ever.

A dead member is taken off the list in the end, but its addresses stay here and get Hellos, slowly
and without end (``bootstrap.py``). Systems that forget instead never heal a split that lasts
longer than their memory. Whoever said goodbye is not among them.
"""

from collections.abc import Iterator

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Address, Instant
from gossip.membership.model.members import Member


class DepartedPeer(msgspec.Struct, frozen=True):
    """A peer that is no longer listed."""

    id: NodeId
    name: str
    addresses: tuple[Address, ...]
    since: Instant
    """When it died, on our clock."""


class DepartedPeers:
    """Manages at most ``limit`` peers that are not listed any more; the longest gone makes room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._peers: dict[NodeId, DepartedPeer] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[DepartedPeer]:
        return iter(self._peers.values())

    def get(self, node: NodeId) -> DepartedPeer | None:
        """Return the peer; None when it is not among them."""
        return self._peers.get(node)

    def add(self, member: Member) -> None:
        """Keep where the member could be reached."""
        assert not member.is_live, "who is listed as being there is not forgotten"
        self.remove(member.id)
        self._peers[member.id] = DepartedPeer(
            member.id, member.name, member.addresses_by_preference, member.changed_at
        )
        if len(self._peers) > self._limit:
            del self._peers[next(iter(self._peers))]

    def remove(self, node: NodeId) -> None:
        """Drop a peer: it is listed again, or does not belong to the covey any more."""
        self._peers.pop(node, None)
