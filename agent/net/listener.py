"""Connections that others dial: members with a certificate, and guests without.

Connections are accepted by hand, one ``sock_accept`` at a time, because asyncio's server would run
the TLS handshake before anybody could count. Here a connection first takes a *place*
(``connection_slots.py``): sixteen for each site, sixty-four in all. It gives the place back when
its handshake has shown that it is a member; a guest keeps it, and has half a minute for all that it
may do. So a thousand half-open or silent connections cost sixty-four small buffers.

Members do not wait behind guests. What comes from a host at which a member is known to be takes one
of other places, in which strangers have no part unless they come from that very address (behind one
NAT, say); a member that has just moved competes with guests until its handshake is over.

A stranger, whose certificate is of the covey and not in the registry, keeps its place as a guest
does, and may only tell which registry it follows.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from agent.config.logs import RateLimitedLog
from agent.loop.watched import TaskSet
from agent.net.accept import connections
from agent.net.authorization import Authorization, ShownCertificate
from agent.net.connection_slots import ConnectionSlots, Slot
from agent.net.framing import ArrivingFrames, framed, read_frame
from agent.net.outgoing import keep_alive
from agent.net.stream_protocol import StreamProtocol
from agent.net.tls import HANDSHAKE_TIMEOUT_S, RELAY_PROTOCOL, is_strange_authority, shown_by
from gossip.core.errors import RemoteError
from gossip.core.ids import ClusterId, NodeId, format_node_id

PLACES_EACH, PLACES_TOGETHER = 16, 64
KNOWN_EACH, KNOWN_TOGETHER = 16, 256
"""Places for hosts at which members are known to be: for each address, and together."""
MEMBER_CONNECTIONS_MAX = 1024
GUEST_S = 30.0
STRANGER_S, STRANGER_FRAMES_MAX = 5.0, 8
SHUTDOWN_S = 2.0
MEMBER_SILENCE_S = 24 * 3600.0
"""Streams that only watch are silent (``outgoing.py``). The kernel finds out about hosts that
vanished, and a member has one connection, so this only ends what nobody will ever use again."""
PATIENCE_SET_EVERY_S = 60.0
"""Not with each frame: a timer costs as much as reading it."""
READ_BUFFER_BYTES = 32 * 1024

OnFrame = Callable[[bytes, NodeId], None]
OnGuest = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OnRelay = Callable[[NodeId, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

log = logging.getLogger(__name__)


class Listener:
    """Accepts streams on all bound sockets and reads frames from members."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        context: ssl.SSLContext,
        cluster_id: ClusterId,
        me: NodeId,
        counts: Counter[str],
    ) -> None:
        self.counts = counts
        self.places = ConnectionSlots(PLACES_EACH, PLACES_TOGETHER)
        self.known_places = ConnectionSlots(KNOWN_EACH, KNOWN_TOGETHER, lambda host: host)
        self.context = context
        """With which handshakes are made from now on."""
        self._sockets = sockets
        self._serving: set[asyncio.Task[None]] = set()
        self._cluster_id, self._me = cluster_id, me
        self._quiet = RateLimitedLog(log)
        self._tasks = TaskSet()
        self._members: dict[NodeId, tuple[ShownCertificate, asyncio.StreamWriter]] = {}
        self._door: Authorization
        self._on_frame: OnFrame
        self._on_guest: OnGuest
        self._on_relay: OnRelay
        self._is_known: Callable[[str], bool]
        self._on_strange_authority: Callable[[], None]

    def start(
        self,
        on_frame: OnFrame,
        on_guest: OnGuest,
        on_relay: OnRelay,
        is_known: Callable[[str], bool],
        door: Authorization,
        on_strange_authority: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to accept those whom the door admits.

        Frames of members go to ``on_frame``, guests to ``on_guest``, and members that want to be
        put through to ``on_relay``. ``is_known`` says whether a member may be at a host;
        ``on_strange_authority`` hears of somebody who trusts another authority than we do.
        """
        self._on_strange_authority = on_strange_authority
        self._on_frame, self._on_guest, self._on_relay = on_frame, on_guest, on_relay
        self._is_known = is_known
        self._door = door
        for each in self._sockets:
            self._tasks.start("stream-accept", partial(self._accept, each))

    @property
    def tasks(self) -> int:
        """How many connections are served, and sockets accepted on."""
        return len(self._tasks)

    async def stop(self) -> None:
        """Accept no more and close all connections."""
        await self._tasks.stop()

    def close_strangers(self) -> None:
        """Close the streams of those whom the door admits no longer."""
        for shown, writer in tuple(self._members.values()):
            if not self._door.admits(shown):
                self.counts["streams/closed_as_strangers"] += 1
                writer.transport.abort()

    def host_of(self, node: NodeId) -> str | None:
        """Return where the open stream of a member comes from; None without one."""
        _, writer = self._members.get(node, (None, None))
        remote = writer.get_extra_info("peername") if writer is not None else None
        return None if remote is None else str(remote[0])

    def served(self) -> frozenset[asyncio.Task[None]]:
        """Return the connections that are open now, for ``end``."""
        return frozenset(self._serving)

    def end(self, connections: Iterable[asyncio.Task[None]]) -> None:
        """Close these connections, those that are open still."""
        for each in self._serving.intersection(connections):
            self.counts["streams/closed_as_former"] += 1
            each.cancel()

    async def _accept(self, listening: socket.socket) -> None:
        taken = connections(listening, self.counts, "streams", self._quiet)
        async for accepted, address in taken:
            host = address[0]
            places = self.known_places if self._is_known(host) else self.places
            place = places.acquire(host)
            if place is None:
                accepted.close()
                self._count_no_slot(host)
                continue
            task = self._tasks.start("stream-serve", partial(self._serve, accepted, place))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            place.on_lost = partial(self._turn_out, host, task)

    def _turn_out(self, host: str, serving: asyncio.Task[None]) -> None:
        """Close a connection whose place somebody else needs."""
        self._count_no_slot(host)
        # Later: a task that has not begun yet would not close its connection.
        asyncio.get_running_loop().call_soon(serving.cancel)

    def _count_no_slot(self, host: str) -> None:
        self.counts["streams_refused/no_place"] += 1
        self._quiet.warning("place", "too many unproven connections, closed one of %s", host)

    async def _serve(self, accepted: socket.socket, place: Slot) -> None:
        """Serve one connection until it ends; whatever it does wrong ends it."""
        host = place.host
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await self._shake_hands(accepted)
            place.has_shaken_hands = True
            secured = writer.get_extra_info("ssl_object")
            shown = shown_by(secured, self._cluster_id)
            if shown is None:
                async with asyncio.timeout(GUEST_S):
                    await self._on_guest(reader, writer)
            elif not self._door.admits(shown):
                async with asyncio.timeout(STRANGER_S):
                    await self._serve_stranger(shown, host, reader, writer)
            elif secured.selected_alpn_protocol() == RELAY_PROTOCOL:
                place.give_back()
                await self._on_relay(shown.node, reader, writer)
            else:
                await self._serve_member(shown, place, reader, writer)
        except RemoteError as error:
            self.counts[f"streams_refused/{error.label}"] += 1
            self._quiet.warning("peer", "closed a stream from %s: %s", host, error)
        except (OSError, EOFError) as error:  # TimeoutError and ssl.SSLError are OSErrors
            self._count_failure(error, host, shaken=writer is not None)
        finally:
            place.give_back()
            if writer is None:
                accepted.close()
            else:
                writer.close()

    def _count_failure(self, error: OSError | EOFError, host: str, *, shaken: bool) -> None:
        """Tell a stream that simply ended from one that went wrong."""
        if shaken and not isinstance(error, ssl.SSLError | TimeoutError):
            self.counts["streams/ended"] += 1
            return
        stage = "stream" if shaken else "handshake"
        if is_strange_authority(error):
            self._on_strange_authority()
        self.counts[f"streams_refused/{stage}_failed"] += 1
        self._quiet.warning(stage, "%s with %s failed: %s", stage, host, _reason(error))

    async def _shake_hands(
        self, accepted: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_BUFFER_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        keep_alive(accepted)
        transport, _ = await loop.connect_accepted_socket(
            lambda: StreamProtocol(protocol),
            accepted,
            ssl=self.context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _serve_stranger(
        self,
        shown: ShownCertificate,
        host: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Show our registry, and hear which one the other side follows; then it may dial again."""
        self.counts["streams_refused/stranger"] += 1
        self._door.knocked(shown, host)
        writer.write(framed(self._door.registry_frame()))
        await writer.drain()
        for _ in range(STRANGER_FRAMES_MAX):
            self._door.overheard(await read_frame(reader), shown)
            if self._door.admits(shown):
                return

    async def _serve_member(
        self,
        shown: ShownCertificate,
        place: Slot,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Hand on frames until the member closes or falls silent."""
        peer = shown.node
        if peer == self._me or len(self._members) >= MEMBER_CONNECTIONS_MAX:
            kind = "own_identity" if peer == self._me else "no_place"
            self.counts[f"streams_refused/{kind}"] += 1
            self._quiet.warning(kind, "refused a stream of %s: %s", format_node_id(peer), kind)
            return
        place.give_back()
        self.counts["streams/accepted"] += 1
        former = self._members.get(peer)
        self._members[peer] = shown, writer
        if former is not None:  # a node dials once; the older connection is a dead one
            former[1].transport.abort()
        try:
            await self._hand_on(ArrivingFrames(reader), peer)
        finally:
            if self._members.get(peer) == (shown, writer):
                del self._members[peer]

    async def _hand_on(self, arriving: ArrivingFrames, peer: NodeId) -> None:
        """Hand on frames until the stream ends. Raises EOFError, OSError, RemoteError."""
        loop = asyncio.get_running_loop()
        looked_s = loop.time()
        async with asyncio.timeout(MEMBER_SILENCE_S) as patience:
            while True:
                frames = await arriving.read()
                if loop.time() - looked_s > PATIENCE_SET_EVERY_S:
                    looked_s = loop.time()
                    patience.reschedule(looked_s + MEMBER_SILENCE_S)
                self.counts["frames/received"] += len(frames)
                for frame in frames:
                    self._on_frame(frame, peer)


def _reason(error: Exception) -> str:
    """Return what failed, in OpenSSL's short words, which name expired certificates and clocks."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message}; check the clocks of both devices"
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS error"
    return str(error) or type(error).__name__
