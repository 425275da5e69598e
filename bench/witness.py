"""Who believes what, and since when: read from what the agents print, without asking them.

All three systems print a line when a member comes or dies. One thread reads the pipes of all agents
and stamps each line with its own clock as it arrives, so the three are timed by the same watch, and
nobody has to be polled: a poll every tenth of a second would cost a busy agent more than its
protocol does.
"""

import os
import re
import selectors
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

READ_BYTES = 65536
LOOK_S = 0.02


class Change(NamedTuple):
    """Somebody came to believe something of somebody else."""

    at: float
    """On the clock ``time.monotonic``."""
    observer: str
    subject: str
    is_dead: bool


class Witness:
    """Reads all agents of one cluster. ``close`` ends its thread."""

    def __init__(self, coming: "re.Pattern[str]", dying: "re.Pattern[str]") -> None:
        """Each pattern has the member's name as its first group."""
        self.changes: list[Change] = []
        self.ready: dict[str, float] = {}
        """When each agent first said of itself that it is there, where its system says so."""
        self._coming, self._dying = coming, dying
        self._views: dict[str, dict[str, bool]] = {}
        self._rests: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._is_closing = False
        self._thread = threading.Thread(target=self._read, name="witness", daemon=True)
        self._thread.start()

    def watch(self, observer: str, pipe: int) -> None:
        """Read this agent from now on; it begins its life knowing nobody."""
        with self._lock:
            self._views[observer] = {}
            self._rests[pipe] = b""
            self._selector.register(pipe, selectors.EVENT_READ, observer)

    def forget(self, observer: str) -> None:
        """Stop reading an agent that was ended; what it believed counts no more."""
        with self._lock:
            self._views.pop(observer, None)
            for key in list(self._selector.get_map().values()):
                if key.data == observer:
                    self._drop(key.fd)

    def _drop(self, pipe: int) -> None:
        self._selector.unregister(pipe)
        del self._rests[pipe]
        os.close(pipe)

    def is_whole(self) -> bool:
        """Say whether every watched agent believes every other one to be there."""
        with self._lock:
            names = set(self._views)
            return all(
                view.get(name) is True
                for observer, view in self._views.items()
                for name in names - {observer}
            )

    def wait_whole(self, within_s: float) -> float | None:
        """Return how long it took from now until all saw all; None when it took longer."""
        begun = time.monotonic()
        while not self.is_whole():
            if time.monotonic() - begun > within_s:
                return None
            time.sleep(LOOK_S)
        return time.monotonic() - begun

    def deaths(self, since: float) -> list[Change]:
        """Return all deaths that somebody came to believe in since then."""
        with self._lock:
            return [change for change in self.changes if change.is_dead and change.at >= since]

    def wait_known_dead(
        self, subject: str, observers: Iterable[str], since: float, within_s: float
    ) -> list[float]:
        """Return after how many seconds each observer knew, sorted; of those who knew in time."""
        wanted = set(observers)
        while True:
            known: dict[str, float] = {}
            for change in self.deaths(since):
                if change.subject == subject and change.observer in wanted:
                    known.setdefault(change.observer, change.at - since)
            if len(known) == len(wanted) or time.monotonic() - since > within_s:
                return sorted(known.values())
            time.sleep(LOOK_S)

    def close(self) -> None:
        """End the thread. Agents are to be ended and forgotten before."""
        self._is_closing = True
        self._thread.join()
        self._selector.close()

    def _read(self) -> None:
        while not self._is_closing:
            for key, _ in self._selector.select(timeout=0.1):
                self._read_one(key.fd)

    def _read_one(self, pipe: int) -> None:
        with self._lock:
            if pipe not in self._rests:
                return
            data = os.read(pipe, READ_BYTES)
            at = time.monotonic()
            observer: str = self._selector.get_key(pipe).data
            *lines, self._rests[pipe] = (self._rests[pipe] + data).split(b"\n")
            for line in lines:
                self._note(at, observer, line.decode(errors="replace"))
            if not data:  # it ended by itself: leave its view, so that nobody thinks all is well
                self._drop(pipe)

    def _note(self, at: float, observer: str, line: str) -> None:
        for pattern, is_dead in ((self._coming, False), (self._dying, True)):
            found = pattern.search(line)
            if found and found.group(1) == observer and not is_dead:
                self.ready.setdefault(observer, at)
            elif found and found.group(1) != observer:
                self.changes.append(Change(at, observer, found.group(1), is_dead))
                self._views[observer][found.group(1)] = not is_dead
