"""Where nodes are reached, and whom to try first.

These are hints for whoever has to talk to some of several nodes: a wrong one costs time, and
nothing else may depend on them.
"""

import math
from collections.abc import Iterable

from gossip.core.ids import NodeId
from gossip.core.machine import Address
from gossip.membership.members.departed import DepartedPeers
from gossip.membership.model.members import Member, MemberState, MemberTable
from gossip.membership.network.reachability import Reachability

RELUCTANCE: dict[MemberState | None, int] = {
    MemberState.ALIVE: 0,
    MemberState.SUSPECT: 1,
    None: 2,
    MemberState.ASLEEP: 3,
    MemberState.DEAD: 4,
    MemberState.LEFT: 4,
}
"""In which order to try nodes, by what we believe about them."""


RELAYS_MAX = 3
"""So many are asked to carry a stream, one after the other."""


class ContactOrder:
    """Says where nodes are reached and whom to try first, by the list and what worked before."""

    def __init__(
        self, me: NodeId, members: MemberTable, departed: DepartedPeers, reachability: Reachability
    ) -> None:
        self._me = me
        self._members = members
        self._departed = departed
        self._reachability = reachability

    def addresses_of(self, node: NodeId) -> list[Address]:
        """Return where a node may be reached, best first; empty when nobody knows."""
        member = self._members.get(node)
        if member is not None:
            return list(member.addresses_by_preference)
        forgotten = self._departed.get(node)
        return list(forgotten.addresses) if forgotten else []

    def relays_to(self, node: NodeId) -> list[NodeId]:
        """Return who may carry a stream to a member that we cannot dial, best first.

        Those that have an address of its family and one of ours, and of them the nearest.
        """
        target = self._members.get(node)
        if target is None or not target.is_live:
            return []
        us, them = _families(self._members.get(self._me)), _families(target)

        def lacks(relay: Member) -> int:
            theirs = _families(relay)
            return theirs.isdisjoint(us) + theirs.isdisjoint(them)

        able = [
            member
            for member in self._members.others(self._me)
            if member.id != node and member.state is MemberState.ALIVE and member.has_address
        ]
        able.sort(key=lambda member: (lacks(member), self._reluctance(member.id)))
        return [member.id for member in able[:RELAYS_MAX]]

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
        rtt_s = self._reachability.expected_rtt_s(node)
        unknown = RELUCTANCE[member.state if member else None]
        return unknown, math.inf if rtt_s is None else rtt_s, node


def _families(member: Member | None) -> set[bool]:
    """Return which address families a member tells: True stands for IPv6."""
    return set() if member is None else {":" in address.host for address in member.addresses}
