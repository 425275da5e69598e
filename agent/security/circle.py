"""The running covey as the key desk sees it: a few questions to the driver and its node."""

from collections.abc import Mapping

from agent.driver import Driver
from gossip.ids import NodeId
from gossip.machine import Address


class RunningCircle:
    """Implements the key desk's ``Circle`` on a driver and its node."""

    def __init__(self, driver: Driver) -> None:
        self._driver, self._node = driver, driver.node

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

    def live(self) -> frozenset[NodeId]:
        """Return the members that are there."""
        return frozenset(each.id for each in self._node.swim.members if each.is_live)

    def send_frame(self, data: bytes, to: NodeId) -> None:
        """Send a frame to a member."""
        self._driver.send_frame(data, to)

    def knock(self, at: Address) -> None:
        """Greet whoever is at this address."""
        self._driver.call(lambda now: self._node.discovered([at], now))
