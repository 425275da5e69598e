"""The application that the routes of the HTTP API make: who may ask, and what is written down."""

from collections import Counter
from contextlib import nullcontext

import agent.api.status  # noqa: F401 - out of file descriptors, an agent still says how it is
from agent.access.caller import NotItsRight
from agent.api.audited import written_down
from agent.api.callers import caller_of
from agent.api.errors import HANDLERS
from agent.api.interfaces import AgentServices
from agent.api.large_bodies import PLACES, VALUE_PLACES, LargeBodies
from agent.api.name_scope import NotItsName
from agent.api.ndjson import OpenStreams
from agent.api.refusals import Refusals, attempt_of
from agent.api.request_bodies import check_is_text
from agent.api.route_rights import AUDITED, RIGHTS
from agent.api.routes import ROOMS, late
from agent.api.stream_budget import StreamBudget
from agent.http.application import Application, Handler, Route
from agent.http.request import Request
from agent.http.response import Response
from agent.readiness import Stage


def create(agent: AgentServices) -> Application:
    """Return the application. Its counters are added to the agent's metrics."""
    routes = [
        Route(*route, _guarded(room.stage, route, late(room.module, route)))
        for room in ROOMS
        for route in room.routes
    ]
    application = Application(routes, HANDLERS)
    application.state.agent = agent
    application.state.streams = OpenStreams()
    application.state.stream_budget = StreamBudget()
    application.state.counts = Counter()
    application.state.refusals = Refusals(application.state.counts, agent.audit)
    application.state.large_bodies = LargeBodies(PLACES)
    application.state.large_values = LargeBodies(VALUE_PLACES)
    agent.metrics.count(lambda: application.state.counts)
    return application


def _guarded(stage: Stage, route: tuple[str, str], handler: Handler) -> Handler:
    """Return a handler for who has the right to it, which says what to do before that stage.

    What it changes is written down, and what is refused.
    """
    right, is_change = RIGHTS[route], route in AUDITED

    async def answer(request: Request) -> Response:
        check_is_text(request)
        caller, agent = caller_of(request), _agent(request)
        try:
            caller.check(right)
            agent.require(stage)
            with written_down(request, caller) if is_change else nullcontext():
                return await handler(request)
        except (NotItsRight, NotItsName) as error:
            refusals: Refusals = request.app.state.refusals
            label = "right" if isinstance(error, NotItsRight) else "name"
            refusals.record(label, attempt_of(caller.who, request.scope), error.message)
            raise

    return answer


def _agent(request: Request) -> AgentServices:
    agent: AgentServices = request.app.state.agent
    return agent
