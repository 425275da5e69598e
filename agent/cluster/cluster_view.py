"""The running covey, as those see it who let nodes in and change its keys: asked of the driver."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from agent import exits
from agent.config.fact_rules import COMMANDS
from agent.exits import AgentError
from agent.identity.identity import Identity
from agent.runtime.driver import Driver
from agent.store.control import ControlStore
from agent.store.known_peers import KnownPeers
from agent.system.wall_clock import BACKDATED_S
from gossip.control.plane import ControlPlane
from gossip.core.ids import NodeId
from gossip.core.machine import Address
from gossip.kv.requests import FORK_REASON
from gossip.membership.model.addresses import only_gossiped
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import Registry, SignedRegistry
from gossip.registry.succession import Succession

PEERS_MAX = 32
HEARD_WITHIN_S = 30.0
"""So long after a start who was not heard yet is taken to be there."""
LOOK_S = 0.05
FOLLOW_S, FOLLOW_LOOK_S = 2.0, 0.01
FRESH_S = 120.0
"""Nobody founds a covey, backs it up, lets somebody in and restores it in two minutes."""

T = TypeVar("T")


class ReachablePeer(NamedTuple):
    """A member that a new node may try first."""

    id: NodeId
    name: str
    addresses: tuple[Address, ...]


class ClusterView:
    """Answers questions about members and registry, from one node, and carries out what follows."""

    def __init__(
        self,
        driver: Driver,
        identity: Identity,
        known_peers: KnownPeers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity, self._known_peers = identity, known_peers
        self._clock, self._began = clock, clock()
        self._driver, self._node = driver, driver.node

    def issuers(self) -> list[NodeId]:
        """Return the other nodes that hold the authority's key, whom to ask first first."""
        me = self._node.settings.me
        registry = self._node.state.registry
        issuers = [entry.id for entry in registry.nodes if entry.is_issuer and entry.id != me]
        leader = self.leader()
        return sorted(self._node.swim.reachable_first(issuers), key=lambda each: each != leader)

    def leader(self) -> NodeId | None:
        """Return who leads the control plane, as far as this node knows."""
        return self._control(lambda plane: plane.directory.leader)

    def voters(self) -> tuple[NodeId, ...]:
        """Return who votes by what is committed, as far as this node's copy has come."""
        return self._control(lambda plane: tuple(v.node for v in plane.part.configuration.voters))

    def acts(self) -> bool:
        """Tell whether it is for this issuer to do what one of several has to.

        Two that think so, or none for a while, cost time alone: the log lets one of them win.
        """
        voters, registry = self.voters(), self._node.state.registry
        issuers = [each.id for each in registry.nodes if each.is_issuer and each.id in voters]
        issuers = issuers or [each.id for each in registry.nodes if each.is_issuer]
        if (leader := self.leader()) in issuers:
            return leader == self._node.settings.me
        return self._node.swim.reachable_first(issuers)[:1] == [self._node.settings.me]

    def _control(self, look: Callable[[ControlPlane], T]) -> T:
        return self._node.see_control(look)

    def issuer_names(self) -> list[str]:
        """Return the names of all nodes that hold the authority's key."""
        return [entry.name for entry in self._node.state.registry.nodes if entry.is_issuer]

    def nearest(self) -> list[ReachablePeer]:
        """Return members that a new node may try first: this one, then those nearest to it.

        Of each, where its packets come from stands before what it says of itself.
        """
        members = self._node.swim.members
        best = self._node.swim.reachable_first(members.live_ids)[:PEERS_MAX]
        return [
            ReachablePeer(node, members[node].name, only_gossiped(self._node.addresses_of(node)))
            for node in best
        ]

    async def is_there(self, node: NodeId) -> bool:
        """Tell whether a node is there, as far as this node can find out; takes seconds if not.

        That it is dead or has left may be a lie of some member; so it is looked for in person.
        """
        return node in self._there() or await self._driver.meets(node)

    def _there(self) -> frozenset[NodeId]:
        """Return the members that are alive, or asleep.

        After a start nobody has been heard, and nobody is held for gone on account of that.
        """
        members = self._node.swim.members
        there = frozenset(each.id for each in members if not each.state.is_departed)
        if self._clock() - self._began >= HEARD_WITHIN_S:
            return there
        return there.union(self._node.state.registry.ids()).difference(
            each.id for each in members if each.state.is_departed
        )

    def live(self) -> frozenset[NodeId]:
        """Return the members that are alive."""
        return frozenset(each.id for each in self._node.swim.members if each.is_live)

    def seen(self) -> frozenset[NodeId]:
        """Return the nodes that were ever heard here, in this life of ours or an earlier one."""
        return frozenset(self._known_peers.seen).union(self._node.swim.members.ids)

    def entry(self, node: NodeId) -> RegisteredNode | None:
        """Return a node's place in the registry; None when it has none."""
        return self._node.state.registry.node(node)

    def may_order(self, node: NodeId) -> bool:
        """Tell whether this member's operator has the right to."""
        entry = self.entry(node)
        return entry is not None and entry.may_invite

    def admitted(self) -> Mapping[NodeId, str]:
        """Return the names of all nodes in the registry, this one among them."""
        return {entry.id: entry.name for entry in self._node.state.registry.nodes}

    def epoch(self) -> int:
        """Return the epoch of our registry."""
        return self._node.state.registry.epoch

    def removed_at(self) -> int:
        """Return since which epoch the node that was removed last is gone; 0 if none was."""
        return max((gone.epoch for gone in self._node.state.registry.removed), default=0)

    async def catch_up(self) -> tuple[int, bytes]:
        """Wait until nobody is known to have a newer registry. Raises AgentError for a fork."""
        registrar = self._node.state.registry_sync
        # Nobody tells when nothing was heard for long enough.
        while not self._is_fresh() and not registrar.is_current(self._driver.now()):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        if registrar.rival is not None:
            message, _, hint = FORK_REASON.partition("; ")
            raise AgentError(f"{message}; nothing was changed.", hint, exits.UNHEALTHY)
        return registrar.registry.epoch, registrar.signed

    def fork(self) -> tuple[bytes, bytes] | None:
        """Return our registry and the one that shows that it has forked; None if it has not."""
        registrar = self._node.state.registry_sync
        return None if registrar.rival is None else (registrar.signed, registrar.rival_signed)

    def _is_fresh(self) -> bool:
        """Tell whether the covey was founded a moment ago, so that nobody else can know of it."""
        age_s = time.time() - self._identity.valid_from - BACKDATED_S
        return self._node.state.registry.epoch == 1 and 0 <= age_s < FRESH_S

    def registry(self) -> Registry:
        """Return who belongs."""
        return self._node.state.registry

    def successions(self) -> tuple[Succession, ...]:
        """Return how the present authority came after those before it."""
        return self._node.state.registry.successions

    def signed(self) -> bytes:
        """Return the registry that this node follows, as it was signed."""
        return self._node.state.signed

    async def follow(self, signed: bytes, store: ControlStore) -> None:
        """Return when this node follows a registry that is agreed on, or a later one.

        Its copy of the log brings it, and has it saved first; where that is held up, this does.
        """
        epoch = Registry.decode(SignedRegistry.decode(signed).payload).epoch
        until = self._clock() + FOLLOW_S
        while self.epoch() < epoch and self._clock() < until:  # noqa: ASYNC110 - milliseconds
            await asyncio.sleep(FOLLOW_LOOK_S)
        if self.epoch() < epoch:
            await store.save_registry(epoch, signed)
            self._driver.call(lambda now: self._node.adopt_registry(signed, now, announce=True))

    def check_understood(self, tag: int) -> None:
        """Return if all voters that are there carry out commands up to this one.

        A log in which one stands that they do not know is one that they cannot go on with. That is
        said of themselves, as facts. Raises AgentError.
        """
        live, facts_of = self.live(), self._node.swim.facts_of
        behind = [
            entry.name
            for voter in self.voters()
            if voter in live and (entry := self.entry(voter)) is not None
            if int(facts_of(voter).get(COMMANDS, "0")) < tag
        ]
        if behind:
            raise AgentError(
                f"{', '.join(behind)} votes, and runs a version that has no registry in its log; "
                "nothing was changed.",
                "Update it; the rest goes on by itself.",
                exits.UNHEALTHY,
            )

    def lacking(self, fact: str) -> list[str]:
        """Return the names of the members that are there and do not say this of themselves."""
        live, facts_of = self.live(), self._node.swim.facts_of
        return [
            entry.name
            for entry in self._node.state.registry.nodes
            if entry.id in live and fact not in facts_of(entry.id)
        ]

    def send_frame(self, data: bytes, to: NodeId) -> None:
        """Send a frame to a member."""
        self._driver.send_frame(data, to)

    def send_hello(self, at: Address) -> None:
        """Greet whoever is at this address."""
        self._driver.call(lambda now: self._node.discovered([at], now))
