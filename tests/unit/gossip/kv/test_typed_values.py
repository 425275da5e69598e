"""Counters, sets, maps, max and min through whole planes, and what their values fold to."""

import json

import pytest

from gossip.core.errors import InvalidRequest
from gossip.kv.changes import Change, CounterUpdate, LimitUpdate, MapUpdate, SetUpdate
from gossip.kv.limits import ENTRIES_MAX
from gossip.kv.records import Version
from gossip.kv.requests import (
    Delete,
    Get,
    List,
    Put,
    PutResult,
    Rejected,
    Update,
    Watch,
    values_of,
)
from gossip.kv.typed_values import (
    INT64_MAX,
    MARK,
    CounterValue,
    MaxValue,
    PlainValue,
    Share,
    fold,
    pack,
    pack_register,
    typed_of,
)
from tests.support.kv_net import Net, registry_of


def net_of(*numbers: int) -> Net:
    return Net(registry_of(numbers))


def update(net: Net, number: int, change: Change, key: str = "k", **options: object) -> PutResult:
    result = net.ask(number, Update(key, change, **options))  # type: ignore[arg-type]
    assert isinstance(result, PutResult), result
    return result


def read(net: Net, number: int, key: str = "k") -> object:
    (value,) = net.ask(number, Get(key)).values
    return json.loads(value.data)


def test_a_counter_counts_everywhere_and_stays_one_version() -> None:
    net = net_of(1, 2, 3, 4, 5)
    for turn in range(30):
        assert update(net, 1 + turn % 5, CounterUpdate(turn)).outcome == "ok"
    assert read(net, 4) == sum(range(30))
    update(net, 2, CounterUpdate(-500))
    assert read(net, 1) == sum(range(30)) - 500
    net.run(1)
    partition = net.registry.partition_of("k")
    records = [s.load(partition, "k") for s in net.storages.values()]
    assert [len(record.live) for record in records if record] == [1, 1, 1]


def test_increments_at_the_same_time_are_all_counted() -> None:
    net = net_of(1, 2, 3)
    for _ in range(10):
        for number in net.planes:
            net.submit(number, Update("k", CounterUpdate(1)))
    net.run(6)
    assert all(result.outcome == "ok" for result in net.results.values())
    assert [read(net, number) for number in net.planes] == [30, 30, 30]


def test_who_starts_anew_goes_on_with_its_share() -> None:
    net = net_of(1, 2, 3)
    for _ in range(5):
        update(net, 1, CounterUpdate(1))
        net.run(0.1)
        net.crash(1)
        net.start(1)
        net.run(0.5)
    assert read(net, 2) == 5
    (version,) = net.ask(1, Get("k")).live
    counter = typed_of(version.value)
    assert isinstance(counter, CounterValue)
    assert len(counter.shares) == 1


def test_a_counter_is_deleted_and_begins_again() -> None:
    net = net_of(1, 2, 3)
    update(net, 1, CounterUpdate(7))
    assert net.ask(2, Delete("k")).outcome == "ok"
    assert net.ask(3, Get("k")).values == ()
    update(net, 3, CounterUpdate(2))
    assert read(net, 1) == 2


def test_a_wrong_type_is_refused_here_and_by_who_coordinates() -> None:
    net = net_of(1, 2, 3, 4, 5)
    net.ask(1, Put("k", b"on"))
    changes = CounterUpdate(1), SetUpdate("a"), MapUpdate("f", "v"), LimitUpdate(1, "max")
    for number in net.planes:
        for change in changes:
            refused = net.ask(number, Update("k", change))
            assert isinstance(refused, Rejected)
            assert refused.mismatch
    assert net.values(net.ask(3, Get("k"))) == [b"on"]


def test_a_counter_keeps_within_64_bits() -> None:
    net = net_of(1)
    update(net, 1, CounterUpdate(INT64_MAX))
    refused = net.ask(1, Update("k", CounterUpdate(1)))
    assert isinstance(refused, Rejected)
    assert read(net, 1) == INT64_MAX
    for by in (INT64_MAX + 1, 10**400):
        with pytest.raises(InvalidRequest):
            net.submit(1, Update("k", CounterUpdate(by)))


def test_a_counter_that_misses_w_is_indeterminate_and_counted_once() -> None:
    net = net_of(1, 2, 3)
    net.isolate(1)
    assert update(net, 1, CounterUpdate(1), timeout_s=1.0).outcome == "indeterminate"
    net.heal()
    update(net, 2, CounterUpdate(10))
    for number in net.planes:
        for other in net.planes:
            net.planes[number].peer_alive(other, net.now)
        net.settle(number)
    net.run(40)
    assert [read(net, number) for number in net.planes] == [11, 11, 11]


def test_a_set_and_who_adds_wins() -> None:
    net = net_of(1, 2, 3, 4)
    for number, member in ((1, "ada"), (2, "bob"), (3, "ada"), (4, "eve")):
        update(net, number, SetUpdate(member))
    assert read(net, 2) == ["ada", "bob", "eve"]
    assert update(net, 3, SetUpdate("bob", removes=True)).outcome == "ok"
    assert update(net, 3, SetUpdate("bob", removes=True)).outcome == "ok"
    assert read(net, 1) == ["ada", "eve"]
    for number, change in ((1, SetUpdate("eve", removes=True)), (2, SetUpdate("eve"))):
        net.submit(number, Update("k", change))
    net.run(6)
    assert read(net, 1) == ["ada", "eve"]
    for member in ("ada", "eve"):
        update(net, 1, SetUpdate(member, removes=True))
    assert net.ask(1, Get("k")).values == ()


def test_a_map_has_registers() -> None:
    net = net_of(1, 2, 3)
    update(net, 1, MapUpdate("colour", "red"))
    update(net, 2, MapUpdate("level", "5"))
    update(net, 3, MapUpdate("colour", "blue"))
    assert read(net, 1) == {"colour": "blue", "level": "5"}
    for number, field in ((1, "a"), (2, "b")):
        net.submit(number, Update("k", MapUpdate(field, "x")))
    net.run(6)
    update(net, 2, MapUpdate("level", None))
    assert read(net, 3) == {"a": "x", "b": "x", "colour": "blue"}


def test_the_largest_and_the_smallest_number() -> None:
    net = net_of(1, 2, 3)
    for number, value in ((1, 5), (2, 7.5), (3, 6)):
        update(net, number, LimitUpdate(value, "max"), "high")
        update(net, number, LimitUpdate(value, "min"), "low")
    assert (read(net, 1, "high"), read(net, 1, "low")) == (7.5, 5)
    (one,) = net.ask(1, Get("high")).live
    assert typed_of(one.value) == MaxValue(7.5)


def test_a_set_has_its_bounds() -> None:
    net = net_of(1)
    for n in range(ENTRIES_MAX):
        update(net, 1, SetUpdate(f"member {n}"))
    assert isinstance(net.ask(1, Update("k", SetUpdate("more"))), Rejected)
    update(net, 1, SetUpdate("member 0"))
    context = net.ask(1, Get("k")).context
    assert net.ask(1, Delete("k", context=context)).outcome == "ok"
    for text in ("", "x" * 513, "\ud800"):
        with pytest.raises(InvalidRequest):
            net.submit(1, Update("k", SetUpdate(text)))
    for change in (
        LimitUpdate(float("inf"), "max"),
        LimitUpdate(-(10**400), "min"),
        MapUpdate("f", "x" * 200_000),
    ):
        with pytest.raises(InvalidRequest):
            net.submit(1, Update("k", change))


def test_a_list_and_a_watch_show_what_it_comes_to() -> None:
    net = net_of(1, 2, 3)
    net.submit(3, Watch(key="k"))
    net.run(0.1)
    update(net, 1, SetUpdate("ada"))
    update(net, 2, SetUpdate("bob"))
    update(net, 1, SetUpdate("ada", removes=True))
    net.run(1)
    told = [[value.data for value in event.values] for event in net.watched]
    assert told[-1] == [b'["bob"]']
    assert [b'["ada", "bob"]'] in told
    (entry,) = net.ask(2, List()).entries
    assert [(value.type, value.data) for value in entry.values] == [("set", b'["bob"]')]


def test_bytes_that_begin_like_a_type_come_back_as_they_were() -> None:
    net = net_of(1, 2, 3)
    data = pack(CounterValue((Share(1, (1, 0), 1, 5),)))
    net.ask(1, Put("k", data))
    assert net.values(net.ask(2, Get("k"))) == [data]
    for broken in (MARK, MARK + b"\xff", pack(MaxValue(float("nan")))):
        assert typed_of(broken) == PlainValue(broken)
        assert typed_of(pack_register(broken)) == PlainValue(broken)


def test_types_that_met_are_all_shown() -> None:
    counter = pack(CounterValue((Share(1, (1, 0), 1, 5),)))
    live = (Version(1, 1, 9, counter), Version(2, 1, 8, b"plain"), Version(3, 1, 7, counter))
    folded = [(one.type, one.data) for one in fold(live)]
    assert folded == [("counter", b"5"), ("register", b"plain")]
    assert [value.data for value in values_of(live)] == [b"5", b"plain"]
