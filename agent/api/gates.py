"""Who asks, at each of the sockets: the gates before the application, which say so to it.

* The Unix socket: the file system has decided. Which user it is, the kernel says (SO_PEERCRED).
* The apps' socket: an app shows the key that is in its environment.
* TCP: a token, one of the agent's own two or one that the covey has agreed on.

A gate puts a ``Caller`` into the request's scope (``callers.py``). A request without one may do
nothing.
"""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from agent.access.access import AccessService, TokenRefusal
from agent.access.caller import Caller, local_caller
from agent.access.rights import OF_CONFIGURED_TOKEN, Right
from agent.api.callers import CALLER, NOBODY
from agent.api.errors import REFUSED, error_body, respond
from agent.api.ndjson import FRAMINGS
from agent.api.refusals import Attempt, Refusals, attempt_of
from agent.http.application import Application
from agent.http.asgi import ASGIApp, Message, Receive, Scope, Send

PEER_UID = "covey.peer_uid"
"""In the scope of a request that came over a Unix socket: the user at its other end."""


class Tokens(NamedTuple):
    """The agent's own, which lie in files on the device."""

    all: str
    metrics: str
    """Opens ``/metrics`` alone: whoever scrapes need not be able to do anything."""


class LocalGate:
    """The agent's own Unix socket: whoever reaches it is the device's administrator."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        scope[CALLER] = local_caller(scope.get(PEER_UID))
        await self._application(scope, receive, send)


class AppGate:
    """The apps' socket. An app measures, keeps and listens, and may do what its table allows.

    Who breaks into an app shall not have the covey. The agent's own socket, which can do all, is
    in a directory that apps who are users of their own cannot enter.
    """

    def __init__(self, application: Application, who_has: Callable[[str], Caller | None]) -> None:
        self._application = application
        self._who_has = who_has

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        caller = self._who_has(_shown_in(scope).decode(errors="replace"))
        if caller is None:
            await _refuse(self._application, scope, NO_KEY)(scope, receive, send)
            return
        scope[CALLER] = caller
        await self._application(scope, receive, send)


class TokenGate:
    """TCP: lets nobody through without a token.

    Its own form is ``Authorization: Bearer TOKEN``; clients of InfluxDB say ``Token TOKEN``
    (version 2), or give a user's name, any, and the token as the password (version 1).
    """

    def __init__(self, application: Application, tokens: Tokens, access: AccessService) -> None:
        self._application = application
        self._all, self._metrics = (token.encode() for token in tokens)
        self._access = access
        self._own = (
            Caller("the token in api-token", OF_CONFIGURED_TOKEN),
            Caller("the token for metrics", frozenset({Right.METRICS})),
        )
        assert self._all, "an empty token would open all"
        assert self._metrics, "an empty token would open the metrics"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on, and break it off when its token ends."""
        shown = _shown_in(scope)
        found = self._who_has(shown)
        if isinstance(found, TokenRefusal):
            await _refuse(self._application, scope, found)(scope, receive, send)
            return
        scope[CALLER] = found if _is_secret(scope) else found.in_the_clear()
        if found in self._own:
            await self._application(scope, receive, send)  # the agent's own never end
            return
        begun = AnswerProgress(send)
        try:
            async with self._access.while_good(shown) as until:
                await self._application(scope, receive, begun.send)
        except TimeoutError:
            if not until.expired():
                raise
            attempt = attempt_of(found.who, scope)
            await _end(self._application, attempt, begun)(scope, receive, send)

    def _who_has(self, shown: bytes) -> Caller | TokenRefusal:
        # Both are compared, in a time that does not depend on where they differ.
        opens_all = hmac.compare_digest(shown, self._all)
        opens_metrics = hmac.compare_digest(shown, self._metrics)
        if opens_all:
            return self._own[0]
        if opens_metrics:
            return self._own[1]
        return self._access.caller_with(shown) if shown else NO_TOKEN


NO_TOKEN = TokenRefusal(
    "no_token",
    "the token is missing or wrong",
    "send the header `Authorization: Bearer TOKEN`; `covey access create` makes one, and the "
    "agent's own is in its file api-token",
)
NO_KEY = TokenRefusal(
    "no_key",
    "this is the apps' socket, and no app has this key; nothing was done",
    "an app finds its key in COVEY_API_TOKEN; people use the agent's own socket",
)


ENDED = TokenRefusal(
    "ended",
    "the token was revoked or expired while this was under way; what had begun may be done",
    "make another one: `covey access create`",
)


class AnswerProgress:
    """Passes an answer on, and knows how far it has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.media_type = b""
        """What has begun; empty while nothing has."""
        self.is_whole = False

    async def send(self, message: Message) -> None:
        """Pass on the next part."""
        if message["type"] == "http.response.start":
            self.media_type = dict(message["headers"]).get(b"content-type", b"unknown")
        else:
            self.is_whole = not message.get("more_body", False)
        await self._send(message)


def _end(application: Application, attempt: Attempt, begun: AnswerProgress) -> ASGIApp:
    """Return what still can be said to somebody whose token has just ended."""
    application.state.counts["api_errors/unauthorized"] += 1
    application.state.refusals.record(ENDED.label, attempt, ENDED.message)
    body = error_body("unauthorized", ENDED.message, ENDED.hint)
    if not begun.media_type:
        return respond(401, body, {"WWW-Authenticate": "Bearer"})

    async def last_line(_scope: Scope, _receive: Receive, send: Send) -> None:
        # Anything else is left unfinished: a part of it must not look like all of it.
        framing = FRAMINGS.get(begun.media_type.decode("latin-1").partition(";")[0])
        if framing is not None and not begun.is_whole:
            await send({"type": "http.response.body", "body": framing(body)})

    return last_line


def _refuse(application: Application, scope: Scope, why: TokenRefusal) -> Any:
    scope[REFUSED] = True
    application.state.counts["api_errors/unauthorized"] += 1
    refusals: Refusals = application.state.refusals
    refusals.record(why.label, attempt_of(NOBODY.who, scope), why.message)
    headers = {"WWW-Authenticate": "Bearer"}
    return respond(401, error_body("unauthorized", why.message, why.hint), headers)


def _is_secret(scope: Scope) -> bool:
    """Say whether nobody on the network can have read this request."""
    client = scope.get("client")
    if scope["scheme"] == "https" or not client:
        return True
    return _is_loopback(client[0])


@lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _shown_in(scope: Scope) -> bytes:
    """Return the token that a request gives in one of the three forms; empty in none."""
    headers = scope["headers"]
    header: bytes = next((value for name, value in headers if name == b"authorization"), b"")
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
