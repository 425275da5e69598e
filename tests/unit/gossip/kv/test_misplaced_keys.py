"""Keys from before their device had a home: found there, once, and nothing comes back."""

import pytest

from gossip.core.ids import NodeId
from gossip.kv.misplaced_keys import MisplacedKeys
from gossip.kv.requests import Delete, Get, List, Put, Watch
from gossip.registry.placement import partition_of
from gossip.registry.places import home_number, home_prefix
from gossip.registry.registry import Registry, house
from tests.support.kv_net import Net, registry_of

PARTITIONS = 8
KEYS = [f"{home_prefix(device)}key-{n}" for device in (1, 2, 5) for n in range(3)]


def unhoused(count: int = 5) -> Net:
    return Net(registry_of(range(1, count + 1), PARTITIONS))


def given_homes(net: Net) -> Registry:
    net.adopt(house(net.registry))
    return net.registry


def values_at(net: Net, asker: NodeId, key: str) -> list[bytes]:
    return sorted(version.value for version in net.ask(asker, Get(key, r=2)).live)


def left_behind(net: Net, key: str) -> set[NodeId]:
    """Return on whose disks a key is still live where it hashes to."""
    partition = partition_of(key, PARTITIONS)
    found = {n: disk.load(partition, key) for n, disk in net.storages.items()}
    return {number for number, record in found.items() if record and record.live}


def test_what_was_written_before_there_were_homes_is_found_in_them() -> None:
    net = unhoused()
    for key in KEYS:
        assert net.ask(3, Put(key, key.encode(), w=2)).outcome == "ok"
    assert net.ask(3, Delete(KEYS[0])).outcome == "ok"
    given_homes(net)
    net.run(60)
    assert all(not left_behind(net, key) for key in KEYS)
    for asker in (1, 4):
        assert values_at(net, asker, KEYS[0]) == [], "deletes move with what they deleted"
        for key in KEYS[1:]:
            assert [v[-5:] for v in values_at(net, asker, key)] == [key.encode()[-5:]]
        entries = net.ask(asker, List("device/", r=2)).entries
        assert [entry.key for entry in entries] == sorted(KEYS[1:])
    owners = net.registry.owners_of(KEYS[1])
    assert all(net.storages[n].load(home_number(1), KEYS[1]) for n in owners)


def test_an_owner_that_missed_a_delete_brings_nothing_back() -> None:
    net = unhoused()
    key = KEYS[3]
    assert net.ask(1, Put(key, b"old", w=3)).outcome == "ok"
    late = net.registry.owners_of(key)[0]
    net.isolate(late)
    other = next(n for n in net.planes if n != late)
    assert net.ask(other, Delete(key)).outcome == "ok"
    given_homes(net)
    net.run(30)
    assert values_at(net, other, key) == []
    net.heal()
    net.run(120)
    for asker in net.planes:
        assert values_at(net, asker, key) == []
    assert not left_behind(net, key)


def test_who_comes_late_brings_what_it_alone_has_and_nothing_that_was_replaced_since() -> None:
    net = unhoused()
    key = KEYS[3]
    late = net.registry.owners_of(key)[0]
    assert net.ask(late, Put(key, b"first", w=3)).outcome == "ok"
    net.isolate(late)
    assert net.ask(late, Put(key, b"alone", w=1)).outcome == "ok"
    given_homes(net)
    net.run(30)
    other = next(n for n in net.planes if n != late)
    assert values_at(net, other, key) == [b"first"]
    context = net.ask(other, Get(key, r=2)).context
    assert net.ask(other, Put(key, b"second", w=2, context=context)).outcome == "ok"
    net.heal()
    net.run(120)
    for asker in net.planes:
        assert values_at(net, asker, key) == [b"alone", b"second"]
    assert not left_behind(net, key)


def test_a_watch_is_told_of_the_move_as_no_delete() -> None:
    net = unhoused()
    assert net.ask(1, Put(KEYS[3], b"v", w=3)).outcome == "ok"
    net.planes[4].submit(Watch("device/"), net.now)
    net.settle(4)
    net.run(5)
    given_homes(net)
    net.run(90)
    assert not left_behind(net, KEYS[3])
    assert {(event.kind, event.key) for event in net.watched} <= {("mark", ""), ("put", KEYS[3])}
    assert ("put", KEYS[3]) in {(event.kind, event.key) for event in net.watched}


@pytest.mark.parametrize("cut", [True, False])
def test_moves_while_everything_goes_wrong(cut: bool) -> None:
    net = unhoused()
    for key in KEYS:
        assert net.ask(3, Put(key, key.encode(), w=2)).outcome == "ok"
    given_homes(net)
    for number in (2, 4, 5):
        net.run(0.4)
        if cut:
            net.isolate(number)
        net.crash(number)
        net.run(0.4)
        net.start(number, net.kept[number])
    net.heal()
    net.run(180)
    for key in KEYS:
        assert values_at(net, 1, key) == [key.encode()]
        assert not left_behind(net, key)


def test_whoever_moves_without_comparing_first_brings_back_what_was_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rule that this file's tests stand on is needed."""
    monkeypatch.setattr(MisplacedKeys, "_has_compared", lambda *_: True)
    with pytest.raises(AssertionError):
        test_an_owner_that_missed_a_delete_brings_nothing_back()
