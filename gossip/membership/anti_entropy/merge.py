"""Merging remote state: what the other side of a sync believes, and how far we follow it.

Lives and descriptions that are newer than ours we believe. But what others tell neither accuses nor
kills: after a long split each half holds the other for dead, and taking that over would kill the
living. Such a belief is passed to the one concerned, who refutes it if it can, and we look for
ourselves soon; if the member is indeed dead, our own suspicion of it reaches somebody who knows,
and is answered with the death.

What a member said about itself counts with its signature, whoever shows it (``signatures.py``). A
table ends for us at the first false one; and of many, the rest waits for the next exchange.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Instant
from gossip.membership.detection.shared_parts import SharedParts
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.facts import FactTable, flaw
from gossip.membership.model.members import Member, MemberState, precedence
from gossip.membership.model.messages import (
    ALIVE_BYTES_MAX,
    Alive,
    Asleep,
    Dead,
    Left,
    Suspect,
    SyncEntry,
    Update,
    described_bytes,
)
from gossip.membership.model.sanity import is_plausible

VERIFIED_MAX = 64
"""So many signatures of one table are looked at; each takes a fifth of a millisecond or more."""


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
        self._signatures = shared.signatures
        self.is_partial = False
        """Whether the last table had more than was looked at."""

    def merge(self, entries: Iterable[SyncEntry], now: Instant) -> bool:
        """Take the entries in; say whether we have facts now that others may lack."""
        counts, learnt, self.is_partial = self._counts, False, False
        forgeries, verified = self._signatures.forgeries, counts["signatures/verified"]
        for entry in entries:
            learnt = self._merge_on_trial(entry, now) or learnt
            if self._signatures.forgeries != forgeries:
                break
            if counts["signatures/verified"] - verified >= VERIFIED_MAX:
                self.is_partial = True
                break
        return learnt

    def _merge_on_trial(self, entry: SyncEntry, now: Instant) -> bool:
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
            # A later life of ours is shown by its words.
            is_shown = entry.boot > self._local.boot and bool(entry.signature)
            told = entry.words if is_shown else _update_of(entry, self._local.id)
            self._updates.apply(told, None, now)
            return self._merge_own_facts(entry)
        if not is_plausible(known, entry.boot, entry.incarnation):
            self._counts["updates_ignored/implausible"] += 1
            return False
        if entry.state.is_departed and (known is None or known.state.is_departed):
            self._merge_departed(known, entry, now)
        elif entry.state is MemberState.LEFT:
            self._updates.apply(_update_of(entry, self._local.id), None, now)
        else:
            self._merge_life(known, entry, now)
        return self._merge_facts(entry)

    def _merge_departed(self, known: Member | None, entry: SyncEntry, now: Instant) -> None:
        stated = precedence(entry.boot, entry.incarnation, entry.state)
        if known is not None and stated <= known.precedence:
            return
        if entry.state is MemberState.LEFT and not self._signatures.believes(_left(entry)):
            return
        if entry.state is MemberState.LEFT and entry.absence and not entry.described:
            # It was heard of in this life by its goodbye alone.
            bare = msgspec.structs.replace(entry, addresses=(), tags={}, signature=b"")
            self._member_list.list_departed(bare, now)
        elif self._signatures.believes(entry.words):
            self._member_list.list_departed(entry, now)

    def _merge_life(self, known: Member | None, entry: SyncEntry, now: Instant) -> None:
        """Believe that the member lived then; see to it ourselves whether it still does."""
        described = (entry.boot, entry.described)
        if known is None or described > (known.boot, known.described):
            self._updates.apply(entry.words, None, now)
        if self._members.get(entry.member) is None:
            return
        self._updates.saw_life(entry.member, entry.boot, entry.incarnation, now)
        member = self._members[entry.member]
        stated = precedence(entry.boot, entry.incarnation, entry.state)
        if entry.state is MemberState.ASLEEP:
            self._updates.apply(_update_of(entry, self._local.id), None, now)
        elif entry.state is not MemberState.ALIVE and stated > member.precedence:
            self._verify(member, _update_of(entry, self._local.id))

    def _verify(self, member: Member, update: Update) -> None:
        """Look for ourselves soon, and let the member itself know what is said about it."""
        self._counts["updates_corrected/hearsay to the one concerned"] += 1
        self._order.probe_next(member.id)
        for address in member.addresses_by_preference[:1]:
            self._outbound.send(address, update)

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
    if entry.facts is not None and flaw(entry.facts.values):
        return False
    fits = described_bytes(entry.words) <= ALIVE_BYTES_MAX
    return fits and entry.described <= entry.incarnation


def _left(entry: SyncEntry) -> Left:
    return Left(entry.member, entry.boot, entry.incarnation, entry.absence)


def _update_of(entry: SyncEntry, accuser: NodeId) -> Update:
    """Return the entry as an update; the accuser is whoever passes it on."""
    life = (entry.member, entry.boot, entry.incarnation)
    match entry.state:
        case MemberState.SUSPECT:
            return Suspect(*life, accuser)
        case MemberState.DEAD:
            return Dead(*life, accuser)
        case MemberState.LEFT:
            return _left(entry)
        case MemberState.ASLEEP:
            return Asleep(*life, entry.asleep_s, entry.announced_s, entry.absence)
        case MemberState.ALIVE:
            return Alive(*life, entry.name, entry.addresses, entry.tags)
