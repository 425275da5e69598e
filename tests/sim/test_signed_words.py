"""Signed words in whole coveys: while one is updated, and after the loss of most packets."""

import pytest

from gossip.membership.model.members import MemberState
from gossip.sim.invariants import IncarnationGrows, NoResurrection, WordsAreTheirOwn
from gossip.sim.network import Conditions
from gossip.sim.world import World
from tests.support.earlier_version import MixedWorld

NAMES = ("ada", "bob", "cy", "dot", "eve", "fay")
WHOLE_S = 60.0


def whole(world: World) -> None:
    assert world.run_until(world.is_whole, within_s=WHOLE_S) is not None


def tags_seen(world: World, of: str, tag: str) -> set[str]:
    node = world.hosts[of].id
    return {
        host.node.swim.members[node].tags.get(tag, "")
        for host in world.hosts.values()
        if host.name != of
    }


def retag(world: World, name: str, value: str) -> None:
    world.driver.call(world.hosts[name], lambda node, now: node.set_tags({"room": value}, now))


@pytest.mark.slow
def test_a_covey_is_updated_one_by_one() -> None:
    """Each that was updated is heard with its signature by the others that were, and by all."""
    world = MixedWorld(4, checkers=[IncarnationGrows(), WordsAreTheirOwn()])
    world.earlier = frozenset(NAMES)
    world.add(*NAMES)
    whole(world)
    assert world.counts["signatures/verified"] == 0
    for n, name in enumerate(NAMES):
        world.crash(name)
        world.run(3)
        world.earlier -= {name}
        world.restart(name)
        whole(world)
        for each in (NAMES[0], NAMES[-1]):
            retag(world, each, f"{n} {each}")
            world.run(30)
            assert tags_seen(world, each, "room") == {f"{n} {each}"}
    for host in world.hosts.values():
        assert all(member.is_proven for member in host.node.swim.members)
    assert world.counts["words_refused/forged"] == 0
    assert world.counts["words_refused/unsigned"] > 0, "some were passed on by earlier ones"


@pytest.mark.slow
def test_a_lossy_covey_refuses_nobody() -> None:
    world = World(
        5,
        conditions=Conditions(loss=0.3),
        checkers=[IncarnationGrows(), NoResurrection(), WordsAreTheirOwn()],
    )
    world.add(*NAMES)
    whole(world)
    for _ in range(3):
        world.crash("ada", "bob")
        world.restart("ada", "bob")
        world.sleep("cy", 20)
        world.run(40)
    world.network.conditions = Conditions()
    whole(world)
    assert not [label for label, n in world.counts.items() if label.startswith("words_") and n]
    states = {member.state for member in world.hosts["dot"].node.swim.members}
    assert states == {MemberState.ALIVE}
