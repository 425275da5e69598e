"""Errors as HTTP answers: ``{"error": {"code", "message", "hint"}}``.

The code is the word that belongs to an exit status (``agent/exits.py``), so that the command
line can end with the status that the agent meant, and another client can branch on a word.
What nobody foresaw becomes a 500 that says nothing of the inside: the stack trace goes to the
log, where whoever may read it can.
"""

import logging
from collections.abc import Mapping
from typing import Any

from agent import exits
from agent.exits import AgentError
from agent.http.application import ErrorHandler, NoRoute
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from edge_apps.reading import BadReading
from gossip.core.errors import InvalidRequest, LimitExceeded

logger = logging.getLogger(__name__)

HTTP_STATUSES: dict[int, int] = {
    exits.NO: 409,
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
"""The HTTP status for an exit status; 500 for those that are not here.

Who asked rightly and is told no can do something about it: 500 is for faults of the agent alone.
"""

ROUTING_CODES = {
    404: "no-such-route",
    405: "wrong-method",
}
"""The code for an HTTP status that no exit status stands behind."""


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
    assert isinstance(error, NoRoute)
    code = ROUTING_CODES[error.status]
    count(request, code)
    taken = " and ".join(sorted(error.methods - {"HEAD"}))
    why = "method not allowed" if taken else "not found"
    message = f"{request.method} {request.path[:200]}: {why}"
    hint = f"it takes {taken}" if taken else _ways(request)
    headers = {"Allow": ", ".join(sorted(error.methods))} if taken else None
    return respond(error.status, error_body(code, message, hint), headers)


def _ways(request: Request) -> str:
    """Return a hint for who missed every route."""
    paths = [route.path for route in request.app.routes]
    nouns = {path.split("/")[3] for path in paths if path.startswith("/api/v1/")}
    return f"below /api/v1/ there are {', '.join(sorted(nouns))}"


async def _on_unforeseen(request: Request, error: Exception) -> Response:
    count(request, "internal")
    return respond(500, error_of(error))


def count(request: Request, code: str) -> None:
    """Count a request that was refused or failed, by its code."""
    request.app.state.counts[f"api_errors/{code}"] += 1


HANDLERS: dict[type[Exception], ErrorHandler] = {
    AgentError: _on_agent_error,
    InvalidRequest: _on_bad_value,
    LimitExceeded: _on_bad_value,
    BadReading: _on_bad_value,
    NoRoute: _on_routing,
    Exception: _on_unforeseen,
}
