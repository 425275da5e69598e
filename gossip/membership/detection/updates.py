"""What we believe about every member, and how what is said changes it.

Three kinds of evidence arrive. The *header* of any opened packet proves that its sender lived at
that boot and incarnation. A *claim* is an update; the precedence of ``members.py`` decides whether
it holds. *what others tell* from an exchange (``merge.py``) brings lives and descriptions,
but neither accuses nor kills.

Four rules keep false deaths away and heal what went wrong:

* Whoever is talked about answers: a claim that we are suspect, dead or gone is refuted by an
  incarnation above it, and an outdated one is answered with our latest words again.
* Whoever says something outdated and harmful is told directly what we know.
* Whoever sends a packet while we hold it for suspect or dead is told so, and can refute.
* A packet's header alone clears its sender, when its incarnation is above the accusation.
"""

from collections.abc import Mapping

import msgspec

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address, Instant
from gossip.membership.detection.awareness import REFUTED
from gossip.membership.detection.disputes import DISPUTABLE, HARMFUL
from gossip.membership.detection.shared_parts import SharedParts
from gossip.membership.detection.sleepers import SleepingMembers
from gossip.membership.detection.suspicion import Suspicion
from gossip.membership.members.id_conflicts import IdConflicts
from gossip.membership.model.addresses import only_gossiped
from gossip.membership.model.members import (
    RANK,
    REFUSED,
    Member,
    MemberState,
    Precedence,
    precedence,
)
from gossip.membership.model.messages import (
    ALIVE_BYTES_MAX,
    DATAGRAMS,
    REFUSAL,
    Alive,
    Asleep,
    Dead,
    Left,
    Suspect,
    Update,
)
from gossip.membership.model.rate_limit import Throttle
from gossip.membership.model.sanity import (
    contradicts,
    follows_incarnation,
    follows_life,
    is_plausible,
    is_plausible_from_itself,
)

TOLD_MAX = 1024

STATE_OF: dict[type[Update], MemberState] = {
    Alive: MemberState.ALIVE,
    Suspect: MemberState.SUSPECT,
    Dead: MemberState.DEAD,
    Left: MemberState.LEFT,
    Asleep: MemberState.ASLEEP,
}

RANK_OF: dict[type[Update], int] = {kind: RANK[state] for kind, state in STATE_OF.items()}


class BootSuperseded(msgspec.Struct, frozen=True):
    """Told to the application when others know a later life of us than this one.

    Either another device runs with a copy of our identity, or our count of starts was set back
    (a restored backup). Nobody will believe this life; start anew with a boot above ``boot``.
    """

    boot: Boot


class MemberUpdates:
    """Applies updates about members to the member list, and passes on what is new."""

    def __init__(
        self,
        shared: SharedParts,
    ) -> None:
        self.suspicions: dict[NodeId, Suspicion] = {}
        self.sleepers = SleepingMembers(
            shared.local.id, shared.members, shared.outbound.update_queue, shared.tuning
        )
        self.id_conflicts = IdConflicts(shared.outbound.emit, shared.counts)
        self._local = shared.local
        self._member_list = shared.member_list
        self._members = shared.members
        self._outbound = shared.outbound
        self._counts = shared.counts
        self._awareness = shared.awareness
        self._order = shared.order
        self._reachability = shared.reachability
        self._tuning = shared.tuning
        self._told = Throttle(shared.tuning.gossip_interval_s, TOLD_MAX)
        self._outrun_by: Boot = shared.local.boot

    # Evidence: headers, claims, and the passing of time.

    def saw_packet(
        self, sender: NodeId, boot: Boot, incarnation: int, source: Address, now: Instant
    ) -> bool:
        """Take the header of an opened packet as evidence; say whether to read the packet."""
        member = self._members.get(sender)
        if member is None:
            return True
        if boot == member.boot and incarnation == member.incarnation:
            self._locate(member, member.path, source, now)
            if member.state is not MemberState.ALIVE:
                self._answer(sender, source, now)
            return True
        return self._hear_otherwise(member, boot, incarnation, source, now)

    def _hear_otherwise(
        self, member: Member, boot: Boot, incarnation: int, source: Address, now: Instant
    ) -> bool:
        """Take in a header that says something else than what we believe."""
        if contradicts(member, boot, incarnation):
            self._retract(member)
            return True
        if not is_plausible_from_itself(member, boot, incarnation):
            self._counts["updates_ignored/implausible"] += 1
            return False
        if boot < member.boot:
            self._counts["datagrams_dropped/former life"] += 1
            self.id_conflicts.former_life(member, source, now)
            self._send_state(source, member, now)
            return False
        # Another life may be somewhere else: what we knew of the way to the former one is void.
        self._locate(member, member.path if boot == member.boot else None, source, now)
        self.saw_life(member.id, boot, incarnation, now)
        self._answer(member.id, source, now)
        return True

    def _locate(self, member: Member, known: Address | None, source: Address, now: Instant) -> None:
        """Note where a member was heard from; it is reached there from now on, or as before."""
        if source in self._local.own:
            # Whoever wrote that can write any source; what we send there would reach ourselves.
            self._counts["addresses_ignored/our own, as a source"] += 1
            return
        path = self._reachability.on_packet(member.id, known, source, now)
        if path != member.path:
            self._member_list.put(msgspec.structs.replace(member, path=path), now)

    def met(self, sender: NodeId, source: Address, now: Instant) -> None:
        """Note where the first packet of a member came from: of all ways, this one is proved."""
        member = self._members.get(sender)
        if member is not None and member.path is None:
            self._locate(member, None, source, now)

    def _answer(self, sender: NodeId, source: Address, now: Instant) -> None:
        """Tell whoever sent a packet what we believe of it, if it might say otherwise."""
        member = self._members[sender]
        if member.state in DISPUTABLE:
            self._send_state(source, member, now)

    def admit(self, names: Mapping[NodeId, str], now: Instant) -> None:
        """List only these from now on, among them those who were strangers until now."""
        gone, known = self._member_list.admit(names)
        assert all(member.id != self._local.id for member in gone), "we always list ourselves"
        for member in gone:
            self._drop(member)
        for alive in known:
            self.apply(alive, None, now)

    def _retract(self, member: Member) -> None:
        """Drop what we believed about a member: it was a lie. It is about to be met anew."""
        self._counts["updates_retracted/belied by the member itself"] += 1
        self._drop(member)

    def _drop(self, member: Member) -> None:
        self.suspicions.pop(member.id, None)
        self.sleepers.forget(member.id)
        self._outbound.update_queue.drop(member.id)
        self._member_list.retract(member)

    def saw_life(self, node: NodeId, boot: Boot, incarnation: int, now: Instant) -> None:
        """Believe that a listed member lived at this boot and incarnation, if that is news.

        Its words may be outdated then; ``Member.described`` says so until they arrive.
        """
        member = self._members[node]
        if precedence(boot, incarnation, MemberState.ALIVE) <= member.precedence:
            return
        if not member.is_live or member.state is MemberState.SUSPECT:
            self._outbound.update_queue.drop(node)
        self._set_state(member, MemberState.ALIVE, boot, incarnation, now)

    def apply(self, claim: Update, source: Address | None, now: Instant) -> None:
        """Take in a claim that somebody at ``source`` passed on; None when nobody can be told."""
        if claim.member == self._local.id:
            self._about_us(claim, source, now)
            return
        member = self._members.get(claim.member)
        standing = _precedence(claim)
        if not is_plausible(member, claim.boot, claim.incarnation):
            self._counts["updates_ignored/implausible"] += 1
        elif isinstance(claim, Alive):
            # While many join, most of what is told is known: that is said as cheaply as possible.
            if member is not None and standing == member.precedence and _is_described(member):
                self._counts["updates_ignored/known already"] += 1
            else:
                self._alive(member, claim, source, now)
        elif member is None:
            # Without a name and an address there is nothing to list.
            self._counts["updates_ignored/unknown member"] += 1
        elif _is_early(member, claim, now):
            self._counts["updates_ignored/asleep as announced"] += 1
            if source is not None:
                self._send_state(source, member, now)
        elif standing > member.precedence:
            self._apply_downgrade(member, claim, now)
        elif standing == member.precedence and isinstance(claim, Suspect):
            self._confirm(claim)
        else:
            self._answer_stale(member, claim, source, now)

    def expire(self, now: Instant) -> None:
        """Declare dead whoever did not refute in time."""
        for node in self._tried(now) if self.suspicions else ():
            member = self._members[node]
            assert member.state is MemberState.SUSPECT, "only suspects are on trial"
            self._counts["deaths/declared"] += 1
            self.apply(Dead(node, member.boot, member.incarnation, self._local.id), None, now)
        for node in self.sleepers.overdue(now):
            member = self._members[node]
            self._counts["deaths/overdue sleepers"] += 1
            self.apply(Dead(node, member.boot, member.incarnation, self._local.id), None, now)

    def _tried(self, now: Instant) -> list[NodeId]:
        due = [node for node, trial in self.suspicions.items() if trial.deadline <= now]
        return sorted(due)

    def deadline(self) -> Instant:
        """Return when the next suspicion, or the next sleep, becomes a death; or infinity."""
        overdue = self.sleepers.deadline()
        if not self.suspicions:
            return overdue
        return min(overdue, min(trial.deadline for trial in self.suspicions.values()))

    def extend_deadlines(self, pause_s: float, now: Instant) -> None:
        """Give suspects and sleepers back the time during which we could not hear them."""
        self.sleepers.extend_deadlines(now)
        for trial in self.suspicions.values():
            trial.extend(pause_s)

    def claim_of(self, member: Member) -> Update | None:
        """Return what we believe about a member as a claim; None while its words are unknown."""
        life = (member.id, member.boot, member.incarnation)
        if member.state is MemberState.LEFT:
            return Left(*life)
        if member.state is MemberState.DEAD:
            return Dead(*life, accuser=self._local.id)
        if member.state is MemberState.ASLEEP:
            return self.sleepers.claim(member)
        if member.state is MemberState.SUSPECT:
            return Suspect(*life, accuser=next(iter(self.suspicions[member.id].accusers)))
        if member.described != member.incarnation:
            return None
        return Alive(*life, member.says or member.name, member.addresses, member.tags)

    # Ourselves.

    def announce(self, now: Instant) -> None:
        """Put our latest words about ourselves on the list and on their way."""
        if self._local.asleep_until is not None:
            self._announce_sleep(self._local.asleep_until, now)
            return
        alive = self._local.alive
        self._member_list.describe(alive, now)
        self._outbound.update_queue.put(alive.member, DATAGRAMS.encode(alive))

    def _announce_sleep(self, until: Instant, now: Instant) -> None:
        asleep = msgspec.structs.replace(
            self._members[self._local.id],
            state=MemberState.ASLEEP,
            incarnation=self._local.incarnation,
            asleep_until=until,
        )
        self._member_list.put(asleep, now)
        self.sleepers.advance(now)
        self.sleepers.record(asleep)
        self.preface(asleep)

    def preface(self, ourselves: Member) -> None:
        """Let every packet say first how much of our sleep is left."""
        self._outbound.first_message = self.sleepers.claim(ourselves)

    def _about_us(self, claim: Update, source: Address | None, now: Instant) -> None:
        local = self._local
        if claim.boot > local.boot:
            self.meet_other_life(claim.boot)
            return
        if claim.boot < local.boot or self._is_true(claim):
            return
        if isinstance(self._outbound.first_message, Left):
            return
        if not follows_incarnation(claim.incarnation, local.incarnation):
            self._counts["updates_ignored/implausible"] += 1
            return
        if claim.incarnation >= local.incarnation:
            self._counts["refutations/new"] += 1
            self._awareness.record(REFUTED)
            local.rise_above(claim.incarnation)
        else:
            self._counts["refutations/repeated"] += 1
        self.announce(now)
        if source is not None and self._told.allows((source, local.id), now):
            asleep = local.asleep_until is not None
            self._outbound.send(source, *([] if asleep else [local.alive]))

    def _is_true(self, claim: Update) -> bool:
        """Say whether a claim about this life of ours is, or was, what we say ourselves."""
        asleep = isinstance(claim, Asleep) and self._local.asleep_until is not None
        praise = isinstance(claim, Alive) or asleep
        return praise and claim.incarnation <= self._local.incarnation

    def meet_other_life(self, boot: Boot) -> None:
        """Take in that a life of ours exists which is not this one."""
        if not follows_life(boot, self._local.boot):
            self._counts["updates_ignored/implausible"] += 1
            return
        self._counts["updates_ignored/another life of ours"] += 1
        if boot > self._outrun_by:
            self._outrun_by = boot
            self._outbound.emit(BootSuperseded(boot))

    # Others.

    def _alive(
        self, member: Member | None, alive: Alive, source: Address | None, now: Instant
    ) -> None:
        alive = msgspec.structs.replace(alive, addresses=only_gossiped(alive.addresses))
        data = DATAGRAMS.encode(alive)
        if len(data) > ALIVE_BYTES_MAX:
            self._counts["updates_ignored/too large"] += 1
        elif member is None:
            if self._member_list.has_room_for(alive.member):
                self._member_list.describe(alive, now)
                self._order.insert(alive.member)
                self._outbound.update_queue.put(alive.member, data)
            else:
                self._member_list.remember(alive)
        elif _precedence(alive) > member.precedence:
            self.suspicions.pop(alive.member, None)
            self.sleepers.forget(alive.member)
            if alive.boot != member.boot:
                self.id_conflicts.restarted(alive.member, now)
            self._member_list.describe(alive, now)
            self._outbound.update_queue.put(alive.member, data)
        elif alive.boot == member.boot and alive.incarnation > member.described:
            self._member_list.describe(alive, now)
            if member.state is MemberState.ALIVE:
                self._outbound.update_queue.put(alive.member, data)
            else:
                self._answer_stale(self._members[alive.member], alive, source, now)
        else:
            self._answer_stale(member, alive, source, now)

    def _apply_downgrade(
        self, member: Member, claim: Suspect | Dead | Left | Asleep, now: Instant
    ) -> None:
        if isinstance(claim, Asleep):
            self._falls_asleep(member, claim, now)
            return
        refused = isinstance(claim, Dead) and claim.evidence == REFUSAL
        reason = REFUSED if refused else None
        self._set_state(member, STATE_OF[type(claim)], claim.boot, claim.incarnation, now, reason)
        if isinstance(claim, Suspect):
            self._start_suspicion(claim, now)
        else:
            self._outbound.update_queue.put(member.id, DATAGRAMS.encode(claim))

    def _falls_asleep(self, member: Member, claim: Asleep, now: Instant) -> None:
        until = now + claim.duration_s
        life = claim.boot, claim.incarnation
        self._set_state(member, MemberState.ASLEEP, *life, now, asleep_until=until)
        self.sleepers.record(self._members[member.id])

    def _set_state(
        self,
        member: Member,
        state: MemberState,
        boot: Boot,
        incarnation: int,
        now: Instant,
        reason: str | None = None,
        *,
        asleep_until: Instant | None = None,
    ) -> None:
        """Believe in a new standing of a member, and end its trial if there was one."""
        assert member.id != self._local.id, "what we are is not for others to say"
        self.suspicions.pop(member.id, None)
        self.sleepers.forget(member.id)
        if boot != member.boot:
            self.id_conflicts.restarted(member.id, now)
        described = member.described if boot == member.boot else 0
        changed = msgspec.structs.replace(
            member,
            state=state,
            boot=boot,
            incarnation=incarnation,
            described=described,
            asleep_until=asleep_until,
        )
        self._member_list.put(changed, now, reason)

    def _start_suspicion(self, claim: Suspect, now: Instant) -> None:
        """Begin the trial of a suspect."""
        assert claim.member not in self.suspicions, "one trial at a time"
        size = len(self._members.live_ids)
        patience = self._member_list.flapping.patience(claim.member, now)
        trial = self.suspicions[claim.member] = Suspicion(
            now,
            needed=self._tuning.confirmations(size),
            minimum_s=patience * self._tuning.suspicion_min_s(size),
            maximum_s=patience * self._tuning.suspicion_max_s(size),
        )
        trial.accuse(claim.accuser)
        self._counts["suspicions/begun"] += 1
        self._outbound.update_queue.put_accusation(
            claim.member, claim.accuser, DATAGRAMS.encode(claim), first=True
        )
        if claim.accuser != self._local.id:
            self._order.urge_by_chance(claim.member, size)

    def _confirm(self, claim: Suspect) -> None:
        if self.suspicions[claim.member].accuse(claim.accuser):
            self._counts["suspicions/confirmed"] += 1
            self._outbound.update_queue.put_accusation(
                claim.member, claim.accuser, DATAGRAMS.encode(claim), first=False
            )

    # Telling others what we know.

    def _answer_stale(
        self, member: Member, claim: Update, source: Address | None, now: Instant
    ) -> None:
        """Answer an outdated claim, if whoever believes it is worse off.

        When others hold for alive whom we hold for dead, then either they missed a death, and will
        find out and ask; or a split has just healed, and our answer would kill the living on their
        side. So it is the member itself that hears of it, and refutes if it can.
        """
        if _precedence(claim) == member.precedence:
            self._counts["updates_ignored/known already"] += 1
            return
        self._counts["updates_ignored/outdated"] += 1
        if member.state is MemberState.DEAD and isinstance(claim, Alive):
            for address in member.addresses_by_preference[:1]:
                self._send_state(address, member, now)
        elif source is not None and (member.state, STATE_OF[type(claim)]) in HARMFUL:
            self._send_state(source, member, now)

    def _send_state(self, source: Address, member: Member, now: Instant) -> None:
        """Send what we believe about a member, but not all the time."""
        claim = self.claim_of(member)
        if claim is not None and self._told.allows((source, member.id), now):
            self._counts["updates_corrected/directly"] += 1
            self._outbound.send(source, claim)


def _is_described(member: Member) -> bool:
    return member.described == member.incarnation


def _is_early(member: Member, claim: Update, now: Instant) -> bool:
    """Say whether this is a death of somebody whose announced sleep is not over.

    It cannot answer, and whoever missed its announcement must not decide for those who heard it.
    """
    same = (claim.boot, claim.incarnation) == (member.boot, member.incarnation)
    until = member.asleep_until
    return isinstance(claim, Dead) and same and until is not None and now < until


def _precedence(claim: Update) -> Precedence:
    return claim.boot, claim.incarnation, RANK_OF[type(claim)]
