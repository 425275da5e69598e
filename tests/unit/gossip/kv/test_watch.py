"""Watches over planes that can be cut off and crash: nothing acknowledged is missed in silence."""

import itertools
import zlib
from collections.abc import Callable

import msgspec
import pytest

from gossip.core.errors import InvalidRequest, Malformed
from gossip.kv import limits, watch_client, watched_partition
from gossip.kv.coverages import in_at_least, union
from gossip.kv.deletions import DELETING, DeletionMemory, is_deletion
from gossip.kv.dots import Coverage
from gossip.kv.messages import CODEC, Changed, WatchAsk, WatchedChange, WatchPage, WatchSubscribe
from gossip.kv.records import KeyState, Version
from gossip.kv.requests import Delete, Put, Watch, WatchEvent
from gossip.kv.watch import WatchSource
from gossip.kv.watch_token import decode_token, encode_token, watched_mark
from gossip.kv.watched_partition import NoRoom, Room, WatchedPartition
from tests.support.kv_net import Net, registry_of

SETTLED_S = 3 * limits.WATCH_SETTLE_S
RENEWED_S = 2 * limits.LEASE_RENEWAL_S


def net_of(*numbers: int, seed: int = 0) -> Net:
    return Net(registry_of(numbers), seed)


def told(net: Net, request: int) -> list[tuple[str, str, bytes]]:
    return [
        (event.kind, event.key, event.values[0].data if event.values else b"")
        for event in net.watched
        if event.request == request and event.kind != "mark"
    ]


def last_token(net: Net, request: int) -> bytes:
    marks = [e.token for e in net.watched if e.request == request and e.kind == "mark"]
    return marks[-1]


def begun(net: Net, number: int, watch: Watch) -> int:
    request = net.submit(number, watch)
    net.run(0.5)
    assert last_token(net, request)
    return request


def test_what_was_written_while_all_owners_were_cut_off_is_told_afterwards() -> None:
    net = net_of(1, 2, 3, 4, 5)
    request = begun(net, 5, Watch(prefix=""))
    net.cut |= {frozenset((5, other)) for other in (1, 2, 3, 4)}
    for n in range(20):
        net.ask(1, Put(f"key-{n}", b"v", w=2))
    net.ask(2, Delete("key-3", w=2))
    net.heal()
    net.run(RENEWED_S)
    puts = {key for kind, key, _ in told(net, request) if kind == "put"}
    assert puts == {f"key-{n}" for n in range(20)} - {"key-3"}
    assert ("delete", "key-3", b"") in told(net, request)


def test_each_write_is_told_one_by_one_where_nothing_is_lost() -> None:
    net = net_of(1, 2, 3)
    request = begun(net, 2, Watch(prefix="k"))
    for n in range(30):
        net.ask(1 + n % 3, Put(f"k{n % 4}", bytes([n])))
    net.run(SETTLED_S)
    assert [value for _, _, value in told(net, request)] == [bytes([n]) for n in range(30)]


def test_a_token_goes_on_at_another_node_with_just_what_is_missing() -> None:
    net = net_of(1, 2, 3, 4)
    request = begun(net, 4, Watch(prefix="k"))
    net.ask(1, Put("k1", b"one"))
    net.ask(1, Put("k2", b"two"))
    net.run(SETTLED_S)
    token = last_token(net, request)
    net.crash(4)
    net.ask(1, Put("k1", b"three"))
    net.ask(1, Put("k1", b"four"))
    net.ask(2, Delete("k2"))
    net.ask(2, Put("other", b"x"))
    again = begun(net, 3, Watch(prefix="k", since=token))
    net.run(SETTLED_S)
    assert sorted(told(net, again)) == [("delete", "k2", b""), ("put", "k1", b"four")]


def test_a_token_at_rest_brings_nothing_again() -> None:
    net = net_of(1, 2, 3)
    request = begun(net, 2, Watch(prefix=""))
    for n in range(10):
        net.ask(1, Put(f"key-{n}", b"v", w=3))
    net.run(SETTLED_S)
    again = begun(net, 1, Watch(prefix="", since=last_token(net, request)))
    net.run(RENEWED_S)
    assert told(net, again) == []


def test_a_watch_at_rest_costs_a_frame_for_each_reader_and_renewal() -> None:
    net = net_of(1, 2, 3, 4)
    for n in range(30):
        net.ask(1, Put(f"key-{n}", b"v", w=3))
    net.run(200)
    before = net.frames
    net.run(600)
    without = net.frames - before
    begun(net, 4, Watch(prefix=""))
    net.run(60)
    before = net.frames
    net.run(600)
    # A question and an answer, of three others; the own one takes no frame.
    assert net.frames - before - without <= 3 * 2 * 600 / limits.LEASE_RENEWAL_S * 1.1


def test_many_deletes_more_than_are_remembered_are_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossip.kv.deletions.DELETIONS_REMEMBERED_MAX", 2)
    net = net_of(1, 2, 3, 4)
    for n in range(12):
        net.ask(1, Put(f"key-{n}", b"v", w=3))
    request = begun(net, 4, Watch(prefix=""))
    net.isolate(4)
    for n in range(12):
        net.ask(1, Delete(f"key-{n}", w=3))
    net.heal()
    net.run(limits.WATCH_PATIENCE_S + 2 * RENEWED_S)
    kinds = [kind for kind, _, _ in told(net, request)]
    assert "gap" in kinds
    assert net.planes[4].counts["watches/gaps"]
    net.ask(1, Put("key-1", b"again", w=3))
    net.run(1)
    assert told(net, request)[-1] == ("put", "key-1", b"again")


def test_a_gap_is_said_where_all_who_knew_a_delete_began_anew() -> None:
    net = net_of(1, 2, 3, 4)
    net.ask(1, Put("k", b"v", w=3))
    request = begun(net, 4, Watch(key="k"))
    token = last_token(net, request)
    net.crash(4)
    net.ask(1, Delete("k", w=3))
    net.run(1)
    for number in (1, 2, 3):
        net.crash(number)
        net.start(number)
    net.start(4)
    again = net.submit(4, Watch(key="k", since=token))
    net.run(limits.WATCH_PATIENCE_S + 2 * RENEWED_S)
    assert [kind for kind, _, _ in told(net, again)] == ["gap"]


def test_a_token_is_for_the_keys_that_it_was_of() -> None:
    net = net_of(1, 2, 3)
    request = begun(net, 1, Watch(prefix="a/"))
    token = last_token(net, request)
    for watch in (
        Watch(prefix="b/", since=token),
        Watch(key="a/", since=token),
        Watch(prefix="a/", since=token[:-1]),
        Watch(prefix="a/", since=b"rubbish"),
        Watch(prefix="a/", since=encode_token(watched_mark("a/", is_prefix=True), {0: ()})),
    ):
        with pytest.raises(InvalidRequest):
            net.submit(2, watch)
    assert not len(net.planes[2].watchers)


def test_an_owner_of_an_earlier_version_is_heard_as_before() -> None:
    net = net_of(1, 2, 3, 4)
    key = next(k for k in map(str, range(99)) if 4 not in net.registry.ownership_of(k).owners)
    for number in (1, 2, 3):
        handlers = net.planes[number]._handlers
        for name in [each for each in handlers if each.__name__.startswith("Watch")]:
            handlers[name] = lambda *_: None  # skipped, as what is not known
    request = net.submit(4, Watch(key=key))
    net.run(RENEWED_S)
    net.ask(1, Put(key, b"v", w=3))
    net.run(1)
    assert ("put", key, b"v") in told(net, request)


def test_what_is_remembered_is_bounded_and_the_rest_put_off() -> None:
    partition = WatchedPartition(Room(2), settled=())

    def state(n: int) -> KeyState:
        version = Version(1, n, 0, b"v")
        return KeyState((version,), (), (version.dot,))

    assert partition.take("a", state(1), 1)
    assert partition.take("b", state(2), 1)
    with pytest.raises(NoRoom):
        partition.take("c", state(3), 1)
    for reader in (1, 2):
        partition.completed(partition.reader(reader, 1), ((1, ((1, 2),)),))
    assert partition.settle((1, 2, 3)) == ()
    assert partition.settled == ((1, ((1, 2),)),)
    assert partition.take("c", state(3), 1)


def test_who_tells_of_what_nobody_has_takes_its_own_room_alone() -> None:
    partition = WatchedPartition(Room(4), settled=())
    lies = tuple((9, n) for n in range(1, 5))
    version = Version(1, 1, 0, b"v")
    assert partition.take("a", KeyState((version,), (), ((9, 1),)), 3)
    with pytest.raises(NoRoom):
        partition.take("a", KeyState((version,), (), lies), 3)
    with pytest.raises(NoRoom):
        partition.take("b", KeyState((), (), ((9, 10), (9, 11), (9, 12), (9, 13))), 3)
    assert partition.take("b", KeyState((Version(1, 2, 0, b"v"),), (), ((1, 2),)), 1)


def lying(
    monkeypatch: pytest.MonkeyPatch, liar: int, lie: Callable[[WatchPage], WatchPage]
) -> None:
    """Have an owner answer the questions of watches otherwise than it should."""
    honest = WatchSource._page

    def page(source: WatchSource, message: WatchAsk, *, is_first: bool) -> WatchPage:
        told = honest(source, message, is_first=is_first)
        return lie(told) if source._outbound.me == liar else told

    monkeypatch.setattr(WatchSource, "_page", page)


PHANTOMS: Coverage = ((7, ((1, 40_000),)),)


def test_a_clock_that_nobody_reaches_is_a_gap_and_then_all_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A liar that is heard at the beginning of a watch, and level alone with what it said."""

    def lie(page: WatchPage) -> WatchPage:
        extras = union([page.extras, PHANTOMS])
        return msgspec.structs.replace(page, is_level=True, extras=extras, entries=())

    lying(monkeypatch, 3, lie)
    net = net_of(1, 2, 3)
    net.delay_s = lambda a, b: 0.5 if {a, b} == {1, 2} else 0.001  # the liar is heard in time
    net.planes[3].replica.listener = lambda *_: None
    request = net.submit(1, Watch(prefix="k"))
    net.run(limits.WATCH_PATIENCE_S + 2 * RENEWED_S)
    assert [e.reason for e in net.watched if e.kind == "gap"], "it is said that something is amiss"
    net.ask(2, Put("k1", b"v"))
    net.run(RENEWED_S)
    assert ("put", "k1", b"v") in told(net, request)


def test_pages_without_end_hold_up_nobody_but_their_teller(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()

    def lie(page: WatchPage) -> WatchPage:
        return msgspec.structs.replace(page, is_level=True, horizon=f"k{next(numbers):09}")

    net = net_of(1, 2, 3)
    request = begun(net, 1, Watch(prefix="k"))
    lying(monkeypatch, 3, lie)
    net.delay_s = lambda a, b: 0.5 if 3 in (a, b) else 0.001
    net.ask(2, Put("k1", b"v"))
    net.run(RENEWED_S)
    before = last_token(net, request)
    net.ask(2, Put("k1", b"w"))
    net.run(limits.WATCH_PATIENCE_S + 3 * RENEWED_S)
    assert last_token(net, request) != before, "it goes on by what most have told"


def test_one_node_has_its_share_of_subscriptions_and_nobody_is_left_in_the_dark() -> None:
    net = net_of(1, 2, 3, 4)
    key = next(key for key in map(str, range(99)) if 4 not in net.registry.owners_of(key))
    owners = net.registry.owners_of(key)
    net.cut |= {frozenset((4, each)) for each in owners}  # else it would say that nobody watches
    for number in range(2 * limits.PEER_SUBSCRIPTIONS_MAX):
        frame = CODEC.encode(WatchSubscribe(10_000 + number, "other", is_prefix=False, marks=()))
        for each in owners:
            net.planes[each].receive_frame(frame, 4, net.now)
    net.run(0.1)
    has = [len(net.planes[each].owners) for each in owners]
    assert has == [limits.PEER_SUBSCRIPTIONS_MAX] * 3
    other = begun(net, owners[0], Watch(key=key))
    has = [len(net.planes[each].owners) for each in owners]
    assert has == [limits.PEER_SUBSCRIPTIONS_MAX + 1] * 3, "others have room"
    net.heal()
    over = begun(net, 4, Watch(key=key))
    net.run(SETTLED_S)
    net.ask(owners[0], Put(key, b"v"))
    assert ("put", key, b"v") in told(net, other), "at once"
    assert ("put", key, b"v") not in told(net, over), "it has had its share"
    net.run(limits.LEASE_RENEWAL_S)
    assert ("put", key, b"v") in told(net, over), "when it asks"


def test_more_changes_than_can_be_remembered_are_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The honest case: a watch was cut off, and most owners have more to tell than fits."""
    monkeypatch.setattr(watch_client, "WATCH_MEMORY_DOTS", 30)
    monkeypatch.setattr(watch_client, "TELLER_DOTS_MIN", 1)
    net = net_of(1, 2, 3, 4)
    request = begun(net, 4, Watch(prefix="k"))
    net.cut |= {frozenset((4, other)) for other in (1, 2, 3)}
    for n in range(400):
        net.ask(1 + n % 3, Put(f"k{n}", b"v", w=2))
    net.heal()
    net.run(limits.WATCH_PATIENCE_S + 3 * RENEWED_S)
    gaps = [event.reason for event in net.watched if event.kind == "gap"]
    assert watched_partition.PUT_OFF in gaps
    before = len(told(net, request))
    net.ask(1, Put("k1", b"after"))
    net.run(RENEWED_S)
    assert ("put", "k1", b"after") in told(net, request)[before:], "it goes on behind the gap"


def test_nothing_is_settled_that_one_reader_alone_has() -> None:
    partition = WatchedPartition(Room(9), settled=())
    partition.completed(partition.reader(1, 1), ((1, ((1, 5),)),))
    assert partition.settle((1, 2, 3)) is None
    partition.completed(partition.reader(2, 1), ((1, ((4, 4),)),))
    partition.settle((1, 2, 3))
    assert partition.settled == ((1, ((4, 4),)),)


UNSOUND: Coverage = ((1, ((9, 2), (5, 6), (1, 5))), (1, ((7, 3),)))
"""What no clock is: intervals that end before they begin, in no order, an actor twice."""


def test_no_reader_ends_the_watching_node_by_a_clock_that_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = net_of(1, 2, 3)
    honest = WatchSource._page

    def page(source: WatchSource, message: WatchAsk, *, is_first: bool) -> WatchPage:
        told = honest(source, message, is_first=is_first)
        return msgspec.structs.replace(told, extras=UNSOUND) if source._outbound.me == 3 else told

    monkeypatch.setattr(WatchSource, "_page", page)
    request = begun(net, 1, Watch(prefix="k"))
    net.ask(2, Put("k", b"v"))
    net.run(RENEWED_S)
    assert ("put", "k", b"v") in told(net, request)


def test_a_page_that_goes_on_with_nobodys_life_is_no_message() -> None:
    page = WatchPage(1, 0, is_level=True, extras=(), entries=(), others=(), horizon="a")
    with pytest.raises(Malformed):
        CODEC.decode(CODEC.encode(page))


@pytest.mark.parametrize("is_state", [True, False])
def test_no_owner_shows_a_key_that_is_not_watched(*, is_state: bool) -> None:
    net = net_of(1, 2, 3)
    request = begun(net, 1, Watch(prefix="a/"))
    (number,) = net.planes[1].watchers._watches
    version = Version(9, 1, 1, b"secret")
    state = KeyState((version,), (), ())
    frame = (
        WatchedChange(number, "b/secret", state, net.planes[2].outbound.life, 99)
        if is_state
        else Changed(number, "b/secret", (version,), (), 1)
    )
    net.planes[1].receive_frame(CODEC.encode(frame), 2, net.now)
    net.settle(1)
    assert told(net, request) == []
    assert net.planes[1].counts["frames_dropped/not_watched"] == 1


def test_a_token_that_no_watch_gave_ends_nobody() -> None:
    clock = decode_token(encode_token(7, {0: UNSOUND}), 7)[0]
    assert in_at_least(1, [clock]) == clock
    beneath = msgspec.msgpack.encode((1, 7, (5,), ((0, ((-1, ((1, 2),)),)),)))
    with pytest.raises(InvalidRequest):
        decode_token(zlib.compress(beneath), 7)


def test_who_is_behind_is_not_believed_and_another_life_neither() -> None:
    partition = WatchedPartition(Room(9), settled=((1, ((1, 5),)),))
    view = partition.reader(1, life=7)
    assert not partition.is_believed(1, 7)
    partition.completed(view, ())
    assert partition.is_believed(1, 7)
    assert not partition.is_believed(1, 8)
    partition.fell_behind(view)
    assert not partition.is_believed(1, 7)


def test_what_was_told_and_is_nowhere_any_more_is_a_gap() -> None:
    partition = WatchedPartition(Room(9), settled=((1, ((1, 5),)),))
    for reader in (1, 2):
        partition.fell_behind(partition.reader(reader, 1))
    assert partition.gap(None, (1, 2, 3), 100.0) == ""
    late = 100.0 + limits.WATCH_PATIENCE_S
    assert partition.gap(None, (1, 2, 3), late) == watched_partition.LOST
    assert not partition.is_ready


def test_an_owner_remembers_so_many_deletes_and_says_of_which_keys() -> None:
    memory = DeletionMemory()
    for n in range(1, limits.DELETIONS_REMEMBERED_MAX + 3):
        memory.record(0, f"k{n}", [(DELETING | 1, n), (1, n)])
    assert len(memory) == limits.DELETIONS_REMEMBERED_MAX
    missing = ((DELETING | 1, ((1, 4),)), (1, ((1, 4),)))
    assert memory.among(0, missing) == {"k3": [(DELETING | 1, 3)], "k4": [(DELETING | 1, 4)]}
    assert memory.among(1, missing) == {}


def test_a_delete_has_a_dot_and_its_clock_shows_it() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("k", b"v", w=3))
    before = net.planes[2].replica.coverage(net.registry.partition_of("k"))
    net.ask(1, Delete("k", w=3))
    after = net.planes[2].replica.coverage(net.registry.partition_of("k"))
    [new] = {actor for actor, _ in after} - {actor for actor, _ in before}
    assert is_deletion((new, 1))
    assert not any(is_deletion((actor, 1)) for actor, _ in before)


def test_events_have_what_their_kind_says() -> None:
    net = net_of(1)
    begun(net, 1, Watch(prefix=""))
    net.ask(1, Put("k", b"v"))
    net.ask(1, Delete("k"))
    net.run(SETTLED_S)
    for event in net.watched:
        assert isinstance(event, WatchEvent)
        assert bool(event.token) == (event.kind == "mark")
        assert bool(event.values) == (event.kind == "put")
