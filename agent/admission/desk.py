"""The admission desk: where a device without credentials, or a user who wants a token, is served.

Any member may be asked. One that holds the authority's key decides by itself
(``issuing.py``); any other passes the question to one that does, over their mutual stream, and the
answer back. The conversation is drawn in ``messages.py``.

Who stands at this desk is a stranger: each message has a small limit, all of them together have
half a minute (``agent/net/listener.py``), and nothing that a stranger says reaches the protocols.
"""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Protocol, TypeVar

from agent import exits, watched
from agent.admission.issuing import Issuer, authority_of
from agent.admission.messages import (
    GREETING_BYTES_MAX,
    GUEST_CODEC,
    MEMBER_CODEC,
    RELAY_CODEC,
    Admission,
    Answer,
    Ask,
    Granted,
    Greeting,
    KnownPeer,
    Refused,
    TokenMade,
    TokenOrder,
    Welcome,
)
from agent.exits import AgentError
from agent.net.frames import framed, read_frame
from agent.security.identity import Identity
from agent.store.control import ControlStore
from gossip.errors import Malformed
from gossip.ids import NodeId, format_node_id

RELAY_S = 10.0
ASK_AGAIN_S = 1.0
ISSUERS_ASKED_MAX = 3
ASKING_MAX = 64

Question = Admission | TokenOrder
Verdict = Granted | Refused | TokenMade
M = TypeVar("M", Greeting, Admission)

log = logging.getLogger(__name__)


class Covey(Protocol):
    """What the desk needs of the running covey: ``agent/admission/running.py``."""

    def issuers(self) -> list[NodeId]:
        """Return the other members that can issue, best to reach first."""

    def known_peers(self) -> Iterable[KnownPeer]:
        """Return members that a new node may try first, this one among them."""

    def adopt(self, signed: bytes) -> None:
        """Follow this registry from now on, and let the others know."""

    def send_frame(self, data: bytes, to: NodeId) -> None:
        """Send a frame to a member."""


class AdmissionDesk:
    """Serves guests and, for members that cannot issue themselves, their questions."""

    def __init__(
        self, identity: Identity, store: ControlStore, covey: Covey, counts: Counter[str]
    ) -> None:
        self.counts = counts
        self._identity, self._covey = identity, covey
        self._issuer = Issuer(identity, store) if identity.is_issuer else None
        self._authority = authority_of(identity)
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[NodeId, asyncio.Future[Verdict]]] = {}
        self._answering: dict[tuple[NodeId, int], asyncio.Task[None]] = {}

    async def create_token(self, ttl_s: float, uses: int = 1) -> str:
        """Return a new token for ``uses`` nodes, valid for ``ttl_s`` seconds. Raises AgentError."""
        match await self._decide(TokenOrder(ttl_s, uses)):
            case TokenMade(token):
                return token
            case Refused(status, message, hint):
                raise AgentError(message, hint, status)
            case Granted():
                raise AgentError("the issuer answered something else than a token.")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a guest's stream until it is answered. Raises RemoteError for bad messages."""
        greeting = await _read(reader, Greeting)
        welcome = Welcome(self._identity.cluster_id, self._authority)
        writer.write(framed(MEMBER_CODEC.encode(welcome)))
        if greeting.cluster_id != self._identity.cluster_id:
            self.counts["admissions/foreign"] += 1
            await writer.drain()
            return
        admission = await _read(reader, Admission)
        verdict = await self._decide(admission)
        assert not isinstance(verdict, TokenMade), "an admission is answered with a verdict on it"
        writer.write(framed(MEMBER_CODEC.encode(verdict)))
        await writer.drain()

    def receive_frame(self, data: bytes, peer: NodeId) -> None:
        """Take in a member's frame (tags 80 to 111)."""
        try:
            message = RELAY_CODEC.decode(data)
        except Malformed:
            self.counts["frames_dropped/malformed"] += 1
            return
        match message:
            case Ask():
                self._answer_later(message, peer)
            case Answer(number, verdict):
                asked, future = self._asked.get(number, (None, None))
                if asked == peer and future is not None and not future.done():
                    future.set_result(verdict)
            case None:
                self.counts["frames_skipped/unknown"] += 1

    async def stop(self) -> None:
        """Give up what is being answered for others."""
        answering = list(self._answering.values())
        for task in answering:
            task.cancel()
        if answering:
            await asyncio.wait(answering)

    async def _decide(self, question: Question) -> Verdict:
        """Answer a question here or by way of an issuer. Never raises AgentError."""
        if self._issuer is None:
            return await self._relay(question)
        try:
            verdict = await self._issue(self._issuer, question)
        except AgentError as error:
            self.counts[f"admissions/{error.code}"] += 1
            log.warning("admission refused: %s", error)
            return Refused(error.status, error.message, error.hint)
        return verdict

    async def _issue(self, issuer: Issuer, question: Question) -> Verdict:
        if isinstance(question, TokenOrder):
            return TokenMade(await issuer.create_token(question.ttl_s, question.uses))
        granted, fresh = await issuer.admit(question, tuple(self._covey.known_peers()))
        self._covey.adopt(fresh.signed)
        self.counts["admissions/granted"] += 1
        log.info("admitted %s (registry epoch %d)", format_node_id(fresh.node_id), fresh.epoch)
        return granted

    async def _relay(self, question: Question) -> Verdict:
        """Ask one issuer after the other until one answers."""
        for issuer in self._covey.issuers()[:ISSUERS_ASKED_MAX]:
            try:
                async with asyncio.timeout(RELAY_S):
                    return await self._ask(issuer, question)
            except TimeoutError:
                self.counts["admissions/issuer_unreachable"] += 1
        return Refused(
            exits.UNREACHABLE,
            "no node that can issue (the one on which `covey init` ran) can be reached now.",
            "Start it or mend the network, then run the same command again: that is safe.",
        )

    async def _ask(self, issuer: NodeId, question: Question) -> Verdict:
        """Ask one issuer, again every second: a frame may be lost with its stream."""
        number = next(self._numbers)
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._asked[number] = issuer, future
        try:
            while not future.done():
                self._covey.send_frame(RELAY_CODEC.encode(Ask(number, question)), issuer)
                await asyncio.wait([future], timeout=ASK_AGAIN_S)
            return future.result()
        finally:
            del self._asked[number]

    def _answer_later(self, ask: Ask, peer: NodeId) -> None:
        name = peer, ask.number
        if name in self._answering:  # asked again while we are at it
            return
        if len(self._answering) >= ASKING_MAX:
            self.counts["admissions/too_many"] += 1
            return
        task = watched.start("admission-answer", partial(self._answer, ask, peer))
        self._answering[name] = task
        task.add_done_callback(lambda _: self._answering.pop(name))

    async def _answer(self, ask: Ask, peer: NodeId) -> None:
        if self._issuer is None:  # the asker's registry is older than ours: do not pass it round
            verdict: Verdict = Refused(exits.UNREACHABLE, "this node cannot issue.", "Try again.")
        else:
            verdict = await self._decide(ask.question)
        self._covey.send_frame(RELAY_CODEC.encode(Answer(ask.number, verdict)), peer)


async def _read(reader: asyncio.StreamReader, kind: type[M]) -> M:
    """Return the guest's next message. Raises RemoteError when it is not the one expected."""
    message = GUEST_CODEC.decode(await read_frame(reader, GREETING_BYTES_MAX))
    if not isinstance(message, kind):
        raise Malformed(f"a guest says {kind.__name__} here")
    return message
