"""Values that expire: hidden at once, deleted by one owner, by a clock that most have."""

import pytest

from gossip.core.errors import InvalidRequest
from gossip.kv.changes import SetUpdate
from gossip.kv.limits import CLOCK_START_S, EXPIRY_GRACE_S, VALUE_BYTES_MAX
from gossip.kv.requests import Delete, Get, List, Put, Rejected, Update, Watch
from gossip.kv.spaces import SpaceSetting
from gossip.kv.typed_values import PlainValue, pack, pack_register, typed_of
from gossip.registry.registry import admit
from tests.support.kv_net import WALL_MS, Net, node, registry_of

CENTURY_S = 73 * 366 * 86_400.0


def net_of(*numbers: int) -> Net:
    """A net whose clocks have been compared."""
    net = Net(registry_of(numbers))
    net.run(CLOCK_START_S + 4)
    return net


def owners(net: Net, key: str) -> tuple[int, ...]:
    return net.registry.ownership_of(key).readers


def stored(net: Net, key: str) -> list[int]:
    """Who has the key on the disk."""
    partition = net.registry.partition_of(key)
    return [n for n, kept in sorted(net.storages.items()) if key in kept.records.get(partition, {})]


def total(net: Net, counter: str) -> int:
    return sum(plane.counts[counter] for plane in net.planes.values())


def test_it_is_shown_until_it_expires_and_then_by_nobody() -> None:
    net = net_of(1, 2, 3, 4)
    net.submit(3, Watch(prefix="lamp"))
    net.ask(1, Put("lamp", b"on", ttl_s=60))
    (value,) = net.ask(2, Get("lamp")).values
    assert abs(value.expires_ms - WALL_MS - int(net.now * 1000) - 60_000) < 1000
    net.run(55)
    assert net.values(net.ask(4, Get("lamp"))) == [b"on"]
    net.run(6)
    assert net.values(net.ask(4, Get("lamp"))) == []
    assert net.ask(2, List()).entries == ()
    net.run(10)
    assert stored(net, "lamp") == [], "it was deleted at every owner"
    assert total(net, "expiries/ok") == 1, "by one of them"
    assert [event.kind for event in net.watched if event.key == "lamp"][-1] == "delete"
    assert all(plane.expiries.deadline() is None for plane in net.planes.values())


def test_writing_again_renews_and_may_take_the_end_away() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"on", ttl_s=10))
    net.run(8)
    net.ask(2, Put("lamp", b"on", ttl_s=10))
    net.run(8)
    assert net.values(net.ask(3, Get("lamp"))) == [b"on"]
    net.ask(3, Put("lamp", b"on"))
    net.run(100)
    assert net.values(net.ask(3, Get("lamp"))) == [b"on"]
    assert total(net, "expiries/ok") == 0


def test_what_was_written_beside_it_survives() -> None:
    net = net_of(1, 2, 3)
    net.isolate(1)
    net.ask(1, Put("lamp", b"short", w=1, ttl_s=30))
    net.ask(2, Put("lamp", b"stays", w=2))
    net.heal()
    net.run(100)
    assert net.values(net.ask(3, Get("lamp"))) == [b"stays"]
    assert [len(s.records[p]["lamp"].live) for s in net.storages.values() for p in s.records] == [
        1
    ] * 3


def test_it_counts_as_absent_for_who_looks_first() -> None:
    net = net_of(1, 2, 3)
    for plane in net.planes.values():
        plane.expiries._look_at = net.now + 1000
    net.ask(1, Put("lamp", b"on", ttl_s=5))
    assert net.ask(1, Put("lamp", b"x", if_unchanged=True)).mismatch
    net.run(6)
    assert len(stored(net, "lamp")) == 3
    assert net.ask(2, Put("lamp", b"new", if_unchanged=True)).outcome == "ok"
    net.ask(1, Put("tags", b"on", ttl_s=5))
    net.run(6)
    assert net.ask(2, Update("tags", SetUpdate("a"))).outcome == "ok"
    assert net.values(net.ask(3, Get("tags"))) == [b'["a"]']


def test_the_next_owner_does_it_when_the_first_is_believed_gone_or_late() -> None:
    net = net_of(1, 2, 3, 4)
    first, second, _ = owners(net, "lamp")
    net.ask(second, Put("lamp", b"on", ttl_s=5))
    net.crash(first)
    net.run(20)
    assert len(stored(net, "lamp")) == 3, "nobody knows that the first is gone"
    net.run(EXPIRY_GRACE_S)
    assert stored(net, "lamp") == [first], "it does not run, and learns it when it does"
    net.start(first)
    net.run(90)
    assert stored(net, "lamp") == []
    net.ask(second, Put("lamp", b"on", ttl_s=5))
    net.crash(first)
    net.gone.add(first)
    net.run(20)
    assert stored(net, "lamp") == [first]


@pytest.mark.parametrize("ahead_s", [CENTURY_S, 3600.0])
def test_a_clock_that_is_alone_with_its_time_ends_and_hides_nothing(ahead_s: float) -> None:
    net = Net(registry_of((1, 2, 3)))
    net.ahead_s[1] = ahead_s
    net.run(CLOCK_START_S + 4)
    for key in ("a", "b", "c", "d"):  # of several partitions, so that 1 is the first of some
        net.ask(2, Put(key, b"on", ttl_s=600))
    net.run(300)
    assert net.values(net.ask(1, Get("a"))) == [b"on"]
    assert [entry.key for entry in net.ask(1, List()).entries] == ["a", "b", "c", "d"]
    refused = net.ask(1, Put("e", b"on", ttl_s=600))
    assert isinstance(refused, Rejected)
    assert refused.unreachable
    assert net.ask(1, Put("f", b"on")).outcome == "ok"
    assert net.planes[1].counts["expiries/clock_not_agreed"] > 0
    net.run(700)
    assert net.values(net.ask(2, Get("a"))) == [], "the others end it in time"


def test_a_clock_that_is_set_is_not_followed_before_others_have_that_time() -> None:
    net = net_of(1, 2, 3)
    net.ask(2, Put("lamp", b"on", ttl_s=600))
    net.ahead_s[1] = CENTURY_S
    assert net.values(net.ask(1, Get("lamp"))) == [b"on"]
    net.run(60)
    assert net.planes[1].counts["clock_rounds/agreed_by_steady_clock"] >= 1
    assert net.values(net.ask(1, Get("lamp"))) == [b"on"]
    net.ask(1, Put("lamp", b"off", ttl_s=60))
    net.run(70)
    assert net.values(net.ask(1, Get("lamp", r=1))) == [], "time goes on by the steady clock"
    for number in (2, 3):
        net.ahead_s[number] = CENTURY_S
        net.ask(number, Put("x", b"x", ttl_s=60))
    net.run(1300)
    assert (net.planes[1].clock.agreed_ms(net.now) or 0) > WALL_MS + CENTURY_S * 1000, (
        "all have it now"
    )


def test_before_clocks_were_compared_nobody_says_when_something_expires() -> None:
    net = Net(registry_of((1, 2, 3)))
    assert net.ask(1, Put("lamp", b"on", ttl_s=60)).unreachable
    net.isolate(1)
    net.run(10)
    assert net.ask(1, Put("lamp", b"on", w=1, ttl_s=60)).outcome == "ok", "nobody can be heard"
    net.run(100)
    assert net.values(net.ask(1, Get("lamp", r=1))) == [b"on"], "and by that nothing is judged"


def test_who_was_agreed_with_goes_by_its_clock_also_when_cut_off() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"on", ttl_s=60))
    net.isolate(1)
    net.run(2000)
    assert net.values(net.ask(1, Get("lamp", r=1))) == []


def test_a_clock_before_there_was_any_covey_counts_for_nothing() -> None:
    net = Net(registry_of((1, 2, 3)))
    net.ahead_s[1] = net.ahead_s[2] = -WALL_MS / 1000
    net.run(6)
    assert net.planes[1].clock.said_ms(net.now) is None
    assert net.planes[3].clock.agreed_ms(net.now) is None, "nobody else can tell"
    assert net.planes[3].clock.said_ms(net.now), "but nobody speaks against it either"
    alone = Net(registry_of((1,)))
    assert alone.planes[1].clock.agreed_ms(alone.now)


@pytest.mark.parametrize(("ahead_s", "judged"), [(0.0, "agreed"), (CENTURY_S, "doubted")])
def test_a_founder_asks_those_who_come(ahead_s: float, judged: str) -> None:
    net = Net(registry_of((1,)))
    net.ahead_s[1] = ahead_s
    net.run(10)
    grown = admit(admit(net.registry, node(2)), node(3))
    for number in (2, 3):
        net.start(number, grown)
    net.adopt(grown)
    net.run(8)
    assert net.planes[1].counts[f"clock_rounds/{judged}"] >= 1


def test_a_space_says_how_long_values_live_that_say_nothing() -> None:
    net = net_of(1, 2, 3)
    for plane in net.planes.values():
        plane.spaces.replace({"seen": SpaceSetting(ttl_default_s=30.0)})
    net.ask(1, Put("seen/a", b"x"))
    net.ask(1, Put("seen/b", b"x", ttl_s=0))
    net.ask(1, Put("seen/c", b"x", ttl_s=3000))
    net.run(60)
    assert [entry.key for entry in net.ask(2, List()).entries] == ["seen/b", "seen/c"]


def test_a_delete_that_too_few_can_take_is_tried_again() -> None:
    net = net_of(1, 2, 3)
    first, *others = owners(net, "lamp")
    net.ask(first, Put("lamp", b"on", ttl_s=5))
    net.gone.update(others)
    for other in others:
        net.crash(other)
    net.run(30)
    assert net.planes[first].counts["expiries/refused"] >= 1
    assert net.values(net.ask(first, Get("lamp", r=1))) == []
    net.gone.clear()
    for other in others:
        net.start(other)
    net.run(60)
    assert stored(net, "lamp") == []


def test_more_than_a_page_expires_and_all_of_it_goes() -> None:
    net = net_of(1)
    for number in range(300):
        net.submit(1, Put(f"k{number}", b"x", ttl_s=5))
    net.run(20)
    assert total(net, "expiries/ok") == 300
    assert net.ask(1, List()).entries == ()


def test_bytes_that_look_like_a_value_that_expires_are_bytes() -> None:
    net = net_of(1, 2, 3)
    tricky = pack_register(b"x", 1)
    net.ask(1, Put("lamp", tricky))
    net.run(10)
    assert net.values(net.ask(2, Get("lamp"))) == [tricky]
    net.ask(1, Put("lamp", tricky, ttl_s=1000))
    assert net.values(net.ask(2, Get("lamp"))) == [tricky]


def test_an_end_beyond_all_numbers_is_no_end() -> None:
    beyond = pack(PlainValue(b"x", 2**64 - 1))
    assert typed_of(beyond) == PlainValue(beyond)


@pytest.mark.parametrize("ttl_s", [0.5, -1.0, 1e12, float("nan"), float("inf")])
def test_a_time_to_live_has_bounds(ttl_s: float) -> None:
    net = net_of(1)
    with pytest.raises(InvalidRequest, match="ttl"):
        net.submit(1, Put("lamp", b"on", ttl_s=ttl_s))


def test_the_largest_value_may_expire() -> None:
    net = net_of(1, 2, 3)
    assert net.ask(1, Put("lamp", bytes(VALUE_BYTES_MAX), ttl_s=60)).outcome == "ok"


def test_where_nothing_expires_any_more_nobody_looks() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"on", ttl_s=60))
    net.ask(1, Delete("lamp"))
    net.run(10)
    assert all(plane.expiries.deadline() is None for plane in net.planes.values())
