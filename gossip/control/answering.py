"""What a node that takes part in the agreement does for those who ask it, itself among them."""

from collections.abc import Callable, Collection

import msgspec

from gossip.consensus.configuration import Configuration
from gossip.consensus.raft import Raft
from gossip.consensus.requests import NotLeader, Overloaded
from gossip.control.commands import (
    ChangeRegistry,
    EndDelay,
    ExpireSession,
    UnknownCommand,
    decode_command,
)
from gossip.control.committed_log import CommittedLog
from gossip.control.confirmed_reads import ConfirmedReads
from gossip.control.directory import VoterDirectory
from gossip.control.lead import Leadership
from gossip.control.lookups import check_lookup, look_up
from gossip.control.messages import (
    AskBody,
    ChunkAsk,
    ControlAsk,
    HeardAnswer,
    LookupAnswer,
    LookupAsk,
    OutcomeAnswer,
    OverviewAsk,
    ProposeAsk,
    PullAsk,
    RedirectAnswer,
    RedirectReason,
    RenewAnswer,
    RenewAsk,
    ReplaceAnswer,
    ReplaceAsk,
    StabilityAsk,
    StandingAsk,
)
from gossip.control.outbound import ControlOutbound
from gossip.control.requests import VoterOrdered
from gossip.control.standings import Standings
from gossip.control.state_machine import AppliedCommand, ControlState
from gossip.control.voter_keeper import VoterKeeper
from gossip.control.voters import ReplacementOrder
from gossip.core.errors import InvalidRequest, RemoteError
from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import Registry, SignedRegistry

NO_RIGHT = (
    "who votes gets the authority's key, so an issuer or who may let others in has to say it:"
    " `covey members allow` gives a node that right"
)

MembersOf = Callable[[bytes], Collection[NodeId]]
"""Returns who belongs by a signed registry. Raises Malformed, or Forged if nobody signed it."""


def members_of_any(signed: bytes) -> Collection[NodeId]:
    """Return who belongs by a registry, whoever signed it. Raises Malformed."""
    return Registry.decode(SignedRegistry.decode(signed).payload).ids()


EntryOf = Callable[[NodeId], RegisteredNode | None]
"""Returns what the registry that this node follows has of a node; None if it does not belong."""


def no_entry(_node: NodeId) -> RegisteredNode | None:
    """Return what is known of a node where there is no registry."""
    return None


class TakenProposal(msgspec.Struct, frozen=True):
    """A command that this leader has put into its log, and who waits for its outcome."""

    term: int
    peer: NodeId
    number: int


class AskServer:
    """Answers questions, at any node: who takes no part says who does."""

    def __init__(
        self,
        state: Callable[[], ControlState],
        raft: Callable[[], Raft | None],
        configuration: Callable[[], Configuration],
        members_of: MembersOf,
        entry_of: EntryOf,
        committed: CommittedLog,
        voters: VoterKeeper,
        standings: Standings,
        leadership: Leadership,
        reads: ConfirmedReads,
        directory: VoterDirectory,
        outbound: ControlOutbound,
    ) -> None:
        self._state = state
        self._raft = raft
        self._configuration = configuration
        self._members_of = members_of
        self._entry_of = entry_of
        self._reads = reads
        self._leadership = leadership
        self._committed = committed
        self._voters = voters
        self._standings = standings
        self._directory = directory
        self._outbound = outbound
        self._taken: dict[int, TakenProposal] = {}

    def asked(self, ask: ControlAsk, peer: NodeId, now: Instant) -> None:
        """Answer a question, or see to it that it is answered."""
        if isinstance(ask.body, StandingAsk):
            self._standings.told(ask.number, ask.body, peer, now)
            return
        raft = self._raft()
        if raft is None:
            self._redirect(RedirectReason.NO_VOTER, ask.number, peer)
            return
        match ask.body:
            case ProposeAsk():
                self._propose(raft, ask.number, ask.body, peer, now)
            case LookupAsk():
                self._look_up(ask.number, ask.body, peer)
            case RenewAsk():
                self._renew(ask.number, ask.body, peer, now)
            case PullAsk():
                self._committed.pull(ask.number, ask.body, peer, now)
            case ChunkAsk():
                self._committed.chunk(ask.number, ask.body, peer)
            case _ if not self._leadership.leads:
                self._redirect(RedirectReason.NOT_LEADER, ask.number, peer)
            case _:
                self._lead(ask.number, ask.body, peer, now)

    def _lead(self, number: int, body: AskBody, peer: NodeId, now: Instant) -> None:
        """Answer what the leader alone does."""
        match body:
            case StabilityAsk():
                if not self._voters.told(peer, body.report, now):
                    self._standings.met(peer, now)
                self._outbound.answer(number, HeardAnswer(self._directory.hearsay()), peer)
            case ReplaceAsk():
                self._replace(number, body, peer, now)
            case OverviewAsk() if (overview := self._voters.overview(now)) is not None:
                self._outbound.answer(number, overview, peer)
            case _:
                self._redirect(RedirectReason.NOT_LEADER, number, peer)

    def _redirect(self, reason: RedirectReason, number: int, peer: NodeId) -> None:
        answer = RedirectAnswer(reason, self._directory.hearsay())
        self._outbound.answer(number, answer, peer)

    def _propose(
        self, raft: Raft, number: int, ask: ProposeAsk, peer: NodeId, now: Instant
    ) -> None:
        refusal = self._refusal(ask, peer)
        if refusal is not None:
            self._outbound.counts[f"control_asks/{refusal.name.lower()}"] += 1
            self._redirect(refusal, number, peer)
            return
        try:
            index = raft.propose([ask.command], now)
        except NotLeader:
            self._redirect(RedirectReason.NOT_LEADER, number, peer)
        except Overloaded:
            self._redirect(RedirectReason.BUSY, number, peer)
        else:
            self._taken[index] = TakenProposal(raft.term, peer, number)

    def _refusal(self, ask: ProposeAsk, peer: NodeId) -> RedirectReason | None:
        """Say why a command of this peer does not come into the log; None: it may."""
        try:
            action = decode_command(ask.command).action
        except UnknownCommand:
            return RedirectReason.INVALID
        if isinstance(action, ExpireSession | EndDelay):
            return RedirectReason.INVALID  # only a leader can know that
        if isinstance(action, ChangeRegistry):
            return self._refusal_of_change(action, peer)
        return None

    def _refusal_of_change(self, change: ChangeRegistry, peer: NodeId) -> RedirectReason | None:
        """Say why a change of the registry does not come into the log.

        This is a leader's care, and no rule of the log: its replicas have no key to verify with,
        and do not know who is there.
        """
        if not self._votes(peer):
            return RedirectReason.NO_VOTE
        if not change.registry:
            return None
        try:
            members = self._members_of(change.registry)
        except RemoteError:
            return RedirectReason.INVALID
        return None if self._can_go_on(members) else RedirectReason.WOULD_STALL

    def _can_go_on(self, members: Collection[NodeId]) -> bool:
        """Tell whether those voters that stay are enough to agree on anything, as they are now."""
        configuration = self._configuration()
        staying = {each.store for each in configuration.members if each.node in members}
        if configuration.voter_stores() <= staying:
            return True
        return configuration.is_quorum(staying & self._voters.keeping_up())

    def _votes(self, node: NodeId) -> bool:
        """Tell whether a node votes, by what is committed."""
        return any(each.node == node for each in self._configuration().voters)

    def applied(self, index: int, term: int, applied: AppliedCommand) -> None:
        """Tell who asked for it what an entry came to."""
        taken = self._taken.pop(index, None)
        if taken is not None and taken.term == term:
            answer = OutcomeAnswer(applied.index, applied.outcome)
            self._outbound.answer(taken.number, answer, taken.peer)

    def leads_no_more(self) -> None:
        """What we have taken may be in the log, or not: whoever asked sends it to our successor."""
        self._taken.clear()

    def _look_up(self, number: int, ask: LookupAsk, peer: NodeId) -> None:
        try:
            check_lookup(ask.lookup)
        except InvalidRequest:
            self._outbound.counts["control_asks/invalid"] += 1
            self._redirect(RedirectReason.INVALID, number, peer)
            return

        def ready(_now: Instant) -> None:
            state = self._state()
            answer = LookupAnswer(state.index, look_up(state, ask.lookup))
            self._outbound.answer(number, answer, peer)

        self._reads.confirm(
            ready, lambda _now: self._redirect(RedirectReason.NO_MAJORITY, number, peer)
        )

    def _replace(self, number: int, ask: ReplaceAsk, peer: NodeId, now: Instant) -> None:
        refusal = "" if self._may_order(peer) else NO_RIGHT
        try:
            if not refusal:
                self._voters.order(ReplacementOrder(ask.old, ask.new), now)
        except NotLeader:
            self._redirect(RedirectReason.NOT_LEADER, number, peer)
            return
        except InvalidRequest as error:
            refusal = str(error)
        self._outbound.counts["control_asks/no_right"] += refusal == NO_RIGHT
        self._outbound.emit(VoterOrdered(peer, ask.old, ask.new, refusal))
        self._outbound.answer(number, ReplaceAnswer(refusal), peer)

    def _may_order(self, peer: NodeId) -> bool:
        """Tell whether a node's operator may say who votes, and so who gets the authority's key."""
        entry = self._entry_of(peer)
        return peer == self._outbound.me or (entry is not None and entry.may_invite)

    def _renew(self, number: int, ask: RenewAsk, peer: NodeId, now: Instant) -> None:
        def answer(renewed: tuple[int, ...] | None, _now: Instant) -> None:
            if renewed is None:
                self._redirect(RedirectReason.NOT_LEADER, number, peer)
            else:
                self._outbound.answer(number, RenewAnswer(renewed), peer)

        self._leadership.renew(ask.sessions, answer, now)
