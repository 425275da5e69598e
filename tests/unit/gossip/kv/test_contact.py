"""Owners that are not heard for long: who judges that, what becomes of their share, and back."""

from collections.abc import Iterable

import msgspec
import pytest

from gossip.core.ids import NodeId
from gossip.kv.contact import Contact
from gossip.kv.limits import (
    CONTACT_FLAPS_MAX,
    CONTACT_LOOKS,
    CONTACT_RETURN_LOOKS,
    CONTACT_STEADY_LOOKS,
    MISSING_AFTER_S,
)
from gossip.kv.requests import Delete, Get, OwnersReady, Put
from gossip.registry.node import RegisteredNode
from gossip.registry.node_change import NodeChange, arrange
from gossip.registry.ownership import Stage
from gossip.registry.registry import Registry, advance, replaceable
from tests.support.kv_net import FIRST, Net, registry_of

PARTITIONS = 12
LOOK_S = MISSING_AFTER_S / CONTACT_LOOKS
GONE = frozenset({5})


def five() -> Registry:
    return registry_of(range(1, 6), PARTITIONS)


def holding(registry: Registry, node: NodeId) -> int:
    return registry.left_at(node)


def settled(registry: Registry) -> Registry:
    """Let all that is on its way arrive."""
    while not registry.is_settled:
        done = {p: frozenset(registry.ids()) for p in range(registry.partitions)}
        registry = advance(registry, done, registry.epoch)
    return registry


# What the registry says


def test_who_is_missing_stays_an_owner_until_others_have_what_it_had() -> None:
    registry = five()
    after = advance(registry, {}, registry.epoch, missing=GONE)
    assert [each.id for each in after.missing] == [5]
    for before, now in zip(registry.table, after.table, strict=True):
        assert now.owners == before.owners
        assert 5 not in now.pending
        assert now.stage is Stage.COPYING or 5 not in before.owners
    assert advance(after, {}, after.epoch, missing=GONE) is after
    assert holding(settled(after), 5) == 0


def test_who_is_found_gets_a_share_again() -> None:
    registry = settled(advance(five(), {}, 1, missing=GONE))
    assert not registry.idle, "nobody is waited for"
    back = advance(registry, {}, registry.epoch, found=GONE)
    assert not back.missing
    assert holding(settled(back), 5) >= PARTITIONS * 3 // 5
    assert advance(back, {}, back.epoch, found=GONE) is back


def test_where_too_few_others_are_there_nobody_is_missing() -> None:
    assert replaceable(registry_of((1, 2, 3), PARTITIONS), frozenset({3})) == frozenset()
    assert replaceable(five(), frozenset({2, 3, 4, 5})) == {2, 3}
    many = registry_of(range(1, 11), PARTITIONS)
    assert len(replaceable(many, frozenset(range(2, 11)))) == 5, "half of them stay"
    some = advance(many, {}, 1, missing=frozenset({9, 10}))
    assert len(replaceable(some, frozenset(range(2, 9)))) == 3


def test_who_drains_is_expected_to_go() -> None:
    registry = arrange(five(), 5, NodeChange(drains=True))
    assert not replaceable(registry, GONE)


def test_an_entry_of_before_is_one_that_is_there() -> None:
    written = msgspec.msgpack.encode((4, "pi4", b"key", 1.0, "", (), (), 0, False, False))
    assert msgspec.msgpack.decode(written, type=RegisteredNode) == RegisteredNode(4, "pi4", b"key")


# What an issuer hears


class Looks:
    """An issuer's looks, one after the other."""

    def __init__(self) -> None:
        self.contact, self.now = Contact(FIRST, MISSING_AFTER_S), 0.0
        self.contact.adopted(five(), self.now)

    def look(self, heard: Iterable[NodeId], answers: Iterable[NodeId] = ()) -> tuple[NodeId, ...]:
        """Look once; return who was asked for a sign of life."""
        for node in heard:
            self.contact.heard(node)
        self.now += LOOK_S / 2
        asked = self.contact.wake(self.now)
        for node in set(asked).intersection(answers):
            self.contact.heard(node)
        self.now += LOOK_S / 2
        assert not self.contact.wake(self.now)
        return asked

    def flag(self, registry: Registry, *, missing: bool) -> Registry:
        news = {"missing": GONE} if missing else {"found": GONE}
        registry = advance(registry, {}, registry.epoch, **news)
        self.contact.adopted(registry, self.now)
        return registry


OTHERS = (2, 3, 4)


def test_who_is_silent_is_asked_and_who_answers_is_there() -> None:
    looks = Looks()
    for _ in range(3 * CONTACT_LOOKS):
        assert looks.look(OTHERS, answers=[5]) == (5,)
    assert not looks.contact.missing
    for _ in range(CONTACT_LOOKS - 1):
        looks.look(OTHERS)
    assert not looks.contact.missing
    looks.look(OTHERS)
    assert looks.contact.missing == GONE
    looks.look((*OTHERS, 5))
    assert not looks.contact.missing


def test_looks_are_counted_and_not_the_time_between_them() -> None:
    """An issuer that was suspended for a night has looked once since."""
    looks = Looks()
    looks.look(OTHERS)
    looks.now += 100_000.0
    looks.look(OTHERS)
    assert not looks.contact.missing


def test_an_issuer_that_hears_nobody_is_cut_off_itself() -> None:
    looks = Looks()
    for _ in range(10 * CONTACT_LOOKS):
        looks.contact.heard(FIRST)  # it hears itself
        looks.look(())
    assert not looks.contact.missing


def test_who_is_back_is_an_owner_when_it_has_stayed() -> None:
    looks = Looks()
    registry = looks.flag(five(), missing=True)
    for _ in range(CONTACT_RETURN_LOOKS - 1):
        looks.look((*OTHERS, 5))
    looks.look(OTHERS)
    assert not looks.contact.found
    for _ in range(CONTACT_RETURN_LOOKS):
        assert not looks.contact.found
        looks.look((*OTHERS, 5))
    assert looks.contact.found == GONE
    looks.flag(registry, missing=False)
    assert not looks.contact.found


def test_who_comes_and_goes_has_to_stay_longer_each_time() -> None:
    looks, registry = Looks(), five()
    needed = []
    for _ in range(CONTACT_FLAPS_MAX + 2):
        registry = looks.flag(registry, missing=True)
        count = 0
        while not looks.contact.found:
            looks.look((*OTHERS, 5))
            count += 1
        needed.append(count)
        registry = looks.flag(registry, missing=False)
        looks.look(OTHERS)
    most = CONTACT_RETURN_LOOKS << CONTACT_FLAPS_MAX
    assert needed == [3, 6, 12, most, most]
    for _ in range(CONTACT_STEADY_LOOKS):
        looks.look((*OTHERS, 5))
    looks.look(OTHERS)
    looks.flag(registry, missing=True)
    for _ in range(CONTACT_RETURN_LOOKS):
        looks.look((*OTHERS, 5))
    assert looks.contact.found == GONE, "a day without trouble, and it begins anew"


def test_off_means_that_nobody_is_looked_for() -> None:
    contact = Contact(FIRST, 0.0)
    contact.adopted(five(), 0.0)
    assert contact.deadline() is None


# What whole planes do


class Signing(Net):
    """A net that remembers what its issuer was to sign."""

    def __init__(self) -> None:
        self.ready: list[OwnersReady] = []
        super().__init__(five())

    def advance(self, number: NodeId, ready: OwnersReady) -> None:
        self.ready.append(ready)
        super().advance(number, ready)


def test_what_a_lost_owner_had_gets_another_and_it_comes_back_with_its_own_writes() -> None:
    net = Signing()
    keys = [f"key-{n}" for n in range(12)]
    theirs = [key for key in keys if 5 in net.registry.owners_of(key)]
    for key in keys:
        assert net.ask(1, Put(key, b"old", w=3)).outcome == "ok"
    net.isolate(5)
    deleted, written, *_ = theirs
    assert net.ask(1, Delete(deleted)).outcome == "ok"
    assert net.ask(5, Put(written, b"alone", w=1)).outcome == "ok"
    net.run(MISSING_AFTER_S - 2 * LOOK_S)
    assert net.registry.epoch == 1, "it may be back any minute"
    net.run(4 * LOOK_S)
    assert [each.id for each in net.registry.missing] == [5]
    net.run(60.0)
    assert net.registry.is_settled
    assert holding(net.registry, 5) == 0
    for key in theirs[2:]:
        owners = net.registry.owners_of(key)
        partition = net.registry.partition_of(key)
        assert all(net.storages[node].load(partition, key) for node in owners)
    net.heal()
    net.planes[5].on_epoch(FIRST, net.registry.epoch, net.now)  # each packet names it
    net.settle(5)
    net.run(30.0)
    assert holding(net.registry, 5) == 0, "it may be gone again in a minute"
    values = net.values(net.ask(2, Get(written)))
    assert sorted(values) == [b"alone", b"old"] or values == [b"alone"]
    assert not net.values(net.ask(2, Get(deleted)))
    assert not any(records for records in net.storages[5].records.values()), "it let go"
    net.run((CONTACT_RETURN_LOOKS + 3) * LOOK_S)
    assert not net.registry.missing
    assert net.registry.is_settled
    assert holding(net.registry, 5) >= PARTITIONS * 3 // 5
    assert not net.values(net.ask(5, Get(deleted)))


@pytest.mark.slow
def test_a_rumour_moves_nobody_and_a_node_that_only_the_issuer_misses_does_not_vote_it_back() -> (
    None
):
    net = Signing()
    net.gone.add(5)
    net.run(3 * MISSING_AFTER_S)
    assert net.registry.epoch == 1
    net.cut.add(frozenset((FIRST, 5)))
    net.run(MISSING_AFTER_S + 3 * LOOK_S)
    assert [each.id for each in net.registry.missing] == [5], "by what the issuer hears"
    net.run(60.0)
    assert net.registry.is_settled, "others copied from it meanwhile"


def test_an_owner_that_was_only_restarted_is_not_missing() -> None:
    net = Signing()
    for _ in range(3):
        net.crash(5)
        net.run(MISSING_AFTER_S * 0.7)
        net.start(5, net.kept[5])
        net.run(2 * LOOK_S)
    assert net.registry.epoch == 1
