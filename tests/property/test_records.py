"""The merge rule keeps its promises under every schedule, and only because of each of its parts.

Three replicas write, delete, read, lose, delay, double and reorder messages, and lose power, which
takes them back to what was saved and gives them a new actor. A second model watches, which knows
the exact causes of everything: each write with the set of dots it was meant to replace. After
everything was delivered, all replicas must hold exactly what the model says; and at every step,
what a replica once saw and dropped must not live there again.

The mutations at the end switch off one part of the rule each. The checkers must notice every one
of them: a model that never complains proves nothing.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.core.errors import InvalidRequest
from gossip.kv import records
from gossip.kv.dots import Dot, PartitionClock, join_intervals
from gossip.kv.records import NOTHING, KeyState, Record, Version

KEYS = ("k", "l")
REPLICAS = 3


class Violation(AssertionError):
    """The checkers have noticed something."""


class Copy:
    """One replica of one partition, with its saved state and what the model knows of it."""

    def __init__(self, actor: int, history: Iterable[tuple[str, Dot]] = ()) -> None:
        self.actor, self.issued = actor, 0
        self.history, self.gaps = history, 0
        self.records: dict[str, Record] = {}
        self.clock = PartitionClock()
        # What the model knows: dots that came here and went, and which deaths happened here.
        self.gone: set[tuple[str, Dot]] = set()
        self.save()

    def save(self) -> None:
        self.saved = (dict(self.records), self.clock.coverage(), set(self.gone))

    def lose_power(self, actor: int) -> None:
        self.records, coverage, self.gone = dict(self.saved[0]), self.saved[1], set(self.saved[2])
        self.clock = PartitionClock(coverage)
        if actor != self.actor:
            self.actor, self.issued = actor, 0
        else:
            self.issued = self.clock.gap_free(actor)

    def record(self, key: str) -> Record:
        return self.records.get(key, NOTHING)

    def keep(self, key: str, after: Record, state: KeyState) -> None:
        before = self.record(key)
        self.clock.add(records.coverage(state))
        kept = records.settle(after, self.clock)
        self.gone |= {(key, dot) for dot in before.dots() - after.dots()}
        known = {dot for of, dot in self.history if of == key and covered_by(state, dot)}
        self.gone |= {(key, dot) for dot in known if dot not in after.dots()}
        self.gaps += any(len(intervals) > 1 for _, intervals in self.clock.coverage())
        if kept is None:
            self.records.pop(key, None)
        else:
            self.records[key] = kept
        back = [dot for dot in self.record(key).dots() if (key, dot) in self.gone]
        if back:
            raise Violation(f"{back} came back")


def covered_by(state: KeyState, dot: Dot) -> bool:
    """What a message vouches for, told without the functions under test."""
    return dot in state.covered or any(a == dot[0] and dot[1] <= n for a, n in state.context)


class Model:
    """A schedule, and the truth about it."""

    def __init__(self, seed: int, *, reuse_actor: bool = False) -> None:
        self.rng = random.Random(seed)
        self.reuse_actor = reuse_actor
        self.values: dict[tuple[str, Dot], bytes] = {}
        self.copies = [Copy(self.rng.getrandbits(64), self.values) for _ in range(REPLICAS)]
        self.wires: list[tuple[int, str, KeyState]] = []

    def run(self, steps: int) -> None:
        actions = [
            self.write, self.write, self.remove, self.deliver, self.deliver, self.deliver,
            self.save, self.exchange, self.power_cut, self.drop,
        ]  # fmt: skip
        for _ in range(steps):
            self.rng.choice(actions)()
        self.converge()
        self.check()

    def pick(self) -> tuple[int, Copy, str]:
        at = self.rng.randrange(REPLICAS)
        return at, self.copies[at], self.rng.choice(KEYS)

    def seen_by_client(self, key: str) -> frozenset[Dot]:
        """What a client has read: at any replica, only what is saved, as the plane does it."""
        copy = self.rng.choice(self.copies)
        return copy.saved[0].get(key, NOTHING).dots()

    def write(self) -> None:
        at, copy, key = self.pick()
        gone = copy.record(key).dots() if self.rng.random() < 0.5 else self.seen_by_client(key)
        copy.issued += 1
        version = Version(copy.actor, copy.issued, 0, self.rng.randbytes(8))
        after, state = records.put(copy.record(key), version, gone)
        copy.keep(key, after, state)
        self.values[key, version.dot] = version.value
        self.tell(at, copy, key, state)

    def remove(self) -> None:
        at, copy, key = self.pick()
        gone = copy.record(key).dots() if self.rng.random() < 0.5 else self.seen_by_client(key)
        copy.issued += 1
        dot = (copy.actor, copy.issued)
        after, state = records.delete(copy.record(key), dot, gone)
        copy.keep(key, after, state)
        self.tell(at, copy, key, state)

    def tell(self, at: int, copy: Copy, key: str, state: KeyState) -> None:
        copy.save()  # persist before reveal
        for other in range(REPLICAS):
            if other != at:
                self.wires.append((other, key, state))

    def deliver(self) -> None:
        if self.wires:
            at = self.rng.randrange(len(self.wires))
            to, key, state = self.wires[at]
            if self.rng.random() < 0.8:
                self.wires.pop(at)
            self.merge(self.copies[to], key, state)

    def merge(self, copy: Copy, key: str, state: KeyState) -> None:
        after = records.merge(copy.record(key), copy.clock, state)
        copy.keep(key, after, state)

    def drop(self) -> None:
        if self.wires:
            self.wires.pop(self.rng.randrange(len(self.wires)))

    def save(self) -> None:
        self.rng.choice(self.copies).save()

    def power_cut(self) -> None:
        copy = self.rng.choice(self.copies)
        copy.lose_power(copy.actor if self.reuse_actor else self.rng.getrandbits(64))

    def exchange(self) -> None:
        """One pass of one replica with another, as in gossip/kv/sync_session.py."""
        mine, theirs = self.rng.sample(self.copies, 2)
        self.one_pass(mine, theirs)

    def one_pass(self, mine: Copy, theirs: Copy) -> None:
        coverage = theirs.clock.coverage()
        theirs.save()
        for key in KEYS:
            dots = theirs.record(key).dots()
            state = records.answer(mine.record(key), mine.clock, dots)
            mine.save()
            self.merge(theirs, key, state)
            theirs.save()
            back = records.answer(theirs.record(key), theirs.clock, state.dots())
            self.merge(mine, key, back)
        mine.clock.absorb(coverage)
        for key in KEYS:
            kept = records.settle(mine.record(key), mine.clock)
            if kept is None:
                mine.records.pop(key, None)

    def converge(self) -> None:
        """Everything still under way arrives, late; then all compare with all."""
        self.rng.shuffle(self.wires)
        late = self.wires[: len(self.wires) // 2]
        for to, key, state in late:
            self.merge(self.copies[to], key, state)
        for _ in range(2):
            for mine in self.copies:
                for theirs in self.copies:
                    if mine is not theirs:
                        self.one_pass(mine, theirs)
        # Whatever is still under way is old news by now.
        for to, key, state in self.wires:
            self.merge(self.copies[to], key, state)

    def check(self) -> None:
        first = self.copies[0]
        for copy in self.copies[1:]:
            for key in KEYS:
                if copy.record(key).dots() != first.record(key).dots():
                    raise Violation(f"diverged: {copy.record(key)} and {first.record(key)}")
        for key in KEYS:
            for version in first.record(key).live:
                if self.values[key, version.dot] != version.value:
                    raise Violation(f"{version} has another write's value")
        bare = [r for c in self.copies for r in c.records.values() if not r.live]
        if bare and not self.wires:
            raise Violation(f"remains: {bare}")


class Witness(Model):
    """Knows for every dot who meant to replace it, and where each write is durable.

    A write is lost when it lives nowhere although nobody meant to replace it and it was saved.
    """

    def __init__(self, seed: int, **options: bool) -> None:
        super().__init__(seed, **options)
        self.meant: set[tuple[str, Dot]] = set()
        self.written: set[tuple[str, Dot]] = set()

    def tell(self, at: int, copy: Copy, key: str, state: KeyState) -> None:
        super().tell(at, copy, key, state)
        self.written |= {(key, v.dot) for v in state.live}
        self.meant |= {(key, dot) for dot in state.covered if dot not in state.dots()}

    def check(self) -> None:
        super().check()
        live = {(k, dot) for k in KEYS for dot in self.copies[0].record(k).dots()}
        if live & self.meant:
            raise Violation(f"resurrected: {live & self.meant}")
        if lost := self.written - self.meant - live:
            raise Violation(f"lost: {lost}")


SCHEDULES = 250


def test_no_schedule_loses_resurrects_or_diverges() -> None:
    for seed in range(SCHEDULES):
        try:
            Witness(seed).run(60)
        except AssertionError as error:
            raise AssertionError(f"SEED {seed}: {error}") from error


def test_schedules_are_not_vacuous() -> None:
    """The schedules contain siblings, deletes of unseen values, gaps and power cuts."""
    siblings = gaps = emptied = 0
    for seed in range(100):
        witness = Witness(seed)
        witness.run(60)
        siblings += any(len(witness.copies[0].record(key).live) > 1 for key in KEYS)
        emptied += any(not witness.copies[0].record(key).live for key in KEYS)
        gaps += any(copy.gaps for copy in witness.copies)
    assert siblings > 20
    assert emptied > 5
    assert gaps > 50


# Mutations: each switches off one part.


def _without_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "seen", lambda record, _clock: records.SeenDots(record.context))


def _without_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "seen", lambda _record, clock: clock)


def _without_bare_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "settle", lambda record, _clock: record if record.live else None)


def _without_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    def merge(record: Record, clock: PartitionClock, state: KeyState) -> Record:
        return original(record, clock, KeyState(state.live, state.context, ()))

    original = records.merge
    monkeypatch.setattr(records, "merge", merge)


def _context_that_kills_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version dies when the other side lacks it, seen or not: the classic lost update."""

    def merge(record: Record, clock: PartitionClock, state: KeyState) -> Record:
        merged = original(record, clock, state)
        live = tuple(v for v in merged.live if v.dot in state.dots()) if state.live else merged.live
        return Record(live, merged.context)

    original = records.merge
    monkeypatch.setattr(records, "merge", merge)


def _clock_that_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the context into the clock: dots of other keys are then seen before they come."""

    def coverage(state: KeyState) -> frozenset[Dot]:
        guessed = {(actor, n) for actor, last in state.context for n in range(1, last + 1)}
        return state.dots() | frozenset(state.covered) | guessed

    monkeypatch.setattr(records, "coverage", coverage)


def _clock_absorbed_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_pass(self: Model, mine: Copy, theirs: Copy) -> None:
        mine.clock.absorb(theirs.clock.coverage())
        original(self, mine, theirs)

    original = Model.one_pass
    monkeypatch.setattr(Model, "one_pass", one_pass)


MUTATIONS: list[Callable[[pytest.MonkeyPatch], None]] = [
    _without_clock, _without_context, _without_bare_context, _without_covered,
    _context_that_kills_siblings, _clock_that_guesses, _clock_absorbed_too_early,
]  # fmt: skip


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__.strip("_"))
def test_each_part_of_the_rule_is_needed(
    monkeypatch: pytest.MonkeyPatch, mutate: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutate(monkeypatch)
    with pytest.raises(Violation):
        run_all()


def run_all() -> None:
    for seed in range(SCHEDULES):
        Witness(seed).run(60)


@pytest.mark.slow
def test_an_actor_that_lives_on_after_lost_power_loses_writes() -> None:
    """The reason for a random actor per process: here one goes on counting where it thinks."""

    class Unsaved(Witness):
        def tell(self, at: int, copy: Copy, key: str, state: KeyState) -> None:
            # Revealed before it was saved: with a new actor that is harmless, with the old one
            # a dot is issued twice.
            saved = copy.saved
            super().tell(at, copy, key, state)
            copy.saved = saved

    def violations(*, reuse_actor: bool) -> int:
        found = 0
        for seed in range(200):
            model = Unsaved(seed, reuse_actor=reuse_actor)
            try:
                model.run(60)
            except (Violation, KeyError):
                found += 1
        return found

    assert violations(reuse_actor=True) > violations(reuse_actor=False)


# Laws, for single steps

dots = st.tuples(st.integers(1, 3), st.integers(1, 4))


@st.composite
def histories(draw: st.DrawFn) -> tuple[Copy, list[KeyState]]:
    """A replica after some history, and messages that came out of the same history."""
    model = Model(draw(st.integers(0, 2**32)))
    told: list[KeyState] = []
    for _ in range(draw(st.integers(1, 25))):
        model.rng.choice([model.write, model.remove, model.deliver, model.exchange])()
    told = [state for _, key, state in model.wires if key == "k"]
    return model.rng.choice(model.copies), told


def outcome(copy: Copy, told: Iterator[KeyState]) -> frozenset[Dot]:
    record, clock = copy.record("k"), PartitionClock(copy.clock.coverage())
    for state in told:
        record = records.merge(record, clock, state)
        clock.add(records.coverage(state))
    return record.dots()


@settings(max_examples=200, deadline=None)
@given(histories())
def test_merging_twice_changes_nothing_more(
    history: tuple[Copy, list[KeyState]],
) -> None:
    copy, told = history
    assert outcome(copy, iter(told)) == outcome(copy, iter([s for s in told for _ in range(2)]))


@settings(max_examples=200, deadline=None)
@given(histories())
def test_a_whole_pass_does_not_care_who_begins(history: tuple[Copy, list[KeyState]]) -> None:
    copy, told = history
    if not told:
        return
    other = Copy(7)
    for state in told:
        after = records.merge(other.record("k"), other.clock, state)
        other.keep("k", after, state)

    def passed(mine: Copy, theirs: Copy) -> frozenset[Dot]:
        question = records.answer(mine.record("k"), mine.clock, theirs.record("k").dots())
        merged = records.merge(theirs.record("k"), theirs.clock, question)
        clock = PartitionClock(theirs.clock.coverage())
        clock.add(records.coverage(question))
        back = records.answer(merged, clock, mine.record("k").dots())
        result = records.merge(mine.record("k"), mine.clock, back)
        assert result.dots() == merged.dots()
        return result.dots()

    assert passed(copy, other) == passed(other, copy)


intervals = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 6)).map(lambda t: (t[0], t[0] + t[1]))
)


@given(intervals)
def test_intervals_are_the_same_counters_sorted_and_apart(given_: list[tuple[int, int]]) -> None:
    joined = join_intervals(given_)
    assert {n for a, b in joined for n in range(a, b + 1)} == {
        n for a, b in given_ for n in range(a, b + 1)
    }
    assert all(left[1] + 1 < right[0] for left, right in itertools.pairwise(joined))


@given(st.lists(dots), st.lists(dots))
def test_clocks_are_sets_that_only_grow(left: list[Dot], right: list[Dot]) -> None:
    clock, other = PartitionClock(), PartitionClock()
    clock.add(left)
    other.add(right)
    changed = clock.absorb(other.coverage())
    assert {d for d in [(a, n) for a in range(5) for n in range(7)] if d in clock} == {
        *left,
        *right,
    }
    assert changed == {actor for actor, n in set(right) - set(left)}
    again = PartitionClock(clock.coverage())
    assert again.mark() == clock.mark()
    assert clock.absorb(other.coverage()) == set()
    for actor in range(5):
        up_to = clock.gap_free(actor)
        assert all((actor, n) in clock for n in range(1, up_to + 1))
        assert (actor, up_to + 1) not in clock


def test_a_long_context_is_shortened_only_where_the_clock_knows() -> None:
    clock = PartitionClock()
    actors = range(1, 30)
    clock.add([(actor, 1) for actor in actors if actor != 5] + [(6, 3)])
    context = tuple((actor, 3 if actor == 6 else 1) for actor in actors)
    record = Record((Version(1, 1, 0, b""),), context)
    kept = records.settle(record, clock)
    assert kept is not None
    assert kept.context == ((1, 1), (5, 1), (6, 3))


@pytest.mark.parametrize("token", [b"", b"\x90", b"\x92\x01", b"\xff" * 50, b"x" * 20_000])
def test_a_context_that_is_none_is_refused(token: bytes) -> None:
    with pytest.raises(InvalidRequest):
        records.decode_context("k", token)


def test_a_context_belongs_to_its_key() -> None:
    token = records.encode_context("k", [(2**64 - 1, 3), (1, 1)])
    assert records.decode_context("k", token) == ((1, 1), (2**64 - 1, 3))
    with pytest.raises(InvalidRequest):
        records.decode_context("l", token)
