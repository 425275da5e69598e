"""Watches: in order, once, resumable; and ``compacted`` instead of a gap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.control.history import History
from gossip.control.keys import KeyChange, KeyEntry
from gossip.control.locks import Lock, LockChange
from gossip.control.transactions import DeleteKey, Operation, PutKey
from gossip.control.watchers import (
    ControlEvent,
    ControlWatch,
    WatchEnded,
    Watchers,
    WatchKind,
    check_watch,
)
from gossip.core.errors import InvalidRequest
from tests.support.control_log import ControlLog


def change(key: str, revision: int = 1) -> KeyChange:
    return KeyChange(key, KeyEntry(key, b"", revision, revision, 1))


class Rig:
    def __init__(self, changes_max: int = 100) -> None:
        self.told: list[ControlEvent | WatchEnded] = []
        self.history = History(0, changes_max)
        self.watchers = Watchers(self.told.append)
        self.applied = 0

    def write(self, revision: int, *changes: KeyChange | LockChange) -> None:
        self.applied = revision
        self.watchers.changed(self.history.record(revision, changes))

    def watch(self, watch: ControlWatch, request: int = 1) -> None:
        self.watchers.begin(request, watch, self.history, self.applied)

    def revisions(self, request: int = 1) -> list[int]:
        return [
            each.revision
            for each in self.told
            if isinstance(each, ControlEvent) and each.request == request
        ]


def test_one_key_or_a_prefix_or_a_lock() -> None:
    rig = Rig()
    rig.watch(ControlWatch("a"), 1)
    rig.watch(ControlWatch("a", is_prefix=True), 2)
    rig.watch(ControlWatch("a", kind=WatchKind.LOCKS), 3)
    rig.write(1, change("a"), change("ab"))
    rig.write(2, change("ab"))
    rig.write(4, LockChange("a", Lock("a", 1)))
    assert rig.revisions(1) == [1]
    assert rig.revisions(2) == [1, 2]
    assert rig.revisions(3) == [4]
    first = next(each for each in rig.told if isinstance(each, ControlEvent) and each.request == 2)
    assert len(first.changes) == 2, "what changed together is told together"


def test_a_watch_resumes_where_it_was() -> None:
    rig = Rig()
    for revision in (1, 3, 5):
        rig.write(revision, change("a"))
    rig.watch(ControlWatch("a", after=1))
    rig.write(6, change("a"))
    assert rig.revisions() == [3, 5, 6]


def test_a_watch_of_now_tells_nothing_of_before() -> None:
    rig = Rig()
    rig.write(1, change("a"))
    rig.watch(ControlWatch("a"))
    rig.write(2, change("a"))
    assert rig.revisions() == [2]


def test_what_is_not_remembered_is_said() -> None:
    rig = Rig(changes_max=2)
    for revision in (1, 2, 3):
        rig.write(revision, change("a"))
    rig.watch(ControlWatch("a", after=0))
    assert rig.told == [WatchEnded(1, 1)]
    assert len(rig.watchers) == 0
    rig.watch(ControlWatch("a", after=1))
    assert rig.revisions() == [2, 3]


def test_a_snapshot_ends_the_watches_that_it_overtakes() -> None:
    rig = Rig()
    rig.watch(ControlWatch("a"), 1)
    rig.watch(ControlWatch("a", after=50), 2)
    rig.watchers.replaced(40)
    assert rig.told == [WatchEnded(1, 40)]
    rig.history = History(40)
    rig.write(45, change("a"))
    rig.write(51, change("a"))
    assert rig.revisions(2) == [51]


def test_a_cancelled_watch_is_silent() -> None:
    rig = Rig()
    rig.watch(ControlWatch("a"))
    assert rig.watchers.cancel(1)
    assert not rig.watchers.cancel(1)
    rig.write(1, change("a"))
    assert rig.told == []


def test_one_entry_larger_than_the_history_still_reaches_who_watches() -> None:
    rig = Rig(changes_max=2)
    rig.watch(ControlWatch("", is_prefix=True))
    rig.write(1, *(change(f"k{number}") for number in range(5)))
    assert rig.revisions() == [1]
    assert rig.history.floor == 1


@pytest.mark.parametrize(
    "watch", [ControlWatch(""), ControlWatch("k" * 513), ControlWatch("k", after=-1)]
)
def test_what_no_state_could_serve_is_refused(watch: ControlWatch) -> None:
    with pytest.raises(InvalidRequest):
        check_watch(watch)


@given(
    st.lists(st.sampled_from(["put", "delete", "other"]), max_size=20),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_resumed_anywhere_the_story_is_the_same(steps: list[str], cut: int, start: int) -> None:
    """A watch from the beginning, and one that begins late in the past, tell the same."""
    log = ControlLog()
    told: list[ControlEvent | WatchEnded] = []
    watchers = Watchers(told.append)
    watchers.begin(1, ControlWatch("k", after=0), log.state.history, 0)
    start = min(start, len(steps))
    steps_of: dict[str, Operation] = {
        "put": PutKey("k", b""), "delete": DeleteKey("k"), "other": PutKey("o", b""),
    }  # fmt: skip
    for place, step in enumerate(steps):
        if place == cut:
            after = min(start, log.index)
            watch = ControlWatch("k", after=after)
            watchers.begin(2, watch, log.state.history, log.index)
        before = len(log.batches)
        log.transact(steps_of[step])
        for batch in log.batches[before:]:
            watchers.changed(batch)
    story = [each for each in told if isinstance(each, ControlEvent)]
    first = [(each.revision, each.changes) for each in story if each.request == 1]
    second = [(each.revision, each.changes) for each in story if each.request == 2]
    assert first == sorted(first, key=lambda each: each[0])
    if cut < len(steps):
        assert second == [each for each in first if each[0] > min(start, cut)]
