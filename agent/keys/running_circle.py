"""The running covey as the key desk sees it: a few questions to the driver and its node."""

from collections.abc import Mapping

from agent.runtime.driver import Driver
from agent.store.known_peers import KnownPeers
from gossip.core.ids import NodeId
from gossip.core.machine import Address


class NodeKeyView:
    """Implements the key desk's ``Circle`` on a driver and its node."""

    def __init__(self, driver: Driver, book: KnownPeers) -> None:
        self._driver, self._node, self._book = driver, driver.node, book

    def admitted(self) -> Mapping[NodeId, str]:
        """Return the names of all nodes in the registry."""
        return {entry.id: entry.name for entry in self._node.state.registry.nodes}

    def issuers(self) -> list[NodeId]:
        """Return the other nodes that hold the authority's key, best to reach first."""
        me, nodes = self._node.settings.me, self._node.state.registry.nodes
        issuers = [entry.id for entry in nodes if entry.is_issuer and entry.id != me]
        return self._node.swim.reachable_first(issuers)

    def may_order(self, node: NodeId) -> bool:
        """Tell whether this member's operator has the right to."""
        entry = self._node.state.registry.node(node)
        return entry is not None and entry.may_invite

    def epoch(self) -> int:
        """Return the epoch of our registry."""
        return self._node.state.registry.epoch

    def removed_at(self) -> int:
        """Return since which epoch the node that was removed last is gone; 0 if none was."""
        return max((gone.epoch for gone in self._node.state.registry.removed), default=0)

    def seen(self) -> frozenset[NodeId]:
        """Return the nodes that were ever heard here, in this life of ours or an earlier one."""
        return frozenset(self._book.seen).union(self._node.swim.members.ids)

    def live(self) -> frozenset[NodeId]:
        """Return the members that are there."""
        return frozenset(each.id for each in self._node.swim.members if each.is_live)

    def send_frame(self, data: bytes, to: NodeId) -> None:
        """Send a frame to a member."""
        self._driver.send_frame(data, to)

    def greet(self, at: Address) -> None:
        """Greet whoever is at this address."""
        self._driver.call(lambda now: self._node.discovered([at], now))
