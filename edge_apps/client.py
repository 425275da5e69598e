"""A client of the agent's HTTP API, over its Unix socket, with the standard library alone.

Apps and the command line speak to the agent through this file. Both start often and live on
small devices, so it must cost little to import: ``http.client`` alone takes longer than the
rest of ``covey --help``, and is imported when the first request is made, as are ``json`` and
``socket``. One connection per
request: on a Unix socket that costs less than keeping a pool correct.

Two things can go wrong, and they are different types because callers act differently:

    ClientError
    ├── AgentUnreachable      nobody answered; the request may or may not have been carried out
    │   ├── AgentTimedOut     somebody listens, but the answer did not come in time
    │   └── AgentForbidden    this user may not speak to the agent; nothing was asked
    └── ApiError              the agent answered that it will not, or cannot; says why
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

from gossip.core.errors import CoveyError

if TYPE_CHECKING:
    import socket
    from http.client import HTTPResponse

TIMEOUT_S = 30.0
"""Longer than the agent waits for the voters unless told otherwise: the answer is the agent's."""
TOKEN_VARIABLE = "COVEY_API_TOKEN"  # noqa: S105 - the name of one
TIMEOUT_S_MAX = 1e9
"""The kernel's timers have no room for much more; it stands for ever."""
STREAM_CHUNK_BYTES = 64 * 1024
SOCKET_PATH_BYTES_MAX = 107  # sun_path in Linux's <sys/un.h>, less the closing zero

Query = Mapping[str, str | float | bool | Sequence[str] | None]


class ClientError(CoveyError):
    """A request did not succeed. ``hint`` says what to do next; it may be empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class AgentUnreachable(ClientError):
    """No agent answered; a request that changes something may have been carried out or not.

    ``was_asked`` is false when it was certainly not: there was nobody to send it to.
    """

    was_asked = True


class AgentTimedOut(AgentUnreachable):
    """An agent listens, but did not answer in time."""


class AgentForbidden(AgentUnreachable):
    """This user may not speak to the agent: its socket, ``socket_path``, is for others."""

    def __init__(self, socket_path: Path) -> None:
        super().__init__(
            f"this user may not speak to the agent at {socket_path}",
            "run as the agent's user, join the group that owns the socket, or name the directory "
            "of an agent of your own with --dir or COVEY_DIR",
        )
        self.socket_path = socket_path


class ApiError(ClientError):
    """The agent answered with an error: HTTP ``status``, a stable ``code``, message and hint."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code


class Response(NamedTuple):
    """A successful answer. ``headers`` has lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; None for an empty body."""
        import json as json_format

        return json_format.loads(self.body) if self.body else None


class Client:
    """Speaks to the agent that listens on ``socket_path``; may be shared by threads.

    Paths are plain text and are percent-encoded here. A ``query`` value of None is left out,
    truth values travel as ``1`` and ``0``. ``token`` is what an app shows at the
    apps' socket: unless given, what the agent put into the app's environment.
    """

    def __init__(
        self, socket_path: Path | str, *, timeout_s: float = TIMEOUT_S, token: str | None = None
    ) -> None:
        self.socket_path = Path(socket_path)
        self.timeout_s = timeout_s
        token = os.environ.get(TOKEN_VARIABLE) if token is None else token
        self._showing = {"Authorization": f"Bearer {token}"} if token else {}

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """Return the whole answer, at most ``timeout_s`` after each step of the exchange.

        Give ``json`` or ``body``, or neither. Raises ApiError for a status of 400 and above,
        AgentUnreachable or AgentTimedOut when there was no complete answer.
        """
        sent, kind = _encoded(json, body)
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        with self._exchange(
            method, _target(path, query), sent, {**kind, **(headers or {})}, timeout_s
        ) as (answer, _):
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, names, answer.read())

    def get(self, path: str, **query: str | float | bool | None) -> Any:
        """Return what ``GET path`` answers, as JSON. Raises like ``request``."""
        return self.request("GET", path, query=query).json()

    def post(self, path: str, json: Any = None) -> Any:
        """Return what ``POST path`` answers, as JSON. Raises like ``request``."""
        return self.request("POST", path, json=json).json()

    def stream(
        self,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        idle_timeout_s: float | None = None,
    ) -> Iterator[Any]:
        """Yield the JSON lines of ``GET path`` as they arrive, until the agent ends the stream.

        With ``json``, of ``POST path``. Close the iterator to hang up. ``idle_timeout_s`` bounds
        the wait for the next line; None waits for ever. Raises like ``request``, also in the
        middle of the stream.
        """
        import json as json_format

        method = "GET" if json is None else "POST"
        body, kind = _encoded(json, None)
        with self._exchange(method, _target(path, query), body, kind, self.timeout_s) as opened:
            answer, connected = opened
            # The answer has begun: from here on silence is normal, there may be no news.
            connected.settimeout(idle_timeout_s)
            for line in _lines(answer):
                yield json_format.loads(line)

    def connect(self) -> "tuple[socket.socket, Mapping[str, str]]":
        """Return a connection of its own, and the headers that a request on it has to show.

        For who goes on as another protocol. Raises AgentUnreachable.
        """
        return self._connect(self.timeout_s), self._showing

    def send(
        self,
        method: str,
        path: str,
        parts: Iterable[bytes],
        *,
        query: Query | None = None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> Response:
        """Return the whole answer to a request whose body is sent part by part.

        ``headers`` say how long it is, where that is known. Raises like ``request``.
        """
        target = _target(path, query)
        with self._exchange(method, target, parts, headers, timeout_s) as (answer, _):
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, names, answer.read())

    @contextmanager
    def receive(
        self, path: str, *, headers: Mapping[str, str] | None = None
    ) -> "Iterator[HTTPResponse]":
        """Give the answer to ``GET path``, to be read part by part. Raises like ``request``."""
        target = _target(path, None)
        with self._exchange("GET", target, None, headers or {}, self.timeout_s) as (answer, _):
            yield answer

    @contextmanager
    def _exchange(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
        timeout_s: float | None,
    ) -> "Iterator[tuple[HTTPResponse, socket.socket]]":
        import http.client  # late, see the module's text

        connection = http.client.HTTPConnection("localhost")
        connected = self._connect(timeout_s)
        connection.sock = connected
        try:
            connection.request(method, target, body, {**self._showing, **headers})
            answer = connection.getresponse()
            if answer.status >= 400:
                raise api_error(answer.status, answer.read())
            yield answer, connected
        except TimeoutError:
            waited_s = f"{connected.gettimeout():g} s"
            raise AgentTimedOut(
                f"the agent at {self.socket_path} did not answer within {waited_s}",
                "it may be busy or stopped; what was asked for may still happen",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise AgentUnreachable(
                f"the agent at {self.socket_path} hung up before its answer was whole",
                "what was asked for may or may not have happened; see `covey status`",
            ) from error
        finally:
            connection.close()

    def _connect(self, timeout_s: float | None) -> "socket.socket":
        import socket

        path = str(self.socket_path)
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
            raise AgentUnreachable(
                f"{path} is too long for a Unix socket ({SOCKET_PATH_BYTES_MAX} bytes)",
                "use a shorter --dir or COVEY_DIR",
            )
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.settimeout(None if timeout_s is None else min(timeout_s, TIMEOUT_S_MAX))
        try:
            opened.connect(path)
        except OSError as error:
            opened.close()
            unreached = self._not_connected(error)
            unreached.was_asked = False
            raise unreached from None
        return opened

    def _not_connected(self, error: OSError) -> AgentUnreachable:
        if isinstance(error, PermissionError):
            return AgentForbidden(self.socket_path)
        if isinstance(error, TimeoutError | BlockingIOError):
            return AgentTimedOut(
                f"the agent at {self.socket_path} accepts no connection",
                "it is stopped or overwhelmed; nothing was asked of it yet",
            )
        return AgentUnreachable(
            f"no agent listens on {self.socket_path}",
            "start one with `covey run`, or name its directory with --dir or COVEY_DIR",
        )


def _encoded(json: Any, body: bytes | None) -> tuple[bytes | None, dict[str, str]]:
    import json as json_format

    assert json is None or body is None, "a request has one body"
    if json is not None:
        return json_format.dumps(json).encode(), {"Content-Type": "application/json"}
    if body is not None:
        return body, {"Content-Type": "application/octet-stream"}
    return None, {}


def _target(path: str, query: Query | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    pairs = {name: int(v) if isinstance(v, bool) else v for name, v in given.items()}
    try:
        return quote(path, safe="/") + (f"?{urlencode(pairs, doseq=True)}" if pairs else "")
    except UnicodeEncodeError:  # as Python reads words of a command line that are in Latin-1
        raise ApiError(
            400,
            "usage",
            "a name in the request is not UTF-8; nothing was asked",
            "write it in UTF-8",
        ) from None


def _lines(answer: "HTTPResponse") -> Iterator[bytes]:
    # read1 and not readline: it tells an agent that was killed from one that ended the stream.
    rest = b""
    while chunk := answer.read1(STREAM_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
    if rest.strip():
        yield rest


def api_error(status: int, body: bytes) -> ApiError:
    """Return the error that the agent told of, with its status."""
    import json as json_format

    try:
        told = json_format.loads(body)["error"]
        return ApiError(status, told["code"], told["message"], told.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace").strip()[:200]
        return ApiError(status, "unexplained", f"the agent answered {status}: {text or 'no text'}")
