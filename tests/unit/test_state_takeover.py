"""When a copy is complete, by what it has heard; and what is told to the issuer meanwhile."""

import pytest

from gossip.state.ownership import Ownership, Stage
from gossip.state.registry import admit
from gossip.state.requests import Put
from gossip.state.takeover import Copy, completed, has_done
from tests.unit.state_net import FIRST, Net, node, registry_of

OLD = Copy(is_sound=True, complete_for=4)
NEW = Copy(is_sound=True, complete_for=8)
SOUND = Copy(is_sound=True, complete_for=0)
DAMAGED = Copy(is_sound=False, complete_for=0)
JOINING = Ownership((1, 2, 3), 8, 4, (1, 4, 5), 8)
SETTLED = Ownership((1, 2, 3), 4, 4)
ALL = (1, 2, 3, 4, 5)


@pytest.mark.parametrize(("me", "mine", "heard", "expected"), [
    (4, SOUND, {}, None),
    (4, SOUND, {1: OLD}, None),
    (4, SOUND, {1: OLD, 2: OLD}, 8),
    (4, SOUND, {1: OLD, 2: SOUND}, 8),  # the incomplete one counts for what it took itself
    (4, SOUND, {1: SOUND, 2: SOUND}, None),  # what is older than these owners is nowhere
    (4, SOUND, {1: OLD, 2: DAMAGED}, None),
    (4, SOUND, {5: NEW}, 8),  # who is complete has everything
    (4, SOUND, {5: SOUND, 1: OLD}, None),  # only owners were asked by every write of before
    (1, OLD, {}, 4),  # it is complete as an owner, and not yet as one of those to come
    (1, OLD, {2: OLD}, 8),
    (1, OLD, {4: SOUND}, 4),
    (4, DAMAGED, {1: OLD, 2: OLD}, None),
    (4, DAMAGED, {1: OLD, 2: OLD, 5: SOUND}, 8),  # one other of those pending, too
])  # fmt: skip
def test_who_joins_is_complete_when_it_has_heard_enough(
    me: int, mine: Copy, heard: dict[int, Copy], expected: int | None
) -> None:
    assert completed(JOINING, me, mine, heard, ALL) == expected


@pytest.mark.parametrize(("mine", "heard", "members", "expected"), [
    (SOUND, {2: SOUND}, (1, 2, 3), None),
    (SOUND, {2: OLD}, (1, 2, 3), 4),
    (SOUND, {2: SOUND, 3: SOUND}, (1, 2, 3), 4),  # nobody else has anything
    (DAMAGED, {2: OLD}, (1, 2, 3), None),  # what it acknowledged with 3 alone is with 3
    (DAMAGED, {2: OLD, 3: SOUND}, (1, 2, 3), 4),
    (DAMAGED, {2: DAMAGED}, (1, 2), 4),  # what is left is agreed upon
    (DAMAGED, {}, (1,), 4),
])  # fmt: skip
def test_an_owner_that_lacks_something_asks_the_others(
    mine: Copy, heard: dict[int, Copy], members: tuple[int, ...], expected: int | None
) -> None:
    assert completed(SETTLED, 1, mine, heard, members) == expected


def test_each_stage_asks_something_else() -> None:
    copying, leaving = Ownership((1, 2), 8, 4, (2, 3)), Ownership((1, 2), 9, 4, (2, 3), 8)
    assert (copying.stage, leaving.stage) == (Stage.COPYING, Stage.LEAVING)
    assert not has_done(copying, 3, SOUND, {})
    assert not has_done(copying, 3, SOUND, {1: DAMAGED})
    assert has_done(copying, 3, SOUND, {1: OLD})
    assert has_done(copying, 2, OLD, {})
    assert has_done(leaving, 1, DAMAGED, {}), "whoever leaves need only know that it does"
    assert not has_done(leaving, 3, SOUND, {})


def test_an_issuer_that_was_away_is_told_again() -> None:
    net = Net(registry_of([1, 2, 3]))
    assert net.ask(1, Put("k", b"v")).outcome == "ok"
    registry = admit(net.registry, node(4))
    net.start(4, registry)
    net.adopt(registry, 1, 2, 3, 4)
    net.crash(FIRST)
    net.run(30)
    assert net.registry is registry, "nobody else signs"
    assert net.ask(2, Put("k", b"w")).outcome == "ok", "those of before serve meanwhile"
    net.start(FIRST, registry)
    net.run(15)
    assert net.registry.is_settled
    assert any(4 in owners for owners in net.registry.owners)


def test_joins_in_a_row_share_their_steps() -> None:
    net = Net(registry_of([1, 2, 3], partitions=64))
    for number in (4, 5, 6):
        registry = admit(net.registry, node(number))
        net.start(number, registry)
        net.adopt(registry)
        net.run(0.03)
    net.run(20)
    assert net.registry.is_settled
    steps = net.registry.epoch - 4
    assert steps <= 6, f"three stages for all of them, and some for who came between: {steps}"
