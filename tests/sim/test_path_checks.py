"""What small datagrams do not show: blocked streams and narrow paths are found, and only those."""

import msgspec
import pytest

from gossip.core.machine import SendDatagram
from gossip.core.tuning import LAN, NARROW_PACKET_BYTES, PACKET_BYTES_MAX, Tuning
from gossip.membership.detection import path_checks
from gossip.membership.detection.path_checks import Standing
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.network.reachability import PathStatus
from gossip.sim.driver import SimulatedDriver
from gossip.sim.host import Host
from gossip.sim.invariants import NoFalseDeath
from gossip.sim.network import Conditions
from gossip.sim.world import World

FOUND_S = 90.0
"""Each member looks every 10 s where something failed, a check may take as long, and several must
agree."""
HASTY = msgspec.structs.replace(LAN, path_check_s=1.0, path_fresh_s=3.0)
"""Hours of checks in minutes."""


def whole_world(count: int, loss: float = 0.0, seed: int = 1, tuning: Tuning = LAN) -> World:
    air = Conditions(loss=loss)
    world = World(seed, conditions=air, checkers=[NoFalseDeath()], tuning=tuning)
    world.add(*(f"n{number}" for number in range(count)))
    assert world.run_until(world.is_whole, within_s=30) is not None
    return world


def paths(world: World, at: str, to: str) -> PathStatus:
    host = world.hosts[at]
    return host.node.swim.paths_of(world.hosts[to].id, host.local(world.now))


def flags(world: World) -> set[tuple[str, str, str]]:
    """Return who found what of whom."""
    found = set()
    for at in world.up():
        for to in world.up():
            seen = paths(world, at, to)
            found |= {(at, to, "streamless")} if seen.streams_blocked else set()
            found |= {(at, to, "narrow")} if seen.narrow else set()
    return found


@pytest.mark.parametrize("count", [2, 5])
def test_blocked_streams_are_found_by_both_sides_and_nobody_dies(count: int) -> None:
    world = whole_world(count)
    world.network.block_streams("n0", "n1")
    expected = {("n0", "n1", "streamless"), ("n1", "n0", "streamless")}
    took_s = world.run_until(lambda: flags(world) == expected, within_s=LAN.path_fresh_s + FOUND_S)
    assert took_s is not None, flags(world)
    world.run(60)
    assert world.is_whole()
    assert flags(world) == expected
    world.network.unblock_streams("n0", "n1")
    assert world.run_until(lambda: not flags(world), within_s=LAN.path_fresh_s) is not None


def test_blocked_from_the_start_they_are_found_soon() -> None:
    world = World(1)
    world.network.block_streams("n0", "n1")
    world.add("n0", "n1", "n2")
    took_s = world.run_until(lambda: len(flags(world)) == 2, within_s=FOUND_S)
    assert took_s is not None, flags(world)


def test_where_a_stream_failed_is_looked_before_all_others() -> None:
    """Looks without a reason are far apart: the last of nine would come after minutes."""
    assert found_blocked_among_ten_s() is not None


@pytest.mark.slow
def test_without_that_order_it_would_take_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Standing, "is_doubtful")
    monkeypatch.setattr(
        Standing, "is_doubtful", property(lambda _: False, lambda _, __: None), raising=False
    )
    assert found_blocked_among_ten_s() is None


def found_blocked_among_ten_s() -> float | None:
    world = World(1)
    world.network.block_streams("n0", "n9")
    world.add(*(f"n{number}" for number in range(10)))
    return world.run_until(lambda: len(flags(world)) == 2, within_s=FOUND_S)


def test_a_narrow_path_is_found_and_packed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = whole_world(3)
    world.network.narrow("n0", "n1", PACKET_BYTES_MAX - 1)
    expected = {("n0", "n1", "narrow"), ("n1", "n0", "narrow")}
    took_s = world.run_until(lambda: flags(world) == expected, within_s=LAN.path_fresh_s + FOUND_S)
    assert took_s is not None, flags(world)

    sizes: list[int] = []
    send = SimulatedDriver._send_datagram

    def measured(self: SimulatedDriver, host: Host, effect: SendDatagram) -> None:
        if host.name == "n0" and effect.to == world.hosts["n1"].address:
            sizes.append(len(effect.data))
        send(self, host, effect)

    monkeypatch.setitem(world.driver._perform, SendDatagram, measured.__get__(world.driver))
    for number in range(60):  # more news than fit into one packet
        world.send_event("n2", f"event-{number}")
    world.run(20)
    assert max(sizes) > NARROW_PACKET_BYTES / 2, "there was much to tell"
    larger = {size for size in sizes if size > NARROW_PACKET_BYTES}
    assert larger <= {PACKET_BYTES_MAX}, "but for the checks, nothing is large"
    world.network.widen("n0", "n1")
    assert world.run_until(lambda: not flags(world), within_s=LAN.path_fresh_s) is not None


@pytest.mark.parametrize("seed", range(3))
def test_loss_is_not_taken_for_a_blocked_or_narrow_path(seed: int) -> None:
    world = whole_world(3, loss=0.1, seed=seed, tuning=HASTY)
    for _ in range(240):
        world.run(1)
        assert not flags(world)
    assert world.counts["path_checks/well"] > 100


def test_if_one_try_and_one_check_sufficed_loss_would_be_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(path_checks, "TRIES", 2)
    monkeypatch.setattr(path_checks, "NARROW_CHECKS", 1)
    with pytest.raises(AssertionError):
        test_loss_is_not_taken_for_a_blocked_or_narrow_path(1)


def test_without_the_packing_a_narrow_path_would_get_large_packets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Outbound, "narrow", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="nothing is large"):
        test_a_narrow_path_is_found_and_packed_for(monkeypatch)


@pytest.mark.slow
def test_where_all_is_well_little_is_sent() -> None:
    world = whole_world(3)
    world.run(2 * LAN.path_fresh_s)
    checks = world.counts["path_checks/begun"]
    assert 3 * 2 <= checks <= 3 * 2 * 2
    assert world.counts["path_checks/well"] == checks


def test_a_dead_member_is_not_said_to_be_behind_a_firewall() -> None:
    world = whole_world(3)
    world.vanish("n1")
    world.run(120)
    assert not flags(world)
    world.restart("n1")
    world.run(60)
    assert not flags(world)
