"""The member list with its bounds, and every change of it told to the application.

Alive and suspect members stay as long as they are. Those that died or left stay for a time, so that
people see what happened and late updates find an answer, then go: the dead to the departed peers.
When the list is full, the longest departed goes first, and without any departed one a newcomer is
refused and counted.

Nobody is listed who is not in the registry. Ours may lag behind a join: so what was said last about
a few strangers is remembered, and believed when the registry arrives in which they are.
"""

from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Address, Instant
from gossip.core.tuning import Tuning
from gossip.membership.members.departed import DepartedPeers
from gossip.membership.members.flap_damping import FlapDamping
from gossip.membership.model.addresses import only_gossiped
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import (
    FLAPS,
    FORGOTTEN,
    REASONS,
    RESTARTED,
    Member,
    MemberChanged,
    MemberState,
    MemberTable,
    precedence,
)
from gossip.membership.model.messages import Alive, SyncEntry
from gossip.membership.model.signatures import Signatures
from gossip.membership.network.reachability import Reachability

REAP_INTERVAL_S = 60.0


class MemberList:
    """Lists members; nobody else writes into the table."""

    def __init__(
        self,
        local: LocalMember,
        members: MemberTable,
        reachability: Reachability,
        tuning: Tuning,
        emit: Callable[[MemberChanged], None],
        counts: Counter[str],
        signatures: Signatures,
    ) -> None:
        self.members = members
        self.departed = DepartedPeers(tuning.forgotten_max)
        self.names: Mapping[NodeId, str] | None = None
        """Who is in the registry, and what it calls them; None as long as nobody told us."""
        self._strangers: dict[NodeId, Alive] = {}
        self.flapping = FlapDamping(tuning, counts)
        self._local = local
        self._reachability = reachability
        self._tuning = tuning
        self._emit = emit
        self._counts = counts
        self._signatures = signatures

    def describe(self, alive: Alive, now: Instant) -> None:
        """Believe what a member says about itself; the caller has judged that it is newer."""
        known = self.members.get(alive.member)
        life = precedence(alive.boot, alive.incarnation, MemberState.ALIVE)
        if known is not None and life < known.precedence:
            # Its words arrive after the news of its latest incarnation, which stands.
            name, says = self._names_of(alive.member, alive.name)
            self.put(
                msgspec.structs.replace(
                    known,
                    name=name,
                    says=says,
                    addresses=alive.addresses,
                    ours=self._ours(alive.member, alive.addresses),
                    tags=alive.tags,
                    described=alive.incarnation,
                    signature=alive.signature,
                    is_proven=known.is_proven or self._shows_life(alive),
                ),
                now,
            )
            return
        name, says = self._names_of(alive.member, alive.name)
        self.put(
            Member(
                id=alive.member,
                name=name,
                says=says,
                addresses=alive.addresses,
                tags=alive.tags,
                state=MemberState.ALIVE,
                boot=alive.boot,
                incarnation=alive.incarnation,
                changed_at=now,
                described=alive.incarnation,
                path=_path_kept(known, alive),
                ours=self._ours(alive.member, alive.addresses),
                signature=alive.signature,
                is_proven=self._shows_life(alive),
            ),
            now,
        )

    def _shows_life(self, words: Alive) -> bool:
        return bool(words.signature) and self._signatures.is_signer(words.member)

    def set_own(self, own: frozenset[Address]) -> None:
        """Note where we are ourselves now, and look for nobody else there."""
        if own == self._local.own:
            return
        self._local.own = own
        for member in self.members:
            ours = self._ours(member.id, member.addresses)
            path = None if member.path in own else member.path
            if (ours, path) != (member.ours, member.path):
                self.members.put(msgspec.structs.replace(member, ours=ours, path=path))

    def _ours(self, node: NodeId, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        """Return those of another member's addresses at which we would meet ourselves."""
        own = self._local.own
        if node == self._local.id or own.isdisjoint(addresses):
            return ()
        return tuple(address for address in addresses if address in own)

    def put(self, member: Member, now: Instant, reason: str | None = None) -> None:
        """Believe this about a member, and tell the application what is new in it.

        ``reason``: why, in words, when it is another than the states before and after say.
        """
        known = self.members.get(member.id)
        assert known is None or member.precedence >= known.precedence, "precedence only grows"
        assert member.says != member.name, "only what differs from the registry's name is kept"
        if known is not None and _same_precedence(known, member):
            member = msgspec.structs.replace(member, changed_at=known.changed_at)
        else:
            member = msgspec.structs.replace(member, changed_at=now)
        self.members.put(member)
        if known is not None and known.state is MemberState.DEAD and not member.state.is_departed:
            self.flapping.came_back(member.id, now, same_life=known.boot == member.boot)
        if not member.state.is_departed:
            self.departed.remove(member.id)
        if (
            known is None
            or not _same_precedence(known, member)
            or not _same_description(known, member)
        ):
            self._notify(member, known, now, reason)

    def belongs(self, node: NodeId) -> bool:
        """Say whether the registry has this node, as far as we were told of one."""
        return self.names is None or node in self.names

    def _names_of(self, node: NodeId, says: str) -> tuple[str, str]:
        """Return the name that the registry has for a node, and its own if it is another."""
        name = says if self.names is None else self.names.get(node, says)
        return name, "" if name == says else says

    def admit(self, names: Mapping[NodeId, str]) -> tuple[list[Member], list[Alive]]:
        """List nobody but these any more, under these names.

        Return whom to take off the list for it, and what those said who were strangers until now.
        """
        assert all(names.values()), "a decoder refuses a registry with a node that has no name"
        self.names, nodes = names, frozenset(names)
        for member in self.members:
            name, says = self._names_of(member.id, member.says or member.name)
            if (name, says) != (member.name, member.says):
                self.members.put(msgspec.structs.replace(member, name=name, says=says))
        for peer in [peer.id for peer in self.departed if peer.id not in nodes]:
            self.departed.remove(peer)
        known = [self._strangers.pop(node) for node in nodes.intersection(self._strangers)]
        gone = [each for each in self.members if each.id not in nodes | {self._local.id}]
        return gone, sorted(known, key=lambda alive: alive.member)

    def remember(self, alive: Alive) -> None:
        """Keep what a stranger says of itself; of too many, those heard of last."""
        if self.belongs(alive.member):
            return
        self._strangers.pop(alive.member, None)
        self._strangers[alive.member] = alive
        if len(self._strangers) > self._tuning.strangers_max:
            del self._strangers[next(iter(self._strangers))]

    def has_room_for(self, node: NodeId) -> bool:
        """Say whether a newcomer may be listed, if need be in the place of a departed member."""
        if not self.belongs(node):
            self._counts["members_refused/not in the registry"] += 1
            return False
        if len(self.members) < self._tuning.members_max:
            return True
        departed = [member for member in self.members if member.state.is_departed]
        if not departed:
            self._counts["members_refused/list full"] += 1
            return False
        longest = min(departed, key=lambda member: member.changed_at)
        self._unlist(longest)
        return True

    def list_departed(self, entry: SyncEntry, now: Instant) -> None:
        """List somebody who died or left before we heard of it, as of then."""
        assert entry.state.is_departed, "the others are described by their own words"
        since = now - entry.age_s
        if entry.age_s >= self._keep_s(entry.state) or not self.has_room_for(entry.member):
            return
        known = self.members.get(entry.member)
        name, says = self._names_of(entry.member, entry.name)
        member = Member(
            id=entry.member,
            name=name,
            says=says,
            addresses=(addresses := only_gossiped(entry.addresses)),
            ours=self._ours(entry.member, addresses),
            tags=entry.tags,
            state=entry.state,
            boot=entry.boot,
            incarnation=entry.incarnation,
            changed_at=since,
            described=entry.described,
            signature=entry.signature,
            absence=entry.absence,
            is_proven=self._signatures.is_signer(entry.member),
        )
        self.members.put(member)
        self._notify(member, known, now)

    def reap(self, now: Instant) -> None:
        """Take off the list who departed long enough ago."""
        for member in self.members.in_state(MemberState.DEAD, MemberState.LEFT):
            if now - member.changed_at >= self._keep_s(member.state):
                self._unlist(member)
        self._notify_late(now)

    def _notify_late(self, now: Instant) -> None:
        """Tell what has become of those who flap, if nobody was told for some time."""
        for node, notified in self.flapping.suppressed(now):
            member = self.members[node]
            suppressed = self.flapping.notify(node, member.state, now) or 0
            self._emit(MemberChanged(member, notified, FLAPS, suppressed=suppressed))

    def retract(self, member: Member) -> None:
        """Take off the list what was never true."""
        self.members.remove(member.id)
        self._reachability.forget(member.id)
        self.flapping.forget(member.id)
        self._counts["members_unlisted/" + member.state] += 1
        self._emit(MemberChanged(member, member.state, FORGOTTEN))

    def _unlist(self, member: Member) -> None:
        assert member.state.is_departed, "whoever may be there stays listed"
        self.members.remove(member.id)
        self.flapping.forget(member.id)
        self._reachability.forget(member.id)
        if member.state is MemberState.DEAD and self.belongs(member.id):
            self.departed.add(member)
        self._counts["members_unlisted/" + member.state] += 1
        self._emit(MemberChanged(member, member.state, FORGOTTEN))

    def _keep_s(self, state: MemberState) -> float:
        left = state is MemberState.LEFT
        return self._tuning.left_keep_s if left else self._tuning.dead_keep_s

    def _notify(
        self, member: Member, known: Member | None, now: Instant, reason: str | None = None
    ) -> None:
        before = known.state if known else None
        restarted = known is not None and known.boot != member.boot and member.is_live
        reason = reason or (RESTARTED if restarted else REASONS[before, member.state])
        self._counts["members_changed/" + member.state] += 1
        suppressed = self.flapping.notify(member.id, member.state, now)
        self._emit(MemberChanged(member, before, reason, suppressed is None, suppressed or 0))


def _path_kept(known: Member | None, alive: Alive) -> Address | None:
    """Return the way to the member, unless it says that it is no longer there."""
    if known is None or known.boot != alive.boot:
        return None
    gone = known.path in known.addresses and known.path not in alive.addresses
    return None if gone else known.path


def _same_precedence(one: Member, other: Member) -> bool:
    return (one.state, one.boot) == (other.state, other.boot)


def _same_description(one: Member, other: Member) -> bool:
    same_name = (one.name, one.addresses) == (other.name, other.addresses)
    return same_name and one.tags == other.tags
