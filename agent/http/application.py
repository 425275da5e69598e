"""Finds the function that answers a request, and makes answers of what goes wrong in it.

A path is text, or text with names in braces: ``{name}`` is one segment of it, ``{name:key}`` all
that is left, also slashes and line breaks.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import SimpleNamespace

from agent.http.asgi import ASGIApp, Message, Receive, Scope, Send
from agent.http.request import Request
from agent.http.response import Response

Handler = Callable[[Request], Awaitable[Response]]
ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]

NAMED = re.compile(r"\{(\w+)(:key)?\}")
SEGMENT, REST = "[^/]+", "(?s:.*)"


class NoRoute(Exception):
    """No route has this path (404), or none of those that have it this method (405)."""

    def __init__(self, status: int, methods: frozenset[str] = frozenset()) -> None:
        super().__init__(status)
        self.status = status
        self.methods = methods
        """What the path takes."""


class Route:
    """One path with one method, and who answers it. Who answers GET answers HEAD."""

    def __init__(self, method: str, path: str, handler: Handler) -> None:
        self.path = path
        self.handler = handler
        self.method = method
        self.methods = frozenset({method, "HEAD"} if method == "GET" else {method})
        self._pattern = re.compile(_pattern_of(path))

    def match(self, path: str) -> dict[str, str] | None:
        """Return what the names in the path stand for; None when it is another path."""
        found = self._pattern.fullmatch(path)
        return None if found is None else found.groupdict()


def _pattern_of(path: str) -> str:
    """Return a regular expression for a path with names in braces."""
    pattern, at = "", 0
    for found in NAMED.finditer(path):
        kind = REST if found[2] else SEGMENT
        pattern += f"{re.escape(path[at : found.start()])}(?P<{found[1]}>{kind})"
        at = found.end()
    return pattern + re.escape(path[at:])


class Application:
    """An ASGI application of routes. What it shares between requests is in ``state``."""

    def __init__(
        self, routes: Iterable[Route], handlers: Mapping[type[Exception], ErrorHandler]
    ) -> None:
        """``handlers`` answer for an exception and those derived from it; one has to be for all."""
        assert Exception in handlers, "each failure is answered"
        self.routes = tuple(routes)
        self.state = SimpleNamespace()
        self._handlers = handlers
        self._literal: dict[str, list[Route]] = {}
        for route in self.routes:
            if "{" not in route.path:
                self._literal.setdefault(route.path, []).append(route)
        self._named: dict[str, list[Route]] = {}
        """By the beginning of their paths, up to the first name."""
        for route in self.routes:
            if "{" in route.path:
                self._named.setdefault(route.path.partition("{")[0], []).append(route)

    def find(self, scope: Scope) -> tuple[Route, dict[str, str]]:
        """Return the route of a request, and what its path names. Raises NoRoute."""
        path, method = scope["path"], scope["method"]
        taken: set[str] = set()
        for route in self._literal.get(path, ()):
            if method in route.methods:
                return route, {}
            taken |= route.methods
        candidates = (
            route
            for beginning, routes in self._named.items()
            if path.startswith(beginning)
            for route in routes
        )
        for route in candidates:
            if (named := route.match(path)) is not None:
                if method in route.methods:
                    return route, named
                taken |= route.methods
        raise NoRoute(405 if taken else 404, frozenset(taken))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. What goes wrong after the answer has begun leaves it unfinished."""
        scope["app"] = self
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        request = Request(scope, receive)
        try:
            response: ASGIApp = await self._respond(request)
            await response(scope, receive, noted)
        except Exception as error:  # noqa: BLE001 - each has a handler, which tells of it
            answer = await self._handler_for(error)(request, error)
            if not has_begun:
                await answer(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        route, request.scope["path_params"] = self.find(request.scope)
        return await route.handler(request)

    def _handler_for(self, error: Exception) -> ErrorHandler:
        return next(self._handlers[kind] for kind in type(error).__mro__ if kind in self._handlers)
