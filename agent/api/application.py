"""All routes of the HTTP API, and the application that they make.

``docs/api.md`` is the reference; a test compares it with the routes below.
"""

from collections import Counter

from starlette.applications import Starlette
from starlette.routing import Route

from agent.api import (
    apps,
    doctor,
    events,
    facts,
    influx,
    keyring,
    keys,
    members,
    overview,
    readings,
    rtt,
    sleep,
)
from agent.api.errors import HANDLERS
from agent.api.facade import AgentFacade
from agent.api.streams import Streams

ROUTES = (
    *overview.ROUTES,
    *members.ROUTES,
    *facts.ROUTES,
    *sleep.ROUTES,
    *rtt.ROUTES,
    *keys.ROUTES,
    *readings.ROUTES,
    *influx.ROUTES,
    *events.ROUTES,
    *apps.ROUTES,
    *keyring.ROUTES,
    *doctor.ROUTES,
)


def create(agent: AgentFacade) -> Starlette:
    """Return the application. Its counters are added to the agent's metrics."""
    application = Starlette(
        routes=[Route(path, handler, methods=[method]) for method, path, handler in ROUTES],
        exception_handlers=HANDLERS,
    )
    # A key may end in a slash: it must not be redirected to one that does not.
    application.router.redirect_slashes = False
    application.state.agent = agent
    application.state.streams = Streams()
    application.state.counts = Counter()
    agent.metrics.count(lambda: application.state.counts)
    return application
