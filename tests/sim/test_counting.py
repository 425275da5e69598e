"""A slice of the schedules with counters and sets, and the proof that each rule is needed.

``make soak-counting`` runs many of them (``tests/sim/counting_campaign.py``).
"""

from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from gossip.kv import counting, forwarding, replica, typed_values, typed_writes
from gossip.kv.dots import Dot
from gossip.kv.replica import Replica
from gossip.kv.typed_values import CounterValue, Life, Share
from tests.sim.counting import MUST_HAPPEN, Violation, run

SLICE = range(8)
VACUITY = range(300)
CAUGHT_WITHIN = range(2_000)

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


def run_all(seeds: Iterable[int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        counts += run(seed).counts
    return counts


def test_no_schedule_loses_an_increment_or_counts_one_twice() -> None:
    counts = run_all(SLICE)
    assert counts["counting/acknowledged"]
    assert counts["counting/read"]


@pytest.mark.slow
def test_schedules_are_not_vacuous() -> None:
    counts = run_all(VACUITY)
    assert not [name for name in MUST_HAPPEN if not counts[name]]


def _adds_up_the_shares_of_a_node(patch: Patch) -> None:
    """Versions that did not know of each other are added, and what they share counts twice."""

    def join(counters: Iterable[CounterValue]) -> dict[int, Share]:
        found: dict[int, Share] = {}
        for share in (share for counter in counters for share in counter.shares):
            before = found.get(share.node)
            total = share.total + (before.total if before else 0)
            found[share.node] = Share(share.node, share.life, share.n, total)
        return found

    patch.setattr(typed_values, "join_shares", join)
    patch.setattr("gossip.kv.counting.join_shares", join)


def _forgets_the_shares_of_others(patch: Patch) -> None:
    """An increment takes the place of all versions, with its own share alone."""
    original = counting.increased

    def increased(live: tuple[object, ...], me: int, *rest: int) -> CounterValue:
        whole = original(live, me, *rest)  # type: ignore[arg-type]
        return CounterValue(tuple(share for share in whole.shares if share.node == me))

    patch.setattr(replica, "increased", increased)


def _begins_again_in_each_life(patch: Patch) -> None:
    """A later life counts from nothing, and supersedes what its node counted before."""

    original = typed_values.join_shares

    def increased(live: tuple[object, ...], me: int, life: Life, n: int, by: int) -> CounterValue:
        shares = original(
            value
            for version in live
            if isinstance(value := typed_values.typed_of(version.value), CounterValue)  # type: ignore[attr-defined]
        )
        mine = shares.get(me)
        total = mine.total if mine and mine.life == life else 0
        shares[me] = Share(me, life, n, total + by)
        return CounterValue(tuple(shares.values()))

    patch.setattr(replica, "increased", increased)


def _has_one_life(patch: Patch) -> None:
    """Each start of a node goes on with the counters of dots from the beginning."""
    original = counting.increased

    def increased(live: tuple[object, ...], me: int, _life: Life, n: int, by: int) -> CounterValue:
        shares = original(live, me, (2**40, 0), n, by).shares  # type: ignore[arg-type]
        total = next(share.total for share in shares if share.node == me)
        others = tuple(share for share in shares if share.node != me)
        return CounterValue((*others, Share(me, (1, 0), n, total)))

    patch.setattr(replica, "increased", increased)


def _counts_on_an_incomplete_copy(patch: Patch) -> None:
    """Who lost the newest batches, or has yet to copy, goes on from what it happens to have."""

    class Careless(Replica):
        def is_complete(self, partition: int, registry: object) -> bool:
            del registry
            return self.me is not None and partition >= 0

    original = forwarding.WriteForwarder.__init__

    def init(self: forwarding.WriteForwarder, parts: object, writes: object) -> None:
        original(self, parts, writes)  # type: ignore[arg-type]
        careless = Careless.__new__(Careless)
        careless.__dict__ = parts.replica.__dict__  # type: ignore[attr-defined]
        self._replica = careless

    patch.setattr(forwarding.WriteForwarder, "__init__", init)


def _replaces_what_nobody_read(patch: Patch) -> None:
    """A new member takes the place of all members that its coordinator holds."""
    original = typed_writes._replacement

    def replacement(*asked: object) -> tuple[tuple[Dot, ...] | None, object]:
        gone, typed = original(*asked)  # type: ignore[arg-type]
        return (gone if typed is None else None), typed

    patch.setattr(typed_writes, "_replacement", replacement)
    patch.setattr(typed_writes, "_too_much", lambda *_: "")


MUTATIONS = (
    _adds_up_the_shares_of_a_node,
    _forgets_the_shares_of_others,
    _begins_again_in_each_life,
    _has_one_life,
    _counts_on_an_incomplete_copy,
    _replaces_what_nobody_read,
)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_each_rule_is_needed(monkeypatch: Patch, mutation: Mutation) -> None:
    mutation(monkeypatch)
    with pytest.raises(Violation):
        run_all(CAUGHT_WITHIN)
