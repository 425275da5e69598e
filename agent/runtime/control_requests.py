"""What the rest of the agent has under way at the control plane: questions, watches, sessions.

The driver hands every ``ControlNotice`` of the node to ``heard``, in the turn in which it was told;
so nothing here makes an input call itself then, but has it made right after.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import Protocol, TypeVar

from agent.exits import AgentError
from agent.loop.bounded_queue import WAITING_BYTES_MAX, WAITING_MAX, BoundedQueue
from gossip.control.bounds import HISTORY_BYTES_MAX, HISTORY_CHANGES_MAX
from gossip.control.history import change_bytes
from gossip.control.plane import ControlPlane
from gossip.control.requests import (
    ControlCompleted,
    ControlNotice,
    ControlOrder,
    ControlOverview,
    ControlRead,
    ControlSurvey,
    ControlWrite,
    CopyHalted,
    SessionConfirmed,
    SessionLost,
)
from gossip.control.watchers import ControlEvent, ControlWatch, WatchEnded
from gossip.core.machine import Instant

CHANGES_WAITING_MAX = HISTORY_CHANGES_MAX + WAITING_MAX
CHANGES_WAITING_BYTES_MAX = HISTORY_BYTES_MAX + WAITING_BYTES_MAX
"""A watch that goes on from long ago gets all that is remembered at once."""

T = TypeVar("T")

log = logging.getLogger(__name__)

Watched = ControlEvent | WatchEnded


Question = ControlWrite | ControlRead | ControlOrder | ControlOverview | ControlSurvey


class OnPlane(Protocol):
    """Makes an input call on the control plane."""

    def __call__(self, action: Callable[[ControlPlane, Instant], T]) -> T:
        """Return what the action returns. Raises what it raises, and AgentError at the end."""


class ControlRequests:
    """Manages what waits for the control plane of the node."""

    def __init__(
        self, on_plane: OnPlane, clock: Callable[[], Instant], counts: Counter[str]
    ) -> None:
        self._on_plane, self._clock, self._counts = on_plane, clock, counts
        self._requests: dict[int, asyncio.Future[ControlCompleted]] = {}
        self._watches: dict[int, BoundedQueue[Watched]] = {}
        self._renewals: dict[int, set[asyncio.Future[Instant | None]]] = {}

    async def request(self, request: Question) -> ControlCompleted:
        """Submit a request and return what came of it; cancelling forgets it, no more.

        Raises InvalidRequest or LimitExceeded when it was not begun.
        """
        future: asyncio.Future[ControlCompleted] = asyncio.get_running_loop().create_future()

        def submit(plane: ControlPlane, now: Instant) -> int:
            number = plane.submit(request, now)
            self._requests[number] = future
            return number

        number = self._on_plane(submit)
        try:
            return await future
        finally:
            if self._requests.pop(number, None) is not None:
                self._cancel(number)

    def watch(self, watch: ControlWatch) -> BoundedQueue[Watched]:
        """Submit a watch and return what it tells; ``WatchEnded`` is the last of it."""

        def submit(plane: ControlPlane, now: Instant) -> BoundedQueue[Watched]:
            number = plane.submit(watch, now)
            self._watches[number] = BoundedQueue(
                lambda: self._unwatch(number), CHANGES_WAITING_MAX, CHANGES_WAITING_BYTES_MAX
            )
            return self._watches[number]

        return self._on_plane(submit)

    def look_for_leader(self) -> None:
        """Ask around who leads, unless that is known."""
        self._on_plane(lambda plane, now: plane.search.leader(now))

    def keep(self, session: int, ttl_s: float, sent_at: Instant) -> None:
        """Keep a session as long as its holder asks for it by ``renew``."""
        self._on_plane(
            lambda plane, _now: plane.keep_session(session, ttl_s, sent_at, is_driven=True)
        )

    def is_kept(self, session: int) -> bool:
        """Tell whether a session is kept on this node."""
        return self._on_plane(lambda plane, _now: plane.keeper.sure_until(session)) is not None

    def release(self, session: int) -> None:
        """Keep a session no more."""
        self._on_plane(lambda plane, _now: plane.release_session(session))

    async def renew(self, session: int) -> float:
        """Renew a session that is kept; return for how many seconds it is sure to be there.

        0 if it is lost, or nobody knows.
        """
        future: asyncio.Future[Instant | None] = asyncio.get_running_loop().create_future()
        waiting = self._renewals.setdefault(session, set())
        waiting.add(future)
        try:
            if not self._on_plane(lambda plane, now: plane.renew_session(session, now)):
                return 0.0
            sure_until = await future
        finally:
            waiting.discard(future)
            if not waiting:
                self._renewals.pop(session, None)
        return 0.0 if sure_until is None else max(0.0, sure_until - self._clock())

    def heard(self, notice: ControlNotice) -> None:
        """Take in what the node tells."""
        match notice:
            case ControlCompleted(request=number):
                future = self._requests.pop(number, None)
                if future is not None and not future.done():
                    future.set_result(notice)
            case ControlEvent(request=number, changes=changes):
                watch = self._watches.get(number)
                if watch is not None and not watch.put(notice, sum(map(change_bytes, changes))):
                    self._counts["events_dropped/watch_overrun"] += 1
            case WatchEnded(request=number):
                watch = self._watches.get(number)
                if watch is not None:
                    watch.put(notice)
                    watch.close()
            case SessionConfirmed(session=session, sure_until=sure_until):
                self._renewed(session, sure_until)
            case SessionLost(session=session):
                self._renewed(session, None)
            case CopyHalted(index=index, reason=reason):
                where = "this node's copy of the control plane stands still before index"
                log.error("%s %d: %s", where, index, reason)

    def _renewed(self, session: int, sure_until: Instant | None) -> None:
        for future in self._renewals.get(session, ()):
            if not future.done():
                future.set_result(sure_until)

    def fail(self, reason: AgentError, unsettled: AgentError) -> None:
        """The node takes no more inputs: let everybody who waits know why.

        A command that is under way may be in the log of others, where it counts: who asked for it
        is told ``unsettled``.
        """
        for request in self._requests.values():
            if not request.done():
                request.set_exception(unsettled)
        self._requests.clear()
        for renewal in chain.from_iterable(self._renewals.values()):
            if not renewal.done():
                renewal.set_exception(reason)
        for watch in tuple(self._watches.values()):
            watch.fail(reason)

    def _unwatch(self, number: int) -> None:
        self._watches.pop(number)
        # A watch may end while its events are being told: cancel it afterwards.
        asyncio.get_running_loop().call_soon(self._cancel, number)

    def _cancel(self, number: int) -> None:
        with suppress(Exception):  # what is wrong has stopped the driver already
            self._on_plane(lambda plane, now: plane.cancel(number, now))
