"""The member list, and the one rule that decides between two claims about a member.

Everything that is ever said about a member is about one *life* of it (its boot), at one
*incarnation* (a number that only the member itself raises, to refute), and is one of four states.
Of two claims the one with the larger (boot, incarnation, rank of state) holds::

    rank      0 alive      1 suspect      2 dead      3 left

That order is total, so members that heard the same claims believe the same, in whatever order they
came. It reads: a later life beats everything said about an earlier one; within a life, what the
member says last about itself beats all suspicion of what it said before; and of the same
incarnation the worse news holds, because good news would have come with a higher incarnation. A
goodbye stands above a death: who says it need not be mourned. (SWIM section 4.2, with boots added.)
"""

import enum
from collections.abc import Iterator

import msgspec

from gossip.ids import Boot, NodeId
from gossip.machine import Address, Instant


class MemberState(enum.StrEnum):
    """What we believe about a member."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"

    @property
    def is_live(self) -> bool:
        """Whether a member in this state is probed, told rumours and counted."""
        return self in (MemberState.ALIVE, MemberState.SUSPECT)


RANK: dict[MemberState, int] = {
    MemberState.ALIVE: 0,
    MemberState.SUSPECT: 1,
    MemberState.DEAD: 2,
    MemberState.LEFT: 3,
}

REASONS: dict[tuple[MemberState | None, MemberState], str] = {
    (None, MemberState.ALIVE): "joined",
    (None, MemberState.SUSPECT): "joined under suspicion",
    (None, MemberState.DEAD): "heard of after its death",
    (None, MemberState.LEFT): "heard of after it left",
    (MemberState.ALIVE, MemberState.ALIVE): "described itself anew",
    (MemberState.ALIVE, MemberState.SUSPECT): "did not answer",
    (MemberState.ALIVE, MemberState.DEAD): "declared dead by others",
    (MemberState.ALIVE, MemberState.LEFT): "left",
    (MemberState.SUSPECT, MemberState.ALIVE): "refuted the suspicion",
    (MemberState.SUSPECT, MemberState.SUSPECT): "did not answer, once more",
    (MemberState.SUSPECT, MemberState.DEAD): "did not refute the suspicion",
    (MemberState.SUSPECT, MemberState.LEFT): "left",
    (MemberState.DEAD, MemberState.ALIVE): "came back",
    (MemberState.DEAD, MemberState.SUSPECT): "came back under suspicion",
    (MemberState.DEAD, MemberState.DEAD): "died again",
    (MemberState.DEAD, MemberState.LEFT): "left",
    (MemberState.LEFT, MemberState.ALIVE): "came back",
    (MemberState.LEFT, MemberState.SUSPECT): "came back under suspicion",
    (MemberState.LEFT, MemberState.DEAD): "came back and died",
    (MemberState.LEFT, MemberState.LEFT): "left again",
}
"""Why a member changed, in words, by its state before and after."""

RESTARTED = "restarted"
FORGOTTEN = "no longer listed"

Precedence = tuple[Boot, int, int]


def precedence(boot: Boot, incarnation: int, state: MemberState) -> Precedence:
    """Return what decides between two claims about one member; the larger holds.

    >>> precedence(7, 2, MemberState.ALIVE) > precedence(7, 1, MemberState.DEAD)
    True
    """
    return boot, incarnation, RANK[state]


class Member(msgspec.Struct, frozen=True):
    """What we believe about one member; replaced as a whole when it changes."""

    id: NodeId
    name: str
    addresses: tuple[Address, ...]
    tags: dict[str, str]
    state: MemberState
    boot: Boot
    incarnation: int
    changed_at: Instant
    """When the state last changed, on our own clock."""
    described: int = 0
    """The incarnation that name, addresses and tags come from; 0 when it was an earlier boot."""
    path: Address | None = None
    """Where its packets come from; may differ from what it says of itself."""

    @property
    def precedence(self) -> Precedence:
        """What a claim must exceed to change our mind."""
        return precedence(self.boot, self.incarnation, self.state)

    @property
    def has_address(self) -> bool:
        """Whether anything can be sent to it."""
        return self.path is not None or bool(self.addresses)

    @property
    def is_live(self) -> bool:
        """Whether the member counts: alive, or suspected of not being so."""
        return self.state.is_live


class MemberChanged(msgspec.Struct, frozen=True):
    """Told to the application for every change of state, life or description of a member.

    ``before`` is None when the member is new to us. When ``reason`` is FORGOTTEN, ``member`` is
    the entry that was taken off the list.
    """

    member: Member
    before: MemberState | None
    reason: str


class MemberTable:
    """All members we list, ourselves among them, in the order of their ids."""

    def __init__(self) -> None:
        self._members: dict[NodeId, Member] = {}
        self._ordered: tuple[Member, ...] | None = None
        self._live: tuple[Member, ...] | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, node: object) -> bool:
        return node in self._members

    def __getitem__(self, node: NodeId) -> Member:
        return self._members[node]

    def __iter__(self) -> Iterator[Member]:
        if self._ordered is None:
            self._ordered = tuple(self._members[node] for node in sorted(self._members))
        return iter(self._ordered)

    def get(self, node: NodeId) -> Member | None:
        """Return the member; None for one that is not listed."""
        return self._members.get(node)

    @property
    def live(self) -> tuple[Member, ...]:
        """Return who counts as being there, ourselves included, in the order of ids."""
        if self._live is None:
            self._live = tuple(member for member in self if member.is_live)
        return self._live

    def in_state(self, *states: MemberState) -> list[Member]:
        """Return the members in any of these states, in the order of ids."""
        return [member for member in self if member.state in states]

    def put(self, member: Member) -> None:
        """List the member, or replace what was believed about it."""
        assert member.described <= member.incarnation, "nobody describes what it is yet to become"
        self._members[member.id] = member
        self._ordered = self._live = None

    def remove(self, node: NodeId) -> None:
        """Take a member off the list; it need not be on it."""
        if self._members.pop(node, None) is not None:
            self._ordered = self._live = None
