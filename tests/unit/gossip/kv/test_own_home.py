"""A device and its own state: alone, with others, and after both have written."""

from typing import Any

import pytest

from gossip.core.ids import NodeId
from gossip.kv.requests import Delete, Get, List, Put, Watch
from gossip.kv.storage import DAMAGED, PLACES
from gossip.registry.places import home_number, home_prefix
from gossip.registry.registry import admit, remove
from tests.support.kv_net import Net, housed_registry_of, node

KEY = f"{home_prefix(1)}mode"


def holders_of(net: Net, key: str) -> set[NodeId]:
    """Return on whose disks a key is."""
    partition = net.registry.partition_of(key)
    return {number for number, disk in net.storages.items() if disk.load(partition, key)}


def test_a_device_that_nobody_reaches_reads_and_writes_its_own_state() -> None:
    net = Net(housed_registry_of([1, 2, 3, 4]))
    net.isolate(1)
    net.gone = {2, 3, 4}
    written = net.ask(1, Put(KEY, b"eco"))
    assert (written.outcome, written.acks, written.needed) == ("ok", 1, 1)
    assert net.values(net.ask(1, Get(KEY))) == [b"eco"]
    assert [entry.key for entry in net.ask(1, List(home_prefix(1))).entries] == [KEY]
    assert net.ask(1, Put(KEY, b"off", if_unchanged=True)).mismatch
    assert net.ask(1, Delete(KEY)).outcome == "ok"
    assert net.values(net.ask(1, Get(KEY))) == []


def test_what_is_no_key_of_its_home_takes_a_majority_as_ever() -> None:
    net = Net(housed_registry_of([1, 2, 3, 4]))
    net.isolate(1)
    for key in ("lights/north", f"{home_prefix(2)}mode"):
        assert net.ask(1, Get(key)).outcome == "unavailable"
    assert net.ask(1, Put(KEY, b"v", w=2), 8.0).outcome == "indeterminate", "as it was asked for"
    assert net.ask(2, Put(KEY, b"w"), 8.0).needed == 2
    assert net.ask(2, Get(KEY)).needed == 2


def test_what_a_device_wrote_alone_spreads_when_it_is_reached() -> None:
    net = Net(housed_registry_of([1, 2, 3, 4]))
    net.isolate(1)
    assert net.ask(1, Put(KEY, b"eco")).outcome == "ok"
    assert holders_of(net, KEY) == {1}
    net.heal()
    net.run(60)
    assert holders_of(net, KEY) == set(net.registry.owners_of(KEY))
    for number in (1, 2, 3, 4):
        assert net.values(net.ask(number, Get(KEY, r=None))) == [b"eco"]


def test_what_both_sides_wrote_meanwhile_stays() -> None:
    net = Net(housed_registry_of([1, 2, 3, 4]))
    net.isolate(1)
    assert net.ask(1, Put(KEY, b"own")).outcome == "ok"
    assert net.ask(2, Put(KEY, b"of others")).outcome == "ok"
    assert net.values(net.ask(1, Get(KEY))) == [b"own"]
    net.heal()
    net.run(60)
    for number in (1, 2, 3, 4):
        found = net.ask(number, Get(KEY))
        assert {version.value for version in found.live} == {b"own", b"of others"}
        assert net.values(found) == [b"of others"], "the latest, as is the rule for devices"


def test_a_write_that_others_have_made_is_not_replaced_by_a_device_that_has_not_seen_it() -> None:
    net = Net(housed_registry_of([1, 2, 3, 4]))
    assert net.ask(1, Put(KEY, b"first")).outcome == "ok"
    net.run(1)
    context = net.ask(2, Get(KEY)).context
    net.isolate(1)
    assert net.ask(2, Delete(KEY, context=context)).outcome == "ok"
    assert net.values(net.ask(1, Get(KEY))) == [b"first"], "nobody could tell it"
    net.heal()
    net.run(60)
    assert net.values(net.ask(1, Get(KEY))) == [], "and it brings nothing back"


def test_a_device_whose_copy_is_damaged_asks_others() -> None:
    net = Net(housed_registry_of([1, 2, 3, 4]))
    assert net.ask(1, Put(KEY, b"v", w=-1)).outcome == "ok"
    net.crash(1)
    disk = net.storages[1]
    disk.records.clear()
    disk.clocks.clear()
    disk.complete = dict.fromkeys((*range(net.registry.partitions), PLACES), DAMAGED)
    net.isolate(1)
    net.start(1)
    net.run(2)
    assert home_number(1) in net.planes[1].replica.damaged
    assert net.ask(1, Get(KEY)).outcome == "unavailable", "rather than nothing"
    net.heal()
    net.run(60)
    assert net.values(net.ask(1, Get(KEY))) == [b"v"]
    assert not net.planes[1].replica.damaged
    assert DAMAGED not in disk.holdings().values(), "and no start doubts it again"


def test_a_home_goes_on_to_others_when_its_device_is_removed() -> None:
    net = Net(housed_registry_of([1, 2, 3, 4, 5]))
    key = f"{home_prefix(5)}mode"
    assert net.ask(5, Put(key, b"last words")).outcome == "ok"
    net.run(1)
    net.crash(5)
    net.adopt(remove(net.registry, 5))
    net.run(60)
    assert net.registry.is_settled
    owners = net.registry.owners_of(key)
    assert len(owners) == 3
    assert 5 not in owners
    assert holders_of(net, key) - {5} == set(owners)
    assert net.values(net.ask(1, Get(key))) == [b"last words"]
    fresh = admit(net.registry, node(6))
    net.start(6, fresh)
    net.adopt(fresh)
    net.run(60)
    assert net.values(net.ask(6, Get(f"{home_prefix(6)}mode"))) == []
    assert net.values(net.ask(6, Get(key))) == [b"last words"]


@pytest.mark.parametrize("prefix", ["", "device/", home_prefix(1)])
def test_a_watch_tells_of_homes_also_of_those_that_came_later(prefix: str) -> None:
    net = Net(housed_registry_of([1, 2, 3]))
    net.planes[2].submit(Watch(prefix), net.now)
    net.settle(2)
    net.run(3)
    assert net.ask(1, Put(KEY, b"v")).outcome == "ok"
    net.run(5)
    assert keys_told(net) == {KEY}
    fresh = admit(net.registry, node(4))
    net.start(4, fresh)
    net.adopt(fresh)
    net.run(5)
    theirs = f"{home_prefix(4)}mode"
    assert net.ask(4, Put(theirs, b"w")).outcome == "ok"
    net.run(30)
    assert keys_told(net) == ({KEY} if prefix == home_prefix(1) else {KEY, theirs})
    token = [event.token for event in net.watched if event.kind == "mark"][-1]
    net.watched.clear()
    again: Any = Watch(prefix, since=token)
    net.planes[3].submit(again, net.now)
    net.settle(3)
    net.run(5)
    assert not keys_told(net), "what the token covers was told"
    assert net.ask(1, Put(KEY, b"x")).outcome == "ok"
    net.run(5)
    assert keys_told(net) == {KEY}


def test_a_token_from_before_a_home_came_misses_nothing_in_it() -> None:
    net = Net(housed_registry_of([1, 2, 3]))
    net.planes[2].submit(Watch(""), net.now)
    net.settle(2)
    net.run(3)
    token = [event.token for event in net.watched if event.kind == "mark"][-1]
    fresh = admit(net.registry, node(4))
    net.start(4, fresh)
    net.adopt(fresh)
    net.run(5)
    theirs = f"{home_prefix(4)}mode"
    assert net.ask(4, Put(theirs, b"w")).outcome == "ok"
    net.run(30)
    net.watched.clear()
    net.planes[3].submit(Watch("", since=token), net.now)
    net.settle(3)
    net.run(5)
    assert keys_told(net) == {theirs}


def keys_told(net: Net) -> set[str]:
    assert not [event.reason for event in net.watched if event.kind == "gap"]
    return {event.key for event in net.watched if event.kind == "put"}
