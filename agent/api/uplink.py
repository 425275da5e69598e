"""Routes of the uplink: trying the broker. How the uplink is, is part of the agent's status."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from agent.api.facade import AgentFacade
from agent.api.streams import Streams


async def test(request: Request) -> Response:
    """Try the broker, and stream each step as it ends."""
    agent: AgentFacade = request.app.state.agent
    streams: Streams = request.app.state.streams
    return streams.respond(agent.uplink.test(), msgspec.to_builtins)


ROUTES = (("POST", "/api/v1/uplink/test", test),)
