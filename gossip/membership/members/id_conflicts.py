"""Two devices with one identity: an SD card was copied, or a backup runs beside its original.

Of two lives with one id the later one is believed, so the earlier one's packets change nothing. But
they say that it exists. A process that was restarted cannot send any more, and what it sent before
arrives within seconds; the envelope lets nothing through twice. So whoever hears a *former* life
go on speaking from somewhere else, ``SETTLED_S`` after the later one was first heard, and several
times, has two devices before it.

What the device itself does about it stands in ``agent/agent.py``: it hears of its later life, sees
to it that its next start is later still, and says so. The two then outrun each other for ever,
which only a person can end; so the other members name the two addresses.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Address, Instant
from gossip.membership.model.members import Member

SETTLED_S = 10.0
"""Packets of a former life are no wonder for this long after the later one was heard."""
PROOFS_NEEDED = 3
PROOFS_WITHIN_S = 600.0
REPORT_AGAIN_S = 600.0
REMEMBERED_S = 3600.0
SUSPECTS_MAX = 64


class IdConflictDetected(msgspec.Struct, frozen=True):
    """Told to the application: two devices say that they are this member, from these addresses."""

    member: NodeId
    name: str
    addresses: tuple[Address, ...]


class IdConflict:
    """What was heard of two lives of one member."""

    __slots__ = ("addresses", "proofs", "reported_at", "seen_at")

    def __init__(self, now: Instant) -> None:
        self.seen_at = now
        self.proofs = 0
        self.reported_at: Instant | None = None
        self.addresses: tuple[Address, ...] = ()


class IdConflicts:
    """Notices lives that should be over and are not; bounded, the longest silent goes first."""

    def __init__(self, emit: Callable[[IdConflictDetected], None], counts: Counter[str]) -> None:
        self._emit = emit
        self._counts = counts
        self._since: OrderedDict[NodeId, Instant] = OrderedDict()
        self._suspects: OrderedDict[NodeId, IdConflict] = OrderedDict()

    def restarted(self, node: NodeId, now: Instant) -> None:
        """Note when a later life of a member was first heard of."""
        self._since[node] = now
        self._since.move_to_end(node)
        if len(self._since) > SUSPECTS_MAX:
            self._since.popitem(last=False)

    def former_life(self, member: Member, source: Address, now: Instant) -> None:
        """Note that a packet of an earlier life of the member came, and from where."""
        if source == member.path or now - self._since.get(member.id, -SETTLED_S) < SETTLED_S:
            return
        suspect = self._suspects.setdefault(member.id, IdConflict(now))
        self._suspects.move_to_end(member.id)
        if len(self._suspects) > SUSPECTS_MAX:
            self._suspects.popitem(last=False)
        if now - suspect.seen_at > PROOFS_WITHIN_S:
            suspect.proofs = 0
        suspect.proofs += 1
        suspect.seen_at = now
        self._counts["id_conflicts/packets of a former life"] += 1
        here = () if member.path is None else (member.path,)
        suspect.addresses = (*here, source)
        is_due = suspect.reported_at is None or now - suspect.reported_at >= REPORT_AGAIN_S
        if suspect.proofs >= PROOFS_NEEDED and is_due:
            suspect.reported_at = now
            self._counts["id_conflicts/suspected"] += 1
            self._emit(IdConflictDetected(member.id, member.name, suspect.addresses))

    def of(self, node: NodeId, now: Instant) -> tuple[Address, ...]:
        """Return where the devices with this id were heard; empty when there is only one."""
        suspect = self._suspects.get(node)
        if suspect is None or suspect.reported_at is None or now - suspect.seen_at > REMEMBERED_S:
            return ()
        return suspect.addresses
