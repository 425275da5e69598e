"""Routes of the uplink: trying the broker. How the uplink is, is part of the agent's status."""

import msgspec

from agent.api.interfaces import AgentServices
from agent.api.ndjson import OpenStreams
from agent.http.request import Request
from agent.http.response import Response


async def test(request: Request) -> Response:
    """Try the broker, and stream each step as it ends."""
    agent: AgentServices = request.app.state.agent
    streams: OpenStreams = request.app.state.streams
    return streams.respond(agent.uplink.test(), msgspec.to_builtins)


ROUTES = (("POST", "/api/v1/uplink/test", test),)
