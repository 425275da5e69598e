"""Routes of events and queries: sent and followed, asked and answered, also by apps."""

import base64
import binascii
from typing import Any

from agent.api.errors import BadRequest
from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.ndjson import OpenStreams
from agent.api.request_bodies import flag, globs, integer, read_body, read_object
from agent.cluster.event_json import describe
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.events.messages import LONG_ANSWER_BYTES_MAX

RECENT_DEFAULT = 100
RECENT_MAX = 256
TIMEOUT_S = 5.0
TIMEOUT_S_MAX = 3600.0
"""Of any profile; how long this one waits is for the event service to say."""
WORDS = frozenset({"name", "payload", "payload_base64"})


async def send_event(request: Request) -> Response:
    """Send an event to all members."""
    agent: AgentServices = request.app.state.agent
    asked = await read_object(request, WORDS)
    return JSONResponse({"id": agent.event_service.send(_name(asked), _payload(asked))}, 201)


async def get_events(request: Request) -> Response:
    """Answer with the last events; with ``follow=1`` stream those that come."""
    agent: AgentServices = request.app.state.agent
    patterns = globs(request, "name") or ("*",)
    if flag(request, "follow"):
        streams: OpenStreams = request.app.state.streams
        return streams.respond(agent.event_service.follow(patterns), describe)
    limit = integer(request, "limit", least=0, most=RECENT_MAX, default=RECENT_DEFAULT) or 0
    await agent.event_service.settle()
    found = agent.event_service.recent(patterns, limit)
    return await listing("events", map(describe, found))


async def ask(request: Request) -> Response:
    """Ask members, and stream their answers; the last line is the summary."""
    agent: AgentServices = request.app.state.agent
    asked = await read_object(request, WORDS | {"filters", "timeout_s"})
    filters, timeout_s = asked.get("filters", {}), asked.get("timeout_s", TIMEOUT_S)
    if not isinstance(filters, dict) or not all(isinstance(v, str) for v in filters.values()):
        raise BadRequest("`filters`: an object of tags and their values, which are texts")
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float):
        raise BadRequest("`timeout_s`: a number of seconds")
    if not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise BadRequest(f"`timeout_s`: more than 0, and at most {TIMEOUT_S_MAX:g} seconds")
    answers = agent.event_service.ask(_name(asked), _payload(asked), filters, float(timeout_s))
    streams: OpenStreams = request.app.state.streams
    return streams.respond(answers, describe)


async def listen(request: Request) -> Response:
    """Stream the queries of these names, for whoever answers them."""
    agent: AgentServices = request.app.state.agent
    patterns = globs(request, "name")
    if not patterns:
        raise BadRequest("`name`: one is needed at least", "write ?name=weigh&name=tare")
    streams: OpenStreams = request.app.state.streams
    return streams.respond(agent.event_service.listen(patterns), describe)


async def answer(request: Request) -> Response:
    """Answer a query with the body, as it is."""
    agent: AgentServices = request.app.state.agent
    body = await read_body(request, LONG_ANSWER_BYTES_MAX)
    agent.event_service.answer(request.path_params["id"], body, failed=flag(request, "failed"))
    return Response(status_code=204)


def _name(asked: dict[str, Any]) -> str:
    name = asked.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest("`name`: a text is needed")
    return name


def _payload(asked: dict[str, Any]) -> bytes:
    text, encoded = asked.get("payload", ""), asked.get("payload_base64", "")
    if not isinstance(text, str) or not isinstance(encoded, str) or (text and encoded):
        raise BadRequest("give payload, a text, or payload_base64")
    try:
        return text.encode() if text else base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("the payload is neither UTF-8 nor base64") from None


ROUTES = (
    ("POST", "/api/v1/events", send_event),
    ("GET", "/api/v1/events", get_events),
    ("POST", "/api/v1/queries", ask),
    ("GET", "/api/v1/queries", listen),
    ("POST", "/api/v1/queries/{id}/answer", answer),
)
