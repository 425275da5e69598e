"""Keys out of a backup: all their versions come back, over nothing that is there."""

import random
from collections.abc import Sequence

import msgspec
import pytest

from gossip.core.errors import InvalidRequest
from gossip.kv.changes import CounterUpdate, MapUpdate, SetUpdate
from gossip.kv.limits import RESTORED_VERSIONS_MAX, VALUE_BYTES_MAX
from gossip.kv.records import Version
from gossip.kv.requests import Delete, Get, List, Put, Rejected, Update
from gossip.kv.restored_key import RestoreKey, are_the_same
from tests.support.kv_net import Net, registry_of


def net_of(*numbers: int, seed: int = 0) -> Net:
    return Net(registry_of(numbers), seed)


def saved(net: Net, number: int) -> dict[str, tuple[Version, ...]]:
    found = net.ask(number, List(limit=1000))
    assert found.outcome == "ok"
    return {entry.key: entry.live for entry in found.entries}


def is_whole(net: Net, number: int, kept: dict[str, tuple[Version, ...]]) -> bool:
    there = saved(net, number)
    return there.keys() == kept.keys() and all(are_the_same(there[k], kept[k]) for k in kept)


def filled() -> dict[str, tuple[Version, ...]]:
    """What a covey had: siblings, and each type, counted at several nodes."""
    net = net_of(1, 2, 3, 4)
    for each in range(20):
        net.ask(1 + each % 4, Put(f"plain/{each}", f"value {each}".encode()))
    seen = net.ask(1, Put("siblings", b"first")).context
    asked = [(n, net.submit(n, Put("siblings", b"%d" % n, context=seen))) for n in (1, 2, 3)]
    net.run(6)
    assert [net.results[name].outcome for name in asked] == ["ok"] * 3
    for number in (1, 2, 3, 4):
        net.ask(number, Update("counter", CounterUpdate(number)))
        net.ask(number, Update("set", SetUpdate(f"member {number}")))
        net.ask(number, Update("map", MapUpdate(f"field {number}", "x")))
    net.ask(1, Put("gone", b"x"))
    net.ask(1, Delete("gone"))
    kept = saved(net, 4)
    assert len(kept["siblings"]) == 3
    assert "gone" not in kept
    return kept


def restore(
    net: Net, kept: dict[str, tuple[Version, ...]], numbers: Sequence[int]
) -> dict[str, str]:
    rng = random.Random(1)
    return {
        key: net.ask(rng.choice(numbers), RestoreKey(key, versions)).outcome
        for key, versions in kept.items()
    }


def test_a_covey_that_has_nothing_gets_each_key_as_it_was_and_can_go_on_with_it() -> None:
    kept = filled()
    net = net_of(11, 12, 13, 14, 1, seed=5)
    assert set(restore(net, kept, (1, 11, 12, 13, 14)).values()) == {"ok"}
    assert is_whole(net, 12, kept)
    assert net.values(net.ask(1, Get("counter"))) == [b"10"]
    for number in (1, 11, 14):  # 1 counted there before
        net.ask(number, Update("counter", CounterUpdate(1)))
    assert net.values(net.ask(13, Get("counter"))) == [b"13"]
    net.ask(11, Update("set", SetUpdate("member 1", removes=True)))
    assert net.values(net.ask(13, Get("set"))) == [b'["member 2", "member 3", "member 4"]']
    net.ask(11, Put("siblings", b"one"))
    assert net.values(net.ask(13, Get("siblings"))) == [b"one"]


def test_a_second_restore_finds_all_done_and_changes_nothing() -> None:
    kept = filled()
    net = net_of(1, 2, 3, seed=2)
    restore(net, kept, (1, 2, 3))
    before = saved(net, 1)
    assert set(restore(net, kept, (3, 2)).values()) == {"unchanged"}
    assert saved(net, 2) == before


def test_what_is_there_is_never_replaced_and_what_was_deleted_comes_back() -> None:
    net = net_of(1, 2, 3, 4)
    net.ask(1, Put("lamp", b"old"))
    net.ask(1, Put("door", b"open"))
    kept = saved(net, 2)
    net.ask(2, Put("lamp", b"new"))
    net.ask(3, Delete("door"))
    refused = net.ask(4, RestoreKey("lamp", kept["lamp"]))
    assert isinstance(refused, Rejected)
    assert refused.mismatch
    assert "left alone" in refused.reason
    assert net.values(net.ask(1, Get("lamp"))) == [b"new"]
    assert net.ask(4, RestoreKey("door", kept["door"])).outcome == "ok"
    assert net.values(net.ask(1, Get("door"))) == [b"open"]
    [version] = net.ask(1, Get("door")).live
    assert version.dot != kept["door"][0].dot
    assert version.stamp == kept["door"][0].stamp


def test_who_writes_at_the_same_time_loses_nothing() -> None:
    for seed in range(20):
        net = net_of(1, 2, 3, 4, seed=seed)
        version = Version(7, 1, 1 << 20, b"old")
        restoring = net.submit(1 + seed % 4, RestoreKey("lamp", (version,)))
        putting = net.submit(1 + (seed + 1) % 4, Put("lamp", b"new"))
        net.run(8)
        put = net.results[1 + (seed + 1) % 4, putting]
        assert put.outcome == "ok"
        assert net.results[1 + seed % 4, restoring].outcome in ("ok", "rejected")
        assert b"new" in net.values(net.ask(1, Get("lamp"))), seed


def test_an_owner_that_was_away_gets_it_too() -> None:
    net = net_of(1, 2, 3)
    net.isolate(3)
    assert net.ask(1, RestoreKey("lamp", (Version(7, 1, 1 << 20, b"on"),))).outcome == "ok"
    net.heal()
    net.run(60)
    net.isolate(3)
    assert net.values(net.ask(3, Get("lamp", r=1))) == [b"on"]


def test_what_no_key_can_have_had_is_refused() -> None:
    net = net_of(1, 2, 3)
    one = Version(7, 1, 1, b"x")
    too_many = tuple(
        msgspec.structs.replace(one, n=n + 1) for n in range(RESTORED_VERSIONS_MAX + 1)
    )
    large = tuple(Version(7, n, 1, bytes(VALUE_BYTES_MAX)) for n in range(1, 5))
    for versions in ((), too_many, large):
        with pytest.raises(InvalidRequest):
            net.submit(1, RestoreKey("lamp", versions))
