"""Tests an app without an agent and without waiting: in virtual time.

    def test_greenhouse() -> None:
        harness = AppHarness(app, options={"bay": "2"})
        harness.run(60)
        assert harness.values("greenhouse/temperature")

The harness uses the schedule of the real runner. Ten minutes of an app's life take as long as
its calls do, and the same seed gives the same readings.
"""

from collections.abc import Mapping
from typing import Any

from edge_apps.app import App, Context, Event, Function, Query
from edge_apps.listener import as_bytes
from edge_apps.reading import Reading, Value
from edge_apps.schedule import Schedule

# A fixed Tuesday, noon UTC: an app that looks at the time of day does the same in every run.
START_UNIX_S = 1_750_161_600.0


class MemoryKv:
    """The shared keys of a test: a dict, readable as ``contents``."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        """Return the value, None when there is none."""
        return self.contents.get(key)

    def put(self, key: str, value: bytes | str) -> bool:
        """Keep a value."""
        self.contents[key] = value.encode() if isinstance(value, str) else value
        return True

    def delete(self, key: str) -> None:
        """Forget a value."""
        self.contents.pop(key, None)


class AppHarness:
    """Runs an app in virtual time; ``published`` holds its readings in order.

    ``dropped`` holds what was published and no agent would accept: the sensor, and why. What a
    function raises, the test gets. ``kv.contents`` are the shared keys, ``now`` is the
    virtual Unix time; a test may set both between two runs.
    """

    def __init__(self, app: App, options: Mapping[str, Any] | None = None) -> None:
        self.published: list[Reading] = []
        self.dropped: list[tuple[str, str]] = []
        self.kv = MemoryKv()
        self.now = START_UNIX_S
        options = dict(options or {})
        self._app = app
        self._context = Context(
            app.name, options, self.published.append, self.kv, self._time, self._drop
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
