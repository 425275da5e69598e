"""Whole nodes find each other, notice crashes, forgive loss and pauses, and heal after splits."""

from functools import partial

import pytest

from gossip.core.machine import Address
from gossip.membership.model.members import MemberState
from gossip.node import Node
from gossip.sim.invariants import NoFalseDeath
from gossip.sim.network import Conditions
from gossip.sim.world import World

NAMES = [f"n{number}" for number in range(50)]
OUTSIDER = Address("192.0.2.66", 6666)


def whole_world(count: int, seed: int = 1) -> World:
    """Return a world of this many nodes that all know each other."""
    world = World(seed)
    world.add(*NAMES[:count])
    assert world.run_until(world.is_whole, within_s=10) is not None
    return world


def seen(world: World, subject: str) -> set[MemberState]:
    """Return what the other running nodes think of a member."""
    return {world.members(name)[subject] for name in world.up() if name != subject}


def seen_as(world: World, subject: str, state: MemberState) -> bool:
    return seen(world, subject) == {state}


@pytest.mark.parametrize("count", [2, 5, 30])
def test_all_that_start_at_once_know_all(count: int) -> None:
    world = World(seed=3)
    world.add(*NAMES[:count])
    assert world.run_until(world.is_whole, within_s=5) is not None


@pytest.mark.parametrize("count", [2, 5, pytest.param(30, marks=pytest.mark.slow)])
def test_a_crash_is_known_to_all(count: int) -> None:
    world = whole_world(count)
    world.crash("n1")
    took_s = world.run_until(lambda: seen_as(world, "n1", MemberState.DEAD), within_s=60)
    assert took_s is not None


def test_who_starts_again_is_the_same_member_in_a_new_life() -> None:
    world = whole_world(3)
    before = world.hosts["n0"].node.swim.members[world.hosts["n1"].id]
    world.crash("n1")
    world.run(30)
    world.restart("n1")
    assert world.run_until(world.is_whole, within_s=10) is not None
    after = world.hosts["n0"].node.swim.members[world.hosts["n1"].id]
    assert after.id == before.id
    assert after.boot > before.boot


def test_a_restart_within_a_probe_period_is_seamless() -> None:
    world = whole_world(3)
    world.crash("n1")
    world.restart("n1")
    assert world.run_until(world.is_whole, within_s=5) is not None


@pytest.mark.parametrize(
    "split_s", [20, *(pytest.param(each, marks=pytest.mark.slow) for each in (600, 3600))]
)
def test_a_split_heals_by_itself_however_long_it_lasted(split_s: float) -> None:
    world = whole_world(4)
    world.partition(NAMES[:1], NAMES[1:4])
    world.run(split_s)
    assert world.alive("n0") == {"n0"}
    assert world.alive("n3") == {"n1", "n2", "n3"}
    world.heal()
    assert world.run_until(world.is_whole, within_s=60) is not None


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 10])
def test_ten_percent_loss_kills_nobody(count: int) -> None:
    checker = NoFalseDeath()
    world = World(seed=5, conditions=Conditions(loss=0.1), checkers=[checker])
    world.add(*NAMES[:count])
    world.run(600)
    assert world.counts["probes/relayed"] > 0
    assert world.counts["probes/answered by stream"] > 0
    assert world.counts["world/datagrams/lost"] > 0


def test_a_pause_of_three_seconds_kills_nobody() -> None:
    checker = NoFalseDeath()
    world = whole_world(5)
    world.checkers.append(checker)
    for name in NAMES[:5] * 3:
        world.pause(name)
        world.run(3)
        world.resume(name)
        world.run(5)
    assert world.is_whole()


def test_who_was_paused_for_long_accuses_nobody() -> None:
    world = whole_world(5)
    world.pause("n0")
    world.run(120)
    assert seen(world, "n0") == {MemberState.DEAD}
    before = world.counts["suspicions/begun"]
    world.resume("n0")
    assert world.run_until(world.is_whole, within_s=30) is not None
    assert world.counts["suspicions/begun"] == before


def test_a_one_way_cut_between_two_kills_nobody() -> None:
    """The others lend their links: that is what indirect probes are for."""
    world = whole_world(5)
    world.checkers.append(NoFalseDeath())
    world.cut("n0", "n1")
    world.run(120)
    assert world.is_whole()


def test_who_leaves_is_not_mourned() -> None:
    world = whole_world(4)
    world.leave("n2")
    world.run(5)
    assert seen_as(world, "n2", MemberState.LEFT)
    assert not world.counts["deaths/declared"]


def test_a_device_that_boots_alone_finds_the_others_later() -> None:
    world = whole_world(3)
    world.crash("n0", "n1", "n2")
    world.restart("n0")
    world.run(300)
    assert world.alive("n0") == {"n0"}
    world.restart("n1", "n2")
    assert world.run_until(world.is_whole, within_s=60) is not None


def test_garbage_is_counted_and_changes_nothing() -> None:
    world = whole_world(3)
    host, heard = world.hosts["n0"], list[bytes]()
    receive = host.node.receive

    def listen(data: bytes, source: Address, now: float) -> None:
        heard.append(data)
        receive(data, source, now)

    def arrive(data: bytes, node: Node, now: float) -> None:
        receive(data, OUTSIDER, now)

    host.node.receive = listen  # type: ignore[method-assign]
    world.run(5)
    packet = heard[-1]
    before = list(host.node.swim.members)
    flipped = packet[:-1] + bytes([packet[-1] ^ 1])
    for data in (b"", b"\0" * 100, packet[:20], flipped, packet):
        world.driver.call(host, partial(arrive, data))
    counts = world.counts
    assert counts["datagrams_dropped/malformed"] == 3
    assert counts["datagrams_dropped/forged"] + counts["datagrams_dropped/replayed"] == 2
    assert list(host.node.swim.members) == before


def test_frames_of_unknown_kinds_are_skipped_and_counted() -> None:
    world = whole_world(2)
    host = world.hosts["n0"]
    peer = world.hosts["n1"].id

    def arrive(data: bytes, node: Node, now: float) -> None:
        node.receive_frame(data, peer, now)

    for data in (b"", b"\xff\xff", b"\x91\x7f", b"\x91\x20", b"\x91\x30"):
        world.driver.call(host, partial(arrive, data))
    assert world.counts["frames_dropped/malformed"] >= 2
    assert world.counts["frames_skipped/unknown"] == 2
    assert world.is_whole()
