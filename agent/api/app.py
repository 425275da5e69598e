"""All routes of the HTTP API, and the application that they make.

``docs/api.md`` is the reference; a test compares it with the routes below.
"""

from collections import Counter
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent.api import (
    apps,
    doctor,
    events,
    facts,
    influx,
    kv,
    members,
    membership,
    readings,
    registry,
    rtt,
    sleep,
    status,
    tokens,
    uplink,
)
from agent.api import keys as keyring
from agent.api.errors import HANDLERS
from agent.api.interfaces import AgentServices
from agent.api.large_bodies import PLACES, VALUE_PLACES, LargeBodies
from agent.api.ndjson import OpenStreams
from agent.api.request_bodies import check_is_text
from agent.readiness import Stage

Handler = Callable[[Request], Awaitable[Response]]

ROOMS = (
    (Stage.WAITING, status.ROUTES),
    (Stage.WAITING, membership.ROUTES),
    (Stage.WAITING, doctor.ROUTES),
    (Stage.KEEPING, readings.ROUTES),
    (Stage.KEEPING, influx.ROUTES),
    (Stage.KEEPING, uplink.ROUTES),
    (Stage.KEEPING, apps.ROUTES),
    (Stage.MEMBER, members.ROUTES),
    (Stage.MEMBER, tokens.ROUTES),
    (Stage.MEMBER, registry.ROUTES),
    (Stage.MEMBER, facts.ROUTES),
    (Stage.MEMBER, sleep.ROUTES),
    (Stage.MEMBER, rtt.ROUTES),
    (Stage.MEMBER, kv.ROUTES),
    (Stage.MEMBER, events.ROUTES),
    (Stage.MEMBER, keyring.ROUTES),
)
"""All routes, by the stage from which on an agent can serve them."""

ROUTES = tuple(route for _, routes in ROOMS for route in routes)


def create(agent: AgentServices) -> Starlette:
    """Return the application. Its counters are added to the agent's metrics."""
    application = Starlette(
        routes=[
            Route(path, _from_on(stage, handler), methods=[method])
            for stage, routes in ROOMS
            for method, path, handler in routes
        ],
        exception_handlers=HANDLERS,
    )
    # A key may end in a slash: it must not be redirected to one that does not.
    application.router.redirect_slashes = False
    application.state.agent = agent
    application.state.streams = OpenStreams()
    application.state.counts = Counter()
    application.state.large_bodies = LargeBodies(PLACES)
    application.state.large_values = LargeBodies(VALUE_PLACES)
    agent.metrics.count(lambda: application.state.counts)
    return application


def _from_on(stage: Stage, handler: Handler) -> Handler:
    """Return a handler that refuses, with what to do, while the agent has not come so far."""

    async def answer(request: Request) -> Response:
        check_is_text(request)
        agent: AgentServices = request.app.state.agent
        agent.require(stage)
        return await handler(request)

    return answer
