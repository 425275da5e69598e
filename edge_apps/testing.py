"""Tests an app without an agent and without waiting: in virtual time.

    def test_greenhouse() -> None:
        harness = AppHarness(app, options={"bay": "2"})
        harness.run(60)
        assert harness.values("greenhouse/temperature")

The harness uses the schedule of the real runner. Ten minutes of an app's life take as long as
its calls do, and the same seed gives the same readings.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from edge_apps.agreement import Compare, Delete, Entry, Get, Operation, Outcome, Put
from edge_apps.app import App, Context, Copies, Event, Function, Query, Seen
from edge_apps.client import ApiError
from edge_apps.key_watch import KeyChange
from edge_apps.listener import as_bytes
from edge_apps.locks import NotHeld
from edge_apps.reading import Reading, Value
from edge_apps.schedule import Schedule

# A fixed Tuesday, noon UTC: an app that looks at the time of day does the same in every run.
START_UNIX_S = 1_750_161_600.0
CONFLICT = 409


class MemoryKv:
    """The shared keys of a test: a dict, readable as ``contents``."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.changes: list[KeyChange] = []
        """What a watch tells, in order; each put and delete adds to it, and a test may as well."""

    def get(self, key: str, *, r: Copies = "quorum") -> bytes | None:
        """Return the value, None when there is none."""
        return self.look(key, r=r).value

    def look(self, key: str, *, r: Copies = "quorum") -> Seen:
        """Return the value; it stands for its own context."""
        del r
        value = self.contents.get(key)
        return Seen(value, "" if value is None else value.hex() or "empty")

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
        """Keep a value, for ever. Raises ApiError if it is not what was seen."""
        del w, fsync, ttl_s
        if seen is not None and seen != self.look(key):
            raise ApiError(CONFLICT, "failed", "the key does not have what was seen any more")
        kept = value.encode() if isinstance(value, str) else value
        self.contents[key] = kept
        self._record("put", key, kept)
        return True

    def put_many(
        self, values: Mapping[str, bytes | str], *, ttl_s: float | None = None
    ) -> dict[str, str]:
        """Keep many values, for ever."""
        for key, value in values.items():
            self.put(key, value, ttl_s=ttl_s)
        return dict.fromkeys(values, "ok")

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """Return many values."""
        return {key: self.get(key) for key in keys}

    def count(self, key: str, by: int = 1) -> bool:
        """Count a counter up, or down."""
        return self.put(key, str(int(self.contents.get(key, b"0")) + by))

    def add(self, key: str, member: str) -> bool:
        """Add a member to a set."""
        return self._keep_members(key, self._members(key) | {member})

    def discard(self, key: str, member: str) -> bool:
        """Remove a member from a set."""
        return self._keep_members(key, self._members(key) - {member})

    def _members(self, key: str) -> set[str]:
        return set(json.loads(self.contents.get(key, b"[]")))

    def _keep_members(self, key: str, members: set[str]) -> bool:
        if not members:
            self.delete(key)
            return True
        return self.put(key, json.dumps(sorted(members), ensure_ascii=False))

    def set_field(self, key: str, field: str, value: str | None) -> bool:
        """Give a field of a map a value, or remove it."""
        fields = json.loads(self.contents.get(key, b"{}")) | {field: value}
        left = {name: text for name, text in sorted(fields.items()) if text is not None}
        if left:
            return self.put(key, json.dumps(left, ensure_ascii=False))
        self.delete(key)
        return True

    def raise_to(self, key: str, number: float) -> bool:
        """Raise a maximum."""
        return self.put(key, json.dumps(max(number, *self._numbers(key), number)))

    def lower_to(self, key: str, number: float) -> bool:
        """Lower a minimum."""
        return self.put(key, json.dumps(min(number, *self._numbers(key), number)))

    def _numbers(self, key: str) -> list[float]:
        return [json.loads(self.contents[key])] if key in self.contents else []

    def delete(self, key: str) -> None:
        """Forget a value."""
        if self.contents.pop(key, None) is not None:
            self._record("delete", key)

    def _record(self, kind: str, key: str, *values: bytes) -> None:
        self.changes.append(KeyChange(kind, key, values, str(len(self.changes) + 1)))

    def watch(
        self,
        prefix: str = "",
        *,
        key: str | None = None,
        since: str = "",
        idle_s: float | None = None,
    ) -> Iterator[KeyChange]:
        """Yield the changes so far, behind the token ``since`` or all; then it is idle."""
        del idle_s
        for change in self.changes[int(since or 0) :]:
            if change.key == key or (key is None and change.key.startswith(prefix)):
                yield change


class MemoryLock:
    """A lock of a test; free unless its name is in ``MemoryAgreement.taken``."""

    def __init__(self, control: "MemoryAgreement", name: str) -> None:
        self._control, self._name = control, name
        self.token = 0

    @property
    def lost(self) -> bool:
        """Whether it is not held; a test adds the name to ``taken`` to have it lost."""
        return not self.token or self._name in self._control.taken

    def __enter__(self) -> Self:
        """Take it. Raises NotHeld."""
        if self._name in self._control.taken:
            raise NotHeld(f"lock {self._name!r} is held by somebody else", is_taken=True)
        self.token = self._control.next_revision()
        return self

    def __exit__(self, *_error: object) -> None:
        """Let go of it."""
        self.token = 0


class MemoryBarrier:
    """A barrier of a test: the others are there already, unless its name is in ``taken``."""

    def __init__(self, control: "MemoryAgreement", name: str) -> None:
        self._control, self._name = control, name
        self._is_inside = False

    @property
    def lost(self) -> bool:
        """Whether this app is not inside; a test adds the name to ``taken`` to have it lost."""
        return not self._is_inside or self._name in self._control.taken

    def __enter__(self) -> Self:
        """Enter. Raises NotHeld."""
        if self._name in self._control.taken:
            raise NotHeld(f"too few have entered barrier {self._name!r} in time", is_taken=True)
        self._is_inside = True
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave."""
        self._is_inside = False


class MemoryAgreement:
    """The control plane of a test: ``entries`` by their keys, and who else holds which lock."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.created: dict[str, int] = {}
        self.taken: set[str] = set()
        self.revision = 0

    def next_revision(self) -> int:
        """Return the revision of something that happens now."""
        self.revision += 1
        return self.revision

    def lock(
        self,
        name: str,
        *,
        ttl_s: float = 0.0,  # noqa: ARG002
        wait_s: float | None = None,  # noqa: ARG002
        permits: int = 1,  # noqa: ARG002
    ) -> MemoryLock:
        """Return a lock."""
        return MemoryLock(self, name)

    def barrier(
        self,
        name: str,
        count: int,  # noqa: ARG002
        *,
        ttl_s: float = 0.0,  # noqa: ARG002
        wait_s: float | None = None,  # noqa: ARG002
    ) -> MemoryBarrier:
        """Return a barrier."""
        return MemoryBarrier(self, name)

    def transact(
        self,
        compare: Sequence[Compare] = (),
        then: Sequence[Operation] = (),
        otherwise: Sequence[Operation] = (),
    ) -> Outcome:
        """Do ``then`` if all comparisons hold, else ``otherwise``."""
        succeeded = all(map(self._holds, compare))
        revision = self.next_revision()
        read: list[Entry] = []
        for operation in then if succeeded else otherwise:
            key = operation.key
            match operation:
                case Put(value=value):
                    before = self.entries.get(key)
                    version = before.version + 1 if before else 1
                    self.created.setdefault(key, revision)
                    self.entries[key] = Entry(key, as_bytes(value), version, revision)
                case Get(is_prefix=is_prefix):
                    read += [self.entries[each] for each in self._named(key, is_prefix)]
                case Delete(is_prefix=is_prefix):
                    for each in self._named(key, is_prefix):
                        del self.entries[each], self.created[each]
        return Outcome(succeeded, revision, read)

    def _named(self, key: str, is_prefix: bool) -> list[str]:  # noqa: FBT001
        if is_prefix:
            return sorted(each for each in self.entries if each.startswith(key))
        return [key] if key in self.entries else []

    def _holds(self, compare: Compare) -> bool:
        entry = self.entries.get(compare.key)
        there: int | bytes | None
        match compare.field:
            case "value":
                there = entry.value if entry else None
            case "version":
                there = entry.version if entry else 0
            case "created":
                there = self.created.get(compare.key, 0)
            case "modified":
                there = entry.modified if entry else 0
            case "count":
                there = len(self._named(compare.key, is_prefix=True))
            case "token":
                there = compare.operand if compare.key not in self.taken else -1  # type: ignore[assignment]
        operand = compare.operand
        wanted = as_bytes(operand) if isinstance(operand, str) else operand
        if compare.relation in ("=", "!="):
            return (there == wanted) is (compare.relation == "=")
        if there is None:
            return False
        less = there < wanted  # type: ignore[operator]
        return less if compare.relation == "<" else there > wanted  # type: ignore[operator]


class AppHarness:
    """Runs an app in virtual time; ``published`` holds its readings in order.

    ``dropped`` holds what was published and no agent would accept: the sensor, and why. What a
    function raises, the test gets. ``kv.contents`` are the shared keys, ``control`` has those of
    the control plane as ``entries``, and the locks that others hold as ``taken``; ``now`` is the
    virtual Unix time. A test may set all of it between two runs.
    """

    def __init__(self, app: App, options: Mapping[str, Any] | None = None) -> None:
        self.published: list[Reading] = []
        self.dropped: list[tuple[str, str]] = []
        self.kv = MemoryKv()
        self.control = MemoryAgreement()
        self.now = START_UNIX_S
        options = dict(options or {})
        self._app = app
        self._context = Context(
            app.name,
            options,
            self.published.append,
            self.kv,
            self._time,
            self._drop,
            control=self.control,
        )
        self._schedule: Schedule[Function] = Schedule(app.periods(options), self.now)

    def run(self, seconds: float) -> None:
        """Let ``seconds`` of virtual time pass; a function due at the very end runs next time."""
        end = self.now + seconds
        while (due := self._schedule.deadline()) is not None and due < end:
            self.now = max(self.now, due)
            if function := self._schedule.take_due(self.now):
                function(self._context)
        self.now = end

    def event(self, name: str, payload: bytes | str = b"", sender: str = "somebody") -> None:
        """Let an event arrive."""
        event = Event(name, as_bytes(payload), sender)
        if function := self._app.event_function(name):
            function(self._context, event)

    def query(self, name: str, payload: bytes | str = b"", asker: str = "somebody") -> bytes:
        """Let somebody ask; return the answer. Raises LookupError when nobody answers it."""
        function = self._app.query_function(name)
        if function is None:
            raise LookupError(f"app {self._app.name} answers no queries called {name!r}")
        return as_bytes(function(self._context, Query(name, as_bytes(payload), asker)))

    def values(self, sensor: str) -> list[Value]:
        """Return what was published for one sensor, in order."""
        return [reading.value for reading in self.published if reading.sensor == sensor]

    def _drop(self, sensor: str, why: str) -> None:
        self.dropped.append((sensor, why))

    def _time(self) -> float:
        return self.now
