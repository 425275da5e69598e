"""Serves the API on its sockets, from the first connection on.

``agent/http/`` speaks HTTP. Here is who may hold a connection, and for how long: not for ever who
never finishes a request, or never takes an answer, and not any number of them, each of which
costs the agent a file descriptor.
"""

import asyncio
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from agent.api.app import create
from agent.api.errors import REFUSED
from agent.api.gates import PEER_UID, AppGate, LocalGate, TokenGate, Tokens
from agent.api.interfaces import AgentServices
from agent.api.request_bodies import client_of
from agent.api.shown_context import ShownContext
from agent.api.unread_answer import UnreadAnswer
from agent.config.logs import RateLimitedLog
from agent.exits import AgentError
from agent.http.asgi import ASGIApp
from agent.http.connection import Connection
from agent.loop import watched
from agent.net.accept import connections
from agent.system import descriptors

CONNECTIONS_MAX = 256
CONNECTIONS_SHARE = 8
"""On each socket so many, or one in so many of the descriptors that the agent may have. For one
more, another is closed: one that takes nothing of its answer, else the oldest on which nothing is
asked just now, else the oldest of the client that has most."""
REQUEST_S = 15.0
"""For the line and the headers of a request, from the connection or their first byte on; and for
that first byte, from the end of the answer before on."""
LOOK_S = 0.001
"""A timer may fire so much too early: uvloop's have whole milliseconds."""
HANDSHAKES_MAX = 64
SHUTDOWN_S = 2
CREDENTIALS = struct.Struct("3i")
"""struct ucred of <sys/socket.h>: process, user, group."""

log = logging.getLogger(__name__)


class ApiServer:
    """The application on a Unix socket, on one for apps, and on TCP for who shows a token."""

    def __init__(
        self,
        agent: AgentServices,
        unix: socket.socket,
        tcp: socket.socket | None = None,
        *,
        tokens: Tokens | None = None,
        door: socket.socket | None = None,
        tls: bool = False,
    ) -> None:
        self._application = create(agent)
        counts: Counter[str] = self._application.state.counts
        self._servers = [SocketServer(LocalGate(self._application), counts, unix)]
        if tcp is not None:
            assert tokens is not None, "nobody is let in by TCP without one"
            guarded = TokenGate(self._application, tokens, agent.access)
            shown = ShownContext(agent) if tls else None
            self._servers.append(SocketServer(guarded, counts, tcp, shown))
        if door is not None:
            guarded_door = AppGate(self._application, agent.app_with)
            self._servers.append(SocketServer(guarded_door, counts, door))

    def start(self) -> None:
        """Answer all that connect."""
        for server in self._servers:
            server.start()

    async def close(self) -> None:
        """Stop accepting, end the open streams, wait a moment for answers on their way."""
        self._application.state.streams.close()
        await asyncio.gather(*(server.stop() for server in self._servers))


class SocketServer:
    """An application on one listening socket."""

    def __init__(
        self,
        application: ASGIApp,
        counts: Counter[str],
        listening: socket.socket,
        tls: ShownContext | None = None,
    ) -> None:
        self._application = application
        self._counts = counts
        self._listening = listening
        self._quiet = RateLimitedLog(log)
        self._connections: set[Connection] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._tls = tls
        self._handshakes: dict[asyncio.Task[None], None] = {}
        """Those that go on, the oldest first."""

    def start(self) -> None:
        """Answer all that connect from now on."""
        self._listening.settimeout(0)
        self._accepting = watched.start("http-api-accept", self._accept)

    async def stop(self) -> None:
        """Stop accepting, wait a moment for answers on their way, and close what is open."""
        if self._accepting is not None:
            self._accepting.cancel()
        for task in list(self._handshakes):
            task.cancel()
        for connection in list(self._connections):
            connection.shut_down()
        answering = {each.answering for each in self._connections if each.answering is not None}
        if answering:
            _, late = await asyncio.wait(answering, timeout=SHUTDOWN_S)
            for task in late:
                task.cancel()
        for connection in list(self._connections):
            connection.transport.close()

    async def _accept(self) -> None:
        taken = connections(self._listening, self._counts, "api_connections", self._quiet)
        async for accepted, _ in taken:
            if self._tls is None:
                await asyncio.get_running_loop().connect_accepted_socket(self._connection, accepted)
            else:
                self._begin_handshake(partial(self._shake_hands, accepted, self._tls))

    def _begin_handshake(self, shaking: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Shake hands beside others; of too many, the oldest gives way."""
        if len(self._handshakes) >= HANDSHAKES_MAX:
            self._counts["api_connections/too_many"] += 1
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            # Later: a task that has not begun yet would not close its connection.
            asyncio.get_running_loop().call_soon(oldest.cancel)
        task = watched.start("http-api-handshake", shaking)
        self._handshakes[task] = None
        task.add_done_callback(lambda done: self._handshakes.pop(done, None))

    async def _shake_hands(self, accepted: socket.socket, tls: ShownContext) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connection,
                accepted,
                ssl=tls.context(),
                ssl_handshake_timeout=REQUEST_S,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except (OSError, AgentError) as error:  # ssl.SSLError is an OSError
            self._counts["api_connections/handshake_failed"] += 1
            accepted.close()
            self._quiet.warning("handshake", "no TLS with a client of the API: %s", error)
        except asyncio.CancelledError:
            accepted.close()
            raise

    def _connection(self) -> "BoundedConnection":
        return BoundedConnection(self._application, self._connections, self._counts)


class BoundedConnection(Connection):
    """One connection: among so many, and with so much time to say what it wants."""

    def __init__(
        self, application: ASGIApp, connections: set[Connection], counts: Counter[str]
    ) -> None:
        super().__init__(application, connections)
        self._counts = counts
        self.began_s = self.loop.time()
        self._patient_until_s: float | None = None
        self._patience: asyncio.TimerHandle | None = None
        """Looks then, or before: patience begins and ends with each request, and a timer of its own
        for each would cost more than to look once in vain."""
        self._is_kept_alive = False
        self.unread: UnreadAnswer
        self._refusals = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close who is one too many: who is missed least."""
        super().connection_made(transport)
        if (uid := _peer_uid(transport)) is not None:
            self.known[PEER_UID] = uid
        self.unread = UnreadAnswer(self.transport, self._counts)
        self._have_patience()
        if len(self.connections) > min(CONNECTIONS_MAX, descriptors.limit() // CONNECTIONS_SHARE):
            self._counts["api_connections/too_many"] += 1
            self._least_missed().transport.abort()

    def _least_missed(self) -> "BoundedConnection":
        everybody = [each for each in self.connections if isinstance(each, BoundedConnection)]
        others = [each for each in everybody if each is not self] or [self]
        stuck = [each for each in others if each.unread.is_stuck]
        silent = [each for each in others if each.awaits_request and not each.has_unread]
        return min(
            stuck or silent or _of_who_has_most(others),
            key=lambda each: (each.transport.is_closing(), each.began_s),
        )

    def data_received(self, data: bytes) -> None:
        """Read on, and see whether that was a whole request."""
        if self._is_kept_alive:
            self._end_patience()
        super().data_received(data)
        if not self.awaits_request:
            self._end_patience()
        elif self._patient_until_s is None:
            self._have_patience()
        self.unread.watch()

    def pause_writing(self) -> None:
        """See whether the answer that waits is taken."""
        super().pause_writing()
        self.unread.watch()

    def answer_complete(self) -> None:
        """Go on with the next request; whom nothing is open to has no next one."""
        assert self.exchange is not None, "somebody was answered"
        if REFUSED in self.exchange.scope:
            self._refusals += 1
            if self._refusals > 1 or not self.exchange.has_more:
                self.transport.close()
        self._have_patience(is_kept_alive=True)
        super().answer_complete()
        if not self.awaits_request:
            self._end_patience()
        self.unread.watch()

    def malformed(self, status: int) -> None:
        """Count it, say so, and end."""
        self._counts["api_connections/malformed"] += 1
        super().malformed(status)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self._end_patience()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self.unread.end()

    @property
    def has_unread(self) -> bool:
        """Whether an answer is still on its way."""
        return self.transport.get_write_buffer_size() > 0

    @property
    def asked_by(self) -> str:
        """Who asked last, as far as can be told; "" for who is here, or has asked nothing."""
        return client_of(self.exchange.scope) if self.exchange else ""

    def _have_patience(self, *, is_kept_alive: bool = False) -> None:
        """Wait so long for a request, or for a first byte of the next one."""
        self._is_kept_alive = is_kept_alive
        self._patient_until_s = self.loop.time() + REQUEST_S
        if self._patience is None:
            self._patience = self.loop.call_at(self._patient_until_s, self._look)

    def _look(self) -> None:
        """Give up, or look again when patience ends that has begun since."""
        self._patience = None
        until_s = self._patient_until_s
        if until_s is None:
            return
        if self.loop.time() < until_s - LOOK_S:
            self._patience = self.loop.call_at(until_s, self._look)
            return
        if not self._is_kept_alive:
            self._counts["api_connections/too_slow"] += 1
        self.transport.close()

    def _end_patience(self) -> None:
        self._is_kept_alive, self._patient_until_s = False, None


def _of_who_has_most(connections: list[BoundedConnection]) -> list[BoundedConnection]:
    held = Counter(each.asked_by for each in connections)
    ((client, _),) = held.most_common(1)
    return [each for each in connections if each.asked_by == client]


def _peer_uid(transport: asyncio.BaseTransport) -> int | None:
    """Return the user at the other end of a Unix socket (unix(7), SO_PEERCRED); else None."""
    connected = transport.get_extra_info("socket")
    if connected is None or connected.family != socket.AF_UNIX:
        return None
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(found)[1])
