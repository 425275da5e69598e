"""Whole nodes and those who are not in the registry: removed, admitted a moment ago, unheard of."""

from gossip.core.ids import new_node_id
from gossip.core.machine import Address
from gossip.membership.model.members import MemberState
from gossip.registry.strangers import NOTIFY_AGAIN_S, PARTING_S, STRANGERS_MAX, Strangers
from gossip.sim.world import World

HERE = Address("192.0.2.9", 7747)


def world_of(*names: str, seed: int = 1) -> World:
    world = World(seed)
    world.add(*names)
    assert world.run_until(world.is_whole, within_s=10) is not None
    return world


def listed(world: World, name: str) -> set[str]:
    """Return by whom a device is listed in any state, itself left out."""
    return {other for other in world.up() if other != name and name in world.members(other)}


def belongs(world: World, name: str) -> bool:
    """Say whether a device takes itself for a part of the covey."""
    host = world.hosts[name]
    return host.node.belong(host.id)


def test_who_was_removed_is_listed_by_nobody_and_told() -> None:
    world = world_of("ada", "bob", "cy", "mal")
    world.remove("mal")
    within = world.run_until(lambda: not listed(world, "mal"), within_s=5)
    assert within is not None
    assert world.run_until(lambda: not belongs(world, "mal"), within_s=5) is not None
    world.run(120)
    assert not listed(world, "mal"), "what it still says moves nobody"
    assert world.counts["datagrams_dropped/stranger"] > 0
    assert {world.members(name)[other] for name in ("ada", "bob", "cy")
            for other in ("ada", "bob", "cy")} == {MemberState.ALIVE}  # fmt: skip


def test_what_a_removed_device_tells_by_datagram_is_not_read() -> None:
    """It has not heard of its removal, and has the keys of before: what it seals, opens."""
    world = world_of("ada", "bob", "cy", "mal")
    for other in ("ada", "bob", "cy"):
        world.cut(other, "mal")
    world.remove("mal")
    assert world.run_until(lambda: not listed(world, "mal"), within_s=5) is not None
    before = world.counts["datagrams_dropped/stranger"]
    world.send_event("mal", "open the door")
    world.run(10)
    assert belongs(world, "mal"), "it believes so, and goes on"
    assert world.counts["datagrams_dropped/stranger"] > before
    assert {name for name, _, told in world.delivered if told.event.name == "open the door"} <= {
        "mal"
    }


def test_who_goes_on_after_its_removal_is_a_stranger() -> None:
    strangers = Strangers()
    strangers.part(frozenset({7}), 100.0)
    strangers.record(7, HERE, 100.0 + PARTING_S / 2)
    assert not strangers.since(101.0)
    strangers.record(7, HERE, 100.0 + PARTING_S)
    assert [each.id for each in strangers.since(111.0)] == [7]


def test_who_was_removed_while_it_was_off_is_told_when_it_comes_back() -> None:
    world = world_of("ada", "bob", "cy", "mal")
    world.crash("mal")
    world.remove("mal")
    world.run(30)
    world.restart("mal")
    assert belongs(world, "mal"), "it has not heard yet"
    assert world.run_until(lambda: not belongs(world, "mal"), within_s=60) is not None
    assert not listed(world, "mal")
    stranger = next(iter(world.hosts["ada"].node.strangers), None)
    assert stranger is None or stranger.id == world.hosts["mal"].id


def test_a_node_whose_registry_has_not_arrived_is_let_in_as_soon_as_it_has() -> None:
    """Only one of three hears of the newcomer; the newcomer itself shows the others the way."""
    world = world_of("ada", "bob", "cy")
    world.partition({"ada"}, {"bob", "cy"})
    world.add("dan")
    world.run(5)
    assert "dan" not in world.members("bob")
    world.join_sides()
    assert world.run_until(world.is_whole, within_s=60) is not None


def test_the_book_of_strangers_is_bounded_and_slow_to_answer() -> None:
    book = Strangers()
    nodes = [new_node_id(World(1)._identities) + n for n in range(STRANGERS_MAX + 10)]
    for node in nodes:
        book.record(node, HERE, 1.0)
    assert len(list(book)) == STRANGERS_MAX
    told = sum(book.is_due(node, 1.0) for node in nodes[10:])
    assert told == 1, "a flood of names is answered once"
    assert not book.is_due(nodes[-1], 1.2)
    assert book.is_due(nodes[-1], 2.0)
    assert not book.is_due(nodes[-1], 2.0 + NOTIFY_AGAIN_S / 2)
    assert book.is_due(nodes[-1], 2.0 + NOTIFY_AGAIN_S)
    book.admit(frozenset(nodes))
    assert not list(book)
