"""What typed values come to does not depend on order, on repetition, or on who starts anew.

Three nodes count, tell each other states of any age, in any order, again and again, and start anew
with what they have. In the end, when all have heard all, each has exactly what was counted.
"""

import json
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.kv import records
from gossip.kv.changes import LimitUpdate, MapUpdate, SetUpdate
from gossip.kv.counting import CountError, increased
from gossip.kv.deletions import DELETING
from gossip.kv.dots import PartitionClock
from gossip.kv.records import NOTHING, KeyState, Record, Version
from gossip.kv.requests import GetResult
from gossip.kv.typed_values import (
    MARK,
    CounterValue,
    MapField,
    MaxValue,
    MinValue,
    SetMember,
    Share,
    fold,
    join_shares,
    pack,
    pack_register,
    typed_of,
)
from gossip.kv.typed_writes import Observed, decide_change
from gossip.kv.writes import AskedWrite

NODES = 3
LIVE_MAX = NODES * 4


class Copy:
    """One node's copy of one key, with the actor of the node's present life."""

    def __init__(self, node: int) -> None:
        self.node, self.boot, self.issued = node, 1, 0
        self.record, self.clock = NOTHING, PartitionClock()

    @property
    def actor(self) -> int:
        return self.boot * NODES + self.node

    def start(self) -> None:
        self.boot, self.issued = self.boot + 1, 0

    def count(self, by: int) -> KeyState:
        self.issued += 1
        live = self.record.live
        counter = increased(live, self.node, (self.boot, 0), self.issued, by)
        version = Version(self.actor, self.issued, 0, pack(counter))
        after, state = records.put(self.record, version, [v.dot for v in live])
        self.keep(after, state)
        return state

    def merge(self, state: KeyState) -> None:
        self.keep(records.merge(self.record, self.clock, state), state)

    def keep(self, after: Record, state: KeyState) -> None:
        self.clock.add(records.coverage(state))
        self.record = records.settle(after, self.clock) or NOTHING

    def total(self) -> int:
        (found,) = fold(self.record.live) or (None,)
        assert found is None or found.type == "counter"
        return int(found.data) if found else 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.integers(0, NODES - 1), st.integers(-9, 9)),
        st.tuples(st.just("tell"), st.integers(0, NODES - 1), st.integers(0, 60)),
        st.tuples(st.just("start"), st.integers(0, NODES - 1), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_all_is_counted_exactly_once(steps: list[tuple[str, int, int]]) -> None:
    copies = [Copy(number) for number in range(NODES)]
    told: list[KeyState] = []
    counted = 0
    for what, which, number in steps:
        copy = copies[which]
        if what == "count":
            told.append(copy.count(number))
            counted += number
        elif what == "tell" and told:
            copy.merge(told[number % len(told)])
        elif what == "start":
            copy.start()
        assert len(copy.record.live) <= len(told)
    for copy in copies:
        for state in told:
            copy.merge(state)
    assert [copy.total() for copy in copies] == [counted] * NODES
    assert len({copy.record.dots() for copy in copies}) == 1
    # One more increment that knows of all leaves one version, with a share of each node at most.
    copies[0].count(1)
    (version,) = copies[0].record.live
    counter = typed_of(version.value)
    assert isinstance(counter, CounterValue)
    assert len(counter.shares) <= NODES
    assert copies[0].total() == counted + 1


class Observing(Copy):
    """A copy whose node changes sets, maps and limits by what it reads there itself."""

    def __init__(self, node: int) -> None:
        super().__init__(node)
        self.past: frozenset[int] = frozenset()
        """The changes that it knows of, by the model's own account."""

    def change(self, change: Observed, stamp: int) -> tuple[KeyState, frozenset[int]] | None:
        live, key = self.record.live, "k"
        asked = AskedWrite(key, None, None, None, 9.0, lambda *_: None)
        decided = decide_change(change)(asked, GetResult((), b"", 1, 1, "ok", live))
        self.past |= {stamp}
        if not isinstance(decided, AskedWrite):
            return None  # there was nothing to remove
        assert decided.replaced is not None
        self.issued += 1
        if decided.value is None:
            # A delete has a dot of an actor of its own, as the replica gives it.
            after, state = records.delete(
                self.record, (self.actor | DELETING, self.issued), decided.replaced
            )
        else:
            version = Version(self.actor, self.issued, stamp, decided.value)
            after, state = records.put(self.record, version, decided.replaced)
        self.keep(after, state)
        return state, self.past

    def told(self, state: KeyState, past: frozenset[int]) -> None:
        self.merge(state)
        self.past |= past


NAMES = st.sampled_from("ab")
CHANGES: dict[str, st.SearchStrategy[Observed]] = {
    "set": st.builds(SetUpdate, NAMES, st.booleans()),
    "map": st.builds(MapUpdate, NAMES, st.none() | st.text("xyz", max_size=1)),
    "max": st.builds(LimitUpdate, st.integers(-9, 9), st.just("max")),
    "min": st.builds(LimitUpdate, st.integers(-9, 9), st.just("min")),
}


def part_of(change: Observed) -> str:
    return getattr(change, "member", "") or getattr(change, "field", "")


def expected(kind: str, done: list[tuple[Observed, frozenset[int]]]) -> object:
    """Say what the changes come to, of which each knew those of its past.

    A part of the value is what was given and that no later change of it knew. So who adds a member
    while somebody else removes it has it, and of two values of a field the newest counts.
    """
    if kind in ("max", "min"):
        numbers = [change.number for change, _ in done if isinstance(change, LimitUpdate)]
        return (max if kind == "max" else min)(numbers) if numbers else None
    left: dict[str, object] = {}
    for number, (change, _) in enumerate(done):
        gives = not getattr(change, "removes", False) and getattr(change, "value", "") is not None
        known = any(
            number in past and later > number and part_of(other) == part_of(change)
            for later, (other, past) in enumerate(done)
        )
        if gives and not known:
            left[part_of(change)] = getattr(change, "value", "")  # the newest is the last
    return (sorted(left) if kind == "set" else left) or None


@pytest.mark.parametrize("kind", CHANGES)
@settings(max_examples=40)
@given(st.data())
def test_what_is_observed_and_changed_comes_to_what_a_model_says(
    kind: str, data: st.DataObject
) -> None:
    steps = data.draw(
        st.lists(
            st.tuples(st.integers(0, NODES - 1), CHANGES[kind] | st.integers(0, 40)), max_size=25
        )
    )
    copies = [Observing(number) for number in range(NODES)]
    told: list[tuple[KeyState, frozenset[int]]] = []
    done: list[tuple[Observed, frozenset[int]]] = []
    for which, what in steps:
        copy = copies[which]
        if isinstance(what, int):
            if told:
                copy.told(*told[what % len(told)])
            continue
        before = copy.past
        news = copy.change(what, len(done))
        done.append((what, before))
        if news is not None:
            told.append(news)
    for copy in copies:
        for each in told:
            copy.told(*each)
    for copy in copies:
        found = fold(copy.record.live)
        assert len(found) <= 1
        assert (json.loads(found[0].data) if found else None) == expected(kind, done)


SHARES = st.builds(
    Share,
    st.integers(1, 3),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.integers(0, 3),
    st.integers(-5, 5),
)
TYPED = st.one_of(
    st.builds(CounterValue, st.lists(SHARES, max_size=4).map(tuple)),
    st.builds(SetMember, st.text(max_size=3)),
    st.builds(MapField, st.text(max_size=2), st.text(max_size=2)),
    st.builds(MaxValue, st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(MinValue, st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False)),
)


@given(st.lists(TYPED, max_size=4))
def test_a_fold_does_not_depend_on_order_or_repetition(values: list[CounterValue]) -> None:
    live = [Version(n, 1, n, pack(value)) for n, value in enumerate(values)]
    expected = fold(live)
    for order in permutations(live):
        assert fold((*order, *order[:1])) == expected


@given(st.binary(max_size=40))
def test_whatever_bytes_there_are_they_are_read_and_plain_ones_come_back(data: bytes) -> None:
    for value in (data, MARK + data):
        fold([Version(1, 1, 1, value)])
        (kept,) = fold([Version(1, 1, 1, pack_register(value))])
        assert (kept.type, kept.data) == ("register", value)


@given(st.lists(SHARES, max_size=4), st.integers(1, 3), st.integers(1, 3))
def test_an_increment_is_later_than_whatever_is_claimed(
    shares: list[Share], boot: int, n: int
) -> None:
    live = [Version(1, 1, 1, pack(CounterValue(tuple(shares))))]
    before = join_shares([CounterValue(tuple(shares))])
    after = join_shares([increased(live, 1, (boot, 0), n, 5)])
    assert 1 not in before or after[1] > before[1]
    assert after[1].total == (before[1].total if 1 in before else 0) + 5


def test_what_outbids_all_lives_is_refused() -> None:
    share = Share(1, (2**64 - 1, 2**63 - 1), 1, 1)
    live = [Version(1, 1, 1, pack(CounterValue((share,))))]
    try:
        increased(live, 1, (1, 0), 1, 1)
    except CountError:
        return
    raise AssertionError("it cannot be outbid")
