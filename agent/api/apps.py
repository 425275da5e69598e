"""Routes of the apps that this agent runs."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.ndjson import OpenStreams
from agent.api.request_bodies import flag, integer
from agent.http.request import Request
from agent.http.response import JSONResponse, Response

LOG_LINES_DEFAULT = 100
LOG_LINES_MAX = 10_000


async def list_apps(request: Request) -> Response:
    """Answer with all apps that the agent knows."""
    agent: AgentServices = request.app.state.agent
    return JSONResponse({"apps": msgspec.to_builtins(await agent.apps.list())})


async def start_app(request: Request) -> Response:
    """Run the app from now on, also after a restart of the agent."""
    agent: AgentServices = request.app.state.agent
    return JSONResponse(msgspec.to_builtins(await agent.apps.start(request.path_params["name"])))


async def stop_app(request: Request) -> Response:
    """Stop the app, and leave it stopped."""
    agent: AgentServices = request.app.state.agent
    return JSONResponse(msgspec.to_builtins(await agent.apps.stop(request.path_params["name"])))


async def app_log(request: Request) -> Response:
    """Answer with the app's last lines; with ``follow=1`` stream those that come as well."""
    agent: AgentServices = request.app.state.agent
    lines = integer(request, "lines", least=0, most=LOG_LINES_MAX, default=LOG_LINES_DEFAULT)
    assert lines is not None, "it has a default"
    following = flag(request, "follow")
    printed = agent.apps.log(request.path_params["name"], lines, follow=following)
    if following:
        streams: OpenStreams = request.app.state.streams
        return streams.respond(printed, _line)
    return await listing("lines", await _all(printed))


def _line(text: str) -> dict[str, Any]:
    return {"line": text}


async def _all(lines: AsyncIterator[str]) -> list[str]:
    return [text async for text in lines]


ROUTES = (
    ("GET", "/api/v1/apps", list_apps),
    ("POST", "/api/v1/apps/{name}/start", start_app),
    ("POST", "/api/v1/apps/{name}/stop", stop_app),
    ("GET", "/api/v1/apps/{name}/log", app_log),
)
