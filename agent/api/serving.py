"""Serves the API on its sockets, from the first connection on.

uvicorn does the work. Two of its habits do not fit a guest in somebody else's event loop, and
``GuestServer`` drops them: it takes over the signals, and it wakes up ten times a second.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import socket
from collections.abc import Iterator
from functools import partial

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from agent import watched
from agent.api.application import create
from agent.api.errors import OVER_TCP, error_body, respond
from agent.api.facade import AgentFacade
from agent.api.listen import BACKLOG

CONNECTIONS_MAX = 256
KEEP_ALIVE_S = 15
SHUTDOWN_S = 2


class Serving:
    """The application on a Unix socket, and on TCP for who shows the token."""

    def __init__(
        self,
        agent: AgentFacade,
        unix: socket.socket,
        tcp: socket.socket | None = None,
        *,
        token: str = "",
    ) -> None:
        self._application = create(agent)
        self._servers = [(GuestServer(self._application), unix)]
        if tcp is not None:
            self._servers.append((GuestServer(BearerToken(self._application, token)), tcp))
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


class GuestServer(uvicorn.Server):
    """uvicorn inside an event loop that belongs to somebody else."""

    def __init__(self, application: ASGIApp) -> None:
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
                backlog=BACKLOG,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=SHUTDOWN_S,
            )
        )
        self.listening = asyncio.Event()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Begin to shut down."""
        self.should_exit = True
        self._stopped.set()

    async def main_loop(self) -> None:
        """Wait for ``stop``, asleep."""
        await self.on_tick(0)  # fills in the headers that all answers have
        self.listening.set()
        await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the agent."""
        yield


class BearerToken:
    """ASGI middleware that lets nobody through without the token.

    Its own form is ``Authorization: Bearer TOKEN``; clients of InfluxDB say ``Token TOKEN``
    (version 2), or give a user's name, any, and the token as the password (version 1).
    """

    def __init__(self, application: Starlette, token: str) -> None:
        self._application = application
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        given = _token_of(dict(scope["headers"]).get(b"authorization", b""))
        if given and hmac.compare_digest(given, self._token):
            await self._application({**scope, OVER_TCP: True}, receive, send)
            return
        self._application.state.counts["api_errors/unauthorized"] += 1
        hint = "send the header `Authorization: Bearer TOKEN`; the agent's token file has the token"
        body = error_body("unauthorized", "the token is missing or wrong", hint)
        await respond(401, body, {"WWW-Authenticate": "Bearer"})(scope, receive, send)


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
