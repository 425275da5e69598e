"""The running covey as the admission desk sees it: a few questions to the driver and its node."""

from collections.abc import Iterable

from agent.admission.messages import KnownPeer
from agent.driver import Driver
from gossip.ids import NodeId
from gossip.membership.addresses import only_gossiped
from gossip.state.admitted import Admitted

PEERS_MAX = 32


class RunningCovey:
    """Implements the desk's ``Covey`` on a driver and its node."""

    def __init__(self, driver: Driver) -> None:
        self._driver, self._node = driver, driver.node

    def issuers(self) -> list[NodeId]:
        """Return the other members that can issue, best to reach first."""
        me = self._node.settings.me
        registry = self._node.state.registry
        issuers = [entry.id for entry in registry.nodes if entry.is_issuer and entry.id != me]
        return self._node.swim.reachable_first(issuers)

    def issuer_names(self) -> list[str]:
        """Return the names of all members that can issue."""
        return [entry.name for entry in self._node.state.registry.nodes if entry.is_issuer]

    def known_peers(self) -> Iterable[KnownPeer]:
        """Return members that a new node may try first: this one, then those nearest to it.

        Of each, where its packets come from stands before what it says of itself.
        """
        members = self._node.swim.members
        best = self._node.swim.reachable_first(members.live_ids)[:PEERS_MAX]
        return [
            KnownPeer(node, members[node].name, only_gossiped(self._node.addresses_of(node)))
            for node in best
        ]

    def entry(self, node: NodeId) -> Admitted | None:
        """Return a node's place in the registry."""
        return self._node.state.registry.node(node)

    def adopt(self, signed: bytes) -> None:
        """Follow this registry from now on, and offer it to all whom it names."""
        self._driver.call(lambda now: self._node.adopt_registry(signed, now, announce=True))

    def send_frame(self, data: bytes, to: NodeId) -> None:
        """Send a frame to a member."""
        self._driver.send_frame(data, to)
