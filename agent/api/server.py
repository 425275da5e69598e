"""Serves the API on its sockets, from the first connection on.

uvicorn does the work. Three of its habits do not fit a guest in somebody else's event loop, and
``EmbeddedServer`` drops them: it takes over the signals, it wakes up ten times a second, and it
leaves accepting to asyncio, which despairs aloud when there are no file descriptors.

It also lets anybody hold a connection for ever who never finishes a request, or never takes an
answer, and takes more without end, each of which costs the agent a file descriptor.
``BoundedProtocol`` ends all three.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import logging
import socket
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from agent.api.app import create
from agent.api.app_socket import AppSocket
from agent.api.errors import OVER_TCP, REFUSED, error_body, respond
from agent.api.interfaces import AgentServices
from agent.api.request_bodies import client_of
from agent.api.unread_answer import UnreadAnswer
from agent.config.logs import RateLimitedLog
from agent.loop import watched
from agent.net.accept import connections
from agent.system import descriptors

CONNECTIONS_MAX = 256
CONNECTIONS_SHARE = 8
"""On each socket so many, or one in so many of the descriptors that the agent may have. For one
more, another is closed: one that takes nothing of its answer, else the oldest on which nothing is
asked just now, else the oldest of the client that has most."""
REQUEST_S = 15.0
"""For the line and the headers of a request, from the connection or their first byte on."""
KEEP_ALIVE_S = 15
METRICS_PATH = "/metrics"
SHUTDOWN_S = 2

log = logging.getLogger(__name__)


class Tokens(NamedTuple):
    """What opens the API on TCP."""

    all: str
    metrics: str
    """Opens ``/metrics`` alone: whoever scrapes need not be able to do anything."""


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
    ) -> None:
        self._application = create(agent)
        counts: Counter[str] = self._application.state.counts
        self._servers = [(EmbeddedServer(self._application, counts), unix)]
        if tcp is not None:
            assert tokens is not None, "nobody is let in by TCP without one"
            guarded = BearerToken(self._application, tokens)
            self._servers.append((EmbeddedServer(guarded, counts), tcp))
        if door is not None:
            guarded_door = AppSocket(self._application, agent.app_with)
            self._servers.append((EmbeddedServer(guarded_door, counts), door))
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Return when all that connect are answered."""
        for server, listener in self._servers:
            self._tasks.append(watched.start("http-api", partial(server.serve, [listener])))
        for server, _ in self._servers:
            await server.listening.wait()

    async def close(self) -> None:
        """Stop accepting, end the open streams, wait a moment for answers on their way."""
        self._application.state.streams.close()
        for server, _ in self._servers:
            server.stop()
        await asyncio.gather(*self._tasks)


class EmbeddedServer(uvicorn.Server):
    """uvicorn inside an event loop that belongs to somebody else."""

    def __init__(self, application: ASGIApp, counts: Counter[str]) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=SHUTDOWN_S,
            )
        )
        self.listening = asyncio.Event()
        self._stopped = asyncio.Event()
        self._counts = counts
        self._quiet = RateLimitedLog(log)
        self._accepting: list[asyncio.Task[None]] = []

    def stop(self) -> None:
        """Begin to shut down."""
        self.should_exit = True
        for task in self._accepting:
            task.cancel()
        self._stopped.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await self.lifespan.startup()
        self.servers = []  # of asyncio; what uvicorn ends with them ends in ``stop``
        for listening in sockets or []:
            listening.settimeout(0)
            accepting = partial(self._accept, listening)
            self._accepting.append(watched.start("http-api-accept", accepting))
        self.started = True

    async def _accept(self, listening: socket.socket) -> None:
        taken = connections(listening, self._counts, "api_connections", self._quiet)
        async for accepted, _ in taken:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, accepted)

    def _connection(self) -> "BoundedProtocol":
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state, self._counts)

    async def main_loop(self) -> None:
        """Wait for ``stop``, asleep."""
        await self.on_tick(0)  # fills in the headers that all answers have
        self.listening.set()
        await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the agent."""
        yield


class BoundedProtocol(H11Protocol):
    """One connection: among so many, and with so much time to say what it wants."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        app_state: dict[str, Any],
        counts: Counter[str],
    ) -> None:
        super().__init__(config, state, app_state)
        self._counts = counts
        self.began_s = self.loop.time()
        self._patience: asyncio.TimerHandle | None = None
        self.unread: UnreadAnswer
        self._refusals = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close who is one too many: who is missed least."""
        super().connection_made(cast("asyncio.Transport", transport))
        self.unread = UnreadAnswer(self.transport, self._counts)
        self._bound()
        if len(self.connections) > min(CONNECTIONS_MAX, descriptors.limit() // CONNECTIONS_SHARE):
            self._counts["api_connections/too_many"] += 1
            self._least_missed().transport.abort()

    def _least_missed(self) -> "BoundedProtocol":
        everybody = [each for each in self.connections if isinstance(each, BoundedProtocol)]
        others = [each for each in everybody if each is not self] or [self]
        stuck = [each for each in others if each.unread.is_stuck]
        silent = [each for each in others if each.awaits_request and not each.has_unread]
        return min(
            stuck or silent or _of_who_has_most(others),
            key=lambda each: (each.transport.is_closing(), each.began_s),
        )

    def data_received(self, data: bytes) -> None:
        """Read on, and see whether that was a whole request."""
        super().data_received(data)
        self._bound()
        self.unread.watch()

    def pause_writing(self) -> None:
        """See whether the answer that waits is taken."""
        super().pause_writing()
        self.unread.watch()

    def on_response_complete(self) -> None:
        """Go on with the next request; whom nothing is open to has no next one."""
        if REFUSED in self.cycle.scope:
            self._refusals += 1
            if self._refusals > 1 or not self.cycle.more_body:
                self.transport.close()
        super().on_response_complete()
        self.unread.watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self._end_patience()
        self.unread.end()

    def _bound(self) -> None:
        if not self.awaits_request:
            self._end_patience()
        elif self._patience is None:
            self._patience = self.loop.call_later(REQUEST_S, self._give_up)

    @property
    def awaits_request(self) -> bool:
        """Whether nothing is asked just now."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def has_unread(self) -> bool:
        """Whether an answer is still on its way."""
        return self.transport.get_write_buffer_size() > 0

    @property
    def asked_by(self) -> str:
        """Who asked last, as far as can be told; "" for who is here, or has asked nothing."""
        return client_of(cast("dict[str, Any]", self.cycle.scope)) if self.cycle else ""

    def _give_up(self) -> None:
        self._patience = None
        if self.awaits_request:
            self._counts["api_connections/too_slow"] += 1
            self.transport.close()

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def _of_who_has_most(connections: list[BoundedProtocol]) -> list[BoundedProtocol]:
    held = Counter(each.asked_by for each in connections)
    ((client, _),) = held.most_common(1)
    return [each for each in connections if each.asked_by == client]


class BearerToken:
    """ASGI middleware that lets nobody through without a token that opens what is asked.

    Its own form is ``Authorization: Bearer TOKEN``; clients of InfluxDB say ``Token TOKEN``
    (version 2), or give a user's name, any, and the token as the password (version 1).
    """

    def __init__(self, application: Starlette, tokens: Tokens) -> None:
        self._application = application
        self._all, self._metrics = (token.encode() for token in tokens)
        assert self._all, "an empty token would open all"
        assert self._metrics, "an empty token would open the metrics"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or pass the request on."""
        given = _token_of(dict(scope["headers"]).get(b"authorization", b""))
        # Both are compared, in a time that does not depend on where they differ.
        opens_all = hmac.compare_digest(given, self._all)
        opens_metrics = hmac.compare_digest(given, self._metrics)
        if opens_all or (opens_metrics and scope["path"] == METRICS_PATH):
            await self._application({**scope, OVER_TCP: True}, receive, send)
            return
        if not opens_metrics:
            scope[REFUSED] = True
        answer = self._refuse(FOR_METRICS_ONLY if opens_metrics else UNAUTHORIZED)
        await answer(scope, receive, send)

    def _refuse(self, refusal: "Refusal") -> Response:
        self._application.state.counts[f"api_errors/{refusal.code}"] += 1
        body = error_body(refusal.code, refusal.message, refusal.hint)
        return respond(refusal.status, body, refusal.headers)


class Refusal(NamedTuple):
    """What somebody is told whom the token does not let through."""

    status: int
    code: str
    message: str
    hint: str
    headers: dict[str, str]


UNAUTHORIZED = Refusal(
    401,
    "unauthorized",
    "the token is missing or wrong",
    "send the header `Authorization: Bearer TOKEN`; the agent's token file has the token",
    {"WWW-Authenticate": "Bearer"},
)
FOR_METRICS_ONLY = Refusal(
    403,
    "not-permitted",
    f"this token opens {METRICS_PATH} alone; nothing was done",
    "the token for all is in the file api-token, or where token_file in [api] says",
    {},
)


def _token_of(header: bytes) -> bytes:
    """Return the token that a header gives in one of the three forms; empty in none."""
    scheme, _, value = header.partition(b" ")
    match scheme.lower():
        case b"bearer" | b"token":
            return value.strip()
        case b"basic":
            try:
                return base64.b64decode(value, validate=True).partition(b":")[2]
            except binascii.Error:
                return b""
    return b""
