"""Spaces with owners of their own: written, read, listed and moved like all keys."""

import pytest

from gossip.kv.requests import Get, List, Put
from gossip.registry.placement import partition_of
from gossip.registry.registry import admit, remove
from gossip.registry.space_change import place_space
from tests.support.kv_net import Net, housed_registry_of, node

KEYS = [f"photos/{n}" for n in range(12)]


@pytest.mark.parametrize(("replicas", "needed"), [(1, 1), (2, 2), (5, 3)])
def test_a_majority_is_of_the_owners_that_a_space_has(replicas: int, needed: int) -> None:
    net = Net(place_space(housed_registry_of(range(1, 7)), "photos", replicas))
    for key in KEYS:
        written = net.ask(1, Put(key, b"v"))
        assert (written.outcome, written.needed) == ("ok", needed)
    net.run(1)
    for key in KEYS:
        held = [
            n for n, disk in net.storages.items() if disk.load(net.registry.partition_of(key), key)
        ]
        assert len(held) == replicas
    assert [entry.key for entry in net.ask(4, List("photos/")).entries] == sorted(KEYS)
    assert [entry.key for entry in net.ask(4, List("")).entries] == sorted(KEYS)


def test_keys_go_along_when_another_number_is_asked_for_and_nodes_come_and_go() -> None:
    net = Net(place_space(housed_registry_of(range(1, 5)), "photos", 2))
    for key in KEYS:
        assert net.ask(1, Put(key, key.encode())).outcome == "ok"
    net.adopt(place_space(net.registry, "photos", 3))
    net.run(60)
    fresh = admit(net.registry, node(5))
    net.start(5, fresh)
    net.adopt(fresh)
    net.run(60)
    net.crash(4)
    net.adopt(remove(net.registry, 4))
    net.run(60)
    assert net.registry.is_settled
    for key in KEYS:
        assert net.values(net.ask(5, Get(key))) == [key.encode()]
        owners = net.registry.owners_of(key)
        assert len(owners) == 3
        assert all(net.storages[n].load(net.registry.partition_of(key), key) for n in owners)


def test_a_key_that_was_there_before_its_space_is_moved_and_not_lost() -> None:
    net = Net(housed_registry_of(range(1, 6)))
    assert net.ask(1, Put("photos/1", b"v")).outcome == "ok"
    net.adopt(place_space(net.registry, "photos", 2))
    net.run(60)
    assert net.values(net.ask(3, Get("photos/1"))) == [b"v"]
    former = partition_of("photos/1", net.registry.partitions)
    left = [disk.load(former, "photos/1") for disk in net.storages.values()]
    assert not any(record and record.live for record in left)
