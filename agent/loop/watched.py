"""The agent's background tasks, watched: none of them ends without anybody knowing.

A task that dies takes its part of the agent with it, and everything else goes on as if nothing
were: addresses are announced no more, peers are not written down, and all looks well. Six seconds
without free file descriptors are enough. So every task is started here, under a name that the
table below explains, and what its failure means is decided in one place:

* ``AGAIN``: its part would stand still. It is started again, a second later, and after each
  further failure twice as late, up to a minute.
* ``END``: without it the agent lies to somebody. The agent ends and says why; whoever watches over
  the process starts it anew.
* ``ONCE``: one job, for one peer or one request. What was asked is lost; the next is another.

Each failure is counted by its name (``tasks_failed``), logged, the first one with its trace, and
shown in ``covey doctor``; a task that is not yet well again makes the agent not ready. Callbacks of
the event loop (timers, sockets) that raise, and threads that end so, are counted as well.

The group of the agent that runs is found in the context, which tasks and callbacks inherit, as
loggers are found by their names: whoever starts a task need not be handed the group. Without an
agent, in a command or a test, tasks are watched all the same, by a group that nobody asks.
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from enum import Enum
from typing import Any, NamedTuple

from agent.config.logs import OUR_INTERVAL_S, RateLimitedLog
from agent.exits import UNHEALTHY, AgentError

AGAIN_FIRST_S, AGAIN_LONGEST_S = 1.0, 60.0
WELL_AFTER_S = 30.0
"""For how long a task has to run after a failure until it counts as well."""

log = logging.getLogger(__name__)


class Failure(Enum):
    """What it means when a task fails."""

    AGAIN = "again"
    END = "end"
    ONCE = "once"


TASKS: dict[str, tuple[Failure, str]] = {
    "admission-answer": (Failure.ONCE, "an issuer's answer to a question that a member passed on"),
    "app-output": (Failure.AGAIN, "what an app prints"),
    "app-supervisor": (Failure.ONCE, "one app's process"),
    "api-socket": (Failure.AGAIN, "that the socket of the HTTP API stays where it is"),
    "audit": (Failure.ONCE, "what was changed, on its way to the disk"),
    "authority": (Failure.AGAIN, "asking which authority the covey has"),
    "authority-key": (Failure.AGAIN, "that the authority's key is with those who vote"),
    "ballast": (Failure.AGAIN, "the room that is kept for a start on a full disk"),
    "block-collect": (Failure.ONCE, "deleting the blocks of a file that was replaced or removed"),
    "block-hand-on": (Failure.ONCE, "a block on its way to its next owner"),
    "block-keep": (Failure.ONCE, "a block on its way to the disk"),
    "block-push": (Failure.ONCE, "a block on its way to its owners"),
    "block-serve": (Failure.ONCE, "a block on its way to a member that asked for it"),
    "block-upkeep": (Failure.ONCE, "mending or removing the body of one block"),
    "blocks": (Failure.AGAIN, "that this node has the bodies of its blocks"),
    "byte-budget": (Failure.AGAIN, "the gossip's bytes a day"),
    "carry-over": (Failure.AGAIN, "that the log has the registry"),
    "certificate": (Failure.AGAIN, "renewing this node's certificate"),
    "clock": (Failure.AGAIN, "whether the wall clock was set"),
    "control-copy": (Failure.AGAIN, "the copy of control.db"),
    "control-save": (Failure.ONCE, "something learned, on its way to control.db"),
    "database-commit": (Failure.END, "the commits of a database"),
    "database-sync": (Failure.ONCE, "forcing commits to the disk"),
    "discovery-rescan": (Failure.AGAIN, "this node's addresses, and mDNS"),
    "discovery-seeds": (Failure.AGAIN, "looking up the seeds"),
    "disk-room": (Failure.AGAIN, "how full the disk is"),
    "driver": (Failure.END, "the node itself"),
    "driver-sync": (Failure.END, "syncing what is to survive a power cut"),
    "driver-save": (Failure.END, "what the node persists"),
    "event-time": (Failure.AGAIN, "the time of the last event"),
    "event-work": (Failure.ONCE, "a handler, or an answer to a query"),
    "flash-budget": (Failure.AGAIN, "what the databases write"),
    "facts": (Failure.AGAIN, "telling which apps run"),
    "access-tokens": (Failure.AGAIN, "following who may use the API"),
    "fleet-settings": (Failure.AGAIN, "following what the covey has set for this device"),
    "kv-spaces": (Failure.AGAIN, "following what is set for spaces of the shared keys"),
    "kv-quotas": (Failure.AGAIN, "asking how much there is in spaces that have a quota"),
    "handler-output": (Failure.ONCE, "what a handler prints"),
    "homes": (Failure.AGAIN, "that the devices have homes for their own state"),
    "http-api-accept": (Failure.AGAIN, "accepting connections to the HTTP API"),
    "http-api-handshake": (Failure.ONCE, "TLS with a client of the HTTP API"),
    "http-api-start": (Failure.AGAIN, "loading what answers on the sockets"),
    "kv-stats": (Failure.ONCE, "counting the shared keys for a member that asks"),
    "key-rotation": (Failure.AGAIN, "the steps of a rotation"),
    "key-work": (Failure.ONCE, "one offer of keys, or one answer"),
    "link": (Failure.ONCE, "a stream to a member"),
    "mdns-resolve": (Failure.ONCE, "one announcement by mDNS"),
    "move-mark": (Failure.ONCE, "ending the mark of a file that was moved"),
    "outbox-accept": (Failure.AGAIN, "readings on their way to the disk"),
    "outbox-age": (Failure.AGAIN, "readings that have become too old"),
    "outbox-progress": (Failure.AGAIN, "how far delivery has come"),
    "owners-advance": (Failure.ONCE, "carrying partitions on to their new owners"),
    "peer-book": (Failure.AGAIN, "the known peers"),
    "registry-change": (Failure.ONCE, "the next registry"),
    "resealing": (Failure.AGAIN, "that values of before are written as the configuration asks"),
    "removal": (Failure.END, "ending a membership that others have ended"),
    "roll-over": (Failure.AGAIN, "the steps to another authority"),
    "resumption": (Failure.AGAIN, "whether this process was restored from a copy"),
    "search-seeds": (Failure.AGAIN, "looking up seeds while joining"),
    "start-time": (Failure.AGAIN, "asking the service manager for time to start"),
    "stream-accept": (Failure.AGAIN, "accepting streams"),
    "stream-serve": (Failure.ONCE, "a stream from somebody"),
    "token-expiry": (Failure.AGAIN, "which tokens have expired"),
    "trust-save": (Failure.ONCE, "whom this node trusts, on its way to the disk"),
    "uplink": (Failure.AGAIN, "delivery to the broker"),
    "watchdog": (Failure.AGAIN, "the signs of life for the service manager"),
}
"""Every name, what its failure means, and in words what it is for. A test looks for other tasks."""

CALLBACK, THREAD = "callback", "thread"
UNNAMED = {CALLBACK: "a callback of the event loop", THREAD: "a thread"}
"""What is counted beside the tasks, and cannot be started again from here."""


class Trouble(NamedTuple):
    """A task that failed and is not yet well again."""

    error: str
    failures: int
    running_since: float | None
    """On the monotonic clock; None while it waits to be started again."""


class Watch:
    """A group of watched tasks: those of one agent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self.last_errors: dict[str, str] = {}
        """What each task that ever failed said last."""
        self._clock = clock
        self._quiet = RateLimitedLog(log, OUR_INTERVAL_S, clock)
        self._troubles: dict[tuple[str, str], Trouble] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself may forget them
        self._end: asyncio.Future[None] | None = None

    def start(
        self, name: str, work: Callable[[], Coroutine[Any, Any, object]], label: str = ""
    ) -> asyncio.Task[None]:
        """Run ``work()`` in the background. Cancel what comes back to end it.

        ``name`` is one of ``TASKS``; ``label`` tells several of one name apart.
        """
        failure, _ = TASKS[name]
        running = {
            Failure.AGAIN: self._again_and_again,
            Failure.END: self._to_the_end,
            Failure.ONCE: self._once,
        }[failure]
        title = f"{name} {label}".rstrip()
        task = asyncio.create_task(running(name, work, label), name=title)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def report(self, name: str, error: BaseException) -> None:
        """Count and log a failure."""
        self.counts[f"tasks_failed/{name}"] += 1
        self.last_errors[name] = said = f"{type(error).__name__}: {error}"
        what = TASKS[name][1] if name in TASKS else UNNAMED[name]
        first = self.counts[f"tasks_failed/{name}"] == 1
        if first:
            log.error("%s failed (%s)", name, what, exc_info=error)
        else:
            self._quiet.warning(name, "%s failed (%s): %s", name, what, said)

    def troubles(self) -> list[str]:
        """Return, in sentences, which tasks failed and are not yet well again."""
        now = self._clock()
        return [
            f"the task {name} failed {_times(each.failures)} ({TASKS[name][1]}): {each.error}"
            for (name, _), each in sorted(self._troubles.items())
            if each.running_since is None or now - each.running_since < WELL_AFTER_S
        ]

    async def ended(self) -> None:
        """Wait for a failure after which the agent must end. Raises AgentError with its reason."""
        if self._end is None:
            self._end = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._end)

    def on_trouble(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have callbacks of the loop and threads that raise counted and logged here, too."""
        loop.set_exception_handler(self._on_loop_error)
        threading.excepthook = self._on_thread_error

    # ---- what a failure means -------------------------------------------------------------------

    async def _again_and_again(
        self, name: str, work: Callable[[], Awaitable[object]], label: str
    ) -> None:
        pause_s, failures = AGAIN_FIRST_S, 0
        try:
            while True:
                began = self._clock()
                try:
                    return await _ended(work)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                    self.report(name, error)
                    if self._clock() - began >= WELL_AFTER_S:
                        pause_s, failures = AGAIN_FIRST_S, 0
                    failures += 1
                    said = self.last_errors[name]
                self._troubles[name, label] = Trouble(said, failures, None)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, AGAIN_LONGEST_S)
                self._troubles[name, label] = Trouble(said, failures, self._clock())
        finally:
            self._troubles.pop((name, label), None)

    async def _to_the_end(
        self, name: str, work: Callable[[], Awaitable[object]], _label: str
    ) -> None:
        try:
            await work()
        except AgentError as error:  # it says what happened and what to do
            self._finish(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self.report(name, error)
            self._finish(
                AgentError(
                    f"the agent stopped itself: {name} failed ({TASKS[name][1]}): "
                    f"{type(error).__name__}: {error}.",
                    "What was acknowledged is on disk. Start it again; if it happens twice, "
                    "report the log.",
                    UNHEALTHY,
                )
            )

    async def _once(self, name: str, work: Callable[[], Awaitable[object]], _label: str) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self.report(name, error)

    def _finish(self, error: AgentError) -> None:
        if self._end is None:
            self._end = asyncio.get_running_loop().create_future()
        if not self._end.done():
            self._end.set_exception(error)
            self._end.exception()  # asked for, also where nobody waits

    def _on_thread_error(self, ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None:
            self.report(THREAD, ended.exc_value)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)
        else:
            self.report(CALLBACK, error)


_current: ContextVar[Watch] = ContextVar("the watch of the agent that runs")


def use(watch: Watch) -> None:
    """Have all tasks that are started from here on watched by this group."""
    _current.set(watch)


def start(
    name: str, work: Callable[[], Coroutine[Any, Any, object]], label: str = ""
) -> asyncio.Task[None]:
    """Run ``work()`` in the background, watched by the agent's group: see ``Watch.start``."""
    return _current.get(_NOBODYS).start(name, work, label)


def report(name: str, error: BaseException) -> None:
    """Count and log a failure that whoever noticed it dealt with: see ``Watch.report``."""
    _current.get(_NOBODYS).report(name, error)


class TaskSet:
    """The watched tasks of one part of the agent, which end before it does."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, name: str, work: Callable[[], Coroutine[Any, Any, object]], label: str = ""
    ) -> asyncio.Task[None]:
        """Run ``work()`` in the background until it ends, or ``stop`` ends it."""
        task = start(name, work, label)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self) -> None:
        """Return when all that run now have ended of themselves."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Cancel all, and return when they have ended."""
        for task in self._tasks:
            task.cancel()
        await self.finish()


_NOBODYS = Watch()


async def _ended(work: Callable[[], Awaitable[object]]) -> None:
    await work()


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
