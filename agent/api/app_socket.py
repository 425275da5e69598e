"""The apps' door: a Unix socket for apps, each of which shows its key, and may do what apps do.

An app measures, keeps and listens. It does not let nodes in or out, turn keys, start apps or change
what this node is: who breaks into an app shall not have the covey. The agent's own socket, which
can do all that, is in a directory that apps who are users of their own cannot enter.
"""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from agent.api import events, facts, influx, kv, members, readings, rtt
from agent.api import status as overview
from agent.api.errors import REFUSED, error_body, respond
from agent.api.request_bodies import APP

ROOMS = (readings.ROUTES, influx.ROUTES, kv.ROUTES, events.ROUTES, rtt.ROUTES, facts.ROUTES)
FOR_APPS = frozenset(
    [(method, path) for room in ROOMS for method, path, _ in room]
    + [(method, path) for method, path, _ in members.ROUTES if method == "GET"]
    + [(method, path) for method, path, _ in overview.ROUTES if path != "/api/v1/config"]
)
"""What an app may ask; everything that is not here is not for apps."""


class AppSocket:
    """Lets requests through that an app may make, and show an app's key."""

    def __init__(self, application: Starlette, who_has: Callable[[str], str]) -> None:
        self._application = application
        self._who_has = who_has

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or pass the request on."""
        given = dict(scope["headers"]).get(b"authorization", b"").decode(errors="replace")
        app = self._who_has(given.removeprefix("Bearer "))
        if not app:
            scope[REFUSED] = True
            await self._refuse(401, "unauthorized", NO_KEY)(scope, receive, send)
        elif not self._is_for_apps(scope):
            await self._refuse(403, "not-permitted", NOT_FOR_APPS)(scope, receive, send)
        else:
            scope[APP] = app
            await self._application(scope, receive, send)

    def _is_for_apps(self, scope: Scope) -> bool:
        """Say whether apps may ask this; what is no route is answered by whoever knows them all."""
        for route in self._application.routes:
            if isinstance(route, Route) and route.matches(scope)[0] is Match.FULL:
                return (scope["method"], route.path) in FOR_APPS
        return True

    def _refuse(self, status: int, code: str, words: tuple[str, str]) -> Response:
        self._application.state.counts[f"api_errors/{code}"] += 1
        return respond(status, error_body(code, *words), {})


NO_KEY = (
    "this is the apps' socket, and no app has this key; nothing was done",
    "an app finds its key in COVEY_API_TOKEN; people use the agent's own socket",
)
NOT_FOR_APPS = (
    "this is not for apps; nothing was done",
    "somebody who may use the agent's own socket can do it: `covey --help`",
)
