"""The admission server: where a device without credentials, or a user who wants a token, is served.

Any member may be asked. One that holds the authority's key decides by itself
(``issuer.py``); any other passes the question to one that does, over their mutual stream, and the
answer back. The conversation is drawn in ``messages.py``.

Who stands at this desk is a stranger: each message has a small limit, all of them together have
half a minute (``agent/net/listener.py``), and nothing that a stranger says reaches the protocols.
"""

import asyncio
import itertools
import logging
from collections import Counter
from functools import partial
from typing import TypeVar

from agent import exits
from agent.admission.issuer import Issuer
from agent.admission.messages import (
    GREETING_BYTES_MAX,
    GUEST_CODEC,
    MEMBER_CODEC,
    RELAY_CODEC,
    AdmissionRequest,
    Granted,
    Greeting,
    KnownPeer,
    NodeRemoved,
    Refused,
    RelayedReply,
    RelayedRequest,
    RemovalOrder,
    Renewal,
    Renewed,
    TokenAnswer,
    TokenIssued,
    TokenList,
    TokenQuestion,
    TokenRequest,
    TokenRevocation,
    TokenRevoked,
    TokenShown,
    TokensShown,
    Welcome,
)
from agent.admission.token_terms import TokenTerms
from agent.admission.token_throttle import TokenThrottle
from agent.cluster.cluster_view import ClusterView
from agent.config.logs import RateLimitedLog
from agent.exits import AgentError
from agent.identity.identity import Identity
from agent.loop import watched
from agent.loop.rpc import PendingReplies
from agent.net.framing import framed, read_frame
from agent.store.control import ControlStore
from gossip.core.errors import Malformed, RemoteError
from gossip.core.ids import NodeId, format_node_id
from gossip.kv.requests import OwnersReady, RegistryAdopted
from gossip.registry.node import INVITER
from gossip.registry.registry import Registry, SignedRegistry, UnknownNode, WouldLose

RELAY_S = 10.0
ASK_AGAIN_S = 1.0
ISSUERS_ASKED_MAX = 3
ASKING_MAX, ASKING_EACH_MAX = 64, 8
"""Questions that are answered at a time, in all and of one member: none takes the others' room."""
WRONG = frozenset({exits.TOKEN_UNKNOWN, exits.TOKEN_EXPIRED, exits.TOKEN_USED_UP})

Question = AdmissionRequest | Renewal | TokenQuestion | RemovalOrder
Verdict = Granted | Renewed | Refused | TokenAnswer | NodeRemoved
A = TypeVar("A", TokenIssued, TokensShown, TokenRevoked, Renewed, NodeRemoved)

log = logging.getLogger(__name__)


class AdmissionServer:
    """Serves guests and, for members that cannot issue themselves, their questions."""

    def __init__(
        self, identity: Identity, store: ControlStore, covey: ClusterView, counts: Counter[str]
    ) -> None:
        self.counts = counts
        self._identity, self._store, self._covey = identity, store, covey
        self._issuer = Issuer(identity, store) if identity.is_issuer else None
        self._numbers = itertools.count(1)
        self._replies: PendingReplies[Verdict] = PendingReplies()
        self._removals_asked: set[tuple[NodeId, int]] = set()
        self._advancing: asyncio.Task[None] | None = None
        self._answering: dict[tuple[NodeId, int], asyncio.Task[None]] = {}
        self._wrong = TokenThrottle()
        self._quiet = RateLimitedLog(log)
        self._expiry: asyncio.Task[None] | None = None

    def start(self) -> None:
        """On an issuer: watch which tokens expire."""
        if self._issuer is not None:
            self._expiry = watched.start("token-expiry", self._issuer.watch_expiry)

    # ---- what the operator asks -----------------------------------------------------------------

    async def create_token(self, terms: TokenTerms) -> str:
        """Return a new token. Raises AgentError."""
        return (await self._order(TokenRequest(terms), TokenIssued)).token

    async def tokens(self) -> tuple[TokenShown, ...]:
        """Return the tokens that there are. Raises AgentError."""
        return (await self._order(TokenList(), TokensShown)).tokens

    async def revoke_token(self, token_id: bytes) -> str:
        """End a token; return what it was worth before. Raises AgentError."""
        return (await self._order(TokenRevocation(token_id), TokenRevoked)).state

    async def renew(self, renewal: Renewal) -> bytes:
        """Return a new certificate for this node. Raises AgentError."""
        return (await self._order(renewal, Renewed)).certificate

    async def allow_inviting(self, node: NodeId, *, allowed: bool) -> None:
        """Let a member make tokens, or not any more. Raises AgentError."""
        entry = self._covey.entry(node)
        if entry is None:
            raise AgentError("this node is not in the registry of this covey.", "", exits.NOT_FOUND)
        if self._issuer is None:
            raise AgentError(
                "what a member may do is said where the covey was founded; nothing was changed.",
                f"On {self.issuer_names()}: the same command.",
                exits.NOT_PERMITTED,
            )
        if entry.is_issuer and not allowed:
            raise AgentError(
                f"{entry.name} holds the authority's key and always lets others in; nothing was "
                "changed.",
                "Tokens end with `covey token revoke`.",
                exits.NOT_PERMITTED,
            )
        await self._catch_up()
        roles = tuple(role for role in entry.roles if role != INVITER)
        fresh = await self._issuer.set_roles(node, (*roles, INVITER) if allowed else roles)
        log.info("%s may %s", entry.name, "make tokens" if allowed else "make no tokens any more")
        self._covey.adopt(fresh.signed)

    async def remove(self, node: NodeId, *, accept_loss: bool = False) -> int:
        """Take a node out of the covey; return the epoch since when. Raises AgentError.

        Only where the authority's key is; another node may give up its own place.
        """
        if self._issuer is None and node != self._identity.node_id:
            raise AgentError(
                "who belongs is said where the covey was founded; nothing was changed.",
                f"On {self.issuer_names()}: the same command.",
                exits.NOT_PERMITTED,
            )
        order = RemovalOrder(node, accept_loss)
        return (await self._order(order, NodeRemoved)).epoch

    async def mend(self) -> int:
        """End a fork of the registry; return the epoch of the one that does. Raises AgentError."""
        fork = self._covey.fork()
        if fork is None:
            raise AgentError("the registry has not forked; nothing was changed.")
        if self._issuer is None:
            raise AgentError(
                "a fork is mended where the covey was founded; nothing was changed.",
                f"On {self.issuer_names()}: the same command.",
                exits.NOT_PERMITTED,
            )
        ours, rival = fork
        registry = Registry.decode(SignedRegistry.decode(ours).payload)
        await self._store.save_registry(registry.epoch, ours)
        fresh = await self._issuer.mend(rival)
        log.warning("the fork of the registry is mended (registry epoch %d)", fresh.epoch)
        self._covey.adopt(fresh.signed)
        return fresh.epoch

    async def give_up_place(self) -> bool:
        """Have the issuer free the place and the name of this node; tell whether it did."""
        try:
            await self.remove(self._identity.node_id)
        except AgentError as error:
            log.warning("the place of this node was not freed: %s", error.message)
            return False
        return True

    def issuer_names(self) -> str:
        """Return where it is to be done what only an issuer can do, as a sentence names it."""
        return " or ".join(self._covey.issuer_names()) or "the node that founded the covey"

    async def _catch_up(self) -> None:
        """See to it that the next registry follows the newest that anybody has.

        One that was restored from a backup would otherwise sign an epoch for the second time.
        Raises AgentError.
        """
        await self._store.save_registry(*await self._covey.catch_up())

    async def _remove(self, issuer: Issuer, order: RemovalOrder, origin: str) -> NodeRemoved:
        await self._catch_up()
        entry = self._covey.entry(order.node)
        try:
            fresh = await issuer.remove(order.node, accept_loss=order.accept_loss)
        except UnknownNode as error:
            raise AgentError(f"{error}; nothing was changed.", "", exits.NOT_FOUND) from None
        except WouldLose as error:
            hint = "Start the owners that are off and let them finish, or give --accept-loss."
            raise AgentError(f"{error}.", hint, exits.UNHEALTHY) from None
        name = entry.name if entry else format_node_id(order.node)
        log.info("%s was removed by %s (registry epoch %d)", name, origin, fresh.epoch)
        self.counts["admissions/removed"] += 1
        self._covey.adopt(fresh.signed)
        return NodeRemoved(fresh.epoch)

    async def _order(self, question: Question, expected: type[A]) -> A:
        verdict = await self._decide(question, self._identity.node_name)
        if isinstance(verdict, Refused):
            raise AgentError(verdict.message, verdict.hint, verdict.status)
        if not isinstance(verdict, expected):
            raise AgentError("the issuer answered something else than what was asked.")
        return verdict

    # ---- what guests and members ask ------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a guest's stream until it is answered. Raises RemoteError for bad messages."""
        greeting = await _read(reader)
        if not isinstance(greeting, Greeting):
            raise Malformed("a guest greets first")
        writer.write(framed(MEMBER_CODEC.encode(self._welcome())))
        if greeting.cluster_id != self._identity.cluster_id:
            self.counts["admissions/foreign"] += 1
            await writer.drain()
            return
        question = await _read(reader)
        if isinstance(question, Greeting):
            raise Malformed("a guest greets once")
        origin = str((writer.get_extra_info("peername") or ("nowhere",))[0])
        verdict = await self._decide(question, origin)
        assert isinstance(verdict, Granted | Renewed | Refused), "what is for guests"
        is_renewal = isinstance(question, Renewal)  # of a key that belongs to nobody, say
        if isinstance(verdict, Refused) and (is_renewal or verdict.status in WRONG):
            await asyncio.sleep(self._wrong.delay_s(origin))
        writer.write(framed(MEMBER_CODEC.encode(verdict)))
        await writer.drain()

    def _welcome(self) -> Welcome:
        who = self._identity
        return Welcome(who.cluster_id, who.authority, self._covey.successions())

    def receive_frame(self, data: bytes, peer: NodeId) -> None:
        """Take in a member's frame (tags 80 to 111)."""
        try:
            message = RELAY_CODEC.decode(data)
        except Malformed:
            self.counts["frames_dropped/malformed"] += 1
            return
        match message:
            case RelayedRequest():
                self._answer_later(message, peer)
            case RelayedReply(number, verdict):
                self._replies.receive(peer, number, verdict)
            case None:
                self.counts["frames_skipped/unknown"] += 1

    def on_event(self, event: object) -> None:
        """Take in what the driver publishes: an issuer carries partitions on to their owners."""
        if isinstance(event, RegistryAdopted) and not event.registry.node(self._identity.node_id):
            self._is_out(event.registry.epoch)
        is_idle = self._advancing is None or self._advancing.done()
        if isinstance(event, OwnersReady) and self._issuer is not None and is_idle:
            work = partial(self._advance, self._issuer, event)
            self._advancing = watched.start("owners-advance", work)

    def _is_out(self, epoch: int) -> None:
        """Answer ourselves who waits to be out: the issuer shuts its door before it answers."""
        for issuer, number in self._removals_asked:
            self._replies.receive(issuer, number, NodeRemoved(epoch))

    async def _advance(self, issuer: Issuer, ready: OwnersReady) -> None:
        try:
            await self._catch_up()
        except AgentError:  # it has forked, and that is told elsewhere
            return
        signed = await issuer.advance(ready)
        if signed is not None:
            self.counts["registries_signed/owners"] += 1
            self._covey.adopt(signed)

    async def stop(self) -> None:
        """Give up what is being answered for others."""
        answering: list[asyncio.Task[None]] = [*self._answering.values()]
        answering += [self._expiry] if self._expiry else []
        answering += [self._advancing] if self._advancing else []
        for task in answering:
            task.cancel()
        if answering:
            await asyncio.wait(answering)

    async def _decide(self, question: Question, origin: str) -> Verdict:
        """Answer a question here or by way of an issuer. Never raises AgentError.

        ``origin`` is who asks: a member's name, or a guest's address.
        """
        if self._issuer is None:
            return await self._relay(question, origin)
        try:
            verdict = await self._issue(self._issuer, question, origin)
        except AgentError as error:
            self.counts[f"admissions/{error.code}"] += 1
            self._quiet.warning(error.code, "refused %s: %s", origin, error.message)
            return Refused(error.status, error.message, error.hint)
        except RemoteError as error:
            self.counts["admissions/malformed"] += 1
            self._quiet.warning("malformed", "refused %s: %s", origin, error)
            return Refused(exits.NOT_PERMITTED, f"{error}; nothing was changed.", "")
        return verdict

    async def _issue(self, issuer: Issuer, question: Question, origin: str) -> Verdict:
        match question:
            case TokenRequest(terms):
                return TokenIssued(await issuer.create_token(terms, f"the operator of {origin}"))
            case TokenList():
                return TokensShown(tuple(issuer.tokens()))
            case TokenRevocation(token_id):
                state = await issuer.revoke_token(token_id, f"the operator of {origin}")
                return TokenRevoked(state.value)
            case RemovalOrder():
                return await self._remove(issuer, question, f"the operator of {origin}")
            case AdmissionRequest():
                await self._catch_up()
                peers = tuple(KnownPeer(*each) for each in self._covey.nearest())
                granted, fresh = await issuer.admit(question, peers, origin, self._covey.is_there)
                self._covey.adopt(fresh.signed)
                self.counts[f"admissions/{'granted' if fresh.is_news else 'repeated'}"] += 1
                return granted
            case Renewal():
                await self._catch_up()
                certificate, fresh = await issuer.renew(question)
                self._covey.adopt(fresh.signed)
                self.counts[f"admissions/{'renewed' if fresh.is_news else 'repeated'}"] += 1
                return Renewed(certificate, fresh.signed)

    async def _relay(self, question: Question, origin: str) -> Verdict:
        """Ask one issuer after the other until one answers."""
        for issuer in self._covey.issuers()[:ISSUERS_ASKED_MAX]:
            try:
                return await self._ask(
                    issuer, RelayedRequest(next(self._numbers), question, origin)
                )
            except TimeoutError:
                self.counts["admissions/issuer_unreachable"] += 1
        return Refused(
            exits.UNREACHABLE,
            f"{self.issuer_names()}, which lets others in, cannot be reached now.",
            f"Start {self.issuer_names()} or mend the network, then run the same command again: "
            "that is safe.",
        )

    async def _ask(self, issuer: NodeId, ask: RelayedRequest) -> Verdict:
        """Ask one issuer, again every second: a frame may be lost with its stream.

        Raises TimeoutError.
        """
        name, data = (issuer, ask.number), RELAY_CODEC.encode(ask)
        if isinstance(ask.question, RemovalOrder):
            self._removals_asked.add(name)
        try:
            return await self._replies.request(
                *name, lambda: self._covey.send_frame(data, issuer), RELAY_S, ASK_AGAIN_S
            )
        finally:
            self._removals_asked.discard(name)

    def _answer_later(self, ask: RelayedRequest, peer: NodeId) -> None:
        name = peer, ask.number
        if name in self._answering:  # asked again while we are at it
            return
        of_peer = sum(asker == peer for asker, _ in self._answering)
        if of_peer >= ASKING_EACH_MAX or len(self._answering) >= ASKING_MAX:
            self.counts["admissions/too_many"] += 1
            return
        task = watched.start("admission-answer", partial(self._answer, ask, peer))
        self._answering[name] = task
        task.add_done_callback(lambda _: self._answering.pop(name))

    async def _answer(self, ask: RelayedRequest, peer: NodeId) -> None:
        self._covey.send_frame(
            RELAY_CODEC.encode(RelayedReply(ask.number, await self._verdict_on(ask, peer))), peer
        )

    async def _verdict_on(self, ask: RelayedRequest, peer: NodeId) -> Verdict:
        """Answer what a member passes on, or asks for its own operator."""
        if self._issuer is None:  # the asker's registry is older than ours: do not pass it round
            return Refused(exits.UNREACHABLE, "this node cannot issue.", "Try again.")
        entry = self._covey.entry(peer)
        if entry is None:
            self.counts["admissions/stranger"] += 1
            return Refused(exits.NOT_PERMITTED, "you do not belong to this covey.", "")
        if isinstance(ask.question, AdmissionRequest | Renewal):
            return await self._decide(ask.question, f"{ask.origin} by way of {entry.name}")
        if isinstance(ask.question, RemovalOrder) and ask.question.node == peer:
            return await self._decide(ask.question, entry.name)
        if isinstance(ask.question, RemovalOrder) or not entry.may_invite:
            self.counts["admissions/no_right"] += 1
            self._quiet.warning("right", "%s asked for what it may not do", entry.name)
            return self._no_right(entry.name, ask.question)
        return await self._decide(ask.question, entry.name)

    def _no_right(self, name: str, question: Question) -> Refused:
        me = self._identity.node_name
        if isinstance(question, RemovalOrder):
            return Refused(
                exits.NOT_PERMITTED,
                f"{name} may not remove others; nothing was changed.",
                f"On {me}, where the covey was founded: the same command.",
            )
        return Refused(
            exits.NOT_PERMITTED,
            f"{name} may not let others in; nothing was changed.",
            f"Do it on {me}, or give {name} the right, on {me}: `covey members allow {name}`",
        )


async def _read(reader: asyncio.StreamReader) -> Greeting | AdmissionRequest | Renewal:
    """Return the guest's next message. Raises RemoteError, OSError, EOFError."""
    message = GUEST_CODEC.decode(await read_frame(reader, GREETING_BYTES_MAX))
    if message is None:
        raise Malformed("a guest says something that we do not know")
    return message
