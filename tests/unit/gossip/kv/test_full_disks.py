"""Disks that are nearly full take no puts, and all else; whoever has heard so refuses at once."""

import pytest

from gossip.kv.limits import FULL_AGAIN_S
from gossip.kv.requests import Delete, Get, Put, PutResult, Rejected
from tests.support.kv_net import Net, registry_of

KEYS = [f"k{n}" for n in range(8)]


def net_with_full(*full: int, count: int = 3) -> Net:
    """Return a net in which all keys are there, and then these disks are nearly full."""
    net = Net(registry_of(range(1, count + 1)))
    for key in KEYS:
        assert net.ask(1, Put(key, b"old")).outcome == "ok"
    net.run(1.0)
    for number in full:
        net.planes[number].limit_puts(limited=True)
    return net


def live(net: Net, number: int, key: str) -> list[bytes]:
    record = net.storages[number].load(net.registry.partition_of(key), key)
    return [version.value for version in record.live] if record else []


def test_one_that_is_full_keeps_nobody_from_writing_and_gets_what_it_missed() -> None:
    net = net_with_full(1)
    for key in KEYS:
        assert net.ask(1, Put(key, b"new")).outcome == "ok", "the two others have room"
        assert live(net, 1, key) == [b"old"]
    assert net.planes[1].counts["puts_refused/disk"]
    for key in KEYS:
        assert net.values(net.ask(1, Get(key))) == [b"new"]
    assert net.ask(1, Delete(KEYS[0])).outcome == "ok"
    assert net.values(net.ask(2, Get(KEYS[0]))) == []
    net.planes[1].limit_puts(limited=False)
    net.run(120.0)
    for key in KEYS[1:]:
        assert live(net, 1, key) == [b"new"], "comparisons bring it"


def test_where_two_of_three_are_full_one_write_is_in_doubt_and_then_all_are_refused() -> None:
    net = net_with_full(1, 2)
    began = net.now
    first = net.ask(3, Put(KEYS[0], b"new"))
    assert isinstance(first, PutResult)
    assert first.outcome == "indeterminate", "it was on one disk before the others had said so"
    assert net.now - began < 1.0, "nobody waits for who has no room"
    for asker in (1, 2, 3):
        for key in KEYS[1:]:
            refused = net.ask(asker, Put(key, b"new"))
            assert isinstance(refused, Rejected)
            assert "nothing was written" in refused.reason
            assert "disk_percent_max" in refused.reason
    for key in KEYS[1:]:
        assert net.values(net.ask(3, Get(key))) == [b"old"]
    assert net.ask(3, Put(KEYS[1], b"new", w=1)).outcome == "ok", "one has room"
    assert net.ask(3, Delete(KEYS[2])).outcome == "ok"
    assert net.values(net.ask(1, Get(KEYS[2]))) == []
    assert net.values(net.ask(1, Get(KEYS[0], r=3))) == [b"new"]
    assert live(net, 1, KEYS[0]) == [b"new"], "reads bring it where it is missing"


@pytest.mark.parametrize("asker", [1, 3])
def test_room_is_noticed_within_some_seconds(asker: int) -> None:
    net = net_with_full(1, 2)
    net.ask(3, Put(KEYS[0], b"new"))
    net.planes[1].limit_puts(limited=False)
    net.run(FULL_AGAIN_S + 1.0)
    assert net.ask(asker, Put(KEYS[1], b"new")).outcome == "ok"
    assert net.planes[3].writes.full_disks.deadline() is not None, "one is full still"


def test_an_owner_that_is_full_ends_no_write_of_its_own_in_doubt() -> None:
    net = net_with_full(1, 2, 3)
    for asker in (1, 2, 3):
        for key in KEYS:
            assert isinstance(net.ask(asker, Put(key, b"new")), Rejected)
    assert not any(plane.counts["writes/indeterminate"] for plane in net.planes.values())


def test_nothing_new_comes_by_a_comparison_and_deletes_do() -> None:
    net = net_with_full(1)
    net.crash(1)
    assert net.ask(2, Put(KEYS[0], b"new")).outcome == "ok"
    assert net.ask(2, Delete(KEYS[1])).outcome == "ok"
    net.start(1)
    net.planes[1].limit_puts(limited=True)
    net.run(120.0)
    assert live(net, 1, KEYS[0]) == [b"old"]
    assert live(net, 1, KEYS[1]) == []
    assert net.planes[1].counts["repairs/no_room"]
    net.planes[1].limit_puts(limited=False)
    net.run(120.0)
    assert live(net, 1, KEYS[0]) == [b"new"], "what was left out was never taken for deleted"
