"""Reads and writes through whole planes: quorums, forwards, failures, repair."""

import pytest

from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId
from gossip.core.wire import tag_of
from gossip.kv.messages import CODEC, DigestSummary, Store
from gossip.kv.requests import (
    Delete,
    Get,
    GetResult,
    List,
    ListResult,
    Put,
    PutResult,
    Rejected,
    Watch,
)
from gossip.registry.registry import admit, remove
from tests.support.kv_net import Net, node, registry_of, sign


def net_of(*numbers: int, **options: int) -> Net:
    return Net(registry_of(numbers, **options))


def owned_by(net: Net, number: int, *, owner: bool) -> str:
    """A key that this node owns, or does not."""
    keys = (f"key-{n}" for n in range(1000))
    return next(k for k in keys if (number in net.registry.owners_of(k)) is owner)


def test_a_write_on_one_node_is_read_on_every_other() -> None:
    net = net_of(1, 2, 3, 4, 5)
    put = net.ask(1, Put("lamp", b"on"))
    assert isinstance(put, PutResult)
    assert (put.outcome, put.needed) == ("ok", 2)
    for number in net.planes:
        assert net.values(net.ask(number, Get("lamp"))) == [b"on"]


def test_a_put_without_context_replaces_and_a_delete_removes_without_a_trace() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"on"))
    net.ask(2, Put("lamp", b"off"))
    assert net.values(net.ask(3, Get("lamp"))) == [b"off"]
    assert net.ask(3, Delete("lamp")).outcome == "ok"
    assert net.values(net.ask(1, Get("lamp"))) == []
    net.run(1)
    assert [
        storage.records.get(net.registry.partition_of("lamp"), {})
        for storage in net.storages.values()
    ] == [{}, {}, {}]


def test_concurrent_writes_stay_as_siblings_until_somebody_who_read_both_writes() -> None:
    net = net_of(1, 2, 3)
    first = net.ask(1, Put("lamp", b"red", context=None))
    empty = net.ask(1, Get("another")).context
    with pytest.raises(InvalidRequest):
        net.submit(1, Put("lamp", b"x", context=empty))
    replaced = first.context
    assert net.ask(1, Put("lamp", b"green", context=replaced)).versions == 1
    assert net.ask(2, Put("lamp", b"blue", context=replaced)).versions == 2
    found = net.ask(3, Get("lamp"))
    assert sorted(net.values(found)) == [b"blue", b"green"]
    white = net.ask(3, Put("lamp", b"white", context=found.context))
    assert white.versions == 1
    assert net.values(net.ask(1, Get("lamp"))) == [b"white"]
    assert net.ask(2, Delete("lamp", context=replaced)).versions == 1, "what it had not seen stays"
    assert net.ask(2, Delete("lamp", context=white.context)).versions == 0
    assert net.ask(2, Delete("lamp")).versions == 0


def test_with_one_owner_gone_a_majority_still_writes_and_reads() -> None:
    net = net_of(1, 2, 3, 4)
    key = owned_by(net, 4, owner=False)
    net.crash(net.registry.owners_of(key)[0])
    asker = next(iter(net.planes))
    assert net.ask(asker, Put(key, b"v")).outcome == "ok"
    assert net.values(net.ask(asker, Get(key))) == [b"v"]


def test_a_write_that_misses_w_is_indeterminate_and_repaired_forward() -> None:
    net = net_of(1, 2, 3)
    net.isolate(1)
    put = net.ask(1, Put("lamp", b"on"))
    assert isinstance(put, PutResult)
    assert (put.outcome, put.acks, put.needed) == ("indeterminate", 1, 2)
    assert put.context
    assert net.ask(1, Get("lamp")).outcome == "unavailable"
    net.heal()
    for number in (2, 3):
        net.planes[number].peer_alive(1, net.now)
        net.planes[1].peer_alive(number, net.now)
        net.settle(number)
    net.settle(1)
    net.run(5)
    assert net.values(net.ask(2, Get("lamp", r=3))) == [b"on"]
    assert all(
        storage.load(net.registry.partition_of("lamp"), "lamp") for storage in net.storages.values()
    )


def test_an_owner_that_a_broken_stream_kept_from_a_write_is_told_again() -> None:
    """It was there all the time, so nobody says that it is back."""
    net = net_of(1, 2, 3)
    net.run(1.0)
    net.crash(3)
    net.isolate(1)
    name = (1, net.submit(1, Put("lamp", b"on")))
    net.run(0.1)
    net.heal()
    net.run(2.0)
    assert net.results[name].outcome == "ok"


@pytest.mark.interpreted
def test_an_owner_that_is_gone_is_told_nothing_until_it_is_back() -> None:
    net = net_of(1, 2, 3)
    told: list[int] = []
    net.run(1.0)
    net.isolate(1)
    name = (1, net.submit(1, Put("lamp", b"on")))
    net.run(0.1)
    net.gone.update({2, 3})
    net.planes[1].writes.returned = told.append  # type: ignore[assignment, method-assign]
    net.run(6.0)
    assert not told
    assert net.results[name].outcome == "indeterminate"


def test_a_forwarder_tries_the_next_owner_while_nothing_was_sent() -> None:
    net = net_of(1, 2, 3, 4)
    key = owned_by(net, 4, owner=False)
    first, *_ = sorted(net.registry.owners_of(key))
    net.crash(first)
    put = net.ask(4, Put(key, b"v"))
    assert put.outcome == "ok"
    assert net.values(net.ask(4, Get(key))) == [b"v"]


def test_a_forwarder_that_cannot_tell_says_indeterminate() -> None:
    net = net_of(1, 2, 3, 4)
    key = owned_by(net, 4, owner=False)
    first, *_ = sorted(net.registry.owners_of(key))
    net.ask(4, Put(key, b"v"))
    net.run(0.5)  # the coordinator has just been heard: no sign of life is asked for
    net.planes[4].forwards.last_frame_at[first] = net.now
    name = (4, net.submit(4, Put(key, b"w")))
    net.crash(first)
    net.run(6)
    assert net.results[name].outcome == "indeterminate"


def test_no_owner_in_reach_is_rejected_with_nothing_written() -> None:
    net = net_of(1, 2, 3, 4)
    key = owned_by(net, 4, owner=False)
    net.isolate(4)
    result = net.ask(4, Put(key, b"v"), 8)
    assert isinstance(result, Rejected)
    assert result.unreachable
    net.heal()
    assert net.values(net.ask(1, Get(key))) == []


def test_what_was_acknowledged_survives_the_crash_of_every_other_holder() -> None:
    net = net_of(1, 2, 3)
    assert net.ask(1, Put("lamp", b"on", w=3)).outcome == "ok"
    for number in (1, 2, 3):
        net.crash(number)
    for number in (1, 2, 3):
        net.start(number)
    net.run(3)
    assert net.values(net.ask(2, Get("lamp"))) == [b"on"]


def test_an_acknowledgement_waits_for_the_disk() -> None:
    net = net_of(1, 2, 3)
    net.save_s = lambda _node: 1e6
    put = net.ask(1, Put("lamp", b"on"))
    assert (put.outcome, put.acks) == ("indeterminate", 0)


def test_a_read_repairs_a_stale_owner_before_it_answers() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"old", w=3))
    net.cut |= {frozenset((1, 3)), frozenset((2, 3))}
    assert net.ask(1, Put("lamp", b"new")).outcome == "ok"
    net.heal()
    net.cut = {frozenset((1, 2))}
    assert net.values(net.ask(3, Get("lamp"))) == [b"new"]
    partition = net.registry.partition_of("lamp")
    stored = net.storages[3].load(partition, "lamp")
    assert stored is not None
    assert [version.value for version in stored.live] == [b"new"]


def test_absent_but_covered_beats_a_stale_copy() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"on", w=3))
    net.cut |= {frozenset((1, 3)), frozenset((2, 3))}
    assert net.ask(1, Delete("lamp")).outcome == "ok"
    net.heal()
    assert net.values(net.ask(3, Get("lamp", r=3))) == []
    net.run(1)
    assert net.storages[3].load(net.registry.partition_of("lamp"), "lamp") is None


def test_fewer_answers_than_r_prove_nothing() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"on"))
    net.isolate(1)
    found = net.ask(1, Get("lamp"))
    assert isinstance(found, GetResult)
    assert (found.outcome, found.values, found.answered, found.needed) == ("unavailable", (), 1, 2)
    assert net.values(net.ask(1, Get("lamp", r=1))) == [b"on"]


@pytest.mark.parametrize("request_", [
    Put("", b""), Put("k" * 513, b""), Put("k", b"x" * (256 * 1024 + 1)), Put("k", b"", w=4),
    Put("k", b"", w=0), Get("k", r=4), Get("k", timeout_s=0), Get("\ud800"), List(limit=0),
    Watch(), Watch(prefix="a", key="b"), Put("k", b"", context=b"rubbish"), Delete("k", w=9),
    List(r=5),
])  # fmt: skip
def test_impossible_requests_are_refused_at_once(request_: Put) -> None:
    net = net_of(1, 2, 3)
    with pytest.raises(InvalidRequest):
        net.submit(1, request_)
    assert net.planes[1].pending() == 0


def test_siblings_cannot_outgrow_a_frame() -> None:
    net = net_of(1, 2, 3)
    context = net.ask(1, Get("big")).context
    net.ask(1, Put("big", b"x" * 200_000, context=context))
    result = net.ask(1, Put("big", b"y" * 200_000, context=context))
    assert isinstance(result, Rejected)
    assert "context" in result.reason


def test_a_cancelled_request_is_not_heard_of_again() -> None:
    net = net_of(1, 2, 3)
    name = net.submit(1, Get("lamp"))
    net.planes[1].cancel(name, net.now)
    net.run(10)
    assert net.results == {}
    assert net.planes[1].pending() == 0


def test_listing_pages_through_all_partitions_in_key_order() -> None:
    net = net_of(1, 2, 3, 4, 5)
    keys = [f"room/{n:03}" for n in range(57)]
    for number, key in enumerate([*keys, "other"]):
        assert net.ask(1 + number % 5, Put(key, key.encode())).outcome == "ok"
    found: list[str] = []
    after, pages = "", 0
    while True:
        page = net.ask(3, List("room/", after, limit=10))
        assert isinstance(page, ListResult)
        assert page.outcome == "ok"
        found += [entry.key for entry in page.entries]
        assert all(entry.values[0].data == entry.key.encode() for entry in page.entries)
        pages += 1
        after = page.next
        if not after:
            break
    assert found == keys
    assert pages == 6


def test_listing_reads_what_owners_disagree_on_and_hides_what_was_deleted() -> None:
    net = net_of(1, 2, 3)
    for key in ("a", "b", "c"):
        net.ask(1, Put(key, b"old", w=3))
    net.cut |= {frozenset((1, 3)), frozenset((2, 3))}
    net.ask(1, Put("a", b"new"))
    net.ask(1, Delete("b"))
    net.heal()
    page = net.ask(3, List(r=3))
    assert [(e.key, e.values[0].data) for e in page.entries] == [("a", b"new"), ("c", b"old")]


def test_listing_says_when_it_is_partial() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("a", b"v", w=3))
    net.isolate(1)
    assert net.ask(1, List(), 8).outcome == "partial"


def test_large_values_are_listed_in_several_pages() -> None:
    net = net_of(1, 2, 3)
    for n in range(6):
        net.ask(1, Put(f"big-{n}", bytes([n]) * 100_000))
    found, after = [], ""
    while True:
        page = net.ask(2, List("big-", after))
        found += [entry.key for entry in page.entries]
        after = page.next
        if not after:
            break
    assert found == [f"big-{n}" for n in range(6)]


def test_a_watch_tells_each_change_once_on_any_node() -> None:
    net = net_of(1, 2, 3, 4)
    key = owned_by(net, 4, owner=False)
    request = net.submit(4, Watch(prefix="key"))
    net.run(0.1)
    net.ask(1, Put(key, b"one", w=3))
    net.ask(2, Put(key, b"two", w=3))
    net.ask(3, Delete(key, w=3))
    net.ask(3, Put("unwatched", b"x", w=3))
    net.run(1)
    net.watched = [e for e in net.watched if e.kind != "mark"]
    assert [(e.request, e.key, e.kind) for e in net.watched] == [
        (request, key, "put"),
        (request, key, "put"),
        (request, key, "delete"),
    ]
    assert [e.values[0].data for e in net.watched[:2]] == [b"one", b"two"]
    net.planes[4].cancel(request, net.now)
    net.settle(4)
    net.run(1)
    assert not any(len(plane.owners) for plane in net.planes.values())


def test_a_lease_outlives_its_renewals_and_no_more() -> None:
    net = net_of(1, 2, 3, 4)
    key = owned_by(net, 4, owner=False)
    net.submit(4, Watch(key=key))
    net.run(100)
    net.ask(1, Put(key, b"one", w=3))
    net.run(1)
    assert [e.kind for e in net.watched] == ["mark", "put"]
    net.crash(4)
    net.run(100)
    assert not any(len(plane.owners) for plane in net.planes.values())


def test_equal_replicas_are_compared_for_little() -> None:
    net = net_of(1, 2, 3)
    for n in range(30):
        net.ask(1, Put(f"key-{n}", b"v", w=3))
    net.run(60)
    before = net.frames
    found = [plane.counts["partition_syncs/begun"] for plane in net.planes.values()]
    net.run(600)
    # A survey is a question and an answer; each of three nodes makes one per half minute.
    assert net.frames - before <= 3 * 2 * 600 / 30 * 1.5
    assert [plane.counts["partition_syncs/begun"] for plane in net.planes.values()] == found


def test_a_survey_finds_what_writes_and_reads_did_not_repair() -> None:
    net = net_of(1, 2, 3)
    net.cut |= {frozenset((1, 3)), frozenset((2, 3))}
    for n in range(20):
        net.ask(1, Put(f"key-{n}", b"v"))
    net.heal()
    net.run(120)
    held = [sum(map(len, storage.records.values())) for storage in net.storages.values()]
    assert held == [20, 20, 20]
    coverage = [[p.replica.coverage(n) for n in range(8)] for p in net.planes.values()]
    assert coverage[0] == coverage[1] == coverage[2]


def surveys(net: Net) -> tuple[int, int]:
    """Return how many frames with all digests were sent, and how many with one hash of them."""
    counts = [plane.counts for plane in net.planes.values()]
    told, summed = "digest_rounds/sent", "digest_rounds/summed up"
    return sum(each[told] for each in counts), sum(each[summed] for each in counts)


def test_one_hash_is_all_that_is_sent_while_all_is_equal() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"on", w=3))
    net.run(120)
    before = surveys(net)
    net.run(600)
    after = surveys(net)
    assert after[0] == before[0]
    assert after[1] - before[1] >= 3 * 600 / 30 * 0.75


def test_who_spares_its_battery_is_asked_and_repaired_and_asks_seldom_itself() -> None:
    net = net_of(1, 2, 3)
    net.run(60)
    spared = net.planes[3]
    spared.repair.spares = lambda: True
    before = spared.counts["digest_rounds/summed up"]
    net.cut |= {frozenset((1, 3)), frozenset((2, 3))}
    net.ask(1, Put("lamp", b"on"))
    net.heal()
    net.run(240)
    assert net.storages[3].load(net.registry.partition_of("lamp"), "lamp"), "others have asked"
    assert spared.counts["digest_rounds/spared"] >= 5
    asked = spared.counts["digest_rounds/summed up"] - before
    net.run(7 * 3600)
    assert spared.counts["digest_rounds/summed up"] - before > asked, "some hours later it does"
    assert spared.counts["digest_rounds/summed up"] - before < asked + 10


def test_who_asks_for_hashes_all_the_time_is_answered_now_and_then() -> None:
    net = net_of(1, 2, 3)
    net.run(60)
    plane = net.planes[1]
    asked = CODEC.encode(DigestSummary(1, net.registry.epoch, bytes(16)))
    for _ in range(100):
        plane.receive_frame(asked, 2, net.now)
    assert plane.counts["digest_rounds/asked too often"] in (99, 100), "it may have just asked"


@pytest.mark.interpreted
def test_a_version_that_does_not_know_the_hash_is_compared_with_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It skips the frame."""
    net = net_of(1, 2, 3)
    old = net.planes[3]
    monkeypatch.setitem(old._handlers, DigestSummary, lambda *_: None)
    monkeypatch.setattr(old.repair, "survey", lambda _peer: None)
    net.cut |= {frozenset((1, 3)), frozenset((2, 3))}
    net.ask(1, Put("lamp", b"on"))
    net.cut.clear()
    net.run(240)
    partition = net.registry.partition_of("lamp")
    assert net.storages[3].load(partition, "lamp")


def test_frames_from_strangers_and_rubbish_are_counted_and_change_nothing() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"on", w=3))
    plane = net.planes[1]
    sent: list[bytes] = []
    net.send = lambda _sender, _to, data: sent.append(data)  # type: ignore[method-assign, assignment]
    net.submit(2, Put("lamp", b"off"))
    net.run(1)
    for data in sent:
        plane.receive_frame(data, 99, net.now)
        for end in range(len(data)):
            plane.receive_frame(data[:end], 2, net.now)
    assert plane.counts["frames_dropped/not_admitted"] == len(sent)
    assert plane.counts["frames_dropped/malformed"] > 0
    assert plane.replica.record(net.registry.partition_of("lamp"), "lamp").live[0].value == b"on"


# Placement changes


def grown(net: Net, number: int) -> None:
    registry = admit(net.registry, node(number))
    net.registry = registry
    net.start(number)
    net.adopt(registry)


def test_a_new_owner_takes_over_before_it_answers_and_a_former_one_lets_go_after() -> None:
    net = net_of(1, 2, 3)
    for n in range(40):
        net.ask(1, Put(f"key-{n}", str(n).encode(), w=3))
    grown(net, 4)
    net.run(30)
    for number, plane in net.planes.items():
        assert plane.handoff.unfinished() == 0
        owned = {p for p, owners in enumerate(net.registry.owners) if number in owners}
        assert set(plane.replica.holdings) == owned
        assert {p for p, rows in net.storages[number].records.items() if rows} <= owned
    for n in range(40):
        assert net.values(net.ask(4, Get(f"key-{n}", r=3))) == [str(n).encode()]


def test_growing_one_by_one_and_in_a_hurry_ends_complete() -> None:
    net = net_of(1)
    net.ask(1, Put("lamp", b"on"))
    for number in range(2, 8):
        grown(net, number)
        net.run(0.001)
    net.run(60)
    assert [plane.handoff.unfinished() for plane in net.planes.values()] == [0] * 7
    assert net.values(net.ask(7, Get("lamp", r=3))) == [b"on"]


def test_a_copy_that_was_let_go_and_taken_over_again_deletes_nothing() -> None:
    net = net_of(1, 2, 3)
    keys = [f"key-{n}" for n in range(40)]
    for key in keys:
        net.ask(1, Put(key, b"v", w=3))
    for _ in range(3):
        grown(net, 4)
        net.run(20)
        net.registry = remove(net.registry, 4)
        net.crash(4)
        net.storages.pop(4)
        net.adopt(net.registry)
        net.run(20)
    for key in keys:
        for number in net.planes:
            assert net.values(net.ask(number, Get(key, r=3))) == [b"v"]


def test_a_removed_dead_node_is_replaced() -> None:
    net = net_of(1, 2, 3, 4)
    for n in range(40):
        net.ask(1, Put(f"key-{n}", b"v", w=3))
    net.crash(2)
    net.adopt(remove(net.registry, 2))
    net.run(60)
    for n in range(40):
        assert net.values(net.ask(4, Get(f"key-{n}", r=3))) == [b"v"]


def test_who_is_behind_fetches_the_registry_and_answers_then() -> None:
    net = net_of(1, 2, 3)
    registry = admit(net.registry, node(4))
    net.registry = registry
    net.start(4)
    net.run(10)
    net.run(0)
    assert {plane.registry.epoch for plane in net.planes.values()} == {net.registry.epoch}
    assert net.registry.node(4)


def test_a_request_under_an_old_placement_follows_the_new_one() -> None:
    net = net_of(1, 2, 3, 4)
    registry = admit(net.registry, node(5))
    net.registry = registry
    net.start(5)
    net.adopt(registry, 1, 2, 3, 5)
    moved = next(f"key-{n}" for n in range(999) if 5 in registry.ownership_of(f"key-{n}").pending)
    assert net.ask(4, Put(moved, b"v")).outcome == "ok"
    assert net.planes[4].registry.epoch == 2
    net.run(10)
    assert net.values(net.ask(4, Get(moved, r=3))) == [b"v"]


def test_the_issuer_offers_and_nobody_else_pushes() -> None:
    net = net_of(1, 2, 3)
    registry = admit(net.registry, node(4))
    frames = net.frames
    net.planes[1].adopt(sign(registry), net.now, announce=True)
    net.settle(1)
    net.run(1)
    assert [plane.registry.epoch for plane in net.planes.values()] == [2, 2, 2]
    assert net.frames > frames


def test_a_forged_or_foreign_registry_is_refused() -> None:
    net = net_of(1, 2, 3)
    forged = sign(admit(net.registry, node(4))).replace(b"signed", b"singed")
    plane = net.planes[1]
    from gossip.core.errors import Forged
    from gossip.kv.messages import CODEC, RegistryOffer

    with pytest.raises(Forged):
        plane.adopt(forged, net.now)
    plane.receive_frame(CODEC.encode(RegistryOffer(forged)), 2, net.now)
    assert plane.counts["frames_dropped/bad_registry"] == 1
    assert plane.registry.epoch == 1


def test_what_two_owners_are_told_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(registry_of([1, 2, 3]))
    sent: list[bytes] = []
    deliver = net.send

    def send(sender: NodeId, to: NodeId, data: bytes) -> None:
        sent.append(data)
        deliver(sender, to, data)

    monkeypatch.setattr(net, "send", send)
    assert net.ask(1, Put("k", b"v", w=3)).outcome == "ok"
    stores = [data for data in sent if tag_of(data) == Store.__struct_config__.tag]
    assert len(stores) == 2
    assert stores[0] is stores[1]
