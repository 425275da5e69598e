"""Watches: every change from a revision on, in order, once, or ``compacted`` instead of a gap.

A watch is served by the copy of the state on its own node, from the history and then as the log is
applied. All changes of one revision come together. Since they are told while they are applied,
whoever knows the applied index knows how far each watch has come, also one that nothing concerned.
"""

from collections.abc import Callable, Iterator
from enum import IntEnum

import msgspec

from gossip.control.bounds import KEY_BYTES_MAX, check_number, check_text
from gossip.control.history import ControlChange, History, RevisionChanges
from gossip.control.keys import KeyChange
from gossip.control.locks import LockChange
from gossip.core.errors import InvalidRequest

UINT63_MAX = 2**63 - 1


class WatchKind(IntEnum):
    """What is watched."""

    KEYS = 0
    LOCKS = 1
    BARRIERS = 2


class ControlWatch(msgspec.Struct, frozen=True):
    """Tell of changes of one name, or of all that begin so; after a revision, or from now on."""

    name: str
    is_prefix: bool = False
    kind: WatchKind = WatchKind.KEYS
    after: int | None = None


class ControlEvent(msgspec.Struct, frozen=True):
    """What a watch tells: all that concerns it of one revision."""

    request: int
    revision: int
    changes: tuple[ControlChange, ...]


class WatchEnded(msgspec.Struct, frozen=True):
    """The watch cannot go on without a gap: changes up to ``compacted`` are not remembered.

    Read what there is, and watch again after the revision of that.
    """

    request: int
    compacted: int


def check_watch(watch: ControlWatch) -> None:
    """Raise InvalidRequest for what no state could serve."""
    check_text(watch.name, "what is watched", KEY_BYTES_MAX, 0 if watch.is_prefix else 1)
    if watch.after is not None:
        check_number(watch.after, "a revision", 0, UINT63_MAX)
    if watch.kind not in set(WatchKind):
        raise InvalidRequest("what is watched are keys, locks or barriers")


def _kind_and_name(change: ControlChange) -> tuple[WatchKind, str]:
    match change:
        case KeyChange():
            return WatchKind.KEYS, change.key
        case LockChange():
            return WatchKind.LOCKS, change.name
        case _:
            return WatchKind.BARRIERS, change.name


class Watchers:
    """Manages the watches of one node. ``emit`` takes what they tell."""

    def __init__(self, emit: Callable[[ControlEvent | WatchEnded], None]) -> None:
        self._emit = emit
        self._watches: dict[int, ControlWatch] = {}
        self._told: dict[int, int] = {}
        """Up to which revision each has been told everything."""

    def __len__(self) -> int:
        return len(self._watches)

    def begin(self, request: int, watch: ControlWatch, history: History, applied: int) -> None:
        """Tell what is remembered, and go on from there."""
        told = applied if watch.after is None else watch.after
        past = history.after(told)
        if past is None:
            self._emit(WatchEnded(request, history.floor))
            return
        self._watches[request] = watch
        self._told[request] = told
        for batch in past:
            self._tell(request, watch, batch)

    def cancel(self, request: int) -> bool:
        """End a watch. False if there is none."""
        self._told.pop(request, None)
        return self._watches.pop(request, None) is not None

    def changed(self, batch: RevisionChanges) -> None:
        """Tell of a revision that was applied just now."""
        if self._watches:
            for request, watch in list(self._watches.items()):
                self._tell(request, watch, batch)

    def replaced(self, index: int) -> None:
        """A snapshot has taken the place of the state: what was between is not known here."""
        for request, told in list(self._told.items()):
            if told < index:
                self.cancel(request)
                self._emit(WatchEnded(request, index))

    def _tell(self, request: int, watch: ControlWatch, batch: RevisionChanges) -> None:
        if batch.revision <= self._told[request]:
            return
        assert request in self._watches, "who is told watches"
        self._told[request] = batch.revision
        changes = tuple(_concerning(watch, batch.changes))
        if changes:
            self._emit(ControlEvent(request, batch.revision, changes))


def _concerning(watch: ControlWatch, changes: tuple[ControlChange, ...]) -> Iterator[ControlChange]:
    for change in changes:
        kind, name = _kind_and_name(change)
        matches = name.startswith(watch.name) if watch.is_prefix else name == watch.name
        if kind is watch.kind and matches:
            yield change
