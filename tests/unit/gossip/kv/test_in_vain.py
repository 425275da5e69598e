"""What cannot succeed is said at once: owners that are gone, and disks that take nothing."""

from gossip.kv.requests import Get, GetResult, Put, PutResult, Rejected
from tests.support.kv_net import Net, registry_of

KEY = "lamp"


def asked(net: Net, asker: int, request: Get | Put) -> tuple[object, float]:
    """Return the result, and how long it took."""
    began = net.now
    return net.ask(asker, request), net.now - began


def without(net: Net, *gone: int) -> None:
    for number in gone:
        net.crash(number)
    net.gone.update(gone)


def test_nobody_waits_for_owners_that_are_gone() -> None:
    net = Net(registry_of([1, 2, 3]))
    assert net.ask(1, Put(KEY, b"on")).outcome == "ok"
    without(net, 2, 3)
    read, took_s = asked(net, 1, Get(KEY))
    assert isinstance(read, GetResult)
    assert (read.outcome, read.answered, read.needed) == ("unavailable", 1, 2)
    assert took_s < 0.5
    put, took_s = asked(net, 1, Put(KEY, b"off"))
    assert isinstance(put, Rejected)
    assert put.unreachable
    assert "too few owners" in put.reason
    assert took_s < 0.5
    net.gone.clear()
    net.start(2)
    assert net.values(net.ask(1, Get(KEY))) == [b"on"], "nothing was written"
    assert net.ask(1, Put(KEY, b"off")).outcome == "ok"


def test_w_of_one_needs_nobody_else() -> None:
    net = Net(registry_of([1, 2, 3]))
    without(net, 2, 3)
    put, _ = asked(net, 1, Put(KEY, b"on", w=1))
    assert isinstance(put, PutResult)
    assert put.outcome == "ok"
    assert net.values(net.ask(1, Get(KEY, r=1))) == [b"on"]


def test_who_owns_nothing_of_it_hears_so_as_soon() -> None:
    net = Net(registry_of([1, 2, 3, 4]))
    owners = net.registry.owners_of(KEY)
    [other] = {1, 2, 3, 4} - set(owners)
    first, *rest = owners
    without(net, *rest)
    put, took_s = asked(net, other, Put(KEY, b"on"))
    assert isinstance(put, Rejected)
    assert "too few owners" in put.reason, "as the one that is there says"
    assert took_s < 2.0
    without(net, first)
    net.run(2)  # nobody was heard a moment ago
    put, took_s = asked(net, other, Put(KEY, b"on"))
    assert isinstance(put, Rejected)
    assert "all owners of this key are gone" in put.reason
    assert took_s < 2.5


def test_a_belief_that_is_wrong_fails_no_read() -> None:
    net = Net(registry_of([1, 2, 3]))
    assert net.ask(1, Put(KEY, b"on")).outcome == "ok"
    net.gone.update({2, 3})
    assert net.values(net.ask(1, Get(KEY))) == [b"on"]


def test_whose_disk_is_full_leaves_it_to_others() -> None:
    net = Net(registry_of([1, 2, 3]))
    net.planes[1].hold_back(held=True)
    for number in range(10):
        assert net.ask(1, Put(f"k{number}", b"on")).outcome == "ok"
    assert not any(net.storages[1].records.values()), "nothing piles up"
    net.planes[1].hold_back(held=False)
    net.planes[1].peer_alive(2, net.now)
    net.settle(1)
    net.run(30)
    assert any(net.storages[1].records.values()), "and it is brought up to date"


def test_all_disks_full_is_said() -> None:
    net = Net(registry_of([1, 2, 3]))
    assert net.ask(1, Put(KEY, b"on")).outcome == "ok"
    for plane in net.planes.values():
        plane.hold_back(held=True)
    put, took_s = asked(net, 1, Put(KEY, b"off"))
    assert isinstance(put, Rejected)
    assert "disks" in put.reason
    assert took_s < 3.0
    assert net.values(net.ask(2, Get(KEY))) == [b"on"]
