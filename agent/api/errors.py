"""Errors as HTTP answers: ``{"error": {"code", "message", "hint"}}``.

The code is the word that belongs to an exit status (``agent/exits.py``), so that the command
line can end with the status that the agent meant, and another client can branch on a word.
What nobody foresaw becomes a 500 that says nothing of the inside: the stack trace goes to the
log, where whoever may read it can.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent import exits
from agent.exits import AgentError
from edge_apps.reading import BadReading
from gossip.core.errors import InvalidRequest, LimitExceeded

logger = logging.getLogger(__name__)

HTTP_STATUSES: dict[int, int] = {
    exits.USAGE: 400,
    exits.NOT_FOUND: 404,
    exits.TIMED_OUT: 504,
    exits.UNREACHABLE: 503,
    exits.UNHEALTHY: 503,
    exits.NOT_PERMITTED: 403,
    exits.TOKEN_UNKNOWN: 403,
    exits.TOKEN_EXPIRED: 403,
    exits.TOKEN_USED_UP: 403,
    exits.TOKEN_FOREIGN: 403,
    exits.CLOCK_OFF: 403,
    exits.NAME_TAKEN: 409,
}
"""The HTTP status for an exit status; 500 for those that are not here."""

ROUTING_CODES = {
    401: "unauthorized",
    404: "no-such-route",
    405: "wrong-method",
    413: "too-large",
}
"""The code for an HTTP status that no exit status stands behind."""


OVER_TCP = "covey.over_tcp"
"""In the scope of a request that came by TCP, and not over the Unix socket."""

REFUSED = "covey.refused"
"""In the scope of a request that showed nothing that opens this socket."""


class BadRequest(AgentError):
    """A request that cannot be understood; the hint says how to write it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, exits.USAGE)


class TooLarge(AgentError):
    """A request with more than its kind may have: so many bytes, or other things."""

    def __init__(self, limit: int, what: str = "bytes") -> None:
        message = f"the request has more than {limit} {what}; nothing of it was stored"
        super().__init__(message, "send less at once", exits.USAGE)


class TooManyStreams(AgentError):
    """One client with as many streams as it may have; 429."""

    def __init__(self, limit: int) -> None:
        message = f"{limit} streams are open for this client already; this one was not begun"
        super().__init__(message, "close those that nobody reads", exits.UNHEALTHY)


class NotEncodedSo(AgentError):
    """A body in an encoding that is not taken; 415."""

    def __init__(self, encoding: str) -> None:
        message = f"Content-Encoding {encoding[:40]!r} is not taken; nothing was stored"
        super().__init__(message, "send the body as it is, or with gzip", exits.USAGE)


def error_body(code: str, message: str, hint: str = "") -> dict[str, dict[str, str]]:
    """Return the form that all errors have."""
    return {"error": {"code": code, "message": message, "hint": hint}}


def error_of(error: Exception) -> dict[str, dict[str, str]]:
    """Describe an exception for the other side; an unforeseen one is logged, not told."""
    if isinstance(error, AgentError):
        return error_body(error.code, error.message, error.hint)
    if isinstance(error, InvalidRequest | LimitExceeded | BadReading):
        return error_body(exits.word_of(exits.USAGE), str(error))
    logger.error("an API request failed in a way that nobody foresaw", exc_info=error)
    return error_body("internal", "the agent failed to answer", "its log has the details")


def status_of(error: AgentError) -> int:
    """Return the HTTP status for an error."""
    if isinstance(error, TooLarge):
        return 413
    if isinstance(error, TooManyStreams):
        return 429
    return 415 if isinstance(error, NotEncodedSo) else HTTP_STATUSES.get(error.status, 500)


def respond(
    status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as an answer."""
    return JSONResponse(body, status, headers)


async def _on_agent_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AgentError)
    count(request, error.code)
    return respond(status_of(error), error_of(error))


async def _on_bad_value(request: Request, error: Exception) -> Response:
    count(request, "usage")
    return respond(413 if isinstance(error, LimitExceeded) else 400, error_of(error))


async def _on_routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = ROUTING_CODES.get(error.status_code, "usage")
    count(request, code)
    message = f"{request.method} {request.url.path[:200]}: {error.detail.lower()}"
    return respond(error.status_code, error_body(code, message, _way(request)), error.headers)


def _way(request: Request) -> str:
    """Return a hint for who missed every route: what this one takes, or which ones there are."""
    routes = [each for each in request.app.routes if isinstance(each, Route)]
    hit = [each for each in routes if each.path_regex.match(request.url.path)]
    if hit:
        methods = {method for each in hit for method in each.methods or ()}
        return f"it takes {' and '.join(sorted(methods - {'HEAD'}))}"
    nouns = {each.path.split("/")[3] for each in routes if each.path.startswith("/api/v1/")}
    return f"below /api/v1/ there are {', '.join(sorted(nouns))}"


async def _on_unforeseen(request: Request, error: Exception) -> Response:
    count(request, "internal")
    return respond(500, error_of(error))


def count(request: Request, code: str) -> None:
    """Count a request that was refused or failed, by its code."""
    request.app.state.counts[f"api_errors/{code}"] += 1


HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    AgentError: _on_agent_error,
    InvalidRequest: _on_bad_value,
    LimitExceeded: _on_bad_value,
    BadReading: _on_bad_value,
    HTTPException: _on_routing,
    Exception: _on_unforeseen,
}
