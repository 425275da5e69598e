"""What an agent remembers of a change of owners, and who is waited for."""

from agent.cluster.ring_moves import RingMoves, waits
from gossip.registry.ownership import Stage
from gossip.registry.registry import Registry, admit, advance
from tests.support.kv_net import node, registry_of

PARTITIONS = 12


def done(registry: Registry, *partitions: int) -> Registry:
    """Let these partitions go a stage further."""
    every = frozenset(registry.ids())
    return advance(registry, dict.fromkeys(partitions, every), registry.epoch)


def moving(registry: Registry) -> list[int]:
    return [p for p, each in registry.ownerships if each.stage is not Stage.SETTLED]


def test_what_was_to_move_is_remembered_until_all_of_it_has() -> None:
    now = [100.0]
    registry = registry_of((1, 2, 3), PARTITIONS)
    moves = RingMoves(registry, lambda: now[0])
    assert (moves.to_move, moves.moved, moves.left_s) == (0, 0, None)
    registry = admit(registry, node(4))
    moves.follow(registry)
    total = moves.to_move
    assert total == len(moving(registry)) > 4
    first, second, *_ = moving(registry)
    now[0] += 10.0
    for _ in range(3):
        registry = done(registry, first, second)
        moves.follow(registry)
    assert (moves.to_move, moves.moved, moves.took_s) == (total, 2, 10.0)
    assert moves.left_s == 5.0 * (total - 2)
    while moving(registry):
        registry = done(registry, *moving(registry))
        moves.follow(registry)
    now[0] += 1000.0
    assert (moves.to_move, moves.moved, moves.took_s, moves.left_s) == (total, total, 10.0, None)
    moves.follow(admit(registry, node(5)))
    assert moves.moved == 0, "it begins anew"


def test_who_copies_is_waited_for_and_then_who_has_to_take_note() -> None:
    registry = admit(registry_of((1, 2, 3), PARTITIONS), node(4))
    total = len(moving(registry))
    assert waits(registry) == [(Stage.COPYING, 4, total)]
    registry = done(registry, *moving(registry))
    assert {(each.stage, each.node) for each in waits(registry)} == {(Stage.JOINING, 4)}
    registry = done(registry, *moving(registry))
    assert {each.stage for each in waits(registry)} == {Stage.LEAVING}
    assert {each.node for each in waits(registry)} == {1, 2, 3}
    assert not waits(done(registry, *moving(registry)))
