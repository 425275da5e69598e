"""The member list, and the one rule that decides between two updates about a member.

Everything that is ever said about a member is about one *life* of it (its boot), at one
*incarnation* (a number that only the member itself raises, to refute), and is one of five states.
Of two updates the one with the larger (boot, incarnation, rank of state) holds::

    rank      0 alive      1 suspect      2 asleep      3 dead      4 left

That order is total, so members that heard the same updates believe the same, in whatever order they
came. It reads: a later life beats everything said about an earlier one; within a life, what the
member says last about itself beats all suspicion of what it said before; and of the same
incarnation the worse news holds, because good news would have come with a higher incarnation. A
goodbye stands above a death: who says it need not be mourned. Who announced its sleep cannot be
suspected for its silence, only be found dead in the end. (SWIM section 4.2, with boots and sleep.)

::

              ┌──── refutes ◀────┐
    ──joins─▶ alive ──silent──▶ suspect ──not refuted──▶ dead ──comes back─▶ alive
              │  ▲ └──────────────────┴──says goodbye──▶ left ──comes back─▶ alive
    announces │  │ wakes
              ▼  │
             asleep ──announced time and grace are over──▶ dead
"""

import enum
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address, Instant


class MemberState(enum.StrEnum):
    """What we believe about a member."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    ASLEEP = "asleep"
    DEAD = "dead"
    LEFT = "left"

    @property
    def is_live(self) -> bool:
        """Whether a member in this state is probed, told updates and counted."""
        return self is MemberState.ALIVE or self is MemberState.SUSPECT

    @property
    def is_departed(self) -> bool:
        """Whether a member in this state is not expected back, and its place may be given away."""
        return self is MemberState.DEAD or self is MemberState.LEFT


RANK: dict[MemberState, int] = {
    MemberState.ALIVE: 0,
    MemberState.SUSPECT: 1,
    MemberState.ASLEEP: 2,
    MemberState.DEAD: 3,
    MemberState.LEFT: 4,
}

REASONS: dict[tuple[MemberState | None, MemberState], str] = {
    (None, MemberState.ALIVE): "joined",
    (None, MemberState.SUSPECT): "joined under suspicion",
    (None, MemberState.ASLEEP): "heard of while it sleeps",
    (None, MemberState.DEAD): "heard of after its death",
    (None, MemberState.LEFT): "heard of after it left",
    (MemberState.ALIVE, MemberState.ALIVE): "described itself anew",
    (MemberState.ALIVE, MemberState.SUSPECT): "did not answer",
    (MemberState.ALIVE, MemberState.ASLEEP): "announced its sleep",
    (MemberState.ALIVE, MemberState.DEAD): "declared dead by others",
    (MemberState.ALIVE, MemberState.LEFT): "left",
    (MemberState.SUSPECT, MemberState.ALIVE): "refuted the suspicion",
    (MemberState.SUSPECT, MemberState.SUSPECT): "did not answer, once more",
    (MemberState.SUSPECT, MemberState.ASLEEP): "announced its sleep",
    (MemberState.SUSPECT, MemberState.DEAD): "did not refute the suspicion",
    (MemberState.SUSPECT, MemberState.LEFT): "left",
    (MemberState.ASLEEP, MemberState.ALIVE): "woke up",
    (MemberState.ASLEEP, MemberState.SUSPECT): "woke up and did not answer",
    (MemberState.ASLEEP, MemberState.ASLEEP): "sleeps on",
    (MemberState.ASLEEP, MemberState.DEAD): "did not wake up in time",
    (MemberState.ASLEEP, MemberState.LEFT): "left",
    (MemberState.DEAD, MemberState.ALIVE): "came back",
    (MemberState.DEAD, MemberState.SUSPECT): "came back under suspicion",
    (MemberState.DEAD, MemberState.ASLEEP): "came back and announced its sleep",
    (MemberState.DEAD, MemberState.DEAD): "died again",
    (MemberState.DEAD, MemberState.LEFT): "left",
    (MemberState.LEFT, MemberState.ALIVE): "came back",
    (MemberState.LEFT, MemberState.SUSPECT): "came back under suspicion",
    (MemberState.LEFT, MemberState.ASLEEP): "came back and announced its sleep",
    (MemberState.LEFT, MemberState.DEAD): "came back and died",
    (MemberState.LEFT, MemberState.LEFT): "left again",
}
"""Why a member changed, in words, by its state before and after."""

RESTARTED = "restarted"
REFUSED = "its host says that it no longer runs"
FORGOTTEN = "no longer listed"
FLAPS = "comes and goes"

Precedence = tuple[Boot, int, int]


def precedence(boot: Boot, incarnation: int, state: MemberState) -> Precedence:
    """Return what decides between two updates about one member; the larger holds.

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
    asleep_until: Instant | None = None
    """When it said that it wakes, on our own clock; None unless it is asleep."""
    ours: tuple[Address, ...] = ()
    """Those of its addresses that we have too: what is sent there comes back to ourselves."""
    says: str = ""
    """What it calls itself, where the registry calls it otherwise: ``name`` is the registry's."""
    signature: bytes = b""
    """Its own, of what it is described by (``signatures.py``)."""
    absence: bytes = b""
    """... and of its goodbye, or its announcement to sleep."""
    announced_s: int = 0
    """For how long it said it would sleep."""
    is_proven: bool = False
    """Whether anything that it said in this life was signed."""

    @property
    def addresses_by_preference(self) -> tuple[Address, ...]:
        """Where to send to it, best first: where it was heard from, then what it says."""
        if self.path is None and not self.ours:
            return self.addresses
        left_out = (self.path, *self.ours)
        told = (address for address in self.addresses if address not in left_out)
        return tuple(told) if self.path is None else (self.path, *told)

    @property
    def precedence(self) -> Precedence:
        """What an update must exceed to change our mind."""
        return precedence(self.boot, self.incarnation, self.state)

    @property
    def has_address(self) -> bool:
        """Whether anything can be sent to it."""
        return self.path is not None or len(self.addresses) > len(self.ours)

    @property
    def is_live(self) -> bool:
        """Whether the member counts: alive, or suspected of not being so."""
        return self.state.is_live


class MemberChanged(msgspec.Struct, frozen=True):
    """Told to the application for every change of state, life or description of a member.

    ``before`` is None when the member is new to us. When ``reason`` is FORGOTTEN, ``member`` is
    the entry that was taken off the list. Of a member that flaps (``flap_damping.py``) most changes
    are
    ``muted``: true, but not worth telling a person. ``suppressed`` is how many such went before.
    """

    member: Member
    before: MemberState | None
    reason: str
    muted: bool = False
    suppressed: int = 0


class MemberTable:
    """All members we list, ourselves among them, in the order of their ids.

    Who is listed, who of them is live and who can be reached are kept as tuples of ids, and most
    changes leave them alone; so a change costs as much among thousands as among a few.
    """

    def __init__(self) -> None:
        self.changes = 0
        """How often a life, a state or a description changed; whoever keeps something derived
        looks here. A new path is none."""
        self.ids: tuple[NodeId, ...] = ()
        """Everybody listed, in order."""
        self.live_ids: tuple[NodeId, ...] = ()
        """Who counts as being there, in order."""
        self.reachable_ids: tuple[NodeId, ...] = ()
        """Who of them has an address, in order."""
        self.away_ids: tuple[NodeId, ...] = ()
        """Who is listed and does not count, in order."""
        self._members: dict[NodeId, Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, node: object) -> bool:
        return node in self._members

    def __getitem__(self, node: NodeId) -> Member:
        return self._members[node]

    def __iter__(self) -> Iterator[Member]:
        return map(self._members.__getitem__, self.ids)

    def get(self, node: NodeId) -> Member | None:
        """Return the member; None for one that is not listed."""
        return self._members.get(node)

    @property
    def live(self) -> tuple[Member, ...]:
        """Return who counts as being there, ourselves included, in the order of ids."""
        return tuple(map(self._members.__getitem__, self.live_ids))

    def others(self, me: NodeId) -> list[Member]:
        """Return who of the live but one has an address, in the order of ids."""
        members = self._members
        return [members[node] for node in self.reachable_ids if node != me]

    def sample_others(self, me: NodeId, count: int, rng: random.Random) -> list[Member]:
        """Return some of ``others``, or all if there are not more, at random."""
        ids = self.reachable_ids
        here = bisect_left(ids, me)
        others = len(ids) - (here < len(ids) and ids[here] == me)
        drawn = rng.sample(range(others), min(count, others))
        return [self._members[ids[n if n < here else n + len(ids) - others]] for n in drawn]

    def in_state(self, *states: MemberState) -> list[Member]:
        """Return the members in any of these states, in the order of ids."""
        ids = self.ids if any(state.is_live for state in states) else self.away_ids
        return [member for node in ids if (member := self._members[node]).state in states]

    def count_by_state(self) -> dict[str, int]:
        """Return how many members are in each state, by its word; every state is there."""
        counts = Counter(member.state for member in self)
        return {state.value: counts[state] for state in MemberState}

    def put(self, member: Member) -> None:
        """List the member, or replace what was believed about it."""
        assert member.described <= member.incarnation, "nobody describes what it is yet to become"
        node = member.id
        known = self._members.get(node)
        self._members[node] = member
        if known is None:
            self.ids = _with(self.ids, node)
        elif _version(known) == _version(member) and known.has_address == member.has_address:
            return
        self.changes += 1
        self._list(node, is_live=member.is_live, is_reachable=member.has_address)
        self.away_ids = (_without if member.is_live else _with)(self.away_ids, node)

    def remove(self, node: NodeId) -> None:
        """Take a member off the list; it need not be on it."""
        if self._members.pop(node, None) is not None:
            self.changes += 1
            self.ids = _without(self.ids, node)
            self._list(node, is_live=False, is_reachable=False)
            self.away_ids = _without(self.away_ids, node)

    def warm_start(self, members: Mapping[NodeId, Member], ids: tuple[NodeId, ...]) -> None:
        """List exactly these, who are all live and can be reached; ``ids`` are theirs, in order."""
        assert len(members) == len(ids), "the ids are those of the members"
        self.changes += 1
        self.ids = self.live_ids = self.reachable_ids = ids
        self.away_ids = ()
        self._members = dict(members)

    def _list(self, node: NodeId, *, is_live: bool, is_reachable: bool) -> None:
        were_alike = self.live_ids is self.reachable_ids
        self.live_ids = (_with if is_live else _without)(self.live_ids, node)
        if were_alike and is_live <= is_reachable:
            self.reachable_ids = self.live_ids
        else:
            is_reachable = is_reachable and is_live
            self.reachable_ids = (_with if is_reachable else _without)(self.reachable_ids, node)


def _version(member: Member) -> tuple[MemberState, Boot, int, int]:
    return member.state, member.boot, member.incarnation, member.described


def _with(ids: tuple[NodeId, ...], node: NodeId) -> tuple[NodeId, ...]:
    at = bisect_left(ids, node)
    if at < len(ids) and ids[at] == node:
        return ids
    return (*ids[:at], node, *ids[at:])


def _without(ids: tuple[NodeId, ...], node: NodeId) -> tuple[NodeId, ...]:
    at = bisect_left(ids, node)
    if at == len(ids) or ids[at] != node:
        return ids
    return (*ids[:at], *ids[at + 1 :])
