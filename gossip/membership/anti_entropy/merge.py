"""Merging remote state: what the other side of a sync believes, and how far we follow it.

Lives and descriptions that are newer than ours we believe. But what others tell neither accuses nor
kills: after a long split each half holds the other for dead, and taking that over would kill the
living. Such a belief is passed to the one concerned, who refutes it if it can, and we look for
ourselves soon; if the member is indeed dead, our own suspicion of it reaches somebody who knows,
and is answered with the death.
"""

from collections import Counter
from collections.abc import Iterable

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Instant
from gossip.membership.detection.shared_parts import SharedParts
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.facts import FactTable, flaw
from gossip.membership.model.members import Member, MemberState, precedence
from gossip.membership.model.messages import (
    ALIVE_BYTES_MAX,
    DATAGRAMS,
    Alive,
    Asleep,
    Dead,
    Left,
    Suspect,
    SyncEntry,
    Update,
)
from gossip.membership.model.sanity import is_plausible


class RemoteStateMerge:
    """Merges the entries of another member's list into ours, as far as it can be believed."""

    def __init__(
        self,
        shared: SharedParts,
        updates: MemberUpdates,
        facts: FactTable,
    ) -> None:
        self._local = shared.local
        self._member_list = shared.member_list
        self._members = shared.members
        self._updates = updates
        self._outbound = shared.outbound
        self._counts: Counter[str] = shared.counts
        self._order = shared.order
        self._facts = facts

    def merge(self, entries: Iterable[SyncEntry], now: Instant) -> bool:
        """Take the entries in; say whether we have facts now that others may lack."""
        learnt = [self._try(entry, now) for entry in entries]
        return any(learnt)

    def _try(self, entry: SyncEntry, now: Instant) -> bool:
        learnt: list[bool] = []
        facts = entry.facts.number if entry.facts else 0
        what = title_of(entry.member, entry.boot, entry.described, facts)
        self._outbound.on_trial(what, lambda: learnt.append(self._merge(entry, now)))
        return any(learnt)

    def _merge(self, entry: SyncEntry, now: Instant) -> bool:
        known = self._members.get(entry.member)
        if not _is_sound(entry):
            self._counts["updates_ignored/unsound"] += 1
            return False
        if entry.member == self._local.id:
            self._updates.apply(_claim(entry, self._local.id), None, now)
            return self._merge_own_facts(entry)
        if not is_plausible(known, entry.boot, entry.incarnation):
            self._counts["updates_ignored/implausible"] += 1
            return False
        if entry.state.is_departed and (known is None or known.state.is_departed):
            self._merge_departed(known, entry, now)
        elif entry.state is MemberState.LEFT:
            self._updates.apply(_claim(entry, self._local.id), None, now)
        else:
            self._merge_life(known, entry, now)
        return self._merge_facts(entry)

    def _merge_departed(self, known: Member | None, entry: SyncEntry, now: Instant) -> None:
        standing = precedence(entry.boot, entry.incarnation, entry.state)
        if known is None or standing > known.precedence:
            self._member_list.list_departed(entry, now)

    def _merge_life(self, known: Member | None, entry: SyncEntry, now: Instant) -> None:
        """Believe that the member lived then; see to it ourselves whether it still does."""
        described = (entry.boot, entry.described)
        if known is None or described > (known.boot, known.described):
            alive = Alive(entry.member, *described, entry.name, entry.addresses, entry.tags)
            self._updates.apply(alive, None, now)
        if self._members.get(entry.member) is None:
            return
        self._updates.saw_life(entry.member, entry.boot, entry.incarnation, now)
        member = self._members[entry.member]
        standing = precedence(entry.boot, entry.incarnation, entry.state)
        if entry.state is MemberState.ASLEEP:
            self._updates.apply(_claim(entry, self._local.id), None, now)
        elif entry.state is not MemberState.ALIVE and standing > member.precedence:
            self._verify(member, _claim(entry, self._local.id))

    def _verify(self, member: Member, claim: Update) -> None:
        """Look for ourselves soon, and let the member itself know what is said about it."""
        self._counts["updates_corrected/hearsay to the one concerned"] += 1
        self._order.probe_next(member.id)
        for address in member.addresses_by_preference[:1]:
            self._outbound.send(address, claim)

    def _merge_facts(self, entry: SyncEntry) -> bool:
        member = self._members.get(entry.member)
        if entry.facts is None or member is None or not member.is_live:
            return False
        return member.boot == entry.boot and self._facts.accept(member, entry.facts)

    def _merge_own_facts(self, entry: SyncEntry) -> bool:
        """See whether somebody has facts of ours, of this life, which we did not publish."""
        ourselves = self._members[self._local.id]
        if entry.facts is None or entry.boot != ourselves.boot:
            return False
        invented = entry.facts.number > self._facts.number_of(ourselves)
        return invented and self._facts.rise_above(ourselves, entry.facts.number)


def title_of(member: NodeId, boot: Boot, described: int, facts: int = 0) -> str:
    """Return what a member's words about itself are called while they are on trial."""
    return f"member {member:016x}-{boot:x}-{described}-{facts}"


def _is_sound(entry: SyncEntry) -> bool:
    """Say whether the entry can be passed on: within a packet, and not described by its future."""
    words = Alive(
        entry.member, entry.boot, entry.described, entry.name, entry.addresses, entry.tags
    )
    if entry.facts is not None and flaw(entry.facts.values):
        return False
    return entry.described <= entry.incarnation and len(DATAGRAMS.encode(words)) <= ALIVE_BYTES_MAX


def _claim(entry: SyncEntry, accuser: NodeId) -> Update:
    """Return the entry as a claim; the accuser is whoever passes it on."""
    life = (entry.member, entry.boot, entry.incarnation)
    match entry.state:
        case MemberState.SUSPECT:
            return Suspect(*life, accuser)
        case MemberState.DEAD:
            return Dead(*life, accuser)
        case MemberState.LEFT:
            return Left(*life)
        case MemberState.ASLEEP:
            return Asleep(*life, entry.asleep_s)
        case MemberState.ALIVE:
            return Alive(*life, entry.name, entry.addresses, entry.tags)
