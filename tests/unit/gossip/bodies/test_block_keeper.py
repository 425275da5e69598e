"""Bodies in a world of nodes that lose them: those of living records stay, all others go.

Records are simply true here, but for what a node's own copy of them shows: it may be incomplete, or
have lost rows. The rules are switched off one by one, and each time the world must notice.
"""

import random
from collections.abc import Callable, Mapping

import pytest

from gossip.bodies import block_keeper
from gossip.bodies.block_keeper import (
    NEXT_STATES,
    BlockKeeper,
    BodyEvent,
    BodyState,
    Confirm,
    Confirmation,
    Drop,
    Pull,
)
from gossip.bodies.block_limits import (
    CONFIRM_AGAIN_S,
    ORPHAN_S,
    PULL_AFTER_S,
    PULL_AGAIN_MAX_S,
    PULLS_MAX,
)
from gossip.bodies.file_records import BlockName, BlockRecord, digest_of

NAMES = [BlockName(bytes([n] * 16), n) for n in range(12)]
RECORD = BlockRecord(4, digest_of(b"body"))
NODES, COPIES = 5, 3


def _partition(name: BlockName) -> int:
    return name.number % 4


class BodyLost(AssertionError):
    """The last body of a living record was let go."""


class World:
    """Nodes with bodies, one truth about records, and owners that change."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.records: set[BlockName] = set()
        self.bodies: dict[int, set[BlockName]] = {node: set() for node in range(NODES)}
        self.keepers = {node: BlockKeeper(_partition) for node in range(NODES)}
        self.complete = {(node, p): True for node in range(NODES) for p in range(4)}
        self.shift = 0
        self.drops = self.pulls = 0

    def owners(self, name: BlockName) -> list[int]:
        return self.owners_of(_partition(name))

    def owners_of(self, partition: int) -> list[int]:
        return [(partition + self.shift + n) % NODES for n in range(COPIES)]

    def write(self, name: BlockName) -> None:
        """Two of three owners have the body, and then there is a record."""
        for node in self.rng.sample(self.owners(name), 2):
            self._arrive(node, name)
        self.records.add(name)

    def begin_upload(self, name: BlockName) -> None:
        """A body of which a record may or may not come."""
        self._arrive(self.owners(name)[0], name)

    def _arrive(self, node: int, name: BlockName) -> None:
        self.bodies[node].add(name)
        self.keepers[node].arrived(name, self.now)

    def damage(self) -> None:
        """One body of those that have another is lost."""
        name = self.rng.choice(NAMES)
        there = [node for node in self.bodies if name in self.bodies[node]]
        if len(there) > 1:
            node = self.rng.choice(there)
            self.bodies[node].discard(name)
            self.keepers[node].damaged(name, self.now)

    def move(self) -> None:
        """All partitions get other owners, whose copies are incomplete at first."""
        self.shift += 1
        for p in range(4):
            for node in self.owners_of(p):
                self.complete[node, p] = self.rng.random() < 0.5

    def look(self, *, all_seen: bool = False) -> None:
        for node, keeper in self.keepers.items():
            for p in range(4):
                if node not in self.owners_of(p):
                    keeper.foreign(p, self.now)
                    continue
                seen = {n: RECORD for n in sorted(self.records) if _partition(n) == p}
                if not self.complete[node, p] and not all_seen:
                    seen = {n: r for n, r in seen.items() if self.rng.random() < 0.5}
                elif self.rng.random() < 0.2 and not all_seen and seen:
                    seen.pop(self.rng.choice(sorted(seen)))  # a row that the disk lost
                whole = all_seen or self.complete[node, p]
                keeper.scanned(p, seen, self.now, is_complete=whole)
            self._do(node, keeper, is_calm=all_seen)

    def _do(self, node: int, keeper: BlockKeeper, *, is_calm: bool) -> None:
        keeper.wake(self.now)
        for effect in keeper.effects():
            match effect:
                case Pull(name):
                    self._pull(node, name, fails=not is_calm and self.rng.random() < 0.3)
                case Confirm(name):
                    keeper.confirmed(name, self._answer(node, name, is_calm=is_calm), self.now)
                case Drop(name):
                    self.drops += 1
                    self.bodies[node].discard(name)
                    others = any(name in bodies for bodies in self.bodies.values())
                    if name in self.records and not others:
                        raise BodyLost(name)
        for effect in keeper.effects():  # what the answers have brought about
            assert isinstance(effect, Drop)
            self.drops += 1
            self.bodies[node].discard(effect.name)
            if effect.name in self.records and not any(
                effect.name in bodies for bodies in self.bodies.values()
            ):
                raise BodyLost(effect.name)

    def _pull(self, node: int, name: BlockName, *, fails: bool) -> None:
        there = any(name in bodies for other, bodies in self.bodies.items() if other != node)
        if fails or not there:
            self.keepers[node].failed(name, self.now)
        else:
            self.pulls += 1
            self._arrive(node, name)

    def _answer(self, node: int, name: BlockName, *, is_calm: bool) -> Confirmation:
        if not is_calm and self.rng.random() < 0.3:
            return Confirmation.UNKNOWN
        if name not in self.records:
            return Confirmation.DELETED
        placed = all(name in self.bodies[owner] for owner in self.owners(name))
        return (
            Confirmation.PLACED if placed and node not in self.owners(name) else Confirmation.STANDS
        )

    def trouble(self, steps: int) -> None:
        """Let anything happen."""
        for _ in range(steps):
            self.now += self.rng.choice((1.0, 10.0, 60.0))
            what = self.rng.randrange(8)
            fresh = [n for n in NAMES if n not in self.records]
            if what < 2 and fresh:
                self.write(self.rng.choice(fresh))
            elif what == 2 and fresh:
                self.begin_upload(self.rng.choice(fresh))
            elif what == 3 and self.records and self.rng.random() < 0.3:
                self.records.discard(self.rng.choice(sorted(self.records)))
            elif what == 4:
                self.damage()
            elif what == 5 and self.rng.random() < 0.3:
                self.move()
            self.look()

    def heal(self) -> None:
        """Let nothing happen for two days."""
        until = self.now + 2 * ORPHAN_S
        while self.now < until:
            self.look(all_seen=True)
            self.now += PULL_AGAIN_MAX_S if self.now + ORPHAN_S < until else ORPHAN_S / 4
        for _ in range(8):
            self.look(all_seen=True)
            self.now += CONFIRM_AGAIN_S

    def check(self) -> None:
        for name in NAMES:
            there = {node for node, bodies in self.bodies.items() if name in bodies}
            wanted = set(self.owners(name)) if name in self.records else set()
            assert there == wanted, f"{name.number}: {there} instead of {wanted}"


def _play(seed: int) -> World:
    world = World(seed)
    world.trouble(60)
    world.heal()
    world.check()
    return world


def test_bodies_are_where_their_records_are_owned_whatever_happened() -> None:
    worlds = [_play(seed) for seed in range(25)]
    assert sum(world.drops for world in worlds) > 20
    assert sum(world.pulls for world in worlds) > 100


def _without(state: BodyState | None, event: BodyEvent) -> Mapping[BodyEvent, BodyState | None]:
    return {each: then for each, then in NEXT_STATES[state].items() if each is not event}


def _believing_one_copy(keeper: type[BlockKeeper], patch: pytest.MonkeyPatch) -> None:
    """A body goes as soon as the own copy has no record."""
    real = keeper.scanned

    def scanned(self: BlockKeeper, partition: int, records: Mapping[BlockName, BlockRecord],
                now: float, *, is_complete: bool) -> None:  # fmt: skip
        real(self, partition, records, now, is_complete=is_complete)
        for name in list(self._bodies):
            if _partition(name) == partition and self.state(name) is BodyState.DOUBTED:
                self._learn(name, BodyEvent.DELETED, now)

    patch.setattr(keeper, "scanned", scanned)


def _trusting_that_others_have_it(keeper: type[BlockKeeper], patch: pytest.MonkeyPatch) -> None:
    """A body goes as soon as it is somebody else's."""
    real = keeper.foreign

    def foreign(self: BlockKeeper, partition: int, now: float) -> None:
        real(self, partition, now)
        for name in list(self._bodies):
            if self.state(name) is BodyState.SURPLUS:
                self._learn(name, BodyEvent.PLACED, now)

    patch.setattr(keeper, "foreign", foreign)


def _giving_up(_keeper: type[BlockKeeper], patch: pytest.MonkeyPatch) -> None:
    """A body that could not be fetched is not tried again."""
    patch.setitem(NEXT_STATES, BodyState.PULLING, _without(BodyState.PULLING, BodyEvent.FAILED))


def _blind_to_damage(_keeper: type[BlockKeeper], patch: pytest.MonkeyPatch) -> None:
    """A body that was lost is taken to be there."""
    patch.setitem(NEXT_STATES, BodyState.KEPT, _without(BodyState.KEPT, BodyEvent.DAMAGED))


def _keeping_all(_keeper: type[BlockKeeper], patch: pytest.MonkeyPatch) -> None:
    """What no record came of stays for ever."""
    states = BodyState.UNCLAIMED, BodyEvent.AGED
    patch.setitem(NEXT_STATES, BodyState.UNCLAIMED, _without(*states))


FAULTS = (
    _believing_one_copy, _trusting_that_others_have_it, _giving_up, _blind_to_damage, _keeping_all,
)  # fmt: skip


@pytest.mark.interpreted
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_each_rule_is_needed(
    fault: Callable[[type[BlockKeeper], pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(BlockKeeper, monkeypatch)
    with pytest.raises(AssertionError):
        list(map(_play, range(25)))


def test_an_upload_under_way_keeps_its_bodies_for_a_day() -> None:
    keeper, name = BlockKeeper(_partition), NAMES[0]
    keeper.arrived(name, 10.0)
    keeper.scanned(_partition(name), {}, 20.0, is_complete=True)
    keeper.wake(ORPHAN_S)
    assert keeper.state(name) is BodyState.UNCLAIMED
    assert not list(keeper.effects())
    keeper.wake(ORPHAN_S + 10.0)
    keeper.wake(ORPHAN_S + 10.0)
    assert list(keeper.effects()) == [Confirm(name)]
    keeper.confirmed(name, Confirmation.DELETED, ORPHAN_S + 11.0)
    assert list(keeper.effects()) == [Drop(name)]
    assert keeper.state(name) is None
    assert keeper.files() == set()


def test_a_body_of_another_node_without_record_is_kept_as_long() -> None:
    """Somebody whose registry is older pushed it here; its record may be yet to come."""
    keeper, name = BlockKeeper(_partition), NAMES[0]
    keeper.arrived(name, 0.0)
    keeper.foreign(_partition(name), 1.0)
    keeper.wake(1.0)
    assert list(keeper.effects()) == [Confirm(name)]
    keeper.confirmed(name, Confirmation.DELETED, 2.0)
    assert not list(keeper.effects())
    assert keeper.state(name) is BodyState.SURPLUS


def test_few_are_fetched_at_a_time_and_failures_wait_longer_and_longer() -> None:
    keeper = BlockKeeper(_partition)
    names = [name for name in NAMES if _partition(name) == 0]
    keeper.scanned(0, dict.fromkeys(names, RECORD), 0.0, is_complete=True)
    assert keeper.deadline() == PULL_AFTER_S
    keeper.wake(PULL_AFTER_S)
    first = [effect.name for effect in keeper.effects()]
    assert len(first) == PULLS_MAX
    now, waits = PULL_AFTER_S, []
    for name in first[1:]:
        keeper.arrived(name, now)
    for name in names:
        if name != first[0] and keeper.state(name) is not BodyState.KEPT:
            keeper.arrived(name, now)
    for _ in range(9):
        keeper.failed(first[0], now)
        due = keeper._bodies[first[0]].due
        assert due is not None
        waits.append(due - now)
        now = due
        keeper.wake(now)
        assert list(keeper.effects()) == [Pull(first[0], RECORD)]
    assert waits == sorted(waits)
    assert waits[-1] == PULL_AGAIN_MAX_S
    assert keeper.count()["kept"] == len(names) - 1


def test_all_that_can_happen_is_in_the_table() -> None:
    assert set(NEXT_STATES) == {None, *BodyState}
    reached = {then for nexts in NEXT_STATES.values() for then in nexts.values()}
    assert reached == {None, *BodyState}
    assert {each for nexts in NEXT_STATES.values() for each in nexts} == set(BodyEvent)
    assert set(BodyEvent) >= block_keeper.DROPPING
