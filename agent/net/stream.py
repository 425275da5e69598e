"""Streams between members: frames go out on what we dial, and come in on what we accept.

This is the half of the network that does not lose anything silently: what a node sends to
another arrives in order, or the node is told that it did not. ``link.py`` is one direction to one
node, ``listener.py`` all that comes in.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable

from agent.net.frames import framed
from agent.net.link import Connection, Link
from agent.net.listener import Listener, OnFrame, OnGuest
from agent.net.sockets import Sockets, connected_to, family_of
from agent.net.tls import dialling_context, listening_context, peer_of
from agent.net.trial import Outcome, Trial, try_stream
from agent.security.identity import Identity
from gossip.errors import Forged, RemoteError
from gossip.ids import NodeId, format_node_id
from gossip.machine import Address
from gossip.tuning import PATH_BYTES

ADDRESSES_TRIED_MAX = 4
ADDRESS_CHECKS, ADDRESS_CHECK_S = 30, 0.05
DIAL_S = 3.0
LINKS_MAX = 1024

log = logging.getLogger(__name__)


class Streams:
    """All streams of one agent."""

    def __init__(self, identity: Identity, sockets: Sockets, counts: Counter[str]) -> None:
        self.counts = counts
        self._identity = identity
        self._context = dialling_context(identity)
        listening = listening_context(identity)
        self._listener = Listener(
            sockets.stream, listening, identity.cluster_id, identity.node_id, counts
        )
        self._links: dict[NodeId, Link] = {}
        self._on_frame: OnFrame
        self._on_unreachable: Callable[[NodeId], None]
        self._on_closed: Callable[[NodeId], None]
        self._addresses_of: Callable[[NodeId], Iterable[Address]]
        self._path_bytes: Callable[[NodeId], int]
        self._greeting: Callable[[], bytes] | None = None

    def start(
        self,
        *,
        on_frame: OnFrame,
        on_unreachable: Callable[[NodeId], None],
        on_closed: Callable[[NodeId], None],
        addresses_of: Callable[[NodeId], Iterable[Address]],
        on_guest: OnGuest,
        path_bytes: Callable[[NodeId], int] = lambda _node: PATH_BYTES,
        greeting: Callable[[], bytes] | None = None,
    ) -> None:
        """Begin to accept and to dial.

        ``on_frame(data, peer)`` gets what members send; ``on_unreachable(peer)`` hears of frames
        that could not be delivered, never from within ``send``; ``on_closed(peer)`` of open streams
        that the other side ended; ``addresses_of(node)`` says where to dial, best first;
        ``on_guest(reader, writer)`` serves a device without certificate; ``path_bytes(node)`` says
        how large IP packets to a node may be; ``greeting()`` is the frame to say first on each
        stream that we dialled.
        """
        self._on_unreachable, self._on_closed = on_unreachable, on_closed
        self._addresses_of, self._greeting = addresses_of, greeting
        self._on_frame, self._path_bytes = on_frame, path_bytes
        self._listener.start(self._heard, on_guest)

    async def stop(self) -> None:
        """Close everything; what waits is forgotten."""
        await self._listener.stop()
        await asyncio.gather(*(link.stop() for link in self._links.values()))
        self._links.clear()

    def send(self, data: bytes, to: NodeId) -> None:
        """Queue a frame for a node, dialling if need be. Never blocks or raises."""
        self._link_to(to).send(data)

    async def try_out(self, to: NodeId) -> Trial | None:
        """Open a stream to a node on trial; tell the best attempt, None without an address."""
        best: Trial | None = None
        for address in list(self._addresses_of(to))[:ADDRESSES_TRIED_MAX]:
            trial = await try_stream(address, self._context, self._path_bytes(to))
            if trial.outcome is Outcome.OPEN:
                return trial
            if best is None or best.outcome is Outcome.NO_ROUTE:
                best = trial
        return best

    def keep(self, peers: Iterable[NodeId]) -> None:
        """Hold a stream open to each of these members, also in silence, and to nobody else."""
        kept = frozenset(peers)
        for peer in kept:
            self._link_to(peer).keep()
        for to, link in self._links.items():
            if to not in kept:
                link.let_go()

    def _heard(self, frame: bytes, peer: NodeId) -> None:
        """Hand a frame on; whoever sends one is there, and may be waiting for the answer."""
        if peer in self._links:
            self._links[peer].warm()
        self._on_frame(frame, peer)

    def _link_to(self, to: NodeId) -> Link:
        link = self._links.get(to)
        if link is None:
            if len(self._links) >= LINKS_MAX:
                self._forget_idle()
            link = Link(to, self._dial, self._on_unreachable, self._on_closed, self.counts)
            self._links[to] = link
        return link

    def _forget_idle(self) -> None:
        for to in [to for to, link in self._links.items() if link.is_idle]:
            del self._links[to]

    async def _dial(self, to: NodeId) -> Connection:
        """Connect to a node at the first address that answers. Raises OSError, RemoteError."""
        failure: OSError | RemoteError = OSError(f"no address of {format_node_id(to)} is known")
        for address in await self._await_addresses(to):
            if family_of(address.host) is None:
                continue
            try:
                return await self._dial_address(to, address)
            except (OSError, RemoteError) as error:
                failure = error
                log.debug("cannot reach %s at %s: %s", format_node_id(to), address, error)
        raise failure

    async def _await_addresses(self, to: NodeId) -> list[Address]:
        """Return where to dial; a node that starts hears of the others a moment later."""
        for _ in range(ADDRESS_CHECKS):
            if known := list(self._addresses_of(to)):
                return known[:ADDRESSES_TRIED_MAX]
            await asyncio.sleep(ADDRESS_CHECK_S)
        return []

    async def _dial_address(self, to: NodeId, address: Address) -> Connection:
        async with asyncio.timeout(DIAL_S):
            connected = await connected_to(address.host, address.port, self._path_bytes(to))
            # The empty name keeps asyncio from sending and checking a host name.
            reader, writer = await asyncio.open_connection(
                sock=connected, ssl=self._context, server_hostname=""
            )
        try:
            peer = peer_of(writer.get_extra_info("ssl_object"), self._identity.cluster_id)
            if peer != to:
                raise Forged(f"{address} is not {format_node_id(to)}")
        except RemoteError:
            writer.transport.abort()
            self.counts["streams/wrong_node"] += 1
            raise
        if self._greeting is not None:
            writer.write(framed(self._greeting()))
            self.counts["frames/sent"] += 1
        return reader, writer
