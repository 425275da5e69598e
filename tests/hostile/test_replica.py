"""What one frame of a member may cost a node's state plane: time and memory in proportion to it."""

import pytest

from gossip.core.errors import Malformed
from gossip.kv import dots, records
from gossip.kv import messages as m
from gossip.kv.dots import PartitionClock
from gossip.kv.limits import (
    PARKED_BYTES_MAX,
    SURVEY_INTERVAL_S,
    SURVEY_PARTITIONS_MAX,
    VALUE_BYTES_MAX,
)
from gossip.kv.records import NOTHING, KeyState, Version, combine, coverage, merge
from gossip.kv.requests import Get, Put
from tests.support.kv_net import Net, registry_of

MANY = 20_000


class Counted:
    """Counts how often something is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> None:
        self.calls = 0
        original = getattr(where, name)

        def call(*arguments: object) -> object:
            self.calls += 1
            return original(*arguments)

        monkeypatch.setattr(where, name, call)


def scattered(actor: int = 1) -> KeyState:
    """A state as large as a frame: every other write of one actor."""
    live = tuple(Version(actor, 2 * n, 0, b"") for n in range(1, MANY))
    return KeyState(live, tuple((other, 1) for other in range(2, MANY)), ())


def test_a_clock_joins_its_intervals_once_for_each_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joined anew for each of the dots, one frame kept a node busy for hours."""
    joins = Counted(monkeypatch, dots, "join_intervals")
    clock = PartitionClock()
    told = coverage(scattered())
    assert clock.add(told) == {1}
    assert clock.add(told) == set()
    assert joins.calls == 1
    assert all(dot in clock for dot in told)
    assert (1, 3) not in clock


def test_a_clock_that_repeats_an_actor_is_absorbed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    joins = Counted(monkeypatch, dots, "join_intervals")
    clock = PartitionClock()
    assert clock.absorb(tuple((1, ((2 * n, 2 * n),)) for n in range(1, MANY))) == {1}
    assert joins.calls == 1


def test_intervals_that_end_before_they_begin_cover_nothing() -> None:
    clock = PartitionClock()
    assert clock.absorb(((1, ((5, 3),)), (2, ()))) == set()
    assert clock.coverage() == ()
    assert clock.absorb(((1, ((5, 3), (1, 2))),)) == {1}
    assert clock.coverage() == ((1, ((1, 2),)),)


def test_a_state_is_taken_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state = scattered()
    lookups = Counted(monkeypatch, records, "_highest")
    merged = merge(NOTHING, PartitionClock(), state)
    assert len(merged.live) == MANY - 1
    assert lookups.calls <= 4
    taken = Counted(monkeypatch, KeyState, "dots")
    assert len(combine([state, state, state]).live) == MANY - 1
    assert taken.calls <= 6
    assert lookups.calls <= 12


def test_questions_of_the_future_wait_in_bounded_memory() -> None:
    """Anybody with a certificate can name an epoch that nobody has signed yet."""
    net = Net(registry_of([1, 2, 3]))
    plane = net.planes[1]
    value = b"x" * VALUE_BYTES_MAX
    sent = 3 * PARKED_BYTES_MAX // VALUE_BYTES_MAX
    for number in range(sent):
        write = m.Forward(number, 99, "key", value, None, None, 1.0)
        plane.receive_frame(m.CODEC.encode(write), 2, net.now)
    assert plane.registry_sync._parked_bytes <= PARKED_BYTES_MAX
    kept = len(plane.registry_sync.unpark())
    assert 0 < kept == sent - plane.counts["frames_dropped/parked_too_many"]
    assert plane.registry_sync._parked_bytes == 0


def test_a_partition_is_scanned_once_however_often_it_is_named() -> None:
    net = Net(registry_of([1, 2, 3]))
    net.ask(1, Put("room/1", b"on"))
    plane = net.planes[1]
    scan = m.Scan(7, 1, (*range(8),) * 1000, "", "", 1000)
    plane.receive_frame(m.CODEC.encode(scan), 2, net.now)
    [answer] = [
        message
        for effect in plane.effects()
        if isinstance(message := m.CODEC.decode(getattr(effect, "data", b"\x91\x00")), m.Scanned)
    ]
    assert len(answer.partitions) == len(set(answer.partitions)) > 0
    assert len(answer.entries) == 1


@pytest.mark.parametrize(
    "message",
    [
        m.Subscribe(1, "k" * 513, True),
        m.Scan(1, 7, (0,), "k" * 513, "", 1),
        m.Scan(1, 7, (0,), "", "k" * 513, 1),
        m.KeyPageRequest(1, 7, 0, "k" * 513, 3),
        m.DigestRequest(1, 7, ((0, 0, 0),) * (SURVEY_PARTITIONS_MAX + 1)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_no_honest_node_asks_for_is_malformed(message: m.Message) -> None:
    with pytest.raises(Malformed):
        m.CODEC.decode(m.CODEC.encode(message))


LIES = {
    "as seen": lambda actor: KeyState((), (), tuple((actor, n) for n in range(1, 50))),
    "as far as one can count": lambda actor: KeyState((), ((actor, 2**60),), ()),
}


@pytest.mark.parametrize("lie", LIES)
def test_who_is_foretold_writes_as_another_from_then_on(lie: str) -> None:
    """Two owners took 1's next writes for ones that were replaced: acknowledged, and dropped."""
    net = Net(registry_of([1, 2, 3]))
    assert net.ask(1, Put("k", b"before")).outcome == "ok"
    partition = net.registry.partition_of("k")
    actor = net.planes[1].replica._partition(partition).actor
    told = m.CODEC.encode(m.Store(9, net.registry.epoch, "k", LIES[lie](actor)))
    for owner in (2, 3):
        net.planes[owner].receive_frame(told, 3, net.now)
        net.settle(owner)
    net.ask(1, Put("k", b"lost"))
    net.run(2 * SURVEY_INTERVAL_S)
    assert net.planes[1].counts["writes_foretold/ours"] >= 1
    for value in (b"new", b"newer"):
        assert net.ask(1, Put("k", value)).outcome == "ok"
        for reader in (1, 2, 3):
            assert net.values(net.ask(reader, Get("k"))) == [value]
    assert not any(net.planes[owner].counts["writes_foretold/ours"] for owner in (2, 3))
