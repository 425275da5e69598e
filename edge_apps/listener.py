"""Brings events and queries from the agent to an app.

A thread for each of the two reads the agent's stream and puts what comes into the app's queue; the
app's own thread calls the function, between its other work, so an app has no locks. While the
agent is away there are no events, and those of that time do not come later; the thread asks again
until it is back.
"""

import base64
import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from edge_apps.app import App, Context, Event, Function, Query
from edge_apps.client import ApiError, Client, ClientError
from edge_apps.client import Query as Parameters

PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 30.0

Order = SimpleQueue[str | Function]


def listen(app: App, client: Client, orders: Order) -> None:
    """Begin to listen for what the app has functions for."""
    log = logging.getLogger(app.name)
    if app.event_functions:
        names, path = list(app.event_functions), "/api/v1/events"
        StreamListener(
            client, path, names, lambda one: orders.put(_event_order(app, one)), log
        ).start()
    if app.query_functions:
        names, path = list(app.query_functions), "/api/v1/queries"
        StreamListener(
            client, path, names, lambda one: orders.put(_query_order(app, client, one)), log
        ).start()


class StreamListener(threading.Thread):
    """Reads one stream of the agent, again and again, as long as the process lives."""

    def __init__(
        self,
        client: Client,
        path: str,
        names: list[str],
        take: Callable[[dict[str, Any]], None],
        log: logging.Logger,
    ) -> None:
        super().__init__(name=f"ear of {path}", daemon=True)
        self._client = client
        self._path = path
        self._query: Parameters = {"follow": 1, "name": names}
        self._take = take
        self._log = log

    def run(self) -> None:
        """Listen."""
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                for one in self._client.stream(self._path, query=self._query):
                    pause_s = PAUSE_FIRST_S
                    self._hear(one)
            except ClientError as error:
                self._log.warning("hears nothing: %s; trying again", error.message)
            time.sleep(pause_s)
            pause_s = min(PAUSE_MAX_S, 2 * pause_s)

    def _hear(self, one: dict[str, Any]) -> None:
        if "missed" in one:
            self._log.warning("too slow: %d were missed", one["missed"])
        elif "error" not in one:
            self._take(one)


def _event_order(app: App, one: dict[str, Any]) -> Function:
    event = Event(one["name"], payload_of(one), one["sender"]["name"])

    def tell(context: Context) -> None:
        if function := app.event_function(event.name):
            function(context, event)

    return tell


def _query_order(app: App, client: Client, one: dict[str, Any]) -> Function:
    query = Query(one["name"], payload_of(one), one["asker"]["name"])
    path = f"/api/v1/queries/{one['id']}/answer"

    def answer(context: Context) -> None:
        function = app.query_function(query.name)
        assert function is not None, "the agent sends what was asked for"
        try:
            words = as_bytes(function(context, query))
        except Exception as error:
            _post(client, path, context, repr(error).encode()[:200], failed=True)
            raise
        _post(client, path, context, words)

    return answer


def _post(
    client: Client, path: str, context: Context, words: bytes, *, failed: bool = False
) -> None:
    try:
        client.request("POST", path, query={"failed": failed}, body=words)
    except ApiError as error:
        # Too late, or too long: the asker has been told, and the app can go on.
        context.log.warning("an answer was not taken: %s", error.message)


def payload_of(one: dict[str, Any]) -> bytes:
    """Return the payload's bytes from an agent's line."""
    if "payload" in one:
        return str(one["payload"]).encode()
    return base64.b64decode(one["payload_base64"])


def as_bytes(words: bytes | str | None) -> bytes:
    """Return what a function said as bytes; text is UTF-8, nothing is nothing."""
    return (words or "").encode() if isinstance(words, str | None) else words
