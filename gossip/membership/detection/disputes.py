"""Which differences of belief are worth a packet: tables that ``updates.py`` goes by."""

from gossip.membership.model.members import MemberState

HARMFUL: frozenset[tuple[MemberState, MemberState]] = frozenset(
    {
        (MemberState.ALIVE, MemberState.SUSPECT),
        (MemberState.ALIVE, MemberState.DEAD),
        (MemberState.ALIVE, MemberState.LEFT),
        (MemberState.ALIVE, MemberState.ASLEEP),
        (MemberState.SUSPECT, MemberState.DEAD),
        (MemberState.SUSPECT, MemberState.ASLEEP),
        (MemberState.ASLEEP, MemberState.ALIVE),
        (MemberState.ASLEEP, MemberState.SUSPECT),
        (MemberState.ASLEEP, MemberState.DEAD),
        (MemberState.DEAD, MemberState.SUSPECT),
        (MemberState.LEFT, MemberState.ALIVE),
        (MemberState.LEFT, MemberState.SUSPECT),
        (MemberState.LEFT, MemberState.DEAD),
    }
)
"""(what we believe, what somebody still says): outdated claims that are worth an answer.

Somebody alive to others and dead to us is not among them: see ``MemberUpdates._answer_stale``.
"""


DISPUTABLE = frozenset({MemberState.SUSPECT, MemberState.ASLEEP, MemberState.DEAD})
"""Whoever sends a packet is told that we believe this of it, and can say otherwise."""
