"""Runs one app in this process, until it is told to stop.

The main thread calls the app's functions when they are due; a second thread carries their
readings to the agent, so that a slow agent never delays a measurement.

What ends an app. SIGTERM or Ctrl-C: the current function returns, what waits is sent once
more, the process exits with 0. An exception of a function: the traceback goes to the log and
the process exits with 1; the agent starts it again, with pauses, and shows that it does. Only
when the shared keys cannot be had right now (agent away, too few owners up) the round is
skipped and the app goes on, because starting it again would not help.

The end of the agent, even by SIGKILL: the agent holds the other end of the app's stdin and
never writes to it, so when the agent is gone, stdin ends. The app then stops as for SIGTERM,
and takes the processes that it started along. (PR_SET_PDEATHSIG would fire when the *thread*
that started the app ends, and says nothing to grandchildren.)
"""

import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from edge_apps.agreement import AgentAgreement
from edge_apps.app import App, Context, Copies, Function, Seen
from edge_apps.client import AgentUnreachable, ApiError, Client
from edge_apps.key_batches import carry_out, data_of, put_of
from edge_apps.key_watch import KeyWatch
from edge_apps.listener import listen
from edge_apps.publisher import Post, Publisher
from edge_apps.reading import Reading, boot_time_ns
from edge_apps.schedule import Schedule

SOCKET_VARIABLE = "COVEY_SOCKET"
OPTIONS_VARIABLE = "COVEY_APP_OPTIONS"
GUARD_VARIABLE = "COVEY_APP_GUARD"

CONTEXT_HEADER = "Covey-Context"

LINGER_S = 1.0
POST_TIMEOUT_S = 5.0
LAST_FLUSH_TIMEOUT_S = 2.0
AGENT_GONE_GRACE_S = 5.0
OK, NOT_FOUND = 200, 404
SERVER_ERROR = 500

Stop = SimpleQueue[str | Function]
"""Why the app is to stop, or what it is to do. A SimpleQueue, because a signal handler may put
while we get."""


class AgentKv:
    """The shared keys, through the agent's HTTP API."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, key: str, *, r: Copies = "quorum") -> bytes | None:
        """Return the newest value; None when the key does not exist."""
        return self.look(key, r=r).value

    def look(self, key: str, *, r: Copies = "quorum") -> Seen:
        """Return the newest value with the context of all that was seen."""
        try:
            answer = self._client.request("GET", f"/api/v1/kv/{key}", query=_unless_usual("r", r))
        except ApiError as error:
            if error.status == NOT_FOUND:
                return Seen(None, "")
            raise
        return Seen(answer.body, answer.headers.get(CONTEXT_HEADER.lower(), ""))

    def put(
        self,
        key: str,
        value: bytes | str,
        *,
        w: Copies = "quorum",
        seen: Seen | None = None,
        fsync: bool = False,
        ttl_s: float | None = None,
    ) -> bool:
        """Write a value; return whether enough owners acknowledged it."""
        body = value.encode() if isinstance(value, str) else value
        query: dict[str, Any] = {**_unless_usual("w", w), "ttl": ttl_s}
        headers = {}
        if fsync:
            query["durability"] = "fsync"
        if seen is not None:
            query["if_context" if seen.context else "if_absent"] = True
            headers = {CONTEXT_HEADER: seen.context} if seen.context else {}
        path = f"/api/v1/kv/{key}"
        answer = self._client.request("PUT", path, query=query, body=body, headers=headers)
        return answer.status == OK

    def put_many(
        self, values: Mapping[str, bytes | str], *, ttl_s: float | None = None
    ) -> dict[str, str]:
        """Write many keys, each for itself; return of each key how that ended."""
        puts = (
            put_of(key, value.encode() if isinstance(value, str) else value, ttl=ttl_s)
            for key, value in values.items()
        )
        return {
            each["key"]: each["outcome"] for each in carry_out(self._client, puts, POST_TIMEOUT_S)
        }

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """Return the newest value of many keys; without those that nobody could answer for."""
        gets = ({"op": "get", "key": key} for key in keys)
        return {
            each["key"]: data_of(each["values"][0]) if each["values"] else None
            for each in carry_out(self._client, gets, POST_TIMEOUT_S)
            if each["outcome"] == "ok"
        }

    def count(self, key: str, by: int = 1) -> bool:
        """Count a counter up, or down."""
        return self._update(key, {"type": "counter", "by": by})

    def add(self, key: str, member: str) -> bool:
        """Add a member to a set."""
        return self._update(key, {"type": "set", "add": member})

    def discard(self, key: str, member: str) -> bool:
        """Remove a member from a set."""
        return self._update(key, {"type": "set", "remove": member})

    def set_field(self, key: str, field: str, value: str | None) -> bool:
        """Give a field of a map a value, or remove it."""
        return self._update(key, {"type": "map", "field": field, "value": value})

    def raise_to(self, key: str, number: float) -> bool:
        """Raise a maximum."""
        return self._update(key, {"type": "max", "number": number})

    def lower_to(self, key: str, number: float) -> bool:
        """Lower a minimum."""
        return self._update(key, {"type": "min", "number": number})

    def _update(self, key: str, change: Mapping[str, Any]) -> bool:
        return self._client.request("POST", f"/api/v1/kv/{key}", json=change).status == OK

    def delete(self, key: str) -> None:
        """Delete a key."""
        try:
            self._client.request("DELETE", f"/api/v1/kv/{key}")
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise

    def watch(
        self,
        prefix: str = "",
        *,
        key: str | None = None,
        since: str = "",
        idle_s: float | None = None,
    ) -> KeyWatch:
        """Return changes as they happen."""
        subject = {"prefix": prefix} if key is None else {"key": key}
        return KeyWatch(self._client, subject, since, idle_s)


def _unless_usual(name: str, copies: Copies) -> dict[str, str | int | bool]:
    return {} if copies == "quorum" else {name: copies}


class PublisherThread(threading.Thread):
    """The thread that calls ``Publisher.flush``: a second after the first reading, or later."""

    def __init__(self, publisher: Publisher) -> None:
        super().__init__(name="carrier", daemon=True)
        self._publisher = publisher
        self._offered = threading.Event()
        self._ending = threading.Event()

    def offer(self, reading: Reading) -> None:
        """Take a reading of the app's thread."""
        self._publisher.offer(reading)
        self._offered.set()

    def run(self) -> None:
        """Flush until ``end``."""
        while not self._ending.is_set():
            self._offered.wait()
            # Readings of one round come together: one request instead of one for each.
            pause_s = max(LINGER_S, self._publisher.deadline() - time.monotonic())
            if self._ending.wait(pause_s):
                return
            self._offered.clear()
            self._publisher.flush(time.monotonic())
            if len(self._publisher):
                self._offered.set()

    def end(self) -> int:
        """Send what waits, without patience. Return how many readings are left and lost."""
        self._ending.set()
        self._offered.set()
        self.join(POST_TIMEOUT_S + LAST_FLUSH_TIMEOUT_S)
        if not self.is_alive():
            self._publisher.flush(max(time.monotonic(), self._publisher.deadline()))
        return len(self._publisher)


def run(app: App, options: Mapping[str, Any] | None = None) -> None:
    """Run the app until it is stopped; readings go to the agent at ``COVEY_SOCKET``.

    Exits the process when there is no such variable. Raises what a function of the app raises.
    """
    if not (socket_path := os.environ.get(SOCKET_VARIABLE)):
        sys.exit(
            f"{SOCKET_VARIABLE} is not set: start the app with `covey app start`, set the "
            "variable to an agent's socket, or use --print to see its readings here"
        )
    options = options_from(os.environ) if options is None else options
    client = Client(Path(socket_path), timeout_s=POST_TIMEOUT_S)
    log = logging.getLogger(app.name)
    publisher = Publisher(poster(client), log, random.Random())
    carrier = PublisherThread(publisher)
    context = Context(
        app.name,
        options,
        carrier.offer,
        AgentKv(client),
        time.time,
        publisher.drop,
        boot_time_ns,
        control=AgentAgreement(client, f"apps/{app.name}/"),
    )
    stop = stopped_by_signals()
    if os.environ.get(GUARD_VARIABLE):
        threading.Thread(target=guard, args=(stop,), name="guard", daemon=True).start()
    carrier.start()
    listen(app, client, stop)
    try:
        serve(app, context, stop)
    finally:
        if lost := carrier.end():
            log.warning("stopped with %d readings that no agent took; they are lost", lost)


def options_from(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the options that the agent passes. Raises ValueError for what is no JSON object."""
    options = json.loads(environ.get(OPTIONS_VARIABLE) or "{}")
    if isinstance(options, dict):
        return options
    raise ValueError(f"{OPTIONS_VARIABLE} holds a JSON object, not {options!r}")


def poster(client: Client) -> Post:
    """Return the function that hands a batch to the agent."""
    encoder = msgspec.json.Encoder()

    def post(batch: Sequence[Reading]) -> None:
        headers = {"Content-Type": "application/json"}
        client.request("POST", "/api/v1/readings", body=encoder.encode(batch), headers=headers)

    return post


def stopped_by_signals() -> Stop:
    """Return a queue into which SIGTERM and SIGINT put their names."""
    stop: Stop = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stop.put(signal.Signals(received).name))
    return stop


def serve(app: App, context: Context, stop: Stop) -> None:
    """Call the functions when they are due, until ``stop`` holds a reason."""
    clock = time.monotonic
    schedule: Schedule[Function] = Schedule(app.periods(context.options), clock())
    while (due := schedule.deadline()) is not None or app.listens:
        try:
            order = stop.get(timeout=None if due is None else max(0.0, due - clock()))
        except Empty:
            if function := schedule.take_due(clock()):
                _call(function, context)
        else:
            if isinstance(order, str):
                context.log.info("stopping: %s", order)
                return
            _call(order, context)


def _call(function: Function, context: Context) -> None:
    try:
        function(context)
    except AgentUnreachable as error:
        context.log.warning("skipped a round: %s", error.message)
    except ApiError as error:
        if error.status < SERVER_ERROR:
            raise  # our own request was wrong: that does not pass by itself
        context.log.warning("skipped a round: %s", error.message)


def guard(stop: Stop) -> None:
    """Wait for the end of stdin, which is the end of the agent; then see that all ends."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.put("the agent is gone")
    time.sleep(AGENT_GONE_GRACE_S)
    end_group(signal.SIGKILL)
    os._exit(1)


def end_group(number: signal.Signals) -> None:
    """Send a signal to our process group, if it is ours: the agent gives each app one."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, number)
