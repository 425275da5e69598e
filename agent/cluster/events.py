"""Events and queries as the agent offers them: to the API, the configured handlers and the apps.

The driver hands in what the node emits (``note``). From there an event goes to all who follow, and
to every handler of its name. A query goes to the one place that answers it, the first of these: the
agent itself (``ping``, ``version``, ``uptime``), a handler of the configuration, an app that
listens. Where there is none, or it fails, or its time is over, the asker is told so at once,
instead of waiting for nothing.

The Lamport time of the last event is written to ``control.db`` a moment after it was delivered:
after a restart, nothing older is delivered again.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from agent import exits
from agent._version import __version__
from agent.cluster.event_handlers import EventHandlers
from agent.cluster.event_json import (
    EventRecord,
    IncomingQuery,
    MissedEvents,
    QueryResponse,
    QuerySummary,
    id_text,
    parse_id,
)
from agent.config.settings import HandlerSettings
from agent.exits import AgentError
from agent.loop.bounded_queue import LossyQueue
from agent.loop.watched import TaskSet
from agent.programs.child import Starter
from agent.runtime.driver import Driver
from agent.text.units import format_duration
from gossip.core.errors import LocalError
from gossip.core.ids import NodeId, format_node_id
from gossip.events.events import EventDelivered, TooManyEvents
from gossip.events.messages import LONG_ANSWER_BYTES_MAX, ResponseKind
from gossip.events.queries import QueryEnded, QueryKey, QueryReceived, ResponseReceived

RECENT_MAX = 256
SAVE_DELAY_S = 1.0
SETTLE_LOOK_S = 0.02
EVENT_OUTPUT_BYTES_MAX = 64 * 1024

log = logging.getLogger(__name__)

Patterns = tuple[str, ...]


class EventService:
    """The events and queries of this node."""

    def __init__(
        self,
        driver: Driver,
        events: HandlerSettings,
        queries: HandlerSettings,
        save_time: Callable[[int], Awaitable[None]],
        starter: Starter | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._driver = driver
        self._save_time = save_time
        self._wall_clock = wall_clock
        self._began_at = driver.now()
        self._event_handlers = EventHandlers(events, EVENT_OUTPUT_BYTES_MAX, self.counts, starter)
        self._query_handlers = EventHandlers(queries, LONG_ANSWER_BYTES_MAX, self.counts, starter)
        self._recent: deque[EventRecord] = deque(maxlen=RECENT_MAX)
        self._followers: dict[LossyQueue[EventRecord], Patterns] = {}
        self._listeners: dict[LossyQueue[IncomingQuery], Patterns] = {}
        self._mine: dict[int, LossyQueue[ResponseReceived | QueryEnded]] = {}
        self._tasks = TaskSet()
        self._lamport = driver.node.swim.delegate.time
        self._unsaved = asyncio.Event()
        self._tasks.start("event-time", self._save_times)
        driver.listen(self.record)

    async def stop(self) -> None:
        """End what runs, and write the time of the last event."""
        await self._tasks.stop()
        await self._save()

    # ---- events ---------------------------------------------------------------------------------

    def send(self, name: str, payload: bytes) -> str:
        """Send an event to all members; return its id.

        Raises LimitExceeded, and AgentError when this node has sent too many.
        """
        try:
            sequence = self._driver.call(
                lambda now: self._driver.node.with_events(
                    lambda event_service: event_service.send_event(name, payload, now), now
                )
            )
        except TooManyEvents as error:
            raise AgentError(str(error), "send fewer events", exits.UNHEALTHY) from None
        settings = self._driver.node.settings
        return id_text(settings.me, settings.boot, sequence)

    async def settle(self) -> None:
        """Return when what was heard by now is delivered, so that a sender sees its own event.

        An event is held back for a moment, because an earlier one may be under way. Waits for
        twice that at most.
        """
        event_service = self._driver.node.swim.delegate
        tuning = self._driver.node.settings.tuning
        give_up = time.monotonic() + 2 * tuning.event_hold_rounds * tuning.gossip_interval_s
        heard = event_service.held()
        while heard & event_service.held() and time.monotonic() < give_up:  # noqa: ASYNC110  a pure machine
            await asyncio.sleep(SETTLE_LOOK_S)

    def recent(self, patterns: Patterns, limit: int) -> list[EventRecord]:
        """Return the last events that were delivered here since the start, oldest first."""
        found = [one for one in self._recent if _matches(one.name, patterns)]
        return found[-limit:] if limit else []

    async def follow(self, patterns: Patterns) -> AsyncGenerator[EventRecord | MissedEvents, None]:
        """Yield events from the first ``anext`` on, in the order of their delivery."""
        follower: LossyQueue[EventRecord] = LossyQueue()
        self._followers[follower] = patterns
        try:
            while True:
                missed, events = await follower.drain()
                if missed:
                    yield MissedEvents(missed)
                for event in events:
                    yield event
        finally:
            del self._followers[follower]

    # ---- queries of ours ------------------------------------------------------------------------

    def ask(
        self, name: str, payload: bytes, filters: Mapping[str, str], timeout_s: float
    ) -> AsyncGenerator[QueryResponse | QuerySummary, None]:
        """Ask all members with these tags, now; return their answers and, last, the summary.

        Raises LimitExceeded and InvalidRequest; then nobody was asked.
        """
        node = self._driver.node
        answers: LossyQueue[ResponseReceived | QueryEnded] = LossyQueue(
            node.settings.tuning.members_max + 1
        )
        began = self._driver.now()

        def begin(now: float) -> int:
            number = node.with_events(
                lambda event_service: event_service.ask(name, payload, filters, timeout_s, now), now
            )
            # Before the effects are performed: they may hold answers already.
            self._mine[number] = answers
            return number

        return self._answers(self._driver.call(begin), answers, began)

    async def _answers(
        self, number: int, answers: "LossyQueue[ResponseReceived | QueryEnded]", began: float
    ) -> AsyncGenerator[QueryResponse | QuerySummary, None]:
        try:
            while True:
                for one in (await answers.drain())[1]:
                    if isinstance(one, QueryEnded):
                        missing = tuple(self._name_of(each) for each in one.missing)
                        yield QuerySummary(one.answered, one.expected, missing)
                        return
                    after_s = self._driver.now() - began
                    name_of = self._name_of(one.responder)
                    yield QueryResponse(one.responder, name_of, one.kind, one.payload, after_s)
        finally:
            if self._mine.pop(number, None) is not None:
                self._driver.node.swim.delegate.cancel(number)

    # ---- queries of others ----------------------------------------------------------------------

    async def listen(
        self, patterns: Patterns
    ) -> AsyncGenerator[IncomingQuery | MissedEvents, None]:
        """Yield queries that the caller is to answer with ``answer``; while it listens only."""
        listener: LossyQueue[IncomingQuery] = LossyQueue()
        self._listeners[listener] = patterns
        try:
            while True:
                missed, queries = await listener.drain()
                if missed:
                    yield MissedEvents(missed)
                for query in queries:
                    yield query
        finally:
            del self._listeners[listener]

    def answer(self, query: str, payload: bytes, *, failed: bool = False) -> None:
        """Answer a query by its id. Raises LimitExceeded, and AgentError when it is too late."""
        key = parse_id(query)
        kind = ResponseKind.FAILED if failed else ResponseKind.ANSWERED
        if key is None or not self._give(key, kind, payload):
            raise AgentError(
                f"no query {query[:80]} waits for an answer",
                "it was answered before, or its time is over",
                exits.NOT_FOUND,
            )

    def _give(self, key: QueryKey, kind: ResponseKind, payload: bytes) -> bool:
        node = self._driver.node
        return self._driver.call(
            lambda now: node.with_events(
                lambda event_service: event_service.answer(key, kind, payload, now), now
            )
        )

    # ---- what the node emits --------------------------------------------------------------------

    def record(self, event: object) -> None:
        """Take in what the driver publishes; what is not for us is ignored."""
        match event:
            case EventDelivered():
                self._publish(event)
            case QueryReceived():
                self._start(partial(self._handle_query, event))
            case ResponseReceived() | QueryEnded():
                mine = self._mine.get(event.number)
                if mine is not None:
                    mine.put(event)
                if isinstance(event, QueryEnded):
                    self._mine.pop(event.number, None)

    def _publish(self, delivered: EventDelivered) -> None:
        event = delivered.event
        self._lamport = max(self._lamport, event.time)
        self._unsaved.set()
        told = EventRecord(
            id_text(event.sender, event.boot, event.sequence),
            event.name,
            event.payload,
            event.sender,
            self._name_of(event.sender),
            event.time,
            delivered.is_late,
            self._wall_clock(),
        )
        self._recent.append(told)
        for follower, patterns in self._followers.items():
            if _matches(told.name, patterns) and not follower.put(told):
                self.counts["events_dropped/follower overrun"] += 1
        variables = {
            "COVEY_EVENT": told.name,
            "COVEY_EVENT_ID": told.id,
            "COVEY_EVENT_LAMPORT": str(told.lamport),
            "COVEY_SENDER": told.sender_name,
            "COVEY_SENDER_ID": format_node_id(told.sender),
        }
        for command in self._event_handlers.find(told.name):
            self._start(partial(self._handle_event, command, told.payload, variables))

    async def _handle_event(
        self, command: Sequence[str], payload: bytes, variables: Mapping[str, str]
    ) -> None:
        await self._event_handlers.run(command, payload, variables)

    async def _handle_query(self, query: QueryReceived) -> None:
        """Have a query answered by the first that can."""
        built_in = BUILT_IN.get(query.name)
        commands = self._query_handlers.find(query.name)
        if built_in is not None:
            kind, payload = ResponseKind.ANSWERED, built_in(self._driver.now() - self._began_at)
        elif commands:
            kind, payload = await self._run_handler(commands[0], query)
        elif (listener := self._listener_of(query.name)) is not None:
            await self._ask_app(listener, query)
            kind, payload = ResponseKind.FAILED, b"the app did not answer in time"
        else:
            kind, payload = ResponseKind.NOBODY, b""
        with contextlib.suppress(LocalError, AgentError):  # leaving: nobody waits any more
            self._give(query.key, kind, payload)

    async def _run_handler(
        self, command: Sequence[str], query: QueryReceived
    ) -> tuple[ResponseKind, bytes]:
        asker, boot, number = query.key
        variables = {
            "COVEY_QUERY": query.name,
            "COVEY_QUERY_ID": id_text(asker, boot, number),
            "COVEY_ASKER": self._name_of(asker),
            "COVEY_ASKER_ID": format_node_id(asker),
        }
        outcome = await self._query_handlers.run(command, query.payload, variables)
        return (ResponseKind.ANSWERED if outcome.is_ok else ResponseKind.FAILED), outcome.output

    def _listener_of(self, name: str) -> "LossyQueue[IncomingQuery] | None":
        for listener, patterns in self._listeners.items():
            if _matches(name, patterns):
                return listener
        return None

    async def _ask_app(self, listener: LossyQueue[IncomingQuery], query: QueryReceived) -> None:
        """Hand a query to an app, and give it its time. An answer before makes ours void."""
        asker = self._name_of(query.key[0])
        limit_s = min(query.timeout_s, self._query_handlers.timeout_s)
        asked = IncomingQuery(
            id_text(*query.key), query.name, query.payload, query.key[0], asker, limit_s
        )
        if not listener.put(asked):
            self.counts["queries_dropped/app overrun"] += 1
        await asyncio.sleep(limit_s)

    # ---- inside ---------------------------------------------------------------------------------

    def _name_of(self, node: NodeId) -> str:
        member = self._driver.node.swim.members.get(node)
        return member.name if member else format_node_id(node)

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.start("event-work", work)

    async def _save_times(self) -> None:
        while True:
            await self._unsaved.wait()
            await asyncio.sleep(SAVE_DELAY_S)
            await self._save()

    async def _save(self) -> None:
        if self._unsaved.is_set():
            self._unsaved.clear()
            try:
                await self._save_time(self._lamport)
            except AgentError as error:
                # It is learnt from the others as well; a full disk must not end the agent for it.
                log.warning("the time of the last event was not written: %s", error)


def _matches(name: str, patterns: Patterns) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


BUILT_IN: dict[str, Callable[[float], bytes]] = {
    "ping": lambda _uptime_s: b"pong",
    "version": lambda _uptime_s: __version__.encode(),
    "uptime": lambda uptime_s: format_duration(uptime_s).encode(),
}
"""Queries that every agent answers itself."""
