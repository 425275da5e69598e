"""A request, as whoever answers it sees it."""

from collections.abc import AsyncIterator
from typing import Any, overload
from urllib.parse import parse_qsl

from agent.http.asgi import Headers, Receive, Scope

WHOLE_BODY = "whole_body"
"""In the extensions of a request's scope (ASGI 3): its body, when no more is to come."""


class ClientDisconnect(Exception):
    """The client hung up before all of its request was read."""


class RequestHeaders:
    """The headers of a request, by their names in any case; the first of several."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    @overload
    def get(self, name: str) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the value; the default when there is none."""
        wanted = name.lower().encode("latin-1")
        for given, value in self._headers:
            if given == wanted:
                return value.decode("latin-1")
        return default


class QueryParameters:
    """What stands behind the ``?``; of several with one name, the last."""

    def __init__(self, query: bytes) -> None:
        self._pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True) if query else []

    @overload
    def get(self, name: str) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the value; the default when there is none."""
        return next((value for given, value in reversed(self._pairs) if given == name), default)

    def getlist(self, name: str) -> list[str]:
        """Return the values of all with this name, in their order."""
        return [value for given, value in self._pairs if given == name]


class Request:
    """One request. Its scope is ASGI's, with what stands in front of the application added."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self._headers: RequestHeaders | None = None
        self._query: QueryParameters | None = None

    @property
    def app(self) -> Any:
        """The application that answers."""
        return self.scope["app"]

    @property
    def method(self) -> str:
        """What is to be done: GET, PUT and so on."""
        method: str = self.scope["method"]
        return method

    @property
    def path(self) -> str:
        """What it is to be done with, its ``%XX`` decoded."""
        path: str = self.scope["path"]
        return path

    @property
    def path_params(self) -> dict[str, str]:
        """What the route took out of the path."""
        parameters: dict[str, str] = self.scope["path_params"]
        return parameters

    @property
    def headers(self) -> RequestHeaders:
        """The headers."""
        if self._headers is None:
            self._headers = RequestHeaders(self.scope["headers"])
        return self._headers

    @property
    def query_params(self) -> QueryParameters:
        """What stands behind the ``?``."""
        if self._query is None:
            self._query = QueryParameters(self.scope["query_string"])
        return self._query

    @property
    def known_body(self) -> bytes | None:
        """The body, if all of it came with the request; None: ``stream`` has to be read."""
        body: bytes | None = self.scope.get("extensions", {}).get(WHOLE_BODY)
        return body

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body, part by part as it comes. Raises ClientDisconnect."""
        has_more = True
        while has_more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            has_more = message.get("more_body", False)
            if part := message.get("body", b""):
                yield part
