"""What we believe about every member, and how what is said changes it.

Three kinds of evidence arrive. The *header* of any opened packet proves that its sender lived at
that boot and incarnation. An *update* says so, or worse, of somebody; the precedence of
``members.py`` decides whether it holds. *what others tell* from an exchange (``merge.py``) brings
lives and descriptions, but neither accuses nor kills.

Four rules keep false deaths away and heal what went wrong:

* Whoever is talked about answers: an update that we are suspect, dead or gone is refuted by an
  incarnation above it, and an outdated one is answered with our latest words again.
* Whoever says something outdated and harmful is told directly what we know.
* Whoever sends a packet while we hold it for suspect or dead is told so, and can refute.
* A packet's header alone clears its sender, when its incarnation is above the accusation.

Whoever signs what it says (``signatures.py``) is believed by its signature alone: its description,
goodbyes and sleeps, and that it lives another life. Headers and accusations tell only how things
stand in a life that it has signed. The first signed words of a member void what was told before.
"""

import math
from collections.abc import Mapping

import msgspec

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address, Instant
from gossip.membership.detection.awareness import REFUTED
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
    SLEEP_S_MAX,
    Alive,
    Asleep,
    Dead,
    Left,
    Suspect,
    Update,
    described_bytes,
)
from gossip.membership.model.rate_limit import Throttle
from gossip.membership.model.sanity import (
    contradicts,
    follows_incarnation,
    follows_life,
    is_plausible,
    is_plausible_from_itself,
)

ANSWERED_STATES_MAX = 1024
CLOCK_DIGITS = 6
"""A time that was added to the clock is no longer exactly that when the clock is taken away."""

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
"""(what we believe, what somebody still says): outdated updates that are worth an answer.

Somebody alive to others and dead to us is not among them: see ``MemberUpdates._answer_stale``.
"""

DISPUTABLE = frozenset({MemberState.SUSPECT, MemberState.ASLEEP, MemberState.DEAD})
"""Whoever sends a packet is told that we believe this of it, and can say otherwise."""

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
        self._signatures = shared.signatures
        self._tuning = shared.tuning
        self._answered = Throttle(shared.tuning.gossip_interval_s, ANSWERED_STATES_MAX)
        self._outrun_by: Boot = shared.local.boot

    # Evidence: headers, updates, and the passing of time.

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
        return self._saw_other_life(member, boot, incarnation, source, now)

    def _saw_other_life(
        self, member: Member, boot: Boot, incarnation: int, source: Address, now: Instant
    ) -> bool:
        """Take in a header that says something else than what we believe."""
        is_former = boot < member.boot
        if contradicts(member, boot, incarnation) and not (is_former and member.is_proven):
            self._retract(member)
            return True
        if not is_plausible_from_itself(member, boot, incarnation):
            self._counts["updates_ignored/implausible"] += 1
            return False
        if is_former:
            return self._saw_former_life(member, source, now)
        if not self._signatures.may_live(member.id, boot, member.boot):
            return True  # its words may stand in the packet, and are asked for if they do not
        # Another life may be somewhere else: what we knew of the way to the former one is void.
        self._locate(member, member.path if boot == member.boot else None, source, now)
        self.saw_life(member.id, boot, incarnation, now)
        self._answer(member.id, source, now)
        return True

    def _saw_former_life(self, member: Member, source: Address, now: Instant) -> bool:
        self.id_conflicts.former_life(member, source, now)
        self._show_life(source, member, now)
        if self._signatures.lacks_proof(member.id):
            return True  # the later life may be an invention, and the packet may show it
        self._counts["datagrams_dropped/former life"] += 1
        return False

    def _locate(self, member: Member, known: Address | None, source: Address, now: Instant) -> None:
        """Note where a member was heard from; it is reached there from now on, or as before."""
        if source in self._local.own:
            # Whoever wrote that can write any source; what we send there would reach ourselves.
            self._counts["addresses_ignored/our own, as a source"] += 1
            return
        path = self._reachability.on_packet(member.id, known, source, now)
        if path != member.path:
            self._member_list.put(msgspec.structs.replace(member, path=path), now)

    def lacks_words(self, sender: NodeId, boot: Boot) -> bool:
        """Say whether to ask who it is that sent a packet in this life."""
        member = self._members.get(sender)
        if member is None or boot > member.boot:
            return True
        if boot == member.boot and member.is_live and not _is_described(member):
            return True
        return self._signatures.asks_proof(sender, boot)

    def met(self, sender: NodeId, boot: Boot, source: Address, now: Instant) -> None:
        """Note where the first packet of a life came from: of all ways, this one is proved."""
        member = self._members.get(sender)
        if member is not None and member.boot == boot and member.path is None:
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
        if not self._signatures.may_live(node, boot, member.boot) or _is_over(member, boot):
            return
        if not member.is_live or member.state is MemberState.SUSPECT:
            self._outbound.update_queue.drop(node)
        self._set_state(member, MemberState.ALIVE, boot, incarnation, now)

    def apply(self, update: Update, source: Address | None, now: Instant) -> None:
        """Take in an update that somebody at ``source`` passed on; None when nobody can be told."""
        if update.member == self._local.id:
            self._about_us(update, source, now)
            return
        member = self._members.get(update.member)
        precedence = _precedence(update)
        if not is_plausible(member, update.boot, update.incarnation):
            self._counts["updates_ignored/implausible"] += 1
        elif isinstance(update, Alive):
            # While many join, most of what is told is known: that is said as cheaply as possible.
            if member is not None and precedence == member.precedence and _is_known(member, update):
                self._counts["updates_ignored/known already"] += 1
            else:
                self._alive(member, update, source, now)
        elif member is None:
            # Without a name and an address there is nothing to list.
            self._counts["updates_ignored/unknown member"] += 1
        elif not self._may_be_accused(member, update):
            self._counts["words_refused/accused of another life"] += 1
        elif _is_early(member, update, now):
            self._counts["updates_ignored/asleep as announced"] += 1
            if source is not None:
                self._send_state(source, member, now)
        elif precedence > member.precedence:
            self._apply_downgrade(member, update, now)
        elif precedence == member.precedence and isinstance(update, Suspect):
            self._confirm(update)
        else:
            self._answer_stale(member, update, source, now)

    def expire(self, now: Instant) -> None:
        """Declare dead whoever did not refute in time."""
        for node in self._expired_suspicions(now) if self.suspicions else ():
            member = self._members[node]
            assert member.state is MemberState.SUSPECT, "only suspects are suspected"
            self._counts["deaths/declared"] += 1
            self.apply(Dead(node, member.boot, member.incarnation, self._local.id), None, now)
        for node in self.sleepers.overdue(now):
            member = self._members[node]
            self._counts["deaths/overdue sleepers"] += 1
            self.apply(Dead(node, member.boot, member.incarnation, self._local.id), None, now)

    def _expired_suspicions(self, now: Instant) -> list[NodeId]:
        due = [node for node, suspicion in self.suspicions.items() if suspicion.deadline <= now]
        return sorted(due)

    def deadline(self) -> Instant:
        """Return when the next suspicion, or the next sleep, becomes a death; or infinity."""
        overdue = self.sleepers.deadline()
        if not self.suspicions:
            return overdue
        return min(overdue, min(suspicion.deadline for suspicion in self.suspicions.values()))

    def extend_deadlines(self, pause_s: float, now: Instant) -> None:
        """Give suspects and sleepers back the time during which we could not hear them."""
        self.sleepers.extend_deadlines(now)
        for suspicion in self.suspicions.values():
            suspicion.extend(pause_s)

    def update_of(self, member: Member) -> Update | None:
        """Return what we believe about a member as an update; None while its words are unknown."""
        life = (member.id, member.boot, member.incarnation)
        if member.state is MemberState.LEFT:
            return Left(*life, member.absence)
        if member.state is MemberState.DEAD:
            return Dead(*life, accuser=self._local.id)
        if member.state is MemberState.ASLEEP:
            return self.sleepers.update_of(member)
        if member.state is MemberState.SUSPECT:
            return Suspect(*life, accuser=next(iter(self.suspicions[member.id].accusers)))
        return self.words_of(member) if _is_described(member) else None

    def words_of(self, member: Member) -> Alive:
        """Return the words by which a member is described."""
        told = member.says or member.name, member.addresses, member.tags, member.signature
        return Alive(member.id, member.boot, member.described, *told)

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
        local = self._local
        announced_s = min(math.ceil(round(until - now, CLOCK_DIGITS)), SLEEP_S_MAX)
        words = Asleep(local.id, local.boot, local.incarnation, announced_s, announced_s)
        asleep = msgspec.structs.replace(
            self._members[local.id],
            state=MemberState.ASLEEP,
            incarnation=local.incarnation,
            asleep_until=until,
            announced_s=announced_s,
            absence=self._signatures.sign(words.said()),
        )
        self._member_list.put(asleep, now)
        self.sleepers.advance(now)
        self.sleepers.record(asleep)
        self.set_first_message(asleep)

    def set_first_message(self, ourselves: Member) -> None:
        """Let every packet say first how much of our sleep is left."""
        self._outbound.first_message = self.sleepers.update_of(ourselves)

    def _about_us(self, update: Update, source: Address | None, now: Instant) -> None:
        local = self._local
        if update.boot > local.boot:
            if self._is_ours(update):
                self.meet_other_life(update.boot)
            return
        if update.boot < local.boot or self._is_true(update):
            return
        if isinstance(self._outbound.first_message, Left):
            return
        if not follows_incarnation(update.incarnation, local.incarnation):
            self._counts["updates_ignored/implausible"] += 1
            return
        if update.incarnation >= local.incarnation:
            self._counts["refutations/new"] += 1
            self._awareness.record(REFUTED)
            local.rise_above(update.incarnation)
        else:
            self._counts["refutations/repeated"] += 1
        self.announce(now)
        if source is not None and self._answered.allows((source, local.id), now):
            asleep = local.asleep_until is not None
            self._outbound.send(source, *([] if asleep else [local.alive]))

    def _is_true(self, update: Update) -> bool:
        """Say whether an update about this life of ours is, or was, what we say ourselves."""
        asleep = isinstance(update, Asleep) and self._local.asleep_until is not None
        praise = isinstance(update, Alive) or asleep
        return praise and update.incarnation <= self._local.incarnation

    def _is_ours(self, update: Update) -> bool:
        """Say whether this shows that a later life of ours exists, and not only that it is said."""
        if isinstance(update, Suspect | Dead):
            return self._signatures.may_live(update.member, update.boot, self._local.boot)
        return self._signatures.believes(update)

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
        if (told := self._as_told(alive)) is None:
            return
        if member is not None and not self._is_news(member, alive):
            self._answer_stale(member, alive, source, now)
            return
        if not self._signatures.believes(alive):
            return
        alive, data = told, DATAGRAMS.encode(told)
        if member is not None and alive.signature and not member.is_proven:
            member = self._first_proof(member, alive)
        if member is None:
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
        else:
            self._member_list.describe(alive, now)
            if member.state is MemberState.ALIVE:
                self._outbound.update_queue.put(alive.member, data)
            else:
                self._answer_stale(self._members[alive.member], alive, source, now)

    def _as_told(self, alive: Alive) -> Alive | None:
        """Return the words as they may be passed on; None if they may not be."""
        fit = msgspec.structs.replace(alive, addresses=only_gossiped(alive.addresses))
        if described_bytes(fit) > ALIVE_BYTES_MAX:
            self._counts["updates_ignored/too large"] += 1
        elif alive.signature and fit.addresses != alive.addresses:
            # Without them the signature would not fit any more, and nobody honest tells them.
            self._counts["updates_ignored/unsound"] += 1
        else:
            return fit
        return None

    def _is_news(self, member: Member, alive: Alive) -> bool:
        """Say whether these words would change anything, if they are the member's."""
        if _precedence(alive) > member.precedence:
            return True
        is_newer = alive.boot == member.boot and alive.incarnation > member.described
        return is_newer or bool(alive.signature and self._signatures.lacks_proof(member.id))

    def _first_proof(self, member: Member, alive: Alive) -> Member | None:
        """Void what was told of a member that has now shown that it signs; None: all of it."""
        if alive.boot >= member.boot:
            return member
        self._retract(member)
        return None

    def _apply_downgrade(
        self, member: Member, update: Suspect | Dead | Left | Asleep, now: Instant
    ) -> None:
        if isinstance(update, Left | Asleep) and not self._signatures.believes(update):
            return
        if isinstance(update, Asleep):
            self._falls_asleep(member, update, now)
            return
        refused = isinstance(update, Dead) and update.evidence == REFUSAL
        reason = REFUSED if refused else None
        absence = update.signature if isinstance(update, Left) else b""
        life = update.boot, update.incarnation
        self._set_state(member, STATE_OF[type(update)], *life, now, reason, absence=absence)
        if isinstance(update, Suspect):
            self._start_suspicion(update, now)
        else:
            self._outbound.update_queue.put(member.id, DATAGRAMS.encode(update))

    def _falls_asleep(self, member: Member, update: Asleep, now: Instant) -> None:
        announced_s = update.announced_s or update.duration_s
        until = now + min(update.duration_s, announced_s)
        life = update.boot, update.incarnation
        self._set_state(
            member,
            MemberState.ASLEEP,
            *life,
            now,
            asleep_until=until,
            announced_s=announced_s,
            absence=update.signature,
        )
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
        announced_s: int = 0,
        absence: bytes = b"",
    ) -> None:
        """Believe in a new state of a member, and end its suspicion if there was one."""
        assert member.id != self._local.id, "what we are is not for others to say"
        self.suspicions.pop(member.id, None)
        self.sleepers.forget(member.id)
        if boot != member.boot:
            self.id_conflicts.restarted(member.id, now)
        goes_on = boot == member.boot
        is_proven = bool(absence) and self._signatures.is_signer(member.id)
        changed = msgspec.structs.replace(
            member,
            state=state,
            boot=boot,
            incarnation=incarnation,
            described=member.described if goes_on else 0,
            signature=member.signature if goes_on else b"",
            asleep_until=asleep_until,
            announced_s=announced_s,
            absence=absence,
            is_proven=is_proven or (goes_on and member.is_proven),
        )
        self._member_list.put(changed, now, reason)

    def _start_suspicion(self, update: Suspect, now: Instant) -> None:
        """Begin the suspicion of a member."""
        assert update.member not in self.suspicions, "one suspicion at a time"
        size = len(self._members.live_ids)
        patience = self._member_list.flapping.patience(update.member, now)
        suspicion = self.suspicions[update.member] = Suspicion(
            now,
            needed=self._tuning.confirmations(size),
            minimum_s=patience * self._tuning.suspicion_min_s(size),
            maximum_s=patience * self._tuning.suspicion_max_s(size),
        )
        suspicion.accuse(update.accuser)
        self._counts["suspicions/begun"] += 1
        self._outbound.update_queue.put_accusation(
            update.member, update.accuser, DATAGRAMS.encode(update), first=True
        )
        if update.accuser != self._local.id:
            self._order.probe_next_by_chance(update.member, size)

    def _confirm(self, update: Suspect) -> None:
        if self.suspicions[update.member].accuse(update.accuser):
            self._counts["suspicions/confirmed"] += 1
            self._outbound.update_queue.put_accusation(
                update.member, update.accuser, DATAGRAMS.encode(update), first=False
            )

    # Telling others what we know.

    def _answer_stale(
        self, member: Member, update: Update, source: Address | None, now: Instant
    ) -> None:
        """Answer an outdated update, if whoever believes it is worse off.

        When others hold for alive whom we hold for dead, then either they missed a death, and will
        find out and ask; or a split has just healed, and our answer would kill the living on their
        side. So it is the member itself that hears of it, and refutes if it can.
        """
        if _precedence(update) == member.precedence:
            self._counts["updates_ignored/known already"] += 1
            return
        self._counts["updates_ignored/outdated"] += 1
        if member.state is MemberState.DEAD and isinstance(update, Alive):
            for address in member.addresses_by_preference[:1]:
                self._send_state(address, member, now)
        elif source is not None and (member.state, STATE_OF[type(update)]) in HARMFUL:
            self._send_state(source, member, now)

    def _may_be_accused(self, member: Member, update: Update) -> bool:
        """Say whether this can be, if it is an accusation: of a life that is signed, and not over.

        A goodbye and a sleep show by themselves whose they are.
        """
        if isinstance(update, Left | Asleep):
            return True
        may_live = self._signatures.may_live(member.id, update.boot, member.boot)
        return may_live and not _is_over(member, update.boot)

    def _show_life(self, source: Address, member: Member, now: Instant) -> None:
        """Tell a former life of a later one, by words that show it."""
        update = self.update_of(member)
        words = (
            [self.words_of(member)] if member.signature and update != self.words_of(member) else []
        )
        told = [*words, *([] if update is None else [update])]
        if told and self._answered.allows((source, member.id), now):
            self._counts["updates_corrected/directly"] += 1
            self._outbound.send(source, *told)

    def _send_state(self, source: Address, member: Member, now: Instant) -> None:
        """Send what we believe about a member, but not all the time."""
        update = self.update_of(member)
        if update is not None and self._answered.allows((source, member.id), now):
            self._counts["updates_corrected/directly"] += 1
            self._outbound.send(source, update)


def _is_described(member: Member) -> bool:
    return member.described == member.incarnation


def _is_known(member: Member, alive: Alive) -> bool:
    """Say whether these words of the same incarnation bring nothing, not even a signature."""
    return _is_described(member) and bool(member.is_proven or not alive.signature)


def _is_over(member: Member, boot: Boot) -> bool:
    """Say whether the member itself, with its signature, took its leave of this life."""
    return member.state is MemberState.LEFT and bool(member.absence) and boot == member.boot


def _is_early(member: Member, update: Update, now: Instant) -> bool:
    """Say whether this is a death of somebody whose announced sleep is not over.

    It cannot answer, and whoever missed its announcement must not decide for those who heard it.
    """
    same = (update.boot, update.incarnation) == (member.boot, member.incarnation)
    until = member.asleep_until
    return isinstance(update, Dead) and same and until is not None and now < until


def _precedence(update: Update) -> Precedence:
    return update.boot, update.incarnation, RANK_OF[type(update)]
