"""Owners that were away are told of the keys that they missed, as these are now."""

import pytest

from gossip.kv import hints
from gossip.kv.limits import HINTS_AT_ONCE, HINTS_MAX
from gossip.kv.requests import Delete, Get, Put
from tests.support.kv_net import Net, registry_of

AWAY = 3


class Cut(Net):
    """A net of which one node is cut off, and known to be."""

    def __init__(self) -> None:
        super().__init__(registry_of((1, 2, 3)))

    def lose(self) -> None:
        """Cut one off, and have the others notice."""
        self.isolate(AWAY)
        for number in (1, 2):
            self.unreachable(number, AWAY)

    def find(self) -> None:
        self.heal()
        for number in (1, 2):
            self.planes[number].peer_alive(AWAY, self.now)
            self.settle(number)
        self.run(2.0)

    def counted(self, name: str) -> int:
        return sum(plane.counts[name] for plane in self.planes.values())

    def held(self) -> set[str]:
        return {key for records in self.storages[AWAY].records.values() for key in records}


def test_who_is_back_is_told_what_it_missed_and_nothing_is_compared() -> None:
    net = Cut()
    for n in range(40):
        assert net.ask(1, Put(f"key-{n}", b"old", w=3)).outcome == "ok"
    net.run(40.0)
    net.lose()
    for n in range(40):
        net.ask(1, Put(f"key-{n}", b"new"))
    for n in range(10):
        net.ask(1, Delete(f"key-{n}"))
    for n in range(10, 20):
        net.ask(1, Put(f"key-{n}", b"newest"))
    assert net.planes[1].hints.waiting(AWAY) + net.planes[2].hints.waiting(AWAY) >= 40
    begun = net.counted("partition_syncs/begun")
    net.find()
    assert net.held() == {f"key-{n}" for n in range(10, 40)}
    assert net.values(net.ask(AWAY, Get("key-15", r=1))) == [b"newest"]
    for partition in range(net.registry.partitions):
        marks = {plane.replica.clock_mark(partition) for plane in net.planes.values()}
        assert len(marks) == 1, "each dot that was missed is vouched for"
    assert net.counted("partition_syncs/begun") == begun
    assert not net.planes[1].hints.waiting(AWAY)
    assert net.counted("hints/told") >= 40


def test_what_is_told_is_what_there_is_by_then() -> None:
    """The hint was of a value that was deleted since: nothing of it is told."""
    net = Cut()
    net.lose()
    net.ask(1, Put("lamp", b"on"))
    net.ask(2, Delete("lamp"))
    net.find()
    assert not net.values(net.ask(AWAY, Get("lamp")))
    assert "lamp" not in net.held()


def test_what_is_beyond_the_bound_is_counted_and_found_by_comparing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hints, "HINTS_MAX", 5)
    net = Cut()
    net.lose()
    for n in range(30):
        net.ask(1, Put(f"key-{n}", b"v"))
    assert net.counted("hints/overflowed") >= 20
    net.find()
    net.run(60.0)
    assert net.held() == {f"key-{n}" for n in range(30)}


def test_who_was_only_slow_leaves_no_hint() -> None:
    net = Cut()
    for n in range(20):
        net.ask(1, Put(f"key-{n}", b"v"))
    assert not net.counted("hints/kept")


def test_many_are_told_in_turns() -> None:
    net = Cut()
    net.lose()
    count = 3 * HINTS_AT_ONCE
    assert count < HINTS_MAX
    for n in range(count):
        net.submit(1, Put(f"key-{n}", b"v"))
    net.run(1.0)
    waiting = net.planes[1].hints.waiting(AWAY)
    assert waiting
    net.heal()
    net.planes[1].peer_alive(AWAY, net.now)
    assert net.planes[1].hints.waiting(AWAY) == max(0, waiting - HINTS_AT_ONCE)
    net.settle(1)
    net.run(1.0)
    assert not net.planes[1].hints.waiting(AWAY)
