"""Routes of InfluxDB's write API, for Telegraf and whatever else speaks it.

=====================  ===========================  ======================================
route                  all lines good               some lines bad
=====================  ===========================  ======================================
``/write``             204                          400 ``{"error": "partial write: ..."}``
``/api/v2/write``      204                          422 ``{"code", "message", "line"}``
``/api/v1/write``      200 with the ids             200 with the ids, and the bad lines
=====================  ===========================  ======================================

The good lines of a request are accepted also when others are bad; when none is good, it is 400 in
all of them. A client that gets one of these drops what it sent, and does not send it again; with
503, when the outbox is full, it keeps all and comes back. Database, bucket, organization and
retention policy mean nothing here, and are not looked at.
(https://docs.influxdata.com/influxdb/v1/tools/api/, .../v2/api/)
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from agent._version import __version__
from agent.api.errors import BadRequest, count, status_of
from agent.api.interfaces import AgentServices
from agent.api.request_bodies import JSON_BYTES_MAX, read_body, readings_of
from agent.exits import AgentError
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from agent.loop.late import load

if TYPE_CHECKING:
    from agent.telemetry.intake import Taken

RETRY_AFTER_S = 10
VERSION_HEADERS = {"X-Influxdb-Version": f"covey-{__version__}", "X-Influxdb-Build": "Covey"}

Handler = Callable[[Request], Awaitable[Response]]


async def post_lines(request: Request) -> Response:
    """Accept the good lines of a body, in the agent's own words."""
    taken = await _accept(request)
    if not taken.accepted:
        raise BadRequest(
            f"none of {taken.bad} lines was accepted: {taken.problems}"
            if taken.bad
            else "no readings: send at least one",
            "write MEASUREMENT[,TAG=VALUE] FIELD=VALUE[,FIELD=VALUE] [TIME] on each line",
        )
    return JSONResponse(
        {
            "accepted": taken.accepted,
            "first": taken.first,
            "last": taken.last,
            "bad": taken.bad,
            "problems": [str(line) for line in taken.bad_shown],
        }
    )


async def write_v1(request: Request) -> Response:
    """Do what ``/write`` of InfluxDB 1 does."""
    try:
        taken = await _accept(request)
    except AgentError as error:
        return _refusal(request, error, {"error": _sentence(error)})
    if not taken.bad:
        return Response(status_code=204, headers=VERSION_HEADERS)
    told = f"unable to parse: {taken.problems}"
    if taken.accepted:
        told = f"partial write: {told} dropped={taken.bad}"
    return JSONResponse({"error": told}, 400, VERSION_HEADERS)


async def write_v2(request: Request) -> Response:
    """Do what ``/api/v2/write`` of InfluxDB 2 does."""
    try:
        taken = await _accept(request)
    except AgentError as error:
        status = status_of(error)
        code = V2_CODES.get(status, "invalid" if status < 500 else "internal error")
        return _refusal(request, error, {"code": code, "message": _sentence(error)})
    if not taken.bad:
        return Response(status_code=204, headers=VERSION_HEADERS)
    status = 422 if taken.accepted else 400
    told = f"unable to parse: {taken.problems}"
    if taken.accepted:
        told = f"partial write: {told} dropped={taken.bad}"
    body = {"code": V2_CODES[status], "message": told, "line": taken.bad_shown[0].number}
    return JSONResponse(body, status, VERSION_HEADERS)


V2_CODES = {
    400: "invalid",
    413: "request too large",
    422: "unprocessable entity",
    503: "unavailable",
}


async def ping(_request: Request) -> Response:
    """Say that somebody is here who takes lines."""
    return Response(status_code=204, headers=VERSION_HEADERS)


async def health(request: Request) -> Response:
    """Say how the agent is, as InfluxDB 2 does; some clients write only to who passes."""
    agent: AgentServices = request.app.state.agent
    reasons = list(agent.not_ready())
    answer: dict[str, Any] = {
        "name": "covey",
        "message": "; ".join(reasons) or "ready for writes",
        "status": "fail" if reasons else "pass",
        "checks": [],
        "version": __version__,
    }
    return JSONResponse(answer, 503 if reasons else 200, VERSION_HEADERS)


async def query(request: Request) -> Response:
    """Say yes to CREATE DATABASE, with which Telegraf begins; everything else is not for us."""
    text = request.query_params.get("q", "")
    if not text and request.method == "POST":
        body = await read_body(request, JSON_BYTES_MAX)
        text = "".join(parse_qs(body.decode(errors="replace")).get("q", []))
    if text.strip().upper().startswith("CREATE DATABASE"):
        return JSONResponse({"results": [{"statement_id": 0}]}, headers=VERSION_HEADERS)
    count(request, "usage")
    told = "an agent keeps no database: ask the one that its broker feeds"
    return JSONResponse({"error": told}, 400, VERSION_HEADERS)


async def _accept(request: Request) -> "Taken":
    """Accept what is good of the body. Raises AgentError."""
    await load("agent.telemetry.intake")
    from agent.telemetry.intake import take_lines

    agent: AgentServices = request.app.state.agent
    unit_ns = _unit_ns(request)
    async with readings_of(request, request.app.state.large_bodies) as body:
        taken = await take_lines(agent.telemetry.accept, body, unit_ns)
    request.app.state.counts["readings_refused/bad"] += taken.bad
    return taken


def _unit_ns(request: Request) -> int:
    from agent.telemetry.line_protocol import NS_PER_UNIT

    text = request.query_params.get("precision", "") or "ns"
    if text not in NS_PER_UNIT:
        raise BadRequest(f"`precision={text[:20]}`: one of {', '.join(NS_PER_UNIT)}")
    return NS_PER_UNIT[text]


def _refusal(request: Request, error: AgentError, body: dict[str, Any]) -> Response:
    count(request, error.code)
    status = status_of(error)
    headers = dict(VERSION_HEADERS)
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return JSONResponse(body, status, headers)


def _sentence(error: AgentError) -> str:
    return f"{error.message} {error.hint}".strip()


ROUTES = (
    ("POST", "/api/v1/write", post_lines),
    ("POST", "/write", write_v1),
    ("POST", "/api/v2/write", write_v2),
    ("GET", "/ping", ping),
    ("GET", "/health", health),
    ("POST", "/query", query),
)
