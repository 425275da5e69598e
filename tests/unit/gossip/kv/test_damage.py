"""What a node does about a copy of which its disk has lost a part."""

import copy

import pytest

from gossip.core.ids import NodeId
from gossip.kv.messages import CODEC, KeyPageRequest
from gossip.kv.replica_server import ReplicaServer
from gossip.kv.requests import Delete, Get, Put
from gossip.kv.storage import DAMAGED, MemoryStorage
from gossip.registry.registry import admit
from tests.support.kv_net import Net, node, registry_of


def damaged(net: Net, number: int, *keys: str) -> None:
    """Crash a node, and have its disk lose these keys, and say so."""
    net.crash(number)
    storage = net.storages[number]
    for records in storage.records.values():
        for key in keys:
            records.pop(key, None)
    storage.clocks.clear()
    storage.complete = dict.fromkeys(range(net.registry.partitions), DAMAGED)


def test_a_damaged_copy_is_taken_over_before_it_answers_and_deletes_nothing() -> None:
    net = Net(registry_of([1, 2, 3]))
    assert net.ask(1, Put("k", b"v", w=3)).outcome == "ok"
    damaged(net, 1, "k")
    net.isolate(1)
    net.start(1)
    net.run(3)
    assert net.planes[1].handoff.unfinished(), "nobody was there to ask"
    partition = net.registry.partition_of("k")
    assert not net.planes[1].replica.is_complete(partition, net.registry)
    net.heal()
    net.run(60)
    assert not net.planes[1].handoff.unfinished()
    for number in (1, 2, 3):
        assert net.values(net.ask(number, Get("k"))) == [b"v"]
    assert net.storages[1].load(partition, "k"), "it has its copy again"
    assert DAMAGED not in net.storages[1].holdings().values()


def test_a_damaged_copy_needs_as_many_others_as_may_have_heard_a_write_alone() -> None:
    """A write that 1 and 3 acknowledged is on 3 alone now: 2 is not enough."""
    net = Net(registry_of([1, 2, 3]))
    net.isolate(2)
    assert net.ask(1, Put("k", b"v")).outcome == "ok"
    net.heal()
    net.isolate(3)
    damaged(net, 1, "k")
    net.start(1)
    net.run(30)
    assert net.ask(1, Get("k")).outcome == "unavailable", "rather than nothing"
    net.heal()
    net.run(60)
    assert net.values(net.ask(1, Get("k"))) == [b"v"]


def test_a_covey_of_one_goes_on_with_what_is_left() -> None:
    net = Net(registry_of([1]))
    for key in ("kept", "lost"):
        assert net.ask(1, Put(key, b"v")).outcome == "ok"
    damaged(net, 1, "lost")
    net.start(1)
    net.run(1)
    assert net.values(net.ask(1, Get("kept"))) == [b"v"]
    assert net.values(net.ask(1, Get("lost"))) == []


def test_a_disk_of_an_earlier_moment_brings_no_deleted_key_back() -> None:
    """It has its clocks still, which fit what it has; but it answers nobody before it compared."""
    net = Net(registry_of([1, 2, 3]))
    keys = [f"k{number}" for number in range(30)]
    for key in keys:
        assert net.ask(2, Put(key, b"v", w=3)).outcome == "ok"
    image = copy.deepcopy(net.storages[1])
    for key in keys:
        assert net.ask(2, Delete(key, w=3)).outcome == "ok"
    net.isolate(3)  # the other holder is away
    net.crash(1)
    net.storages[1] = image
    image.complete = dict.fromkeys(image.complete, DAMAGED)
    net.start(1)
    net.run(5)
    found = [net.ask(2, Get(key)) for key in keys]
    assert {one.outcome for one in found} == {"unavailable"}, "rather than what was deleted"
    net.heal()
    net.run(60)
    assert {one.outcome: one.values for one in (net.ask(1, Get(key)) for key in keys)} == {"ok": ()}


def test_after_a_power_cut_everywhere_what_is_left_is_agreed_upon() -> None:
    net = Net(registry_of([1, 2, 3]))
    assert net.ask(1, Put("k", b"v", w=3)).outcome == "ok"
    for number in (1, 2, 3):
        net.crash(number)
        storage = net.storages[number]
        storage.complete = dict.fromkeys(storage.complete, DAMAGED)
    for number in (1, 2, 3):
        net.start(number)
    net.run(60)
    assert net.values(net.ask(2, Get("k"))) == [b"v"]


class PowerCut(Net):
    """A net in which whoever is first asked for a page of its keys has lost them just before."""

    has_happened = False

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        if isinstance(CODEC.decode(data), KeyPageRequest) and not self.has_happened:
            self.has_happened = True
            self.at(self.now, lambda: self.cut_power(to))
        super().send(sender, to, data)

    def cut_power(self, number: NodeId) -> None:
        self.crash(number)
        self.storages[number] = MemoryStorage()
        self.storages[number].complete = dict.fromkeys(range(self.registry.partitions), DAMAGED)
        self.start(number)


def is_kept_when_power_fails_within_a_pass() -> bool:
    net = PowerCut(registry_of([1, 2], partitions=1))
    assert net.ask(1, Put("k", b"v", w=2)).outcome == "ok"
    registry = admit(net.registry, node(3))
    net.start(3, registry)
    net.adopt(registry)
    net.run(30)
    assert net.has_happened
    return net.values(net.ask(3, Get("k"))) == [b"v"]


@pytest.mark.interpreted
def test_a_pass_goes_on_with_no_later_life_of_its_partner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the one life says that what the other has lost was deleted."""
    assert is_kept_when_power_fails_within_a_pass()
    monkeypatch.setattr(ReplicaServer, "_lives", lambda _self, _message: True)
    assert not is_kept_when_power_fails_within_a_pass(), "or else it is deleted everywhere"


def test_a_node_back_after_400_days_merges_its_own_writes_and_brings_no_deleted_key_back() -> None:
    """Nothing is remembered of a delete but that its dot was seen, and that is never forgotten."""
    net = Net(registry_of([1, 2, 3]))
    keys = [f"k{number}" for number in range(30)]
    for key in keys:
        assert net.ask(2, Put(key, b"old", w=3)).outcome == "ok"
    net.isolate(1)
    for key in ("own/1", "own/2", "k0"):
        assert net.ask(1, Put(key, b"written alone", w=1)).outcome == "ok"
    net.crash(1)
    for key in keys:
        assert net.ask(2, Delete(key, w=2)).outcome == "ok"
    assert net.ask(3, Put("k1", b"again", w=2)).outcome == "ok"
    net.run(60)
    for number in (2, 3):  # each begins anew several times meanwhile
        net.crash(number)
    net.now += 400 * 86_400.0
    net.start(2)
    net.start(3)
    net.start(1)
    net.heal()
    net.run(120)
    for number in (1, 2, 3):
        net.isolate(number)
        found = {
            key: net.values(net.ask(number, Get(key, r=1))) for key in (*keys, "own/1", "own/2")
        }
        net.heal()
        written = {"own/1", "own/2", "k0"}
        assert {key for key, values in found.items() if values} == {*written, "k1"}
        assert {tuple(found[key]) for key in written} == {(b"written alone",)}
        assert found["k1"] == [b"again"]
