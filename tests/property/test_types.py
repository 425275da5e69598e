"""What typed values come to does not depend on order, on repetition, or on who starts anew.

Three nodes count, tell each other states of any age, in any order, again and again, and start anew
with what they have. In the end, when all have heard all, each has exactly what was counted.
"""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from gossip.kv import records
from gossip.kv.counting import CountError, increased
from gossip.kv.dots import PartitionClock
from gossip.kv.records import NOTHING, KeyState, Record, Version
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
