"""Puts the API on its sockets: always the Unix socket, TCP when ``[api] listen`` says so.

The Unix socket is open to the agent's own user (0600), and to the group of its directory when
somebody made that directory for a group alone (0750, as the systemd unit does): then 0660. The
file system is the access control, so there is no token. A socket that a killed agent left
behind is removed, but only after nobody answered on it. One whose file is removed under the agent
is made again: logind takes a user's runtime directory away with the last session, and whoever
cleans up in /run or /tmp knows no better.

TCP carries the same API and asks each request for a bearer token (RFC 6750). One lies in a file
with mode 0600, made at the first start; beside it lies another, which opens the metrics alone; the
covey agrees on more (``agent/access/``). With ``tls`` it shows the node's certificate; without,
listen on the loopback interface, in a private network, or behind a proxy that has it.

Both accept from the start, and whoever connects first waits a moment longer: only then is what
serves them loaded (``server.py``). An agent that starts, perhaps among a hundred others, has
better use for that time and memory.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import secrets
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from agent.api.interfaces import AgentServices
from agent.config.credentials import file_at
from agent.config.loader import read_secret
from agent.config.paths import PRIVATE_DIRECTORY_MODE, SOCKET_PATH_BYTES_MAX, Paths
from agent.config.settings import ApiSettings
from agent.exits import BAD_CONFIG, NO, NOT_PERMITTED, AgentError
from agent.files.directories import make_directory
from agent.loop import watched
from agent.loop.late import load
from agent.loop.periodic import until_next
from agent.programs.isolation import may_be_apart
from agent.text.units import parse_endpoint

if TYPE_CHECKING:
    from agent.api.server import ApiServer

logger = logging.getLogger(__name__)

BACKLOG = 128
PROBE_TIMEOUT_S = 1.0
TOKEN_BYTES = 32
START_S = 5.0
LOOK_S = 5.0
DIRECTORY_OPEN_TO_GROUP = stat.S_IXGRP
DOOR_MODE_APART = 0o711


class Listeners:
    """The sockets of the API; ``open`` returns when they accept, ``close`` ends them.

    Opening what is open, and closing what is closed, does nothing: an agent that has to wait opens
    them early, and goes on with them.
    """

    def __init__(self, agent: AgentServices, paths: Paths, settings: ApiSettings) -> None:
        self._agent = agent
        self._paths = paths
        self._settings = settings
        self._sockets: list[socket.socket] = []
        self._tokens = "", ""
        self._door: socket.socket | None = None
        self._starting: asyncio.Task[None] | None = None
        self._serving: ApiServer | None = None
        self._files: dict[Path, os.stat_result] = {}
        self._is_wanted = False
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Listen. Raises AgentError when a socket or the token file cannot be had."""
        async with self._turn:
            self._open()
            self._is_wanted = True

    async def close(self) -> None:
        """Stop accepting, end the open streams, wait a moment for answers on their way."""
        async with self._turn:
            self._is_wanted = False
            await self._close()

    async def stay(self) -> None:
        """Have the Unix socket back within seconds when its file was removed. Runs until cancelled.

        Streams end as they do with the agent. While the directory cannot be made, all goes on.
        """
        while True:
            await until_next(LOOK_S)
            async with self._turn:
                if self._is_wanted and (missing := self._missing()):
                    await self._renew(missing)

    async def _renew(self, missing: list[Path]) -> None:
        """Make the sockets again if that can be. Raises AgentError if another agent has one."""
        try:
            self._paths.create_runtime()
        except AgentError:
            return  # a user's runtime directory is back with the user
        for path in missing:
            _remove_stale(path)
            logger.warning("%s was removed; it is made again", path)
        await self._close()
        self._open()

    def _is_there(self, path: Path) -> bool:
        """Say whether the file at a socket's path is the one that we made."""
        try:
            return path in self._files and os.path.samestat(path.lstat(), self._files[path])
        except OSError:
            return False

    def _missing(self) -> list[Path]:
        """Return the sockets whose files are not those that we made."""
        return [path for path in self._files if not self._is_there(path)]

    def _open(self) -> None:
        if self._sockets:
            return
        tcp = self._open_tcp()  # first: a bad setting must not leave a socket file behind
        if tcp is not None:
            files = self._token_files()
            self._tokens = load_or_make_token(files[0]), load_or_make_token(files[1])
        self._sockets = [open_unix_socket(self._paths.socket), *([] if tcp is None else [tcp])]
        self._door = open_door(self._paths.app_door)
        self._sockets.append(self._door)
        ours = self._paths.socket, self._paths.app_door
        self._files = {path: path.lstat() for path in ours}
        for listener in self._sockets:
            asyncio.get_running_loop().add_reader(listener, self._wake)

    async def _close(self) -> None:
        if not self._sockets:
            return
        self._stop_waiting()
        if self._starting is not None:
            await asyncio.wait([self._starting], timeout=START_S)
            self._starting.cancel()  # it may be one that waits to be tried again
        if self._serving is not None:
            await self._serving.close()
        for listener in self._sockets:
            listener.close()
        self._sockets, self._starting, self._serving = [], None, None
        if self._is_there(self._paths.socket):
            self._paths.socket.unlink()
        self._paths.app_door.unlink(missing_ok=True)

    def _wake(self) -> None:
        """Somebody waits at a socket for the first time: have the API come to them."""
        self._stop_waiting()
        self._starting = watched.start("http-api-start", self._start)

    def _stop_waiting(self) -> None:
        for listener in self._sockets:
            asyncio.get_running_loop().remove_reader(listener)

    async def _start(self) -> None:
        await load("agent.api.server")  # a small device takes a second for it
        from agent.api.gates import Tokens
        from agent.api.server import ApiServer

        tokens = Tokens(*self._tokens)
        sockets = [each for each in self._sockets if each is not self._door]
        tls = self._settings.tls
        serving = ApiServer(self._agent, *sockets, tokens=tokens, door=self._door, tls=tls)
        serving.start()
        self._serving = serving

    def _open_tcp(self) -> socket.socket | None:
        if not self._settings.listen:
            return None
        host, port = parse_endpoint(self._settings.listen)
        return open_tcp_socket(host, port, tls=self._settings.tls)

    def _token_files(self) -> tuple[Path, Path]:
        """Return where the token for all is, and the one for the metrics."""
        settings, paths = self._settings, self._paths
        return (
            file_at(settings.token_file or str(paths.api_token)),
            file_at(settings.metrics_token_file or str(paths.metrics_token)),
        )


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


def open_door(path: Path) -> socket.socket:
    """Return a listening socket for apps; those that are users of their own have to reach it.

    Whoever reaches it shows a key (``gates.py``). Raises AgentError.
    """
    are_apart = may_be_apart()
    try:
        make_directory(path.parent, PRIVATE_DIRECTORY_MODE)
        path.parent.chmod(DOOR_MODE_APART if are_apart else PRIVATE_DIRECTORY_MODE)
        if are_apart and stat.S_IMODE(path.parent.parent.stat().st_mode) == PRIVATE_DIRECTORY_MODE:
            path.parent.parent.chmod(DOOR_MODE_APART)
        door = open_unix_socket(path)
        path.chmod(0o666 if are_apart else 0o600)
    except OSError as error:
        raise _cannot_listen(str(path), error) from None
    return door


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


def open_tcp_socket(host: str, port: int, *, tls: bool = False) -> socket.socket:
    """Return a listening socket. Raises AgentError, saying which setting asked for it."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise _cannot_listen(f"{host}:{port} ([api] listen)", error) from None
    if not (tls or ipaddress.ip_address(listener.getsockname()[0]).is_loopback):
        logger.warning("the HTTP API listens on %s without TLS: its token can be overheard", host)
    return listener


def _cannot_listen(where: str, error: OSError) -> AgentError:
    return AgentError(
        f"the HTTP API cannot listen on {where}: {error.strerror or error}",
        "check the address, and that nothing else uses it: `ss -lntxp`",
        _status_of(error),
    )


def _status_of(error: OSError) -> int:
    """Return the status of an address that cannot be had.

    Starting again helps where it may come with an interface (EADDRNOTAVAIL), and not where somebody
    else has it.
    """
    if isinstance(error, PermissionError):
        return NOT_PERMITTED
    return BAD_CONFIG if error.errno == errno.EADDRINUSE else NO


def load_or_make_token(path: Path) -> str:
    """Return a token of the API; a missing file is made, for this user only.

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
            "set token_file and metrics_token_file in [api] to places where the agent may write",
            BAD_CONFIG,
        ) from None
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    logger.info("made a token of the HTTP API on TCP: %s", path)
    return token
