"""A slice of the schedules in which the registry changes through the log, and the rules they need.

``make soak-registry`` runs many more (``tests/sim/registry_campaign.py``).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from gossip.consensus import storage
from gossip.consensus.configuration import Configuration
from gossip.consensus.storage import StoredState
from gossip.control.answering import AskServer
from gossip.control.plane import ControlPlane
from gossip.control.registry_table import RegistryTable
from gossip.control.requests import ControlRead
from gossip.core.ids import NodeId
from gossip.kv.registry_sync import OfferedRegistry, RegistrySync
from gossip.kv.storage import MemoryStorage
from gossip.registry.ownership import Ownership
from gossip.sim.disk import Disk, _copied
from tests.sim.owners import Violation
from tests.sim.registry import MUST_HAPPEN, Changing, run
from tests.sim.whole_nodes import decoded, is_apart

SLICE = (0, 1, 13)
VACUITY = range(400)
CAUGHT_WITHIN = range(300)

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


def run_all(seeds: Iterable[int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        counts += run(seed).counts
    return counts


def test_no_schedule_breaks_a_promise() -> None:
    assert run_all(SLICE)["schedule/agreed"]


@pytest.mark.slow
def test_schedules_are_not_vacuous() -> None:
    counts = run_all(VACUITY)
    assert not [name for name in MUST_HAPPEN if not counts[name]]


ALL = frozenset(range(1, 7))
SETTLED = Ownership((1, 2, 3), 1)


@pytest.mark.parametrize(
    ("was", "now", "apart"),
    [
        (SETTLED, Ownership((1, 2, 3), 2, 0, (4, 5, 6)), False),
        (SETTLED, Ownership((4, 5, 6), 2, 2), True),
        (SETTLED, Ownership((1, 2, 4), 2, 2), True),
        (Ownership((1, 2, 3), 2, 0, (4, 5, 6)), Ownership((1, 2, 3), 3, 0, (4, 5, 6), 3), False),
        (Ownership((1, 2, 3), 3, 0, (4, 5, 6), 3), Ownership((1, 2, 3), 4, 0, (4, 5, 6), 3), False),
        (Ownership((1, 2, 3), 4, 0, (4, 5, 6), 3), Ownership((4, 5, 6), 5, 3), False),
        (Ownership((1, 2, 3), 2, 0, (4, 5, 6)), Ownership((4, 5, 6), 3, 3), True),
        (Ownership((1, 2, 3, 4), 1), Ownership((1, 2, 3), 2, 0), False),
        (Ownership((1, 2, 3, 4, 6), 1), Ownership((1, 2, 3), 2, 0), True),
    ],
)
def test_who_has_nobody_in_common_is_apart(was: Ownership, now: Ownership, *, apart: bool) -> None:
    """4 and 6 were removed: one of four owners may be left out, and two of five may not."""
    members = frozenset((1, 2, 3, 5)) if set(now.owners) <= {1, 2, 3} < set(was.owners) else ALL
    assert is_apart(was, now, members) is apart


# Planted faults


def _reveals_before_it_is_agreed_on(patch: Patch) -> None:
    """The issuer follows and shows what it has just signed, as it did when it was alone."""

    def signed_one(self: Changing, who: NodeId, signed: bytes) -> None:
        self.kept[who] = decoded(signed)
        self.planes[who].adopt(signed, self.now, announce=True)

    patch.setattr(Changing, "signed_one", signed_one)


def _skips_the_stages(patch: Patch) -> None:
    def aimed_at(self: Ownership, target: tuple[NodeId, ...], epoch: int) -> Ownership:
        return self if set(target) == set(self.owners) else Ownership(target, epoch, epoch)

    patch.setattr(Ownership, "aimed_at", aimed_at)


def _accepts_another_base(patch: Patch) -> None:
    """What was proposed on an older base is taken in all the same."""
    refusal = RegistryTable._refusal

    def no_refusal(self: RegistryTable, change: Any, fresh: Any) -> Any:
        return refusal(self, change, fresh) if fresh is None else None

    patch.setattr(RegistryTable, "_refusal", no_refusal)


def _agrees_without_a_majority(patch: Patch) -> None:
    patch.setattr(Configuration, "is_quorum", lambda _self, stores: bool(list(stores)))


def _lets_the_voters_be_removed(patch: Patch) -> None:
    patch.setattr(AskServer, "_can_go_on", lambda *_: True)


def _follows_what_is_not_saved(patch: Patch) -> None:
    def save(self: RegistrySync, fresh: OfferedRegistry) -> None:
        self.adopt(fresh.offer.signed, 0.0, announce=fresh.announce)

    patch.setattr(RegistrySync, "_save", save)


def _follows_nothing_that_is_agreed_on(patch: Patch) -> None:
    patch.setattr(RegistrySync, "committed", lambda *_, **__: None)


def _counts_no_use_of_a_token(patch: Patch) -> None:
    patch.setattr(RegistryTable, "_put_token", lambda *_: None)


def _reads_its_own_copy(patch: Patch) -> None:
    """A read that is to be confirmed is answered by what the asked node has."""
    read = ControlPlane._read

    def stale(self: ControlPlane, number: int, request: ControlRead, now: float) -> None:
        read(self, number, msgspec.structs.replace(request, stale=True), now)

    patch.setattr(ControlPlane, "_read", stale)


def _believes_a_disk_of_before(patch: Patch) -> None:
    """A node whose disk was set back answers reads before it has compared its copies."""

    def set_back(self: Disk, image: MemoryStorage, _partitions: int) -> None:
        self.storage = self._synced = _copied(image)
        self._unsynced.clear()

    patch.setattr(Disk, "set_back", set_back)


def _goes_on_in_the_same_generation(patch: Patch) -> None:
    """After a lost majority nothing tells the log of before from that which goes on."""
    begin_anew = storage.recovered

    def recovered(stored: StoredState, *about: Any) -> StoredState:
        log = begin_anew(stored, *about)
        hard = msgspec.structs.replace(log.hard, generation=stored.hard.generation)
        return msgspec.structs.replace(log, hard=hard)

    patch.setattr("gossip.control.recovery.recovered", recovered)


FOUND_BY: dict[Mutation, int] = {
    _reveals_before_it_is_agreed_on: 0, _skips_the_stages: 0, _accepts_another_base: 2,
    _agrees_without_a_majority: 3, _lets_the_voters_be_removed: 0, _follows_what_is_not_saved: 0,
    _follows_nothing_that_is_agreed_on: 0, _counts_no_use_of_a_token: 0, _reads_its_own_copy: 2,
    _believes_a_disk_of_before: 1, _goes_on_in_the_same_generation: 13,
}  # fmt: skip
"""The seed that once noticed saves time; when it does no more, another one must."""


@pytest.mark.slow
@pytest.mark.parametrize("mutate", FOUND_BY, ids=lambda f: f.__name__.strip("_"))
def test_each_rule_is_needed(monkeypatch: Patch, mutate: Mutation) -> None:
    mutate(monkeypatch)
    with pytest.raises(Violation, match="SEED"):
        run_all((FOUND_BY[mutate], *CAUGHT_WITHIN))
