"""Where nodes are reached, and whom to try first.

These are hints for whoever has to talk to some of several nodes: a wrong one costs time, and
nothing else may depend on them.
"""

import math
from collections.abc import Iterable

from gossip.ids import NodeId
from gossip.machine import Address
from gossip.membership.book import Book, addresses_of
from gossip.membership.contacts import Contacts
from gossip.membership.members import MemberState, MemberTable

RELUCTANCE: dict[MemberState | None, int] = {
    MemberState.ALIVE: 0,
    MemberState.SUSPECT: 1,
    None: 2,
    MemberState.ASLEEP: 3,
    MemberState.DEAD: 4,
    MemberState.LEFT: 4,
}
"""In which order to try nodes, by what we believe about them."""


class Reach:
    """Answers from the list, the address book and our own experience."""

    def __init__(self, me: NodeId, members: MemberTable, book: Book, contacts: Contacts) -> None:
        self._me = me
        self._members = members
        self._book = book
        self._contacts = contacts

    def addresses_of(self, node: NodeId) -> list[Address]:
        """Return where a node may be reached, best first; empty when nobody knows."""
        member = self._members.get(node)
        if member is not None:
            return list(addresses_of(member))
        forgotten = self._book.get(node)
        return list(forgotten.addresses) if forgotten else []

    def reachable_first(self, nodes: Iterable[NodeId]) -> list[NodeId]:
        """Return the nodes in the order in which to try them.

        Ourselves, then the alive by round trip (measured, else estimated from coordinates), the
        suspect, the unknown, the sleepers, and the departed last.
        """
        return sorted(nodes, key=self._reluctance)

    def _reluctance(self, node: NodeId) -> tuple[int, float, NodeId]:
        if node == self._me:
            return -1, 0.0, node
        member = self._members.get(node)
        rtt_s = self._contacts.expected_rtt_s(node)
        unknown = RELUCTANCE[member.state if member else None]
        return unknown, math.inf if rtt_s is None else rtt_s, node
