"""The control plane of one node: everything in this room, wired on one screen.

What a command goes through: ``submit`` → ``proposals`` asks the leader → ``answering`` there puts
it into the log → Raft → every node's ``applier`` → the leader's ``OutcomeAnswer``, or our own copy
→ ``ControlCompleted``. What a read goes through: ``submit`` → ``own_reads`` asks a voter, itself if
it is one → ``confirmed_reads`` → ``LookupAnswer`` → ``ControlCompleted``.

Every node holds the state. Who takes part in the agreement gets it from Raft; all others pull it
from a voter: ``participation.py``.

This is a machine as in ``gossip/core/machine.py``, except that frames come in whole and
authenticated.
"""

import random
from collections import Counter
from collections.abc import Iterator

import msgspec

from gossip.consensus import messages as raft_messages
from gossip.consensus.configuration import StoreId, Voter
from gossip.consensus.messages import Entry
from gossip.consensus.storage import StoredState
from gossip.consensus.tuning import ConsensusTuning
from gossip.control import messages as m
from gossip.control.answering import (
    AskServer,
    EntryOf,
    MembersOf,
    members_of_any,
    no_entry,
)
from gossip.control.applier import LogApplier
from gossip.control.commands import ChangeRegistry
from gossip.control.committed_log import CommittedLog
from gossip.control.confirmed_reads import ConfirmedReads
from gossip.control.directory import Contacts, VoterDirectory
from gossip.control.lead import Leadership
from gossip.control.leader_search import LeaderSearch
from gossip.control.lookups import check_lookup, look_up
from gossip.control.outbound import ControlOutbound
from gossip.control.own_orders import OwnOrders
from gossip.control.own_reads import OwnReads
from gossip.control.own_reports import OwnReports
from gossip.control.participation import Participation
from gossip.control.proposals import Proposals
from gossip.control.recovery import origin_of
from gossip.control.requests import (
    ControlCompleted,
    ControlOrder,
    ControlOverview,
    ControlRead,
    ControlRequest,
    ControlStatus,
    ControlSurvey,
    ControlWrite,
    RegistryCommitted,
    check_timeout,
)
from gossip.control.session_keeper import SessionKeeper
from gossip.control.standings import Standings
from gossip.control.state_machine import AppliedCommand, ControlState
from gossip.control.voter_keeper import Draining, VoterKeeper, Zones
from gossip.control.voters import VoterTuning
from gossip.control.watchers import ControlWatch, Watchers, check_watch
from gossip.core.errors import LimitExceeded, RemoteError
from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Effect, Instant, Persist

REQUESTS_MAX = 10_000
HEARD_FRESH_S = 75.0
"""A copy that a voter answered within this time is up to date, as far as one can know."""


FIRST_GENERATION = 1
"""Nobody can be of a former one."""


class StoredLog(msgspec.Struct, frozen=True):
    """The log of one node as its start finds it, and which store it is.

    ``boot`` must be random and new at every start of the process. ``state`` is what is on disk:
    ``founded`` for a founder, ``blank`` for a new node.
    """

    store: StoreId
    boot: Boot
    state: StoredState


FRAME_TAGS = raft_messages.CODEC.tags | m.CODEC.tags


class ControlPlane:
    """The agreed state at one node, as a machine.

    ``contacts`` are nodes to ask while no voter is known; ``zones``: who belongs to the covey, and
    may vote. ``is_on_mains`` is what this node declares of its power. ``members_of`` reads a signed
    registry that is proposed to us; ``entry_of`` finds a node in the one that we follow.
    ``draining``: who is to own nothing, and no vote.

    Raises ValueError for a log that is damaged.
    """

    def __init__(
        self,
        node: NodeId,
        log: StoredLog,
        contacts: Contacts,
        zones: Zones,
        rng: random.Random,
        now: Instant,
        tuning: ConsensusTuning | None = None,
        *,
        voter_tuning: VoterTuning | None = None,
        is_on_mains: bool | None = None,
        members_of: MembersOf = members_of_any,
        draining: Draining = frozenset,
        entry_of: EntryOf = no_entry,
    ) -> None:
        self.me = Voter(log.store, node)
        self._zones = zones
        self.outbound = ControlOutbound(node, rng)
        self.directory = VoterDirectory(node, contacts)
        self.applier = LogApplier(self.outbound)
        self.watchers = Watchers(self.outbound.emit)
        self.reads = ConfirmedReads()
        self.leadership = Leadership(lambda: self.state, self.reads, self.outbound.counts)
        parts = (self.leadership, self.reads, self.directory, self.outbound)
        tuning = tuning or ConsensusTuning()
        self.part = Participation(self.me, log.boot, log.state, rng, tuning, self.applier, *parts)
        self.committed = CommittedLog(lambda: self.state, self.part.log_state, self.outbound)
        voter_tuning = voter_tuning or VoterTuning()
        self.voters = VoterKeeper(
            zones, draining, lambda: self.part.raft, lambda: origin_of(self.state),
            lambda now: self.own_reports.report(now), voter_tuning,
        )  # fmt: skip
        self._entry_of = entry_of
        self.standings = Standings(
            self.outbound, self.standing, self._hear_standing,
            self.may_tell, self._has_vote, self._is_alone,
        )  # fmt: skip
        self.asks = AskServer(
            lambda: self.state, lambda: self.part.raft, lambda: self.part.configuration,
            members_of, entry_of, self.committed, self.voters, self.standings, *parts,
        )  # fmt: skip
        self.search = LeaderSearch(self.outbound, self.directory)
        asking = (self.outbound, self.directory, self.search)
        self.proposals = Proposals(*asking, rng.getrandbits(63))
        self.keeper = SessionKeeper(*asking)
        self.own_reads = OwnReads(self.outbound, self.directory)
        self.own_orders = OwnOrders(*asking)
        self.own_reports = OwnReports(
            self.outbound, self.directory, log.store, self._follows, self._is_halted, now,
            every_s=voter_tuning.report_every_s, hangs_s=tuning.election_min_s,
            is_on_mains=is_on_mains,
        )  # fmt: skip
        self._wire()
        self._now = now
        self.part.start(now)
        self._settle()

    def _wire(self) -> None:
        """Say who is told of what: answers, the time, and what is applied."""
        self._askers = (
            self.proposals, self.own_reads, self.own_orders, self.own_reports,
            self.keeper, self.search, self.part.copy, self.standings,
        )  # fmt: skip
        self._timed = (
            self.search, self.proposals, self.own_reads, self.own_orders, self.own_reports,
            self.keeper, self.committed, self.part, self.voters, self.standings,
        )  # fmt: skip
        self.applier.on_changes = [
            lambda batch, _now: self.watchers.changed(batch),
            self.leadership.changed,
        ]
        self.applier.on_applied = [self._on_applied]
        self.applier.on_taken = [self._on_taken]
        self.applier.on_replaced = [self._on_replaced]
        self.applier.on_halted = self._look_if_halted
        self.part.on_leader = self._on_leader
        self.part.on_installed = self._on_installed
        self.part.on_other_generation = self.standings.met
        self.part.takes_writes = self.voters.takes_writes
        self.part.copy.on_fork = self.standings.forked
        self.part.copy.on_later = self.standings.met
        self.part.copy.believes = self.standings.believes

    @property
    def state(self) -> ControlState:
        """This node's copy of the state."""
        return self.applier.state

    @property
    def counts(self) -> Counter[str]:
        """What happened so far, by "family/label"."""
        raft = self.part.raft
        counts = self.outbound.counts + self.voters.counts
        return counts + raft.counts if raft else counts

    def voting(self) -> tuple[NodeId | None, tuple[NodeId, ...]]:
        """Return who leads, as far as is known, and who votes by what is committed."""
        return self.directory.leader, tuple(v.node for v in self.part.configuration.voters)

    def status(self, now: Instant) -> ControlStatus:
        """Return how things stand, for people."""
        raft, state = self.part.raft, self.state
        return ControlStatus(
            role=raft.role.value if raft else "copy",
            generation=self.part.generation,
            applied_index=state.index,
            leader=self.directory.leader,
            voters=tuple(each.node for each in self.part.configuration.voters),
            learners=tuple(each.node for each in self.part.configuration.learners),
            has_majority=self._has_majority(now),
            sessions=len(state.sessions),
            keys=len(state.keys),
            used_bytes=state.space.used_bytes,
            watches=len(self.watchers),
            is_halted=self.applier.is_halted,
            heard_s_ago=self._heard_s_ago(now),
            origin=origin_of(state),
            forks=tuple(self.standings.forks.items()),
            takes_writes=self.own_reports.takes_writes,
            save_hangs_s=self.own_reports.save_hangs_s(now),
            stood_still_s_ago=self._stood_still_s_ago(now),
            doubted=tuple(self.standings.doubted.items()),
        )

    def _stood_still_s_ago(self, now: Instant) -> float | None:
        at = self.leadership.begun_anew_at
        return None if at is None else now - at

    def _heard_s_ago(self, now: Instant) -> float | None:
        """Return since when the copy may be behind: that of a voter with a leader is not."""
        if self.part.raft is not None:
            return 0.0 if self.part.raft.leader is not None else None
        heard_at = self.part.copy.heard_at
        return None if heard_at is None else now - heard_at

    def _has_majority(self, now: Instant) -> bool:
        raft, copy = self.part.raft, self.part.copy
        is_fresh = copy.heard_at is not None and now - copy.heard_at < HEARD_FRESH_S
        return raft.leader is not None if raft else is_fresh and copy.has_leader

    def standing(self) -> m.CopyStanding:
        """Return how this node's copy of the log stands."""
        return self.part.standing(has_majority=self._has_majority(self._now))

    def _is_halted(self) -> bool:
        return self.applier.is_halted

    def may_tell(self, node: NodeId) -> bool:
        """Tell whether this node is believed about other generations (``standings.py``)."""
        if any(each.node == node for each in self.part.own_configuration().voters):
            return True
        entry = self._entry_of(node)
        return entry is not None and entry.is_issuer

    def _has_vote(self) -> bool:
        return self.part.own_configuration().is_voter(self.me.store)

    def _is_alone(self, now: Instant) -> bool:
        """Tell whether we only copy, and have heard of no leader for long."""
        if self.part.raft is not None:
            return False
        self.part.copy.want(now)  # who asks nobody would not hear of one
        return now - self.part.copy.led_at >= HEARD_FRESH_S

    def trust(self, node: NodeId, now: Instant) -> None:
        """Follow the later generation that this node follows, as an operator says."""
        self._now = now
        self.standings.trust(node, now)

    def _follows(self) -> tuple[int, StoreId]:
        return self.part.generation, origin_of(self.state)

    # What applications ask.

    def submit(self, request: ControlRequest, now: Instant) -> int:
        """Begin a request; what is told of it carries the number returned.

        Raises InvalidRequest or LimitExceeded; then nothing was begun.
        """
        asking = len(self.proposals) + len(self.own_reads) + len(self.own_orders)
        if asking + len(self.standings) + len(self.watchers) >= REQUESTS_MAX:
            raise LimitExceeded(
                f"{REQUESTS_MAX} requests are under way on this node; wait for some"
            )
        if self.part.raft is None:
            self.part.copy.want(now)
        number = self.outbound.number()
        match request:
            case ControlWatch():
                check_watch(request)
                self.watchers.begin(number, request, self.state.history, self.state.index)
            case ControlRead():
                self._read(number, request, now)
            case ControlOrder() | ControlOverview():
                check_timeout(request.timeout_s)
                self.own_orders.begin(number, request, now)
            case ControlSurvey():
                check_timeout(request.timeout_s)
                self.standings.survey(number, request, now)
            case ControlWrite():
                check_timeout(request.timeout_s)
                self.proposals.begin(number, request.action, request.timeout_s, now)
        self._now = now
        return number

    def _read(self, number: int, request: ControlRead, now: Instant) -> None:
        check_lookup(request.lookup)
        check_timeout(request.timeout_s)
        if request.stale:
            result = look_up(self.state, request.lookup)
            self.outbound.emit(ControlCompleted(number, self.state.index, result))
        else:
            self.own_reads.begin(number, request.lookup, request.timeout_s, now)

    def cancel(self, request: int, now: Instant) -> None:
        """Forget a request, or end a watch; a command that is under way is carried out still."""
        _ = (
            self.watchers.cancel(request)
            or self.own_reads.cancel(request)
            or self.own_orders.cancel(request)
            or self.standings.cancel(request)
            or self.proposals.cancel(request)
        )
        self._now = now

    def keep_session(
        self, session: int, ttl_s: float, sent_at: Instant, *, is_driven: bool = False
    ) -> None:
        """Renew a session from here on, which was asked for at ``sent_at``.

        ``SessionLost`` tells when it is over, or not sure any more. One that ``is_driven`` is
        renewed when its holder says so, by ``renew_session``: so it ends with its holder.
        """
        self.keeper.keep(session, ttl_s, sent_at, is_driven=is_driven)

    def renew_session(self, session: int, now: Instant) -> bool:
        """Renew a session that is driven; ``SessionConfirmed`` tells until when it is sure.

        False if it is not kept here (any more).
        """
        is_kept = self.keeper.renew(session, now)
        self._now = now
        return is_kept

    def release_session(self, session: int) -> None:
        """Renew a session no more; close it, too, so that nobody waits for its time to live."""
        self.keeper.release(session)

    # What the network, the disk and the clock bring.

    def receive_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in a frame of FRAME_TAGS from an authenticated peer. Never raises."""
        try:
            message = m.CODEC.decode(data)
        except RemoteError:
            self.outbound.counts["frames_dropped/malformed"] += 1
            return
        if message is None:
            self.part.receive(data, peer, now)
        else:
            self._accept(message, peer, now)
        self._now = now

    def _accept(self, message: m.ControlMessage, peer: NodeId, now: Instant) -> None:
        if isinstance(message, m.ControlAsk):
            self.asks.asked(message, peer, now)
            return
        body = message.body
        if not any(part.asked(message.number) == peer for part in self._askers):
            # Nothing of it is believed: who knows a number is not thereby who was asked.
            self.outbound.counts["control_answers/late"] += 1
            return
        if isinstance(body, m.RedirectAnswer | m.PullAnswer | m.HeardAnswer):
            self._hear(body.hearsay, now)
        if not self._answered(message.number, body, peer, now):
            self.outbound.counts["control_answers/late"] += 1

    def _hear(self, hearsay: m.Hearsay, now: Instant) -> None:
        self.part.heard(hearsay, now)
        if self.directory.learn(hearsay):
            self._on_leader(now)

    def _hear_standing(self, standing: m.CopyStanding, now: Instant) -> None:
        """Follow whom a later generation follows, unless we take part in a former one still."""
        self.directory.begin_anew()
        self._hear(standing.hearsay, now)
        if self.part.raft is None:
            self.part.copy.want(now)
            self.part.copy.hurry(now)

    def _answered(self, number: int, body: m.AnswerBody, peer: NodeId, now: Instant) -> bool:
        """Hand an answer to who asked; False if nobody did."""
        match body:
            case m.OutcomeAnswer(index=index, outcome=outcome):
                return self.proposals.answered(number, index, outcome, now)
            case m.LookupAnswer(index=index, result=result):
                return self.own_reads.answered(number, index, result)
            case m.RenewAnswer():
                return self.keeper.answered(number, body)
            case m.StandingAnswer(standing=standing):
                return self.standings.answered(number, standing, now)
            case m.ReplaceAnswer() | m.OverviewAnswer():
                return self.own_orders.answered(number, body)
            case m.HeardAnswer():
                return self.own_reports.answered(number, now)
            case m.RedirectAnswer():
                return (
                    self.proposals.redirected(number, body, now)
                    or self.own_reads.redirected(number, body, now)
                    or self.own_orders.redirected(number, now)
                    or self.own_reports.redirected(number, now)
                    or self.keeper.redirected(number, now)
                    or self.search.redirected(number, now)
                    or self.standings.redirected(number, now)
                    or self.part.copy.redirected(number, body, now)
                )
            case _:
                return self.part.copy.answered(number, body, peer, now)

    def peer_unreachable(self, peer: NodeId, now: Instant) -> None:
        """A stream to a peer broke or could not be opened; frames may be lost."""
        for part in (
            self.search, self.proposals, self.own_reads, self.own_reports, self.keeper,
            self.part.copy, self.standings,
        ):  # fmt: skip
            part.unreachable(peer, now)
        if self.part.raft is not None:
            self.part.raft.peer_unreachable(peer, now)
        self._now = now

    def peer_alive(self, peer: NodeId, now: Instant) -> None:
        """A peer is there again: perhaps it can tell what we lack."""
        copy = self.part.copy
        if peer in self.directory.voters or (copy.waits and peer in self.directory.contacts()):
            copy.hurry(now)
        if self.leadership.leads and self.part.generation > FIRST_GENERATION:
            # It may be of those who were lost when this generation began.
            self.standings.met(peer, now)
            self._now = now

    def peer_gone(self, peer: NodeId, now: Instant) -> None:
        """A peer is believed dead: if it led, look for another leader sooner. Only a hint."""
        raft = self.part.raft
        if raft is not None and raft.leader is not None and raft.leader.node == peer:
            raft.forget_leader(now)
        self._now = now

    def hold_back(self, now: Instant, *, held: bool) -> None:
        """The disk takes nothing, or again: who cannot write should not lead."""
        self.own_reports.hold_back(now, held=held)
        self.part.hold_back(now, held=held)
        self._now = now

    def hand_over(self, now: Instant) -> None:
        """We are about to be gone for a while: let somebody else lead, if we do and one can."""
        self.part.hand_over(now)
        self._now = now

    def persisted(self, token: int, now: Instant) -> None:
        """The batch with this token, and all before it, are on disk."""
        self.own_reports.saved(token, now)
        self.part.persisted(token, now)
        self._now = now

    def wake(self, now: Instant) -> None:
        """Let due timers act."""
        for part in self._timed:
            part.wake(now)
        if self.part.is_lonely(now):
            self.search.doubt(now)
        self._now = now

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due, once the effects are drained."""
        dues = [due for part in self._timed if (due := part.deadline()) is not None]
        return min(dues, default=None)

    def effects(self) -> Iterator[Effect]:
        """Drain what is to be done, in order."""
        self._settle()
        for effect in self.outbound.drain():
            if isinstance(effect, Persist):
                self.own_reports.saving(effect.token, self._now)
            yield effect

    def _settle(self) -> None:
        """Take in what we asked of ourselves, and what the log brings, until both are quiet.

        Not with each input: what has come until the effects are asked for shares a batch.
        """
        now = self._now
        while self.outbound.own or self.part.settle(now):
            while self.outbound.own:
                self._accept(self.outbound.own.popleft(), self.me.node, now)

    # Who is told of what.

    def _on_applied(self, entry: Entry, applied: AppliedCommand, now: Instant) -> None:
        self.leadership.applied(applied, now)
        self.asks.applied(entry.index, entry.term, applied)
        self.keeper.applied(applied, self.state.sessions)
        self.proposals.applied(applied, now)
        if isinstance(applied.action, ChangeRegistry) and applied.action.registry:
            self._show_registry()

    def _show_registry(self) -> None:
        """Have the agreed registry followed, if it is not yet."""
        agreed = self.state.registry.agreed
        if agreed is not None:
            self.outbound.emit(RegistryCommitted(agreed.signed))

    def _on_taken(self, entries: tuple[Entry, ...], now: Instant) -> None:
        self.part.took(entries, now)
        self.committed.applied(entries, now)

    def _look_if_halted(self, now: Instant) -> None:
        self.part.look_if_halted(now)
        self.own_reports.look(now)

    def _on_replaced(self, now: Instant) -> None:
        self._look_if_halted(now)
        self.committed.replaced(self.state.index)
        self.watchers.replaced(self.state.index)
        self.leadership.replaced(now)
        self.proposals.replaced(self.state.clients, now)
        self._show_registry()

    def _on_installed(self, now: Instant) -> None:
        self.standings.generation_changed()
        self.own_reports.follows_another(now)

    def _on_leader(self, now: Instant) -> None:
        """Another leader is followed now, or none: what the one before was asked is asked anew."""
        self.voters.leader_changed(now)
        self.own_reports.leader_changed(now)
        if not self.leadership.leads:
            self.asks.leads_no_more()
        elif self.part.generation > FIRST_GENERATION:
            for node in self._zones():
                self.standings.met(node, now)
        self.own_reads.takes_part = self.part.raft is not None
        if self.directory.leader is not None:
            self.proposals.leader_changed(now)
            self.keeper.leader_changed(now)
