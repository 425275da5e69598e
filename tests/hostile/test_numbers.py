"""Hostile numbers: no field of any message can be driven so far that a member falls silent.

What comes here has passed the envelope; see ``gossip/membership/model/sanity.py`` for the rules.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gossip.core.errors import Malformed
from gossip.core.machine import Emit
from gossip.core.wire import pack
from gossip.events.messages import BROADCASTS
from gossip.membership.detection.updates import BootSuperseded
from gossip.membership.members.id_conflicts import SUSPECTS_MAX, IdConflicts
from gossip.membership.model.members import Member, MemberState
from gossip.membership.model.messages import DATAGRAMS, SLEEP_S_MAX, Alive, Asleep, Dead
from tests.hostile.test_membership import BOOT, MAX, ME, THEM, feed, machine
from tests.unit.gossip.membership.test_vectors import EXAMPLES, codec_of

# Every number of every message.


NUMBERS = (0, 1, 2**16, 2**31, 2**32 + 1, 2**62, 2**63, MAX)


def numbered(message: Any) -> Iterator[Any]:
    """Yield the message with each of its numbers, one after the other, driven to an extreme."""
    for field in message.__struct_fields__:
        value = getattr(message, field)
        if isinstance(value, int) and not isinstance(value, bool):
            for number in NUMBERS:
                yield msgspec.structs.replace(message, **{field: number})


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_no_number_in_any_message_ends_anything(name: str) -> None:
    """Whatever the number: the machine lives, is at its own incarnation, and others can speak."""
    codec = codec_of(type(EXAMPLES[name]))
    for message in numbered(EXAMPLES[name]):
        swim = machine()
        try:
            codec.decode(codec.encode(message))
        except Malformed:
            continue
        if codec in (DATAGRAMS, BROADCASTS):
            swim.receive(pack([codec.encode(message)]), 2, 1, 1, THEM, 0.01)
        else:
            swim.frame_handlers[min(codec.tags)](codec.encode(message), 2, 0.01)
        swim.wake(0.02)
        assert swim.incarnation <= 3
        assert swim.boot == BOOT
        assert swim.members[ME].state is MemberState.ALIVE
        swim.receive(pack([]), 2, 1, 2**20, THEM, 0.03)
        assert swim.members[2].incarnation >= 2**20, "the member can still raise its own"
        assert len(list(swim.effects())) < 100


@pytest.mark.parametrize(
    "claim",
    [
        Alive(9, 1 << 32, 2**62, "nine", (THEM,), {}),
        Alive(9, 2**31 << 32, 1, "nine", (THEM,), {}),
        Alive(9, 2**31 << 32, 2**62, "nine", (THEM,), {}),
    ],
)
def test_a_lie_about_a_stranger_does_not_outlive_its_first_packet(claim: Alive) -> None:
    swim = machine()
    feed(swim, claim)
    assert 9 in swim.members
    feed(swim, Dead(9, claim.boot, claim.incarnation, 2))
    words = Alive(9, 1 << 32, 3, "nine", (THEM,), {})
    swim.receive(pack([DATAGRAMS.encode(words)]), 9, 1 << 32, 3, THEM, 1.0)
    nine = swim.members[9]
    assert (nine.state, nine.boot, nine.incarnation) == (MemberState.ALIVE, 1 << 32, 3)
    assert swim.counts["updates_retracted/belied by the member itself"] == 1
    feed(swim, claim)
    assert swim.members[9].incarnation == 3, "nobody says it twice"


@pytest.mark.parametrize("boot", [BOOT + (2**17 << 32), 2**63, MAX])
def test_no_later_life_of_ours_is_believed_that_cannot_be(boot: int) -> None:
    """The application would count its starts from there, and soon could not count any more."""
    swim = machine()
    feed(swim, Dead(ME, boot, 1, 2))
    swim.receive(pack([]), ME, boot, 1, THEM, 0.5)
    events = [effect.event for effect in swim.effects() if isinstance(effect, Emit)]
    assert not [event for event in events if isinstance(event, BootSuperseded)]


@pytest.mark.parametrize("duration_s", [SLEEP_S_MAX + 1, 2**40, MAX])
def test_nobody_sleeps_for_ever(duration_s: int) -> None:
    swim = machine()
    feed(swim, Asleep(2, 1, 2, duration_s))
    assert swim.members[2].state is MemberState.ALIVE
    assert swim.counts["datagrams_dropped/malformed"] == 1
    feed(swim, Asleep(2, 1, 2, SLEEP_S_MAX))
    assert swim.members[2].asleep_until is not None
    assert swim.members[2].asleep_until <= SLEEP_S_MAX + 1


def test_a_thousand_sleepers_that_nobody_knows_take_no_room() -> None:
    swim = machine()
    for node in range(100, 1100):
        feed(swim, Asleep(node, 1, 1, 60))
    assert len(swim.members) == 2
    assert swim.counts["updates_ignored/unknown member"] == 1000


def test_a_thousand_clones_are_bounded() -> None:
    id_conflicts = IdConflicts(lambda _event: None, Counter())
    for node in range(1000):
        member = Member(node, "n", (), {}, MemberState.ALIVE, 2, 1, 0.0)
        id_conflicts.restarted(node, 0.0)
        id_conflicts.former_life(member, THEM, 100.0)
    assert len(id_conflicts._suspects) == len(id_conflicts._since) == SUSPECTS_MAX
