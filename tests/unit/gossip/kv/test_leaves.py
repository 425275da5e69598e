"""Which keys are named to find one that differs, and with whom that works."""

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from gossip.core.ids import NodeId
from gossip.kv import messages as m
from gossip.kv.leaves import GROUPS, LEAVES, differing, leaf_of, leaves_of
from gossip.kv.messages import CODEC
from gossip.kv.records import Record, Version, record_mark
from gossip.kv.requests import Put
from gossip.kv.storage import ClockChange, HoldingChange, RecordChange
from tests.support.kv_net import Net, registry_of

KEYS = [f"key-{n}" for n in range(400)]
ACTOR = 7
PARTITIONS = 32


class Named(Net):
    """A net that notes which keys pages name, and how much of each kind of message is sent."""

    def __init__(self, partitions: int = 1) -> None:
        self.named: list[str] = []
        self.sent: Counter[str] = Counter()
        self.asked: list[tuple[int, ...]] = []
        self.is_lost: Callable[[m.Message], bool] = lambda _message: False
        super().__init__(registry_of((1, 2), partitions, 2))

    def start(self, number: NodeId, registry: object = None) -> object:  # type: ignore[override]
        del registry
        self.storages[number].apply(filled(self.registry.partitions))
        return super().start(number)

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        message = CODEC.decode(data)
        self.sent[type(message).__name__] += len(data)
        if isinstance(message, m.KeyPage):
            self.named += [key for key, _ in message.entries]
        if isinstance(message, m.DigestRequest):
            self.asked.append(tuple(partition for partition, *_ in message.marks))
        assert message is not None, "the planes speak their own language"
        if not self.is_lost(message):
            super().send(sender, to, data)

    def change(self, key: str, n: int, node: NodeId = 1) -> None:
        """Have one of the two hold another version, as after a write that missed the other."""
        record = Record((Version(ACTOR, n, 1, b"new"),), ((ACTOR, n),))
        partition = self.registry.partition_of(key)
        clock = ClockChange(partition, ACTOR, ((1, n),))
        self.storages[node].apply([RecordChange(partition, key, record), clock])
        self.planes[node].replica._partitions.clear()
        self.planes[node].replica._hot.drop_partition(partition)

    def held(self, node: NodeId, key: str) -> Record | None:
        return self.storages[node].load(self.registry.partition_of(key), key)

    def meet(self) -> None:
        self.planes[1].peer_alive(2, self.now)
        self.settle(1)
        self.run(5)


def filled(partitions: int) -> list[object]:
    """Return what both hold."""
    registry = registry_of((1, 2), partitions, 2)
    made: list[object] = [HoldingChange(p, 1) for p in range(partitions)]
    made += [ClockChange(p, ACTOR, ((1, len(KEYS)),)) for p in range(partitions)]
    for n, key in enumerate(KEYS, 1):
        record = Record((Version(ACTOR, n, 1, b"v"),), ((ACTOR, n),))
        made.append(RecordChange(registry.partition_of(key), key, record))
    return made


def test_a_key_stays_in_its_leaf_and_a_leaf_tells_of_its_keys_alone() -> None:
    marks = {key: record_mark(key, frozenset({(ACTOR, n)})) for n, key in enumerate(KEYS, 1)}
    before = leaves_of(marks)
    assert len(before) == LEAVES
    marks["key-7"] = record_mark("key-7", frozenset({(ACTOR, 999)}))
    assert differing(before, leaves_of(marks)) == {leaf_of("key-7")}


def test_of_four_hundred_keys_those_of_one_leaf_are_named() -> None:
    net = Named()
    net.change("key-7", 401)
    net.meet()
    assert net.held(2, "key-7") == net.held(1, "key-7")
    assert set(net.named) == {key for key in KEYS if leaf_of(key) == leaf_of("key-7")}
    assert net.planes[2].replica.clock_mark(0) == net.planes[1].replica.clock_mark(0)


@pytest.mark.parametrize("holder", [1, 2])
def test_a_key_that_one_lacks_altogether_is_found_as_well(holder: int) -> None:
    net = Named()
    net.change("new", 401, holder)
    net.meet()
    assert net.held(1, "new") == net.held(2, "new") != None  # noqa: E711 - neither lacks it
    assert len(net.named) < len(KEYS) / 10


def test_where_most_leaves_differ_all_keys_are_named_once() -> None:
    net = Named()
    for n, key in enumerate(KEYS[:200]):
        net.change(key, 401 + n)
    net.meet()
    assert all(net.held(2, key) == net.held(1, key) for key in KEYS)
    assert sorted(net.named) == sorted(KEYS)


def test_what_is_written_while_two_compare_is_not_missed() -> None:
    """The key is in its leaf with whatever lies under it by then."""
    net = Named()
    net.change("new", 401)
    net.is_lost = lambda message: isinstance(message, m.Store)
    net.planes[2].repair.want(0, 1)
    net.planes[2].repair.work(net.now)
    net.settle(2)
    while not net.sent["SyncStarted"]:
        net.run(0.0001)
    net.submit(1, Put("new", b"newer", w=1))  # after the digests of the leaves were told
    net.run(0.1)
    covered, held = net.planes[2].replica.coverage(0), net.held(2, "new")
    assert dict(covered)[ACTOR][-1][1] >= 401, "the clock was taken over"
    assert held
    assert held == net.held(1, "new")


def test_of_many_partitions_those_of_one_group_are_named() -> None:
    net = Named(PARTITIONS)
    net.change("key-7", 401)
    net.meet()
    assert net.held(2, "key-7") == net.held(1, "key-7")
    partition = net.registry.partition_of("key-7")
    [asked] = net.asked
    assert set(asked) == {p for p in range(PARTITIONS) if p % GROUPS == partition % GROUPS}


@pytest.mark.interpreted
@pytest.mark.parametrize("asker", [1, 2])
def test_a_version_before_leaves_and_groups_is_compared_with_as_it_was(
    monkeypatch: pytest.MonkeyPatch, asker: int
) -> None:
    """It names neither, and passes over being asked for some."""
    net = Named(PARTITIONS)
    net.change("key-7", 401)
    decode = CODEC.decode_known

    def as_before(data: bytes) -> object:
        message = decode(data)
        if isinstance(message, m.SyncStarted | m.KeyPageRequest):
            return msgspec.structs.replace(message, leaves=())
        if isinstance(message, m.SummaryReply):
            return msgspec.structs.replace(message, groups=())
        return message

    monkeypatch.setattr(m.CODEC, "decode_known", as_before)
    net.planes[asker].peer_alive(3 - asker, net.now)
    net.settle(asker)
    net.run(5)
    assert net.held(2, "key-7") == net.held(1, "key-7")
    assert sum(map(len, net.asked)) >= PARTITIONS


def test_messages_of_before_are_read_as_without_leaves_and_groups() -> None:
    former = (
        ("974301c292c307919201929201049206060390", m.SyncStarted, "leaves"),
        ("9744010700a46c616d700390", m.KeyPageRequest, "leaves"),
        ("944a01c390", m.SummaryReply, "groups"),
    )
    for now, kind, field in former:
        data = bytes.fromhex(now)
        short = bytes([data[0] - 1]) + data[1:-1]
        message = m.CODEC.decode(short)
        assert isinstance(message, kind)
        assert getattr(message, field) == ()
        assert m.CODEC.encode(message) == data
