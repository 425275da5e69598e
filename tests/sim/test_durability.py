"""What a power cut of all devices at once leaves: all that was acknowledged with ``fsync``.

A write of ``flush`` costs no sync, and may be gone then; that is what it says.
"""

import msgspec
import pytest

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.messages import Store, Stored
from gossip.kv.outbound import OutboundFrames
from gossip.kv.replica_server import ReplicaServer
from gossip.kv.requests import Delete, PutResult
from gossip.kv.writes import Writes
from gossip.sim.operations import Operation
from gossip.sim.world import World
from tests.sim.test_kv import done

SEEDS = range(12)
KEYS = 12
ALL_BACK_S = 120


def world_of(*names: str, seed: int = 1) -> World:
    """Return a world without judges: what these tests lose on purpose, others look for."""
    world = World(seed)
    world.add(*names)
    assert world.run_until(world.is_settled, within_s=30) is not None
    return world


def cut(world: World) -> None:
    """Let the power of all fail."""
    world.lose_all_power()
    world.run(5)


def come_back(world: World) -> None:
    """Start all again; wait until they hold the same."""
    world.restart("a", "b", "c")
    assert world.run_until(world.replicas_agree, within_s=ALL_BACK_S) is not None


def written(seed: int, *, fsync: bool, delay_s: float = 0.0) -> tuple[World, list[Operation]]:
    """Write some keys at all nodes, and cut the power as soon as the last is acknowledged."""
    world = world_of("a", "b", "c", seed=seed)
    puts = [
        world.put("abc"[n % 3], f"k/{n}", b"%d" % n, w=(None, 3, 1)[n % 3], fsync=fsync)
        for n in range(KEYS)
    ]
    for put in puts:
        done(world, put)
    world.run(delay_s)
    cut(world)
    return world, [put for put in puts if put.outcome == "ok"]


def short(world: World, puts: list[Operation]) -> list[str]:
    """Return the keys that fewer disks have than their writes were to be on."""
    found = []
    for put in puts:
        assert isinstance(put.result, PutResult)
        partition = world.issuer.newest.partition_of(put.key)
        disks = [host.storage.load(partition, put.key) for host in world.hosts.values()]
        if sum(each is not None for each in disks) < put.result.needed:
            found.append(put.key)
    return found


def lost(world: World, puts: list[Operation]) -> list[str]:
    """Return the keys that are gone when all are back."""
    come_back(world)
    reads = [(put, done(world, world.get("a", put.key))) for put in puts]
    return [put.key for put, read in reads if not read.values]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_acknowledged_with_fsync_survives_the_power_of_all(seed: int) -> None:
    world, puts = written(seed, fsync=True)
    assert len(puts) == KEYS
    assert not short(world, puts)
    assert not lost(world, puts)


def test_what_was_acknowledged_without_may_be_gone_for_a_second_and_costs_no_sync() -> None:
    worlds = [written(seed, fsync=False) for seed in SEEDS]
    assert any(lost(world, puts) for world, puts in worlds)
    assert all(world.driver.counts["disks/syncs"] == 0 for world, _ in worlds)
    later, puts = written(1, fsync=False, delay_s=2.0)
    assert not lost(later, puts)


def test_many_writes_share_a_sync() -> None:
    world = world_of("a", "b", "c")
    for put in [world.put("a", f"k/{n}", b"v", fsync=True) for n in range(300)]:
        assert done(world, put).outcome == "ok"
    assert 3 <= world.driver.counts["disks/syncs"] < 60


def test_a_delete_with_fsync_is_not_undone() -> None:
    world = world_of("a", "b", "c")
    done(world, world.put("a", "k", b"v", fsync=True))
    delete = world.submit("b", Delete("k", fsync=True))
    assert done(world, delete).outcome == "ok"
    cut(world)
    come_back(world)
    assert done(world, world.get("c", "k")).values == []


def test_what_a_former_life_wrote_is_synced_before_it_counts() -> None:
    """A process that finds a state on its disk does not know whether anybody has synced it."""
    world = world_of("a", "b", "c")
    assert done(world, world.put("a", "k", b"v", w=3)).outcome == "ok"
    world.crash("a", "b", "c")
    world.restart("a", "b", "c")
    read = done(world, world.get("a", "k"))
    before = world.driver.counts["disks/syncs"]
    assert done(world, world.put("a", "k", b"w", after=read, w=3, fsync=True)).outcome == "ok"
    assert world.driver.counts["disks/syncs"] >= before + 3


def _says_so_early(self: OutboundFrames, message: object, to: int, after: int) -> None:
    self.send(message, to, after)  # type: ignore[arg-type]


@pytest.mark.interpreted
def test_who_says_so_before_its_sync_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OutboundFrames, "send_synced", _says_so_early)
    assert any(short(*written(seed, fsync=True)) for seed in SEEDS)


@pytest.mark.interpreted
def test_who_counts_what_is_not_synced_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners of a version that knows nothing of it answer at once, and do not say that they did."""
    store = ReplicaServer.store

    def as_before(self: ReplicaServer, message: Store, peer: NodeId, now: Instant) -> None:
        store(self, msgspec.structs.replace(message, fsync=False), peer, now)

    monkeypatch.setattr(ReplicaServer, "store", as_before)
    world = world_of("a", "b", "c")
    assert done(world, world.put("a", "k", b"v", w=3, fsync=True)).outcome == "indeterminate"
    stored = Writes.stored

    def counts_all(self: Writes, message: Stored, peer: NodeId, now: Instant) -> bool:
        return stored(self, Stored(message.number, synced=True), peer, now)

    monkeypatch.setattr(Writes, "stored", counts_all)
    assert any(short(*written(seed, fsync=True)) for seed in SEEDS)
