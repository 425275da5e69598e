"""The admission server: where a device without credentials, or a user who wants a token, is served.

Any member may be asked. One that holds the authority's key decides by itself
(``issuer.py``); any other passes the question to one that does, over their mutual stream, and the
answer back. The conversation is drawn in ``messages.py``.

Who asks this server is a stranger: each message has a small limit, all of them together have
half a minute (``agent/net/listener.py``), and nothing that a stranger says reaches the protocols.
"""

import asyncio
import logging
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from agent import exits
from agent.admission import placement
from agent.admission.authority_keeper import AuthorityKeeper
from agent.admission.issuer_relay import IssuerRelay
from agent.admission.messages import (
    GREETING_BYTES_MAX,
    GUEST_CODEC,
    MEMBER_CODEC,
    RELAY_CODEC,
    AdmissionRequest,
    Answer,
    AuthorityRequest,
    Granted,
    Greeting,
    KnownPeer,
    NextAuthority,
    NodePlaced,
    NodeRemoved,
    PlacementOrder,
    Question,
    Refused,
    RelayedReply,
    RelayedRequest,
    RemovalOrder,
    Renewal,
    Renewed,
    SpaceOrder,
    TokenIssued,
    TokenList,
    TokenRequest,
    TokenRevocation,
    TokenRevoked,
    TokenShown,
    TokensShown,
    Welcome,
)
from agent.admission.registry_issuer import RegistryIssuer
from agent.admission.token_terms import TokenTerms
from agent.admission.token_throttle import TokenThrottle
from agent.cluster.agreed_registry import NoMajorityError
from agent.cluster.cluster_view import ClusterView
from agent.cluster.elections import once_elected
from agent.config.logs import RateLimitedLog
from agent.exits import AgentError
from agent.identity.identity import Identity
from agent.loop import watched
from agent.net.framing import framed, read_frame
from gossip.core.errors import InvalidRequest, Malformed, RemoteError
from gossip.core.ids import NodeId, format_node_id
from gossip.kv.requests import OwnersReady, RegistryAdopted
from gossip.registry.node import INVITER, RegisteredNode
from gossip.registry.node_change import NobodyLeft, NodeChange
from gossip.registry.registry import UnknownNode, WouldLose

if TYPE_CHECKING:
    from agent.admission.issuer import Issuer

ASKING_MAX, ASKING_EACH_MAX = 64, 8
"""Questions that are answered at a time, in all and of one member: none takes the others' room."""
CARRY_OVER_S = 5.0
WRONG = frozenset({exits.TOKEN_UNKNOWN, exits.TOKEN_EXPIRED, exits.TOKEN_USED_UP})

A = TypeVar("A", TokenIssued, TokensShown, TokenRevoked, Renewed, NodeRemoved, NodePlaced)

log = logging.getLogger(__name__)


class AdmissionServer:
    """Serves guests and, for members that cannot issue themselves, their questions."""

    def __init__(
        self,
        identity: Identity,
        registries: RegistryIssuer,
        covey: ClusterView,
        counts: Counter[str],
    ) -> None:
        self.counts = counts
        self._identity, self._registries, self._covey = identity, registries, covey
        self._relay = IssuerRelay(covey, counts)
        self.keeper = AuthorityKeeper(identity, registries, covey, self._relay)
        self._made_issuer: Issuer | None = None
        self._advancing: asyncio.Task[None] | None = None
        self._answering: dict[tuple[NodeId, int], asyncio.Task[None]] = {}
        self._wrong = TokenThrottle()
        self._quiet = RateLimitedLog(log)
        self._expiry: asyncio.Task[None] | None = None

    @property
    def _issuer(self) -> "Issuer | None":
        """What this node lets others in with; None while it lacks the authority's key."""
        if not self._identity.is_issuer:
            return None
        if self._made_issuer is None:
            self._made_issuer = _issuer(self._identity, self._registries)
            self._expiry = watched.start("token-expiry", self._made_issuer.tokens.watch_expiry)
        return self._made_issuer

    async def carry_over(self) -> None:
        """On an issuer: see to it that the log has the registry. Returns when it has."""
        while self._issuer is not None:
            try:
                await self._registries.read()
            except AgentError as error:
                self._quiet.warning("log", "the registry is not in the log yet: %s", error.message)
                await asyncio.sleep(CARRY_OVER_S)
            else:
                return

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
                "what a member may do is said on one that lets others in; nothing was changed.",
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
        roles = tuple(role for role in entry.roles if role != INVITER)
        then = (*roles, INVITER) if allowed else roles
        await once_elected(lambda: self._registries.set_roles(node, then))
        log.info("%s may %s", entry.name, "make tokens" if allowed else "make no tokens any more")

    async def remove(self, node: NodeId, *, accept_loss: bool = False) -> int:
        """Take a node out of the covey; return the epoch since when. Raises AgentError.

        Also by way of another node that holds the authority's key, which looks whether this one may
        order it.
        """
        order = RemovalOrder(node, accept_loss)
        return (await self._order(order, NodeRemoved)).epoch

    async def place(self, node: NodeId, change: NodeChange) -> int:
        """Have a node's share changed; return the epoch since when. Raises AgentError."""
        return (await self._order(PlacementOrder(node, change), NodePlaced)).epoch

    async def place_space(self, name: str, replicas: int) -> int:
        """Have the keys of a space given so many owners; return the epoch. Raises AgentError."""
        return (await self._order(SpaceOrder(name, replicas), NodePlaced)).epoch

    async def mend(self) -> int:
        """End a fork of the registry; return the epoch of the one that does. Raises AgentError."""
        fork = self._covey.fork()
        if fork is None:
            raise AgentError("the registry has not forked; nothing was changed.")
        if self._issuer is None:
            raise AgentError(
                "a fork is mended on a node that lets others in; nothing was changed.",
                f"On {self.issuer_names()}: the same command.",
                exits.NOT_PERMITTED,
            )
        fresh = await once_elected(lambda: self._registries.mend(*fork))
        log.warning("the fork of the registry is mended (registry epoch %d)", fresh.epoch)
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
        return self._relay.names()

    async def _remove(self, issuer: "Issuer", order: RemovalOrder, origin: str) -> NodeRemoved:
        entry = self._covey.entry(order.node)
        try:
            fresh = await issuer.registries.remove(order.node, accept_loss=order.accept_loss)
        except UnknownNode as error:
            raise AgentError(f"{error}; nothing was changed.", "", exits.NOT_FOUND) from None
        except WouldLose as error:
            hint = "Start the owners that are off and let them finish, or give --accept-loss."
            raise AgentError(f"{error}.", hint, exits.UNHEALTHY) from None
        name = entry.name if entry else format_node_id(order.node)
        log.info("%s was removed by %s (registry epoch %d)", name, origin, fresh.epoch)
        self.counts["admissions/removed"] += 1
        return NodeRemoved(fresh.epoch)

    async def _place(self, issuer: "Issuer", order: PlacementOrder, origin: str) -> NodePlaced:
        placement.check_change(order.change)
        before = self._covey.entry(order.node)
        try:
            fresh = await issuer.registries.arrange(order.node, order.change)
        except UnknownNode as error:
            raise AgentError(f"{error}; nothing was changed.", "", exits.NOT_FOUND) from None
        except NobodyLeft as error:
            hint = "Let another device in first, or start those that are off."
            raise AgentError(f"{error}.", hint, exits.UNHEALTHY) from None
        if fresh.is_news and before is not None:
            told = placement.in_words(before, order.change.of(before))
            log.info("%s: %s, by %s (epoch %d)", before.name, told, origin, fresh.epoch)
        return NodePlaced(fresh.epoch)

    async def _place_space(self, issuer: "Issuer", order: SpaceOrder, origin: str) -> NodePlaced:
        try:
            fresh = await issuer.registries.place_space(order.name, order.replicas)
        except InvalidRequest as error:
            message, _, hint = str(error).partition("; ")
            raise AgentError(f"{message}.", hint, exits.USAGE) from None
        if fresh.is_news:
            told = f"keys that begin with {order.name}/ have {order.replicas} owners"
            log.info("%s, by %s (epoch %d)", told, origin, fresh.epoch)
        return NodePlaced(fresh.epoch)

    async def _order(self, question: Question, expected: type[A]) -> A:
        """Have what this node's operator wants decided; an election is waited for."""
        origin = self._identity.node_name
        try:
            verdict = await once_elected(lambda: self._attempt(question, origin))
        except NoMajorityError as error:
            verdict = self._undecided(error)
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
        """Take in a member's frame, whose tag is one of ours."""
        try:
            message = RELAY_CODEC.decode_known(data)
        except Malformed:
            self.counts["frames_dropped/malformed"] += 1
            return
        match message:
            case RelayedRequest():
                self._answer_later(message, peer)
            case RelayedReply(number, verdict):
                self._relay.receive(peer, number, verdict)

    def on_event(self, event: object) -> None:
        """Take in what the driver publishes: an issuer carries partitions on to their owners."""
        if isinstance(event, RegistryAdopted) and not event.registry.node(self._identity.node_id):
            self._relay.is_out(event.registry.epoch)
        is_idle = self._advancing is None or self._advancing.done()
        if isinstance(event, OwnersReady) and self._issuer is not None and is_idle:
            self._advancing = watched.start("owners-advance", partial(self._advance, event))

    async def _advance(self, ready: OwnersReady) -> None:
        try:
            if await self._registries.advance(ready):
                self.counts["registries_signed/owners"] += 1
        except AgentError as error:  # it is said again while it is so
            self._quiet.warning(
                "advance", "no partition goes on to other owners: %s", error.message
            )

    async def stop(self) -> None:
        """Give up what is being answered for others."""
        answering: list[asyncio.Task[None]] = [*self._answering.values()]
        answering += [self._expiry] if self._expiry else []
        answering += [self._advancing] if self._advancing else []
        for task in answering:
            task.cancel()
        if answering:
            await asyncio.wait(answering)
        await self._registries.stop()

    async def _decide(self, question: Question, origin: str) -> Answer:
        """Answer somebody else, who goes on to the next node if it is undecided here.

        Never raises AgentError.
        """
        try:
            return await self._attempt(question, origin)
        except NoMajorityError as error:
            return self._undecided(error)

    def _undecided(self, error: NoMajorityError) -> Refused:
        self.counts["admissions/no_majority"] += 1
        return Refused(exits.UNREACHABLE, error.message, error.hint)

    async def _attempt(self, question: Question, origin: str) -> Answer:
        """Answer a question here or by way of an issuer. Raises no AgentError but NoMajorityError.

        ``origin`` is who asks: a member's name, or a guest's address.
        """
        if self._issuer is None or self._gives_itself_up(question):
            return await self._relay.ask_any(question, origin)
        try:
            verdict = await self._issue(self._issuer, question, origin)
        except NoMajorityError:
            raise
        except AgentError as error:
            self.counts[f"admissions/{error.code}"] += 1
            self._quiet.warning(error.code, "refused %s: %s", origin, error.message)
            return Refused(error.status, error.message, error.hint)
        except RemoteError as error:
            self.counts["admissions/malformed"] += 1
            self._quiet.warning("malformed", "refused %s: %s", origin, error)
            return Refused(exits.NOT_PERMITTED, f"{error}; nothing was changed.", "")
        return verdict

    def _gives_itself_up(self, question: Question) -> bool:
        """Tell whether an issuer wants to be out, and there is another one to sign that."""
        is_own = isinstance(question, RemovalOrder) and question.node == self._identity.node_id
        return is_own and bool(self._covey.issuers())

    async def _issue(self, issuer: "Issuer", question: Question, origin: str) -> Answer:
        match question:
            case TokenRequest(terms):
                return TokenIssued(await issuer.tokens.create(terms, f"the operator of {origin}"))
            case TokenList():
                return TokensShown(tuple(await issuer.tokens.shown()))
            case TokenRevocation(token_id):
                state = await issuer.tokens.revoke(token_id, f"the operator of {origin}")
                return TokenRevoked(state.value)
            case RemovalOrder():
                return await self._remove(issuer, question, f"the operator of {origin}")
            case PlacementOrder():
                return await self._place(issuer, question, f"the operator of {origin}")
            case SpaceOrder():
                return await self._place_space(issuer, question, f"the operator of {origin}")
            case AdmissionRequest():
                peers = tuple(KnownPeer(*each) for each in self._covey.nearest())
                granted, fresh = await issuer.admit(question, peers, origin, self._covey.is_there)
                self.counts[f"admissions/{'granted' if fresh.is_news else 'repeated'}"] += 1
                return granted
            case Renewal():
                certificate, fresh = await issuer.renew(question)
                self.counts[f"admissions/{'renewed' if fresh.is_news else 'repeated'}"] += 1
                return Renewed(certificate, fresh.signed)
            case AuthorityRequest() | NextAuthority():
                raise AgentError("a member asks that over its own stream", "", exits.NOT_PERMITTED)

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

    async def _verdict_on(self, ask: RelayedRequest, peer: NodeId) -> Answer:
        """Answer what a member passes on, or asks for its own operator."""
        if self._issuer is None:  # the asker's registry is older than ours: do not pass it round
            return Refused(exits.UNREACHABLE, "this node cannot issue.", "Try again.")
        entry = self._covey.entry(peer)
        if entry is None:
            self.counts["admissions/stranger"] += 1
            return Refused(exits.NOT_PERMITTED, "you do not belong to this covey.", "")
        if isinstance(ask.question, AdmissionRequest | Renewal):
            return await self._decide(ask.question, f"{ask.origin} by way of {entry.name}")
        if isinstance(ask.question, AuthorityRequest | NextAuthority):
            return await self._on_authority(ask.question, peer)
        if isinstance(ask.question, RemovalOrder) and ask.question.node == peer:
            return await self._decide(ask.question, entry.name)
        if isinstance(ask.question, PlacementOrder) and placement.may_order(entry, ask.question):
            return await self._decide(ask.question, entry.name)
        if not entry.may_invite or self._is_above(entry, ask.question):
            self.counts["admissions/no_right"] += 1
            self._quiet.warning("right", "%s asked for what it may not do", entry.name)
            return self._no_right(entry, ask.question)
        return await self._decide(ask.question, entry.name)

    async def _on_authority(
        self, question: AuthorityRequest | NextAuthority, peer: NodeId
    ) -> Answer:
        try:
            return await self.keeper.answer(question, peer)
        except AgentError as error:
            self.counts["admissions/key_refused"] += 1
            return Refused(error.status, error.message, error.hint)
        except OSError as error:
            return Refused(exits.UNREACHABLE, f"the key was not saved: {error.strerror}", "")

    def _is_above(self, entry: RegisteredNode, question: Question) -> bool:
        """Tell whether a member wants to remove one that may do more than it may itself."""
        if not isinstance(question, RemovalOrder) or entry.is_issuer:
            return False
        other = self._covey.entry(question.node)
        return other is not None and other.may_invite

    def _no_right(self, asker: RegisteredNode, question: Question) -> Refused:
        me, name = self._identity.node_name, asker.name
        if isinstance(question, PlacementOrder):
            told = placement.no_right(name, question, asker.id, me)
            return Refused(exits.NOT_PERMITTED, *told)
        what = _DEEDS.get(type(question), "let others in")
        hint = f"Do it on {me}, or give {name} the right, on {me}: `covey members allow {name}`"
        if isinstance(question, RemovalOrder):
            hint += "; who has it removes those who have not."
        return Refused(exits.NOT_PERMITTED, f"{name} may not {what}; nothing was changed.", hint)


_DEEDS: dict[type, str] = {RemovalOrder: "remove others", SpaceOrder: "say how many own a key"}
"""What a member asked for, in the words of a refusal."""


async def _read(reader: asyncio.StreamReader) -> Greeting | AdmissionRequest | Renewal:
    """Return the guest's next message. Raises RemoteError, OSError, EOFError."""
    message = GUEST_CODEC.decode(await read_frame(reader, GREETING_BYTES_MAX))
    if message is None:
        raise Malformed("a guest says something that we do not know")
    return message


def _issuer(identity: Identity, registries: RegistryIssuer) -> "Issuer":
    from agent.admission.issuer import Issuer  # most members never sign anything

    return Issuer(identity, registries)
