"""Puts the API on its sockets: always the Unix socket, TCP when ``[api] listen`` says so.

The Unix socket is open to the agent's own user (0600), and to the group of its directory when
somebody made that directory for a group alone (0750, as the systemd unit does): then 0660. The
file system is the access control, so there is no token. A socket that a killed agent left
behind is removed, but only after nobody answered on it.

TCP carries the same API in the clear and asks each request for a bearer token (RFC 6750). The
token lies in a file with mode 0600, made at the first start. There is no TLS: listen on the
loopback interface, in a private network, or behind a proxy that has it.

uvicorn serves both. Two of its habits do not fit a guest in somebody else's event loop, and
``GuestServer`` drops them: it takes over the signals, and it wakes up ten times a second.
"""

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.api.errors import error_body, respond
from agent.config import read_secret
from agent.exits import BAD_CONFIG, NO, NOT_PERMITTED, AgentError
from agent.notation import parse_endpoint
from agent.paths import SOCKET_PATH_BYTES_MAX, Paths
from agent.settings import ApiSettings

logger = logging.getLogger(__name__)

BACKLOG = 128
CONNECTIONS_MAX = 256
KEEP_ALIVE_S = 15
SHUTDOWN_S = 2
PROBE_TIMEOUT_S = 1.0
TOKEN_BYTES = 32
DIRECTORY_OPEN_TO_GROUP = stat.S_IXGRP


class Listeners:
    """The sockets of one application; ``open`` returns when they accept, ``close`` ends them."""

    def __init__(self, application: Starlette, paths: Paths, settings: ApiSettings) -> None:
        self._application = application
        self._paths = paths
        self._settings = settings
        self._servers: list[GuestServer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.tcp_address: tuple[str, int] | None = None

    async def open(self) -> None:
        """Listen. Raises AgentError when a socket or the token file cannot be had."""
        tcp = self._open_tcp()  # first: a bad setting must not leave a socket file behind
        self._serve(self._application, open_unix_socket(self._paths.socket))
        if tcp is not None:
            token = load_or_make_token(self._token_file())
            self._serve(BearerToken(self._application, token), tcp)
        for server in self._servers:
            await server.listening.wait()

    async def close(self) -> None:
        """Stop accepting, end the open streams, wait a moment for answers on their way."""
        self._application.state.streams.close()
        for server in self._servers:
            server.stop()
        await asyncio.gather(*self._tasks)
        self._paths.socket.unlink(missing_ok=True)

    def _serve(self, application: ASGIApp, listener: socket.socket) -> None:
        server = GuestServer(application)
        task = asyncio.create_task(server.serve([listener]), name="HTTP API")
        self._servers.append(server)
        self._tasks.append(task)

    def _open_tcp(self) -> socket.socket | None:
        if not self._settings.listen:
            return None
        host, port = parse_endpoint(self._settings.listen)
        listener = open_tcp_socket(host, port)
        self.tcp_address = listener.getsockname()[:2]
        return listener

    def _token_file(self) -> Path:
        return (
            Path(self._settings.token_file)
            if self._settings.token_file
            else (self._paths.api_token)
        )


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
    """ASGI middleware that lets nobody through without ``Authorization: Bearer TOKEN``."""

    def __init__(self, application: Starlette, token: str) -> None:
        self._application = application
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self._expected):
            await self._application(scope, receive, send)
            return
        self._application.state.counts["api_errors/unauthorized"] += 1
        hint = "send the header `Authorization: Bearer TOKEN`; the agent's token file has the token"
        body = error_body("unauthorized", "the token is missing or wrong", hint)
        await respond(401, body, {"WWW-Authenticate": "Bearer"})(scope, receive, send)


def open_unix_socket(path: Path) -> socket.socket:
    """Return a listening socket at ``path``, with its mode set before anybody can connect.

    Raises AgentError when the path is too long, or an agent answers there.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise AgentError(
            f"the path of the API's socket is longer than {SOCKET_PATH_BYTES_MAX} bytes: {path}",
            "choose a shorter directory with --dir PATH or COVEY_DIR",
            BAD_CONFIG,
        )
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)  # nobody else may connect, not even between bind and chmod
    try:
        listener.bind(str(path))
        path.chmod(_socket_mode(path.parent))
    except OSError as error:
        listener.close()
        raise _cannot_listen(str(path), error) from None
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises AgentError if somebody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise AgentError(
                    f"{path} is in the way, and it is not a socket; it was not touched",
                    "move that file, or choose another directory with --dir PATH",
                    NO,
                ) from None
            path.unlink()
            return
        except OSError as error:
            raise _cannot_listen(str(path), error) from None
    raise AgentError(
        f"an agent already answers at {path}; it was left alone",
        "use that one, or give this agent a directory of its own with --dir PATH",
        NO,
    )


def _socket_mode(directory: Path) -> int:
    """Return 0660 in a directory that is open to its group and to nobody else, else 0600."""
    mode = directory.stat().st_mode
    for_group_alone = mode & DIRECTORY_OPEN_TO_GROUP and not mode & stat.S_IRWXO
    return 0o660 if for_group_alone else 0o600


def open_tcp_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises AgentError, saying which setting asked for it."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise _cannot_listen(f"{host}:{port} ([api] listen)", error) from None
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        logger.warning("the HTTP API listens on %s without TLS: its token can be overheard", host)
    return listener


def _cannot_listen(where: str, error: OSError) -> AgentError:
    return AgentError(
        f"the HTTP API cannot listen on {where}: {error.strerror or error}",
        "check the address, and that nothing else uses it: `ss -lntxp`",
        NOT_PERMITTED if isinstance(error, PermissionError) else NO,
    )


def load_or_make_token(path: Path) -> str:
    """Return the API's token; a missing file is made, for this user only.

    Raises AgentError when it cannot be read or made, or is open to others.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        token = read_secret(path)
        if not token:
            raise AgentError(
                f"{path} is empty", "delete it: a new token is made", BAD_CONFIG
            ) from None
        return token
    except OSError as error:
        raise AgentError(
            f"cannot make the API's token file {path}: {error.strerror}",
            "set token_file in [api] to a place where the agent may write",
            BAD_CONFIG,
        ) from None
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    logger.info("made the token of the HTTP API on TCP: %s", path)
    return token
