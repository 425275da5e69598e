"""Streams between members: frames go out on what we dial, and come in on what we accept.

This is the half of the network that does not lose anything silently: what a node sends to another
arrives in order, or the node is told that it did not. ``outgoing.py`` is one direction to one node,
``listener.py`` all that comes in. Who cannot be dialled is reached through somebody who can dial it
(``relay_client.py``, ``relay.py``); above this file nobody notices.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Iterable

from agent.identity.identity import Identity
from agent.net.authorization import Authorization, NotAdmitted, ShownCertificate
from agent.net.dial_test import DialOutcome, DialTest, try_stream
from agent.net.framing import framed
from agent.net.listener import Listener, OnFrame, OnGuest
from agent.net.outgoing import Connection, LinkState, OutgoingStream, keep_alive
from agent.net.relay import Relay
from agent.net.relay_client import SHUTDOWN_S, NotPutThrough, through
from agent.net.sockets import Sockets, connected_to, family_of
from agent.net.tls import (
    dialling_context,
    is_strange_authority,
    listening_context,
    relayed_context,
    shown_by,
)
from gossip.core.errors import Forged, RemoteError
from gossip.core.ids import NodeId, format_node_id
from gossip.core.machine import Address
from gossip.core.tuning import PATH_BYTES

ADDRESSES_TRIED_MAX = 4
ADDRESS_CHECKS, ADDRESS_CHECK_S = 30, 0.05
DIAL_S = 3.0
FORMER_S = 5.0
"""How long a stream that others dialled before the authority was replaced is waited for."""
LINKS_MAX = 1024
FEW_LINKS = 16
"""Up to so many open ones stay open in silence for longer: each takes either side some 40 kB."""
PROVED_S = 60.0
"""Where a member was met by its certificate, it is taken to be for so long."""
RELAYED_DIAL_S = 8.0
MEET_S = 6.0
RELAYED_S = 300.0
"""Whom only others reach is not dialled directly first for so long."""

log = logging.getLogger(__name__)


class Streams:
    """Manages the streams of one agent: those that it dials, and those that it accepts."""

    def __init__(self, identity: Identity, sockets: Sockets, counts: Counter[str]) -> None:
        self.counts = counts
        self._identity = identity
        self._context = dialling_context(identity)
        self._listener = Listener(
            sockets.stream,
            listening_context(identity),
            identity.cluster_id,
            identity.node_id,
            counts,
        )
        self._relayed_context = relayed_context(identity)
        self._port = sockets.port
        self._proved: dict[NodeId, tuple[Address, float]] = {}
        self._relayed_until: dict[NodeId, float] = {}
        self._links: dict[NodeId, OutgoingStream] = {}
        self._shown: dict[NodeId, ShownCertificate] = {}
        """By which certificate we know those whom we dialled."""
        self._door: Authorization
        self._on_frame: OnFrame
        self._on_unreachable: Callable[[NodeId], None]
        self._on_closed: Callable[[NodeId], None]
        self._addresses_of: Callable[[NodeId], Iterable[Address]]
        self._path_bytes: Callable[[NodeId], int]
        self._relays_to: Callable[[NodeId], Iterable[NodeId]]
        self._greeting: Callable[[], bytes] | None = None
        self._on_strange_authority: Callable[[], None]

    def start(
        self,
        *,
        on_frame: OnFrame,
        on_unreachable: Callable[[NodeId], None],
        on_closed: Callable[[NodeId], None],
        addresses_of: Callable[[NodeId], Iterable[Address]],
        on_guest: OnGuest,
        door: Authorization,
        path_bytes: Callable[[NodeId], int] = lambda _node: PATH_BYTES,
        relays_to: Callable[[NodeId], Iterable[NodeId]] = lambda _node: (),
        may_join: Callable[[NodeId, NodeId], bool] = lambda _one, _other: False,
        is_known: Callable[[str], bool] = lambda _host: False,
        greeting: Callable[[], bytes] | None = None,
        on_strange_authority: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to accept and to dial.

        ``on_frame(data, peer)`` gets what members send; ``on_unreachable(peer)`` hears of frames
        that could not be delivered, never from within ``send``; ``on_closed(peer)`` of open streams
        that the other side ended; ``addresses_of(node)`` says where to dial, best first;
        ``on_guest(reader, writer)`` serves a device without certificate; ``door`` knows who is in
        the registry; ``path_bytes(node)`` says
        how large IP packets to a node may be; ``relays_to(node)`` who may reach a node that we
        cannot dial, best first; ``may_join(one, other)`` whether we put one node through to
        another; ``is_known(host)`` whether a member may be at a host; ``greeting()`` is the frame
        to say first on each stream that we dialled; ``on_strange_authority()`` hears of somebody
        who trusts another authority than we do.
        """
        self._on_strange_authority = on_strange_authority
        self._on_unreachable, self._on_closed = on_unreachable, on_closed
        self._addresses_of, self._greeting = addresses_of, greeting
        self._on_frame, self._path_bytes, self._relays_to = on_frame, path_bytes, relays_to
        self._door = door
        relay = Relay(self._connect_bare, may_join, self.counts)
        self._listener.start(
            self._receive, on_guest, relay.serve, is_known, door, on_strange_authority
        )

    async def stop(self) -> None:
        """Close everything; what waits is forgotten."""
        await self._listener.stop()
        await asyncio.gather(*(link.stop() for link in self._links.values()))
        self._links.clear()

    def renew(self) -> None:
        """Show the certificate and trust whom the identity has now, in each new handshake.

        Raises AgentError; all is as it was then.
        """
        dialling, relayed = dialling_context(self._identity), relayed_context(self._identity)
        self._listener.context = listening_context(self._identity)
        self._context, self._relayed_context = dialling, relayed

    def end_former(self) -> None:
        """Dial all links anew, and close what others dialled and do not give up by themselves.

        For streams that were opened when somebody was trusted who is no longer.
        """
        for link in self._links.values():
            link.redial()
        served = self._listener.served()
        asyncio.get_running_loop().call_later(FORMER_S, self._listener.end, served)

    def close_strangers(self) -> None:
        """Close all streams with those whom the door admits no longer."""
        self._listener.close_strangers()
        for node in [n for n, shown in self._shown.items() if not self._door.admits(shown)]:
            del self._shown[node]
            link = self._links.pop(node, None)
            if link is not None:
                self.counts["streams/closed_as_strangers"] += 1
                link.end()
                asyncio.get_running_loop().call_soon(self._on_unreachable, node)

    def send(self, data: bytes, to: NodeId) -> None:
        """Queue a frame for a node, dialling if need be. Never blocks or raises."""
        self._link_to(to).send(data)

    def waiting_bytes(self, to: NodeId) -> int:
        """Return how much waits to be sent to a node."""
        link = self._links.get(to)
        return link.waiting_bytes if link is not None else 0

    async def try_out(self, to: NodeId) -> DialTest | None:
        """Open a stream to a node on trial; tell the best attempt, None without an address."""
        best: DialTest | None = None
        for address in list(self._addresses_of(to))[:ADDRESSES_TRIED_MAX]:
            trial = await try_stream(address, self._context, self._path_bytes(to))
            if trial.outcome is DialOutcome.OPEN:
                return trial
            if best is None or best.outcome is DialOutcome.NO_ROUTE:
                best = trial
        return best

    async def meets(self, node: NodeId) -> bool:
        """Tell whether a node shows its certificate now; takes ``MEET_S`` at most.

        Where to look is a hint as ever, and a member that lies may have spoiled it. So it is looked
        for also where it was met before, where a stream of its own comes from, and through others.
        """
        looks = [self._meets_at(node, address) for address in self._whereabouts(node)]
        return any(await asyncio.gather(*looks, self._meets_through(node)))

    def _whereabouts(self, node: NodeId) -> list[Address]:
        """Return where a node may be, also if all that is said of it were false."""
        known = list(self._addresses_of(node))
        if node in self._proved:
            known.append(self._proved[node][0])
        if (host := self._listener.host_of(node)) is not None:
            ports = dict.fromkeys((*(each.port for each in known), self._port))
            known += [Address(host, port) for port in ports]
        return [each for each in dict.fromkeys(known) if family_of(each.host) is not None]

    async def _meets_at(self, node: NodeId, address: Address) -> bool:
        try:
            # As to a relay, for a node takes frames on one stream of each other at a time.
            _, writer = await self._dial_address(node, address, self._relayed_context)
        except (OSError, RemoteError):
            return False
        writer.close()
        return True

    async def _meets_through(self, node: NodeId) -> bool:
        try:
            async with asyncio.timeout(MEET_S):
                _, writer = await self._dial_through_first(node, self._relayed_context)
        except OSError:
            return False
        writer.close()
        return True

    def pin(self, peers: Iterable[NodeId]) -> None:
        """Hold a stream open to each of these members, also in silence, and to nobody else."""
        kept = frozenset(peers)
        for peer in kept:
            self._link_to(peer).pin()
        for to, link in self._links.items():
            if to not in kept:
                link.unpin()

    def _receive(self, frame: bytes, peer: NodeId) -> None:
        """Hand a frame on; whoever sends one is there, and may be waiting for the answer."""
        if peer in self._links:
            self._links[peer].end_cooldown()
        self._on_frame(frame, peer)

    def _link_to(self, to: NodeId) -> OutgoingStream:
        link = self._links.get(to)
        if link is None:
            if len(self._links) >= LINKS_MAX:
                self._forget_idle()
            link = OutgoingStream(
                to,
                self._dial,
                self._on_unreachable,
                self._on_closed,
                self._receive,
                self.counts,
                self._are_few,
            )
            self._links[to] = link
        return link

    def _are_few(self) -> bool:
        open_ones = sum(link.state is LinkState.OPEN for link in self._links.values())
        return open_ones <= FEW_LINKS

    def _forget_idle(self) -> None:
        for to in [to for to, link in self._links.items() if link.is_idle]:
            del self._links[to]

    async def _dial(self, to: NodeId) -> Connection:
        """Connect to a node, directly or through others. Raises OSError, RemoteError."""
        loop = asyncio.get_running_loop()
        if self._relayed_until.pop(to, 0.0) > loop.time():
            with contextlib.suppress(OSError):
                return self._greeted(await self._dial_through_others(to))
        try:
            return self._greeted(await self._dial_directly(to))
        except (ConnectionRefusedError, NotAdmitted):
            raise  # it is reached: nobody is there, or nobody to whom we talk
        except (OSError, RemoteError) as failure:
            try:
                return self._greeted(await self._dial_through_others(to))
            except OSError:
                raise failure from None

    def _greeted(self, connection: Connection) -> Connection:
        if self._greeting is not None:
            connection[1].write(framed(self._greeting()))
            self.counts["frames/sent"] += 1
        return connection

    async def _dial_directly(self, to: NodeId) -> Connection:
        """Connect to a node at the first address that answers. Raises OSError, RemoteError."""
        failure: OSError | RemoteError = OSError(f"no address of {format_node_id(to)} is known")
        for address in await self._await_addresses(to):
            if family_of(address.host) is None:
                continue
            try:
                return await self._dial_address(to, address, self._context)
            except NotAdmitted:
                raise
            except (OSError, RemoteError) as error:
                if is_strange_authority(error):
                    self._on_strange_authority()
                # A refusal says most: the host is reached.
                if not isinstance(failure, ConnectionRefusedError):
                    failure = error
                log.debug("cannot reach %s at %s: %s", format_node_id(to), address, error)
        raise failure

    async def _dial_through_others(self, to: NodeId) -> Connection:
        """Connect to a node through the first member that reaches it. Raises OSError."""
        async with asyncio.timeout(RELAYED_DIAL_S):
            connection = await self._dial_through_first(to, self._context)
        self.counts["streams/dialled_through_others"] += 1
        self._remember_relayed(to)
        return connection

    async def _dial_through_first(self, to: NodeId, context: ssl.SSLContext) -> Connection:
        for relay in self._relays_to(to):
            for address in list(self._addresses_of(relay))[:ADDRESSES_TRIED_MAX]:
                if family_of(address.host) is None:
                    continue
                try:
                    return await self._dial_through(to, relay, address, context)
                except (OSError, EOFError, RemoteError) as error:
                    told = format_node_id(to), format_node_id(relay), error
                    log.debug("cannot reach %s through %s: %s", *told)
                    if isinstance(error, NotPutThrough):
                        break  # also from its other addresses it does not
        raise OSError(f"nobody else reaches {format_node_id(to)}")

    def _remember_relayed(self, to: NodeId) -> None:
        if len(self._relayed_until) >= LINKS_MAX:
            self._relayed_until.clear()
        self._relayed_until[to] = asyncio.get_running_loop().time() + RELAYED_S

    async def _dial_through(
        self, to: NodeId, relay: NodeId, address: Address, context: ssl.SSLContext
    ) -> Connection:
        outer = await self._dial_address(relay, address, self._relayed_context)
        connection = await through(outer, to, context)
        await self._check_peer(to, connection[1], f"what {format_node_id(relay)} reaches")
        return connection

    async def _await_addresses(self, to: NodeId) -> list[Address]:
        """Return where to dial; a node that starts hears of the others a moment later."""
        for _ in range(ADDRESS_CHECKS):
            if known := list(self._addresses_of(to)):
                return known[:ADDRESSES_TRIED_MAX]
            await asyncio.sleep(ADDRESS_CHECK_S)
        return []

    async def _dial_address(
        self, to: NodeId, address: Address, context: ssl.SSLContext
    ) -> Connection:
        async with asyncio.timeout(DIAL_S):
            connected = await connected_to(address.host, address.port, self._path_bytes(to))
            # The empty name keeps asyncio from sending and checking a host name.
            reader, writer = await asyncio.open_connection(
                sock=connected,
                ssl=context,
                server_hostname="",
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        await self._check_peer(to, writer, str(address))
        if len(self._proved) >= LINKS_MAX:
            self._proved.clear()
        self._proved[to] = address, asyncio.get_running_loop().time()
        return reader, writer

    async def _check_peer(self, to: NodeId, writer: asyncio.StreamWriter, where: str) -> None:
        """Raise RemoteError, and close, unless this node is at the other end and belongs."""
        try:
            shown = shown_by(writer.get_extra_info("ssl_object"), self._identity.cluster_id)
            if shown is None or shown.node != to:
                raise Forged(f"{where} is not {format_node_id(to)}")
        except RemoteError:
            writer.transport.abort()
            self.counts["streams/wrong_node"] += 1
            raise
        if not self._door.admits(shown):
            await self._show_registry(shown, writer, where)
            raise NotAdmitted(f"{format_node_id(to)}, at {where}, is not in the registry")
        if len(self._shown) >= 2 * LINKS_MAX:
            self._shown = {node: each for node, each in self._shown.items() if node in self._links}
        self._shown[to] = shown

    async def _show_registry(
        self, shown: ShownCertificate, writer: asyncio.StreamWriter, where: str
    ) -> None:
        """Tell a stranger which registry we follow, and nothing else."""
        self.counts["streams/registry_shown"] += 1
        log.debug("showed our registry to %s at %s", format_node_id(shown.node), where)
        try:
            async with asyncio.timeout(DIAL_S):
                writer.write(framed(self._door.registry_frame()))
                await writer.drain()
        finally:
            writer.close()

    async def _connect_bare(self, to: NodeId) -> Connection:
        """Connect by TCP alone to where a node was just met. Raises OSError, RemoteError."""
        address, at = self._proved.get(to, (None, 0.0))
        if address is not None and asyncio.get_running_loop().time() - at <= PROVED_S:
            with contextlib.suppress(OSError):  # it may have moved since
                return await self._connect_bare_at(to, address)
        return await self._connect_bare_at(to, await self._prove(to))

    async def _connect_bare_at(self, to: NodeId, address: Address) -> Connection:
        async with asyncio.timeout(DIAL_S):
            connected = await connected_to(address.host, address.port, self._path_bytes(to))
            keep_alive(connected)
            return await asyncio.open_connection(sock=connected)

    async def _prove(self, to: NodeId) -> Address:
        """Return where a node shows its certificate. Raises OSError, RemoteError."""
        failure: OSError | RemoteError = OSError(f"no address of {format_node_id(to)} is known")
        for address in list(self._addresses_of(to))[:ADDRESSES_TRIED_MAX]:
            if family_of(address.host) is None:
                continue
            try:
                # As to a relay, for a node takes frames on one stream of each other at a time.
                _, writer = await self._dial_address(to, address, self._relayed_context)
            except (OSError, RemoteError) as error:
                failure = error
                continue
            writer.close()
            return address
        raise failure
