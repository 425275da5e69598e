"""A slice of the schedules in which clients watch, and the proof that the judge would notice.

``make soak-watches`` runs many of them (``tests/sim/watching_campaign.py``).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from gossip.core.ids import NodeId
from gossip.kv.deletions import DeletionMemory
from gossip.kv.records import KeyState, coverage
from gossip.kv.watch_client import WatchClient
from gossip.kv.watched_partition import ReaderView, ToldState, WatchedPartition
from tests.sim.owners import Violation
from tests.sim.watching import MUST_HAPPEN, run

SLICE = range(12)
VACUITY = range(60)
CAUGHT_WITHIN = range(400)
GAPS_SHARE_MAX = 0.1

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


def run_all(seeds: Iterable[int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        counts += run(seed).counts
    return counts


@pytest.mark.slow
def test_no_acknowledged_change_is_missed_in_silence() -> None:
    assert run_all(SLICE)["schedule/watches judged"] == 2 * len(SLICE)


@pytest.mark.slow
def test_schedules_are_not_vacuous_and_gaps_are_rare() -> None:
    counts = run_all(VACUITY)
    assert not [name for name in MUST_HAPPEN if not counts[name]]
    assert counts["schedule/watches with gaps"] < GAPS_SHARE_MAX * 2 * len(VACUITY)


# What watches stand on


def _gives_the_token_before_it_tells(patch: Patch) -> None:
    def take_page(self: Any, run: Any, ask: Any, watched: Any, message: Any, now: Any) -> bool:
        view = watched.reader(ask.reader, message.life)
        watched.completed(view, message.extras)
        watched._absorb(message.extras)
        run.is_token_old = True
        self._tell_token(run)
        return original(self, run, ask, watched, message, now)

    original = WatchClient._take_page
    patch.setattr(WatchClient, "_take_page", take_page)


def _tells_each_key_once(patch: Patch) -> None:
    def take(self: WatchedPartition, key: str, state: KeyState, by: NodeId) -> ToldState | None:
        if key in self._told:
            self._seen.add(coverage(state))
            return None
        return original(self, key, state, by)

    original = WatchedPartition.take
    patch.setattr(WatchedPartition, "take", take)


def _asks_the_owners_of_the_beginning(patch: Patch) -> None:
    def readers(self: Any, partition: int) -> tuple[NodeId, ...]:
        kept = self.__dict__.setdefault("kept", {})
        return kept.setdefault(partition, original(self, partition))  # type: ignore[no-any-return]

    original = WatchClient._readers
    patch.setattr(WatchClient, "_readers", readers)


def _believes_who_is_behind(patch: Patch) -> None:
    def fell_behind(self: WatchedPartition, view: ReaderView) -> None:
        self.completed(view, ())

    patch.setattr(WatchedPartition, "is_believed", lambda self, _node, _life: self.is_ready)
    patch.setattr(WatchedPartition, "fell_behind", fell_behind)


def _says_nothing_of_deletes_that_nobody_knows(patch: Patch) -> None:
    def settle(self: WatchedPartition, readers: Any) -> Any:
        untold = original(self, readers)
        self._absorb(untold or ())
        return untold and ()

    original = WatchedPartition.settle
    patch.setattr(WatchedPartition, "settle", settle)
    patch.setattr(DeletionMemory, "among", lambda _self, _partition, _missing: {})


def _does_not_ask_for_what_was_lost(patch: Patch) -> None:
    def subscribed(self: Any, message: Any, peer: NodeId, now: float) -> None:
        run = self._watches.get(message.number)
        if run is not None and run.is_ready:
            for partition, _ in message.same:
                watched = run.partitions[partition]
                watched.completed(watched.reader(peer, message.life), ())
            for partition in message.differing:
                run.partitions[partition].reader(peer, message.life).is_level = True
        else:
            original(self, message, peer, now)

    original = WatchClient.subscribed
    patch.setattr(WatchClient, "subscribed", subscribed)
    patch.setattr(WatchClient, "_unsettle", lambda *_: None)


FOUND_BY: dict[Mutation, int] = {
    _gives_the_token_before_it_tells: 1,
    _tells_each_key_once: 1,
    _asks_the_owners_of_the_beginning: 4,
    _believes_who_is_behind: 59,
    _says_nothing_of_deletes_that_nobody_knows: 2,
    _does_not_ask_for_what_was_lost: 4,
}
"""Each with a seed that finds it, which is tried first."""


@pytest.mark.slow
@pytest.mark.parametrize("mutate", FOUND_BY, ids=lambda f: f.__name__.strip("_"))
def test_each_rule_is_needed(monkeypatch: Patch, mutate: Mutation) -> None:
    mutate(monkeypatch)
    with pytest.raises(Violation):
        run_all((FOUND_BY[mutate], *CAUGHT_WITHIN))
