"""What an app is made of: an ``App``, functions that are due every so often, and a ``Context``.

An app is a module with one ``App`` in it. Its functions take a context, through which they
publish readings and use the covey's shared keys; they never see the agent. That is why the
same app runs under the agent as a process of its own (``edge_apps/runner.py``), on a
developer's terminal (``python -m edge_apps NAME --print``) and in a test, in virtual time
(``edge_apps/testing.py``).

Functions are plain functions and run one after the other, in one thread. An app that must
wait for two slow devices at once is two apps.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeVar

from edge_apps.agreement import Compare, Operation, Outcome
from edge_apps.key_watch import KeyChange
from edge_apps.locks import TTL_S
from edge_apps.reading import BadReading, Reading, Value, draft
from edge_apps.units import parse_duration

EVERY_OPTION = "every"

T = TypeVar("T")


Copies = int | Literal["one", "quorum", "all"]
"""How many owners of a key must answer, or have a write on disk."""


class Seen(NamedTuple):
    """What a key had when somebody looked: the newest value, and all versions by their context."""

    value: bytes | None
    context: str


class Kv(Protocol):
    """The covey's shared keys. Each call may raise AgentUnreachable or ApiError."""

    def get(self, key: str, *, r: Copies = "quorum") -> bytes | None:
        """Return the newest value; None when the key does not exist."""

    def look(self, key: str, *, r: Copies = "quorum") -> Seen:
        """Return the newest value, and what a put needs to replace only what was seen."""

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
        """Write a value; text travels as UTF-8.

        With ``seen``, only if the key still has what ``look`` saw; else ApiError with status 409.
        It looks first and then writes: of two that do so at once both may succeed, and both values
        stay. Where one must win, use ``txn``.

        ``ttl_s``: after so long it is shown no more, and deleted; writing again renews it. Without
        one it is as the key's space says, with 0 it stays.

        Return whether enough owners have it, with ``fsync`` so that a power cut of all of them
        takes nothing of it. False is no failure and no success: it may be read
        later or not; write it again if it matters.
        """

    def put_many(
        self, values: Mapping[str, bytes | str], *, ttl_s: float | None = None
    ) -> dict[str, str]:
        """Write many keys, each for itself; return of each key how that ended.

        "ok", "indeterminate", or "refused": nothing was written under this key.
        """

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """Return the newest value of many keys, None for those that do not exist.

        Keys that too few owners could answer for are left out.
        """

    def count(self, key: str, by: int = 1) -> bool:
        """Count a counter up, or down; ``get`` gives its value as digits.

        False as for ``put``: then it may have been counted or not. To repeat it may count twice.
        """

    def add(self, key: str, member: str) -> bool:
        """Add a member to a set; ``get`` gives all of them as a JSON list."""

    def discard(self, key: str, member: str) -> bool:
        """Remove a member from a set. Who adds it at the same time wins."""

    def set_field(self, key: str, field: str, value: str | None) -> bool:
        """Give a field of a map a value, None to remove it; ``get`` gives a JSON object."""

    def raise_to(self, key: str, number: float) -> bool:
        """Raise a maximum to this number, if it is below; ``get`` gives it as digits."""

    def lower_to(self, key: str, number: float) -> bool:
        """Lower a minimum to this number, if it is above; ``get`` gives it as digits."""

    def delete(self, key: str) -> None:
        """Delete the key; it is no error when it does not exist."""

    def watch(
        self,
        prefix: str = "",
        *,
        key: str | None = None,
        since: str = "",
        idle_s: float | None = None,
    ) -> Iterable[KeyChange]:
        """Return the changes of all keys with a prefix, or of one key, as they happen.

        From now on, or from the ``token`` of an earlier change. It ends when nothing happened for
        ``idle_s``. A change may come twice; what was missed is said as a "gap".
        """


class HeldLock(Protocol):
    """A lock, for a ``with`` statement: ``edge_apps/locks.py``."""

    token: int
    """The fencing token while it is held; it grows with each holder."""

    @property
    def lost(self) -> bool:
        """Whether it is not held, or may not be: stop what it protects."""

    def __enter__(self) -> Self:
        """Take the lock. Raises NotHeld, AgentUnreachable or ApiError."""

    def __exit__(self, *_error: object) -> None:
        """Let go of it."""


class OpenBarrier(Protocol):
    """A barrier, for a ``with`` statement: ``edge_apps/barriers.py``."""

    @property
    def lost(self) -> bool:
        """Whether this program is not inside any more, or may not be."""

    def __enter__(self) -> Self:
        """Enter, and wait for the others. Raises NotHeld, AgentUnreachable or ApiError."""

    def __exit__(self, *_error: object) -> None:
        """Leave, and wait until all have left."""


class Agreement(Protocol):
    """The covey's control plane: ``edge_apps/agreement.py``."""

    def lock(
        self, name: str, *, ttl_s: float = TTL_S, wait_s: float | None = None, permits: int = 1
    ) -> HeldLock:
        """Return a lock that the same app on all devices means by this name."""

    def barrier(
        self, name: str, count: int, *, ttl_s: float = TTL_S, wait_s: float | None = None
    ) -> OpenBarrier:
        """Return a barrier that the same app on all devices means by this name."""

    def transact(
        self,
        compare: Sequence[Compare] = (),
        then: Sequence[Operation] = (),
        otherwise: Sequence[Operation] = (),
    ) -> Outcome:
        """Do ``then`` if all comparisons hold, else ``otherwise``: all of it or nothing."""


class Context:
    """What a function of an app gets.

    ``options`` is the app's table of the configuration (``[apps.NAME.options]``), ``log`` goes to
    ``covey app log NAME``, ``kv`` are the shared keys, ``lock``, ``barrier`` and ``txn`` those of
    the control plane, and ``scratch`` holds whatever the app wants to find again at its next call;
    it is gone when the app ends.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        accept: Callable[[Reading], None],
        kv: Kv,
        clock: Callable[[], float],
        drop: Callable[[str, str], None],
        taken_ns: Callable[[], int] = lambda: 0,
        *,
        control: Agreement,
    ) -> None:
        self.name = name
        self.options = options
        self.kv = kv
        self.log = logging.getLogger(name)
        self.scratch: dict[str, Any] = {}
        self._accept = accept
        self._clock = clock
        self._drop = drop
        self._taken_ns = taken_ns
        self.lock, self.barrier, self.txn = control.lock, control.barrier, control.transact

    def time(self) -> float:
        """Return Unix time in seconds; a test's harness decides what it is."""
        return self._clock()

    def publish(
        self,
        sensor: str,
        value: Value,
        *,
        unit: str = "",
        tags: Mapping[str, str] | None = None,
        time_s: float | None = None,
    ) -> bool:
        """Hand a measured value to the agent, stamped with ``time_s`` or with the time now.

        Returns at once; the reading is sent with others, a second later at most, and waits in
        a bounded buffer while the agent is away. What no agent accepts (NaN, a text of a page,
        a name with blanks) costs that reading and nothing else: it is counted, the log says
        why, and False comes back.
        """
        moment = self._clock() if time_s is None else time_s
        taken_ns = self._taken_ns() if time_s is None else 0
        try:
            self._accept(draft(sensor, value, unit, moment, tags or {}, taken_ns))
        except BadReading as error:
            self._drop(f"{sensor!s:.60}", str(error))
            return False
        return True


class Event(NamedTuple):
    """Something that a member told all others: ``covey event send NAME PAYLOAD``."""

    name: str
    payload: bytes = b""
    sender: str = ""
    """The sender's name; our own node's events come, too."""


class Query(NamedTuple):
    """What a member asks of this one: ``covey query NAME PAYLOAD``."""

    name: str
    payload: bytes = b""
    asker: str = ""


Function = Callable[[Context], None]
OnEvent = Callable[[Context, Event], None]
OnQuery = Callable[[Context, Query], bytes | str | None]


class App:
    """A named set of functions, each with its period.

    Example::

        app = App("greenhouse")

        @app.every("5s")
        def sample(context: Context) -> None:
            context.publish("greenhouse/temperature", 21.5, unit="C")

        @app.on_query("temperature")
        def temperature(context: Context, query: Query) -> str:
            return "21.5"
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._periods: list[tuple[Function, float]] = []
        self.event_functions: dict[str, OnEvent] = {}
        self.query_functions: dict[str, OnQuery] = {}

    def every(self, period: str) -> Callable[[Function], Function]:
        """Register a function to be called at the start and then every ``period`` ("5s").

        Raises ValueError for what is no duration.
        """
        every_s = parse_duration(period)

        def register(function: Function) -> Function:
            self._periods.append((function, every_s))
            return function

        return register

    def on_event(self, name: str) -> Callable[[OnEvent], OnEvent]:
        """Register a function to be called with each event of this name, which may be a glob."""

        def register(function: OnEvent) -> OnEvent:
            self.event_functions[name] = function
            return function

        return register

    def on_query(self, name: str) -> Callable[[OnQuery], OnQuery]:
        """Register a function whose return value answers queries of this name, or glob.

        It has the time that the asker and ``[queries] timeout`` give.
        """

        def register(function: OnQuery) -> OnQuery:
            self.query_functions[name] = function
            return function

        return register

    def event_function(self, name: str) -> OnEvent | None:
        """Return the function for events of this name."""
        return _first(self.event_functions, name)

    def query_function(self, name: str) -> OnQuery | None:
        """Return the function for queries of this name."""
        return _first(self.query_functions, name)

    @property
    def listens(self) -> bool:
        """Whether the app has to do with events or queries."""
        return bool(self.event_functions or self.query_functions)

    def periods(self, options: Mapping[str, Any]) -> list[tuple[Function, float]]:
        """Return the functions and their periods in seconds.

        ``every`` in the configuration replaces the period of all functions. Raises ValueError
        for an ``every`` that is no duration, and for an app without functions.
        """
        if not self._periods and not self.listens:
            raise ValueError(f"app {self.name} has no function; decorate one with @app.every")
        if not (every := options.get(EVERY_OPTION)):
            return list(self._periods)
        try:
            every_s = parse_duration(str(every))
        except ValueError as error:
            raise ValueError(f"every: {error}") from None
        return [(function, every_s) for function, _ in self._periods]


def _first(functions: Mapping[str, T], name: str) -> T | None:
    found = (function for pattern, function in functions.items() if fnmatchcase(name, pattern))
    return next(found, None)
