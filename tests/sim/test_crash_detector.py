"""A killed process is known everywhere at once, and nobody is killed by refusals that lie."""

import pytest

from gossip.core.machine import Instant
from gossip.membership.detection.crash_detector import CrashCheck, CrashDetector
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.members import REFUSED, MemberChanged, MemberState
from gossip.membership.network.reachability import PathStatus
from gossip.sim.host import Host
from gossip.sim.invariants import Checker, NoFalseDeath, Violation, WorldView
from gossip.sim.network import Conditions
from gossip.sim.world import World

KNOWN_TO_ALL_S = 2.0
SETTLED_S = 8.0
"""Everybody knows everybody, and keeps streams to those whom it watches."""
FORGED_EVERY_S = 0.02
LOSSY = Conditions(loss=0.3)


def settled_world(count: int, seed: int = 1, conditions: Conditions | None = None) -> World:
    world = World(seed, conditions=conditions or Conditions())
    world.add(*(f"n{number}" for number in range(count)))
    assert world.run_until(world.is_whole, within_s=30) is not None
    world.run(SETTLED_S)
    return world


def is_known_dead(world: World, name: str) -> bool:
    return all(world.members(other)[name] is MemberState.DEAD for other in world.up())


def time_to_know(world: World, name: str, within_s: float) -> float:
    took_s = world.run_until(lambda: is_known_dead(world, name), within_s=within_s)
    assert took_s is not None, str(world.trace)
    return took_s


class Reasons(Checker):
    """Remembers why members were held for dead."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def member_changed(self, world: WorldView, host: Host, change: MemberChanged) -> None:
        if change.member.state is MemberState.DEAD:
            self.heard.append(change.reason)


@pytest.mark.parametrize(
    "count",
    [2, 5, 10, pytest.param(30, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)],
)
def test_a_killed_process_is_known_to_all_within_two_seconds(count: int) -> None:
    world = settled_world(count)
    reasons = Reasons()
    world.checkers.append(reasons)
    world.crash("n1")
    assert time_to_know(world, "n1", within_s=60) < KNOWN_TO_ALL_S
    assert len(reasons.heard) == count - 1
    # Whoever is told directly, in answer to something outdated, is not told why.
    assert reasons.heard.count(REFUSED) > 0.5 * (count - 1)
    assert world.counts["crash_checks/convicted"] > 0


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_thirty_percent_loss_hardly_delays_that(seed: int) -> None:
    world = settled_world(10, seed, LOSSY)
    world.crash("n1")
    assert time_to_know(world, "n1", within_s=60) < KNOWN_TO_ALL_S + 1


def test_several_killed_at_once_are_known_as_fast() -> None:
    world = settled_world(10)
    world.crash("n1", "n2", "n3")
    took_s = max(time_to_know(world, name, within_s=60) for name in ("n1", "n2", "n3"))
    assert took_s < KNOWN_TO_ALL_S


def test_a_vanished_host_is_judged_by_its_silence() -> None:
    world = settled_world(5)
    world.vanish("n1")
    assert time_to_know(world, "n1", within_s=15) > KNOWN_TO_ALL_S
    counts = world.counts
    assert not counts["crash_reports/heard"]
    assert not counts["crash_checks/begun"]


def test_a_process_that_is_started_again_at_once_is_not_declared_dead() -> None:
    world = settled_world(5)
    world.crash("n1")
    world.run(0.3)
    world.restart("n1")
    assert world.run_until(world.is_whole, within_s=10) is not None
    world.run(10)
    assert not world.counts["deaths/declared"]
    assert not world.counts["crash_checks/convicted"]


def test_a_stopped_process_refuses_nothing() -> None:
    world = settled_world(5)
    world.pause("n1")
    world.run(3)
    world.resume("n1")
    world.run(10)
    assert world.is_whole()
    assert not world.counts["crash_checks/begun"]


def refusals_suffice(patch: pytest.MonkeyPatch) -> None:
    """Accuse on refusals alone, as if a host had no second way to say that a process is gone."""
    is_enough = CrashDetector._is_enough

    def mutant(self: CrashDetector, check: CrashCheck, timeout_s: float, now: Instant) -> bool:
        check.stream_gone = True
        return is_enough(self, check, timeout_s, now)

    patch.setattr(CrashDetector, "_is_enough", mutant)


def behind_a_rejecting_firewall(count: int, loss: float = 0.0, seconds: float = 90) -> World:
    """Let one of so many live behind a firewall that refuses datagrams and lets streams pass."""
    world = settled_world(count, conditions=Conditions(loss=loss))
    checker = NoFalseDeath()
    world.checkers.append(checker)
    world.network.reject("n1")
    world.run(seconds)
    assert world.counts["crash_reports/heard"] > 0, "there really was a firewall"
    assert loss or not checker.suspicions, "n1 was suspected"
    assert world.run_until(world.is_whole, within_s=30) is not None
    return world


@pytest.mark.parametrize("count", [2, 5, pytest.param(10, marks=pytest.mark.slow)])
def test_nobody_behind_a_firewall_that_rejects_datagrams_is_even_suspected(count: int) -> None:
    world = behind_a_rejecting_firewall(count)
    one, other = world.hosts["n0"], world.hosts["n1"]
    assert world.counts["crash_reports/proved wrong"] > 0
    paths = one.node.swim.paths_of(other.id, one.local(world.now))
    assert paths.udp_blocked
    assert paths.udp_in_s is not None
    world.network.admit("n1")
    world.run(30)
    assert not one.node.swim.paths_of(other.id, one.local(world.now)).udp_blocked


def test_loss_does_not_kill_behind_a_firewall_that_rejects() -> None:
    behind_a_rejecting_firewall(5, loss=0.1)


def test_if_refusals_sufficed_a_firewall_would_accuse(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals_suffice(monkeypatch)
    with pytest.raises(AssertionError, match=r"n1 was suspected|declared n1 dead"):
        behind_a_rejecting_firewall(5)


def test_behind_a_firewall_that_rejects_a_death_is_found_by_silence() -> None:
    world = behind_a_rejecting_firewall(5, seconds=20)
    world.crash("n1")
    time_to_know(world, "n1", within_s=15)


def forge(world: World, victim: str, seconds: float) -> None:
    """Tell every other node all the time that the victim's host refuses its datagrams."""
    address = world.hosts[victim].address
    until = world.now + seconds
    while world.now < until:
        for name in world.up():
            if name != victim:
                world.driver.call(
                    world.hosts[name], lambda node, now: node.port_unreachable(address, now)
                )
        world.run(FORGED_EVERY_S)


@pytest.mark.parametrize("count", [2, 5, pytest.param(10, marks=pytest.mark.slow)])
def test_a_flood_of_forged_refusals_kills_nobody(count: int) -> None:
    world = settled_world(count)
    checker = NoFalseDeath()
    world.checkers.append(checker)
    forge(world, "n1", seconds=60)
    assert world.is_whole()
    assert not checker.suspicions, "an answer comes before the second refusal counts"
    counts = world.counts
    assert counts["crash_reports/proved wrong"] >= count - 1
    assert counts["crash_reports/not believed"] > counts["crash_reports/heard"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_forged_refusals_under_loss_kill_nobody(seed: int) -> None:
    world = settled_world(10, seed, LOSSY)
    world.checkers.append(NoFalseDeath())
    forge(world, "n1", seconds=60)
    assert world.counts["crash_reports/proved wrong"] > 0
    assert world.run_until(world.is_whole, within_s=30) is not None


def test_without_its_rules_forged_refusals_would_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above would notice: here neither packets, answers nor refutations count."""
    world = settled_world(5)
    refusals_suffice(monkeypatch)
    monkeypatch.setattr(CrashDetector, "on_report", lambda *_: None)
    monkeypatch.setattr(CrashDetector, "ack", lambda *_: False)
    monkeypatch.setattr(CrashDetector, "pong", lambda *_: None)
    monkeypatch.setattr(MemberUpdates, "_about_us", lambda *_: None)
    world.checkers.append(NoFalseDeath())
    with pytest.raises(Violation, match="declared n1 dead"):
        forge(world, "n1", seconds=10)


def test_refusal_backoff_grows_so_that_a_forger_gets_ever_fewer_looks() -> None:
    world = settled_world(3)
    forge(world, "n1", seconds=60)
    early = world.counts["crash_checks/begun"]
    forge(world, "n1", seconds=60)
    # 10 + 20 + 40 s of refusal backoff in the first minute and a bit, 80 s in the second.
    assert 0 < early <= 2 * 3
    assert world.counts["crash_checks/begun"] - early <= 2


def test_forged_refusals_hide_no_death() -> None:
    """Refusal backoff costs the short way: the death is found by silence, as ever."""
    world = settled_world(5)
    forge(world, "n1", seconds=2)
    world.crash("n1")
    time_to_know(world, "n1", within_s=15)


def test_where_udp_is_blocked_a_stream_proves_life() -> None:
    world = settled_world(2)
    world.checkers.append(NoFalseDeath())
    world.network.block("n0", "n1")
    world.run(60)
    one, other = world.hosts["n0"], world.hosts["n1"]
    paths = one.node.swim.paths_of(other.id, one.local(world.now))
    assert paths.udp_blocked
    assert (paths.udp_in_s or 0) > 55
    assert (paths.udp_out_s or 0) > 55
    assert paths.stream_s is not None
    assert paths.stream_s < 5
    assert world.counts["probes/answered by stream"] > 10
    world.network.unblock("n0", "n1")
    world.run(10)
    assert not one.node.swim.paths_of(other.id, one.local(world.now)).udp_blocked


def test_a_stream_alone_does_not_prove_life_for_ever() -> None:
    world = settled_world(2)
    world.network.block("n0", "n1")
    world.run(world.tuning.stream_alone_s - 10)
    assert world.is_whole()
    world.run(60)
    assert world.members("n0")["n1"] is MemberState.DEAD
    assert world.counts["probes/streams not trusted"] > 0


def test_paths_of_a_stranger_are_unknown() -> None:
    world = settled_world(2)
    host = world.hosts["n0"]
    assert host.node.swim.paths_of(12345, host.local(world.now)) == PathStatus()
