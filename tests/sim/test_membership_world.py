"""A membership world finds what a world finds; a seed decides it; who begins settled is settled."""

import statistics

import pytest

from gossip.core.tuning import ENVELOPE_BYTES
from gossip.membership.model.members import MemberChanged, MemberState
from gossip.sim.membership_world import Kind, MembershipWorld, SimMember
from gossip.sim.network import Conditions
from gossip.sim.world import World

SIZE = 8
NAMES = [f"n{number}" for number in range(SIZE)]
LOSSY = Conditions(loss=0.1)


def membership_world_of(seed: int, conditions: Conditions = LOSSY) -> MembershipWorld:
    membership = MembershipWorld(seed, conditions=conditions)
    membership.add(SIZE)
    return membership


def world_of(seed: int, conditions: Conditions = LOSSY) -> World:
    world = World(seed, conditions=conditions)
    world.add(*NAMES)
    return world


def detection_s(covey: MembershipWorld | World, kind: Kind) -> float:
    """Return how long it takes until all know of a death."""
    assert covey.run_until(covey.is_whole, within_s=30) is not None
    covey.run(5)
    covey.crash("n3", kind=kind)
    left = [name for name in NAMES if name != "n3"]
    took = covey.run_until(
        lambda: all(covey.members(name)["n3"] is MemberState.DEAD for name in left), within_s=60
    )
    assert took is not None
    return took


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["process", "host"])
def test_a_crash_is_noticed_as_fast_as_in_a_world(kind: Kind) -> None:
    flocks = [detection_s(membership_world_of(seed), kind) for seed in range(6)]
    worlds = [detection_s(world_of(seed), kind) for seed in range(6)]
    assert statistics.median(flocks) == pytest.approx(statistics.median(worlds), rel=0.4)


def test_a_split_kills_and_heals_as_in_a_world() -> None:
    for covey in (membership_world_of(1), world_of(1)):
        covey.run(10)
        covey.network.partition([NAMES[:3], NAMES[3:]])
        covey.run(60)
        assert covey.alive("n0") == {*NAMES[:3]}
        assert covey.alive("n7") == {*NAMES[3:]}
        covey.network.heal()
        healed_s = covey.run_until(covey.is_whole, within_s=60)
        assert healed_s is not None


@pytest.mark.slow
def test_loss_alone_kills_nobody_in_either() -> None:
    conditions = Conditions(loss=0.3)
    for covey in (membership_world_of(2, conditions), world_of(2, conditions)):
        covey.run(120)
        assert all(covey.alive(name) == {*NAMES} for name in NAMES)


def test_a_seed_decides_everything() -> None:
    def story(seed: int) -> list[tuple[float, str, int, str]]:
        told: list[tuple[float, str, int, str]] = []

        def changed(sim_member: SimMember, change: MemberChanged, now: float) -> None:
            told.append((now, sim_member.name, change.member.id, change.reason))

        membership = MembershipWorld(seed, conditions=LOSSY, changed=changed)
        membership.add(SIZE)
        membership.run(10)
        membership.crash("n1")
        membership.run(20)
        told.append((membership.now, "all", membership.bytes_sent, ""))
        return told

    assert story(5) == story(5)
    assert story(5) != story(6)


def test_who_begins_settled_has_nothing_to_tell_and_notices_a_crash() -> None:
    deaths: list[str] = []

    def changed(sim_member: SimMember, change: MemberChanged, now: float) -> None:
        if change.member.id == sim_member.id:
            return
        assert change.member.state is not MemberState.ALIVE, "nobody is news"
        if change.member.state is MemberState.DEAD:
            deaths.append(sim_member.name)

    membership = MembershipWorld(3, changed=changed)
    membership.settle(50)
    assert membership.is_whole()
    membership.run(20)
    # A ping and an ack for each probe of a second, and hardly anything else.
    assert membership.datagrams_sent == pytest.approx(2 * 50 * 20, rel=0.05)
    membership.crash("n7", kind="host")
    membership.run(25)
    assert membership.is_whole()
    assert sorted(deaths) == sorted({*membership.sim_members} - {"n7"})


def test_bytes_are_those_of_sealed_datagrams() -> None:
    membership, world = MembershipWorld(4), World(4)
    membership.add(2)
    membership.run(300)
    world.add("a", "b")
    world.run(300)
    assert membership.bytes_sent > membership.datagrams_sent * ENVELOPE_BYTES
    each = world.driver.counts["sent/bytes"] / world.driver.counts["sent/datagrams"]
    assert membership.bytes_sent / membership.datagrams_sent == pytest.approx(each, rel=0.1)
