"""A quota is kept but for what its text allows, and takes nothing that is there."""

import random
from collections.abc import Callable

import pytest

from gossip.kv.changes import CounterUpdate, SetUpdate
from gossip.kv.limits import QUOTA_MAX, QUOTAS_MAX
from gossip.kv.quotas import Quotas, Use, Uses, use_of
from gossip.kv.requests import (
    OVER_QUOTA,
    Delete,
    Get,
    List,
    Put,
    PutResult,
    Rejected,
    Request,
    Result,
    Update,
)
from gossip.kv.spaces import Spaces, SpaceSetting, changed_space, read_space, space_of
from tests.support.kv_net import Net, registry_of

NODES = (1, 2, 3, 4, 5)
QUOTA = 40


def quota(keys: int | None = None, size_bytes: int | None = None) -> SpaceSetting:
    return SpaceSetting(quota_keys=keys, quota_bytes=size_bytes)


def net_with(setting: SpaceSetting, nodes: tuple[int, ...] = NODES) -> Net:
    net = Net(registry_of(nodes))
    for plane in net.planes.values():
        plane.spaces.replace({"lamps": setting})
    tell(net, *nodes)
    return net


def held(net: Net, number: int) -> Uses:
    """What an owner would tell."""
    parts: dict[int, Use] = {}
    for partition, records in net.storages[number].records.items():
        found = [use_of(r.live) for key, r in records.items() if space_of(key) == "lamps"]
        parts[partition] = Use(sum(u.keys for u in found), sum(u.size_bytes for u in found))
    return {"lamps": parts}


def tell(net: Net, *to: int, silent: tuple[int, ...] = ()) -> None:
    """All owners but the silent ones tell these nodes what they hold."""
    told = {number: held(net, number) for number in net.planes if number not in silent}
    for number in to:
        quotas = net.planes[number].writes.quotas
        quotas.begin_round()
        quotas.end_round(told, net.registry.ownerships)


def keys_in(net: Net) -> int:
    net.run(1.0)
    return len(net.ask(1, List("lamps", limit=1000)).entries)


def is_refused(result: Result) -> bool:
    if isinstance(result, Rejected):
        assert result == Rejected(OVER_QUOTA)
        return True
    assert isinstance(result, PutResult)
    assert result.outcome == "ok"
    return False


def fill(net: Net, asker: Callable[[int], int], count: int = 4 * QUOTA) -> int:
    """Ask for many keys; return how many were taken."""
    return sum(not is_refused(net.ask(asker(n), Put(f"lamps/{n}", b"v"))) for n in range(count))


def test_what_nobody_has_told_refuses_nothing_and_neither_does_another_space() -> None:
    net = Net(registry_of(NODES))
    for plane in net.planes.values():
        plane.spaces.replace({"lamps": quota(1)})
    assert fill(net, lambda _: 1, 5) == 5
    tell(net, *NODES)
    assert fill(net, lambda _: 1) == 5, "those that are there"
    assert not is_refused(net.ask(1, Put("lampshades/1", b"v")))


def test_within_one_round_nobody_takes_more_than_was_left() -> None:
    """One coordinator alone keeps it to the key; all of them at once take so many times as much."""
    net = net_with(quota(QUOTA), (1,))
    assert fill(net, lambda _: 1) == QUOTA
    net = net_with(quota(QUOTA))
    taken = fill(net, lambda n: NODES[n % len(NODES)], 8 * QUOTA)
    assert QUOTA <= taken == keys_in(net) <= len(NODES) * QUOTA
    tell(net, *NODES)
    assert sum(not is_refused(net.ask(n, Put(f"lamps/new-{n}", b"v"))) for n in NODES) == 0


@pytest.mark.parametrize("seed", range(6))
def test_over_many_rounds_it_is_overrun_by_one_round_alone(seed: int) -> None:
    """Writers and rounds at random: what was left at the last telling bounds what follows."""
    rng = random.Random(seed)
    net = net_with(quota(QUOTA))
    left = dict.fromkeys(NODES, QUOTA)
    for n in range(4 * QUOTA):
        if rng.random() < 0.1:
            net.run(0.1)
            number = rng.choice(NODES)
            tell(net, number)
            use = net.planes[number].writes.quotas.use("lamps")
            assert use is not None
            left[number] = max(0, QUOTA - use.keys)
        before = {i: net.planes[i].counts["writes/ok"] for i in NODES}
        if not is_refused(net.ask(rng.choice(NODES), Put(f"lamps/{n}", b"v"))):
            net.run(0.05)
            [by] = [i for i in NODES if net.planes[i].counts["writes/ok"] > before[i]]
            left[by] -= 1
            assert left[by] >= 0, "it took more than what was left when it was told"


def forget_what_was_taken(quotas: Quotas) -> None:
    """A planted fault: a coordinator goes by what it was told alone."""
    quotas.wrote = lambda _key, _before, _after: None  # type: ignore[assignment,method-assign]


def test_a_coordinator_that_forgets_what_it_took_is_noticed() -> None:
    net = net_with(quota(QUOTA), (1,))
    forget_what_was_taken(net.planes[1].writes.quotas)
    assert fill(net, lambda _: 1) > QUOTA


@pytest.mark.parametrize(
    ("request_", "is_taken"),
    [
        (Put("lamps/new", b""), False),
        (Update("lamps/new", CounterUpdate(1)), False),
        (Update("lamps/new", SetUpdate("a")), False),
        (Put("lamps/old", b"longer"), False),
        (Put("lamps/old", b"same"), True),
        (Put("lamps/old", b"v"), True),
        (Put("lamps/old", b""), True),
        (Update("lamps/count", CounterUpdate(1)), True),
        (Delete("lamps/old"), True),
        (Get("lamps/old"), True),
    ],
)
@pytest.mark.parametrize("asker", NODES)
def test_what_is_refused_is_what_adds(asker: int, request_: Request, is_taken: bool) -> None:
    net = net_with(quota())
    net.ask(1, Put("lamps/old", b"1234"))
    net.ask(1, Update("lamps/count", CounterUpdate(1)))
    net.run(1.0)
    for plane in net.planes.values():
        plane.spaces.replace({"lamps": quota(1, 1)})
    tell(net, *NODES)
    result = net.ask(asker, request_)
    assert isinstance(result, Rejected) == (not is_taken), result
    assert net.values(net.ask(asker, Get("lamps/old")))[:1] != [b"longer"]
    refused = sum(plane.counts["puts_refused/quota"] for plane in net.planes.values())
    assert refused == (not is_taken), "it is refused, and counted, once: where it was to be written"


def test_a_delete_makes_room_at_once_and_a_larger_quota_as_well() -> None:
    net = net_with(quota(2), (1,))
    assert fill(net, lambda _: 1) == 2
    assert not is_refused(net.ask(1, Delete("lamps/0")))
    assert not is_refused(net.ask(1, Put("lamps/other", b"v")))
    assert is_refused(net.ask(1, Put("lamps/one-more", b"v")))
    net.planes[1].spaces.replace({"lamps": quota(3)})
    assert not is_refused(net.ask(1, Put("lamps/one-more", b"v")))
    net.planes[1].spaces.replace({})
    assert not is_refused(net.ask(1, Put("lamps/another", b"v")))


def test_bytes_have_a_bound_of_their_own() -> None:
    net = net_with(quota(None, 1000), (1,))
    taken = [net.ask(1, Put(f"lamps/{n}", b"v" * 300)) for n in range(5)]
    assert [is_refused(each) for each in taken] == [False, False, False, True, True]
    assert not is_refused(net.ask(1, Put("lamps/0", b"v" * 100)))
    assert not is_refused(net.ask(1, Put("lamps/9", b"v" * 200)))


def test_who_is_silent_counts_as_before_and_only_owners_are_believed() -> None:
    net = net_with(quota(QUOTA))
    fill(net, lambda _: 1, 10)
    net.run(1.0)
    tell(net, *NODES)
    quotas = net.planes[1].writes.quotas
    assert quotas.use("lamps") == Use(10, 10)
    tell(net, 1, silent=NODES)
    assert quotas.use("lamps") == Use(10, 10)
    lies: Uses = {"lamps": dict.fromkeys(range(8), Use(10**6, 10**6))}
    quotas.begin_round()
    quotas.end_round({99: lies}, net.registry.ownerships)
    assert quotas.use("lamps") == Use(10, 10)
    quotas.begin_round()
    quotas.end_round({n: {} for n in NODES}, net.registry.ownerships)
    assert quotas.use("lamps") == Use(10, 10), "they have not heard of the quota yet"


def test_what_was_taken_while_others_are_asked_is_not_forgotten() -> None:
    net = net_with(quota(QUOTA), (1,))
    quotas = net.planes[1].writes.quotas
    told = {1: held(net, 1)}
    quotas.begin_round()
    net.ask(1, Put("lamps/meanwhile", b"v"))
    quotas.end_round(told, net.registry.ownerships)
    assert quotas.use("lamps") == Use(1, 1)
    tell(net, 1)
    assert quotas.use("lamps") == Use(1, 1)


def test_an_owner_that_has_heard_refuses_for_who_has_not() -> None:
    net = net_with(quota(1))
    net.ask(1, Put("lamps/0", b"v"))
    net.run(1.0)
    tell(net, *NODES)
    owners = net.registry.ownership_of("lamps/x").readers
    [asker, *_] = [n for n in NODES if n not in owners]
    net.planes[asker].spaces.replace({})
    assert is_refused(net.ask(asker, Put("lamps/x", b"v")))


def test_bounds_of_the_setting() -> None:
    for wrong in (0, -1, QUOTA_MAX + 1):
        with pytest.raises(Exception, match="quota_keys"):
            changed_space(b"", {"quota_keys": wrong})
    data = changed_space(b"", {"quota_bytes": 5})
    assert read_space(data) == quota(None, 5)
    assert changed_space(data, {"quota_bytes": None}) == b""
    spaces = Spaces()
    spaces.replace({f"s{n}": quota(1) for n in range(QUOTAS_MAX)} | {"none": SpaceSetting()})
    assert len(spaces.with_quota) == QUOTAS_MAX
