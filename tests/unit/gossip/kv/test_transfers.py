"""Copies to new owners: one partition after the other, so many bytes a second, a few takers."""

import pytest

from gossip.core.ids import NodeId
from gossip.kv import sync_session
from gossip.kv.messages import CODEC, KeyPage, StatesSynced
from gossip.kv.requests import Get, Put
from gossip.kv.transfers import BURST_S, COUNTED_S, IDLE_S, ByteCounter, TransferBudget, Transfers
from gossip.registry.registry import admit
from tests.support.kv_net import Net, node, registry_of

PARTITIONS = 16
VALUE = b"v" * 20_000
KEYS = [f"key-{n}" for n in range(40)]
LIAR = 1
SLOW = TransferBudget(bytes_per_s=100_000)


def test_a_meter_forgets_what_is_ten_seconds_old() -> None:
    meter = ByteCounter()
    for second in range(100):
        meter.add(50, second + 0.1)
        meter.add(50, second + 0.6)
    assert meter.total == 10_000
    assert 90 <= meter.per_s(99.9) <= 110
    assert meter.per_s(99.9 + COUNTED_S + 2) == 0


def test_what_is_within_a_second_goes_at_once_and_what_follows_waits_for_its_turn() -> None:
    transfers = Transfers()
    rate = transfers.limits.bytes_per_s
    assert transfers.pause_s(rate, 100.0) == 0
    assert transfers.pause_s(rate, 100.0) == BURST_S
    assert transfers.pause_s(rate // 2, 102.0) == 0, "it has waited"


def test_a_few_are_served_at_a_time_and_who_is_done_makes_room() -> None:
    transfers = Transfers()
    assert [transfers.may_serve(n, 1.0) for n in (5, 6, 7, 5, 6)] == [True, True, False, True, True]
    assert transfers.may_serve(5, 2.0)
    assert transfers.may_serve(7, 1.1 + IDLE_S), "6 asked no more"
    assert not transfers.may_serve(6, 1.1 + IDLE_S)


class Copied(Net):
    """Three owners with large values, and what goes to who joins them."""

    def __init__(self, limits: TransferBudget = SLOW) -> None:
        self.limits = limits
        self.copied: dict[NodeId, int] = {}
        self.most = 0
        super().__init__(registry_of((1, 2, 3), PARTITIONS))
        for key in KEYS:
            assert self.ask(1, Put(key, VALUE, w=3)).outcome == "ok"

    def start(self, number: NodeId, registry: object = None) -> object:  # type: ignore[override]
        plane = super().start(number, registry)  # type: ignore[arg-type]
        plane.transfers.limits = self.limits
        return plane

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        if isinstance(CODEC.decode(data), StatesSynced):
            self.copied[to] = self.copied.get(to, 0) + len(data)
            self.most = max(self.most, self.planes[to].sync_sessions.transferring)
        super().send(sender, to, data)

    def join(self, *numbers: NodeId) -> None:
        for number in numbers:
            self.registry = admit(self.registry, node(number))
        for number in numbers:
            self.start(number, self.registry)
        self.adopt(self.registry)


def test_a_newcomer_copies_one_partition_after_the_other_as_fast_as_it_may() -> None:
    net = Copied()
    net.join(4)
    began = net.now
    while not net.registry.is_settled:
        net.run(0.1)
    size, took = net.copied[4], net.now - began
    assert size > 3 * SLOW.bytes_per_s, "there is something to wait for"
    assert size / took <= SLOW.bytes_per_s * 1.3
    assert net.most == 1
    assert net.ask(4, Get(KEYS[0])).values[0].data == VALUE
    assert net.planes[4].transfers.incoming.total >= size * 0.9


def test_reads_and_writes_do_not_wait_for_who_copies() -> None:
    net = Copied()
    net.join(4)
    net.run(1.0)
    assert not net.registry.is_settled
    for key in KEYS[:10]:
        began = net.now
        assert net.ask(2, Put(key, b"new")).outcome == "ok"
        assert net.values(net.ask(4, Get(key))) == [b"new"]
        assert net.now - began < 0.2


def test_who_begins_anew_goes_on_with_what_is_missing() -> None:
    net = Copied()
    net.join(4)
    while net.planes[4].transfers.incoming.total < 200_000:
        net.run(0.1)
    before = net.copied[4]
    net.crash(4)
    net.run(2.0)
    net.start(4, net.kept[4])
    net.crash(2)
    net.run(2.0)
    net.start(2, net.kept[2])
    while not net.registry.is_settled:
        net.run(0.5)
    again = net.copied[4] - before
    whole = sum(len(VALUE) for key in KEYS if 4 in net.registry.owners_of(key))
    assert before + again < whole + 200_000, "what it has is not copied once more"
    held = {key for key in KEYS if 4 in net.registry.owners_of(key)}
    assert held
    assert all(net.storages[4].load(net.registry.partition_of(key), key) for key in held)


def test_of_many_takers_some_are_sent_away_and_all_are_served_at_last() -> None:
    net = Copied(TransferBudget(inbound=2, outbound=1, bytes_per_s=300_000))
    net.join(4, 5, 6)
    until = net.now + 600
    while not net.registry.is_settled and net.now < until:
        net.run(0.5)
    assert net.registry.is_settled
    assert net.most == 2
    assert any(plane.counts["partition_syncs/put_off"] for plane in net.planes.values())
    net.run(30.0)
    assert not any(plane.handoff.unfinished() for plane in net.planes.values())


class Endless(Copied):
    """An owner that names keys without an end, which nobody has."""

    told = 0

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        message = CODEC.decode(data)
        if sender == LIAR and isinstance(message, KeyPage):
            self.told += 1
            key = f"x{self.told:09}"
            data = CODEC.encode(KeyPage(message.number, ((key, ()),), key))
        super().send(sender, to, data)


def test_an_owner_that_names_keys_without_an_end_keeps_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sync_session, "PASS_S", 1.0)
    net = Endless()
    net.join(4)
    until = net.now + 300
    while not net.registry.is_settled and net.now < until:
        net.run(0.5)
    assert net.told, "it was asked"
    assert net.registry.is_settled


def test_a_lost_peer_gives_up_what_waits_for_it_and_nothing_stands_still() -> None:
    net = Copied()
    net.join(4)
    net.run(1.5)
    for other in (1, 2, 3):
        net.cut.add(frozenset((4, other)))
    net.run(30.0)
    assert net.planes[4].sync_sessions.transferring <= 1
    net.heal()
    for other in (1, 2, 3):
        net.planes[4].peer_alive(other, net.now)
    net.settle(4)
    until = net.now + 120
    while not net.registry.is_settled and net.now < until:
        net.run(0.5)
    assert net.registry.is_settled
