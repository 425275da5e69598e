"""The key service: holds this node's ring up to date, and on the issuer turns it.

Who may let others in may order a rotation; only a holder of the authority's key carries it out,
because every ring is signed (``rotation.py``). The issuer takes a step when all who must know of
the last one have said so, and offers the ring to those who have not. Everybody else passes it on:
each stream begins with which generation its dialler has, and whoever has a newer one offers it.

A member that was away comes back with keys that open nothing any more. Its datagrams still name
it, in the header that nobody needs a key for, and the place they come from; so whoever receives
them offers the ring over a stream to that place, where the certificate shows whether it is who it
says. What is in a datagram that does not open is believed no further than that.

Rings go to nodes in the registry alone. When one is removed, the issuer makes a new key at once,
and waits for nobody who is away; nor does it ever wait for one that was admitted and never ran.

A ring is on the disk before it is used. So the issuer, killed between any two instructions, reads
at its next start which step it had reached, and goes on.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from agent import exits
from agent.cluster.cluster_view import ClusterView
from agent.config.logs import RateLimitedLog
from agent.exits import AgentError
from agent.identity.at_rest import replace_secret
from agent.identity.keyring import Keyring, KeyringFile, encode_keyring
from agent.keys.messages import (
    CODEC,
    KeyMessage,
    KeyringOffer,
    KeyringState,
    KeyShown,
    RotateReply,
    RotateRequest,
    offer_of,
    ring_of,
)
from agent.keys.rotation import RotationPhase, check_offer, fingerprint, next_ring, signed_again
from agent.loop.rpc import PendingReplies
from agent.loop.watched import TaskSet
from gossip.core.errors import Forged, Malformed, RemoteError
from gossip.core.ids import ClusterId, NodeId, format_node_id
from gossip.core.machine import Address
from gossip.kv.requests import RegistryAdopted
from gossip.node import UnknownKeyReported

TICK_S, STAND_BY_S = 0.25, 1.0
OFFER_AGAIN_S = 2.0
LATE_PACKETS_S = 5.0
"""How long the old key still opens after the last member stopped sealing with it."""
FORCE_S = 10.0
"""How long an order with force waits for members that are there and do not take a ring."""
REPORT_S = 2.0
ORDER_S, ORDER_AGAIN_S = 8.0, 1.0
RELAYS = 3
CANDIDATES_MAX = 64
ORDERS_REMEMBERED = 64

log = logging.getLogger(__name__)


class KeyCredentials(Protocol):
    """What the service needs of ``agent/identity/identity.py``."""

    cluster_id: ClusterId
    node_id: NodeId

    @property
    def is_issuer(self) -> bool:
        """Whether the authority's key is here."""

    @property
    def keyring_file(self) -> Path:
        """Where the ring is kept."""

    def verify_keyring(self, payload: bytes, signature: bytes) -> bool:
        """Tell whether the authority signed."""

    def sign_keyring(self, payload: bytes) -> bytes:
        """Sign with the authority's key."""


class KeyHolding(msgspec.Struct, frozen=True):
    """What one node holds, as far as we know; ``state`` is None when it never told us."""

    id: NodeId
    name: str
    is_live: bool
    answered: bool
    """Whether it told us just now."""
    state: KeyringState | None


class KeyService:
    """Manages the covey's keys here; ``start`` before streams open, ``stop`` after."""

    def __init__(
        self,
        identity: KeyCredentials,
        keyring: Keyring,
        cluster_view: ClusterView,
        counts: Counter[str],
    ) -> None:
        self.counts = counts
        self._identity, self._keyring, self._cluster_view = identity, keyring, cluster_view
        self._seen: dict[NodeId, KeyringState] = {}
        self._offered_at: dict[NodeId, float] = {}
        self._candidates: OrderedDict[NodeId, Address] = OrderedDict()
        self._asked: set[NodeId] = set()
        self._all_reported = asyncio.Event()
        self._numbers = itertools.count(secrets.randbits(32))
        self._replies: PendingReplies[RotateReply] = PendingReplies()
        self._orders: OrderedDict[tuple[NodeId, int], asyncio.Task[RotateReply]] = OrderedDict()
        self._tasks = TaskSet()
        self._turning = asyncio.Lock()
        self._begun = asyncio.Event()
        self._refused_offer: tuple[KeyringOffer, NodeId] | None = None
        """A ring of an authority that we do not trust, and perhaps soon will."""
        self._stepped_at = 0.0
        self._quiet = RateLimitedLog(log)

    # ---- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Go on with a rotation that was under way when the agent last ended."""
        self._stepped_at = _now()
        self._tasks.start("key-rotation", self._coordinate)
        if self._identity.is_issuer:
            self._spawn(self._sign_again)

    async def stop(self) -> None:
        """Stop; what is not finished goes on at the next start."""
        for order in self._orders.values():
            order.cancel()
        await self._tasks.stop()
        await asyncio.gather(*self._orders.values(), return_exceptions=True)

    # ---- what the agent asks --------------------------------------------------------------------

    @property
    def ring(self) -> KeyringFile:
        """The ring in use."""
        return self._keyring.content

    @property
    def is_turning(self) -> bool:
        """Whether a rotation is under way."""
        return self.ring.phase != RotationPhase.STEADY

    @property
    def must_exclude(self) -> bool:
        """Whether somebody was removed who may know our newest secret."""
        return self._cluster_view.removed_at() > self.ring.epoch

    def state(self, *, wants_reply: bool = False) -> KeyringState:
        """Return what this node holds, as others may see it."""
        ring = self.ring
        shown = tuple(
            KeyShown(key_id, fingerprint(secret, self._identity.cluster_id))
            for key_id, secret in sorted(ring.secrets.items())
        )
        return KeyringState(ring.generation, ring.phase, ring.primary, shown, wants_reply)

    def greeting(self) -> bytes:
        """Return what to say first on a stream that this node has dialled."""
        return CODEC.encode(self.state())

    def candidates_of(self, node: NodeId) -> list[Address]:
        """Return where a node may be whose datagrams do not open."""
        return [self._candidates[node]] if node in self._candidates else []

    def awaited(self) -> list[NodeId]:
        """Return whom the next step waits for; empty when it waits for nobody."""
        admitted, live = self._cluster_view.admitted(), self._cluster_view.live()
        if self.ring.phase == RotationPhase.STEADY:
            return []
        everybody = self.ring.phase == RotationPhase.USED and not self._is_forced
        if self._is_forced and _now() - self._stepped_at > FORCE_S:
            return []
        awaited = self._cluster_view.seen() if everybody else live
        return [node for node in admitted if node in awaited and not self._has_ring(node)]

    async def report(self) -> list[KeyHolding]:
        """Ask everybody who is there what they hold; wait for two seconds at most."""
        me, admitted, live = (
            self._identity.node_id,
            self._cluster_view.admitted(),
            self._cluster_view.live(),
        )
        self._asked = {node for node in admitted if node in live and node != me}
        asked = frozenset(self._asked)
        for node in asked:
            self._send(self.state(wants_reply=True), node)
        if asked:
            self._all_reported.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_reported.wait(), REPORT_S)
        self._seen[me] = self.state()
        return [
            KeyHolding(
                node,
                name,
                node in live,
                node == me or (node in asked and node not in self._asked),
                self._seen.get(node),
            )
            for node, name in admitted.items()
        ]

    async def rotate(self, *, force: bool) -> None:
        """Begin a rotation, or with ``force`` finish one without those who are away.

        Returns when the issuer has begun. Raises AgentError.
        """
        acts = self._identity.is_issuer and self._cluster_view.acts()
        answer = await (self._begin(force) if acts else self._order(force))
        if answer.status == exits.UNREACHABLE and self._identity.is_issuer:
            answer = await self._begin(force)
        if answer.status != exits.YES:
            raise AgentError(answer.message, answer.hint, answer.status)

    # ---- what others say ------------------------------------------------------------------------

    def on_event(self, event: object) -> None:
        """Take in an event of the driver: somebody admitted seals with a key that we lack."""
        if isinstance(event, RegistryAdopted):
            self._begun.set()  # whoever coordinates looks whether somebody is to be locked out
        if isinstance(event, UnknownKeyReported):
            self._candidates[event.sender] = event.source
            self._candidates.move_to_end(event.sender)
            if len(self._candidates) > CANDIDATES_MAX:
                self._candidates.popitem(last=False)
            # Not now: the event comes while the driver performs effects.
            asyncio.get_running_loop().call_soon(self._help, event.sender)

    def receive_frame(self, data: bytes, peer: NodeId) -> None:
        """Take in a member's frame, whose tag is one of ours."""
        try:
            message = CODEC.decode_known(data)
        except Malformed:
            self.counts["frames_dropped/malformed"] += 1
            return
        match message:
            case KeyringState():
                self._on_epoch(message, peer)
            case KeyringOffer():
                self._spawn(partial(self._consider, message, peer))
            case RotateRequest():
                self._serve(message, peer)
            case RotateReply(number):
                self._replies.receive(peer, number, message)

    def _on_epoch(self, told: KeyringState, peer: NodeId) -> None:
        self._seen[peer] = told
        self._asked.discard(peer)
        if not self._asked:
            self._all_reported.set()
        ours = self.state()
        if told.wants_reply or told.generation > ours.generation:
            self._send(ours, peer)
        if told.generation < ours.generation or _differ(told, ours):
            self._offer(peer)
        elif peer in self._candidates and told.generation == ours.generation:
            self._cluster_view.send_hello(self._candidates.pop(peer))

    def _help(self, node: NodeId) -> None:
        if self.ring.generation:
            self._offer(node)
        else:
            self._send(self.state(), node)

    def _offer(self, node: NodeId) -> None:
        """Offer our ring, but not again and again while an answer is on its way."""
        if node not in self._cluster_view.admitted():
            return
        if self._cluster_view.epoch() < self.ring.epoch:
            self.counts["keyrings/held_back"] += 1
            return
        if self.ring.generation and _now() - self._offered_at.get(node, 0.0) >= OFFER_AGAIN_S:
            self._offered_at[node] = _now()
            self.counts["keyrings/offered"] += 1
            self._send(offer_of(self.ring), node)

    async def _consider(self, offer: KeyringOffer, peer: NodeId) -> None:
        ring = ring_of(offer)
        if peer not in self._cluster_view.issuers():
            ring = msgspec.structs.replace(ring, forced=False)
        verify = self._identity.verify_keyring
        async with self._turning:
            try:
                if check_offer(ring, self.ring, self._identity.cluster_id, verify):
                    await self._adopt(ring)
            except RemoteError as error:
                self._refused_offer = offer, peer
                self.counts[f"keyrings_refused/{error.label}"] += 1
                told = format_node_id(peer), error
                self._quiet.warning("refused", "refused a keyring of %s: %s", *told)
                return
            except (AgentError, OSError):
                self.counts["keyrings_refused/not_saved"] += 1
                log.exception("the new keyring was not saved, and is not used")
                return
        self._send(self.state(), peer)

    async def _save(self, ring: KeyringFile) -> None:
        """Put a ring on the disk, and use it. Raises OSError."""
        data = encode_keyring(ring)
        await asyncio.to_thread(replace_secret, self._identity.keyring_file, data)
        self._keyring.adopt(ring)

    async def _adopt(self, ring: KeyringFile) -> None:
        """Put a ring on the disk, use it, and tell a few. Raises OSError."""
        await self._save(ring)
        self._offered_at.clear()
        self._stepped_at = _now()
        self.counts["keyrings/adopted"] += 1
        log.info("keyring generation %d: %s", ring.generation, ring.phase)
        if ring.phase != RotationPhase.STEADY:
            self._begun.set()
        behind = [node for node in self._cluster_view.live() if not self._has_ring(node)]
        some = random.sample(behind, min(RELAYS, len(behind)))
        for node in {*some, *self._cluster_view.issuers()}:
            self._send(self.state(), node)

    def trust_changed(self) -> None:
        """Another authority is trusted: have it sign our ring; look again at what was refused."""
        if self._identity.is_issuer:
            self._spawn(self._sign_again)
        if self._refused_offer is not None:
            offer, peer = self._refused_offer
            self._refused_offer = None
            self._spawn(partial(self._consider, offer, peer))

    async def _sign_again(self) -> None:
        """Have the newest authority sign the ring in use: the one before will count no more."""
        async with self._turning:
            try:
                identity = self._identity
                fresh = signed_again(
                    self.ring, identity.cluster_id, identity.sign_keyring, identity.verify_keyring
                )
                if fresh is not None:
                    await self._adopt(fresh)
            except Forged as error:
                log.warning("%s; it was not signed again: `covey keys rotate` makes another", error)
            except (AgentError, OSError):
                log.exception("the ring was not signed by the new authority; a restart tries again")

    # ---- turning it -----------------------------------------------------------------------------

    async def _coordinate(self) -> None:
        """Take one step after the other, each when nobody is waited for any more.

        On the issuer whose turn it is; the others stand by, should it be no more.
        """
        while True:
            if self.ring.phase == RotationPhase.STEADY and not self.must_exclude:
                self._begun.clear()
                await self._begun.wait()
                continue
            await asyncio.sleep(TICK_S)
            if not (self._identity.is_issuer and self._cluster_view.acts()):
                await asyncio.sleep(STAND_BY_S)
                continue
            waiting = self.awaited()
            for node in self._cluster_view.live().intersection(waiting):
                self._offer(node)
            late = (
                self.ring.phase == RotationPhase.USED and _now() - self._stepped_at < LATE_PACKETS_S
            )
            if not waiting and not late:
                with contextlib.suppress(AgentError):  # said in the log; tried again
                    await self._step()

    @property
    def _is_forced(self) -> bool:
        """Whether a rotation waits for nobody who is away: it is ordered, or locks somebody out."""
        return self.ring.forced or self.must_exclude

    async def _step(self, *, force: bool = False) -> None:
        """Make the next ring and use it. Raises AgentError.

        That it is forced is written with it: who was removed would else keep an old key for as long
        as somebody is away, where this device starts anew in the middle.
        """
        async with self._turning:
            forced = msgspec.structs.replace(self.ring, forced=force or self._is_forced)
            identity = self._identity
            fresh = next_ring(
                forced, identity.cluster_id, identity.sign_keyring, self._cluster_view.epoch()
            )
            await self._keep(self._adopt, fresh)

    async def _force(self) -> None:
        """Write down that a rotation under way waits for nobody away. Raises AgentError."""
        async with self._turning:
            if self.is_turning:
                await self._keep(self._save, msgspec.structs.replace(self.ring, forced=True))

    async def _keep(
        self, keep: Callable[[KeyringFile], Coroutine[Any, Any, None]], ring: KeyringFile
    ) -> None:
        try:
            await keep(ring)
        except OSError as error:
            log.exception("the next keyring was not saved")
            raise AgentError(
                f"the keyring was not saved: {error.strerror}; the keys are as they were.",
                "Free some space, or mend the rights of the identity directory.",
                exits.UNHEALTHY,
            ) from None

    async def _begin(self, force: bool) -> RotateReply:  # noqa: FBT001 - as the message has it
        try:
            if self.ring.phase == RotationPhase.STEADY:
                await self._step(force=force)
            elif force:
                await self._force()
        except AgentError as error:
            return RotateReply(0, error.status, error.message, error.hint)
        self._begun.set()
        return RotateReply(0, exits.YES)

    async def _order(self, force: bool) -> RotateReply:  # noqa: FBT001
        """Ask one issuer after the other, each several times: a frame may be lost."""
        for issuer in self._cluster_view.issuers():
            order = RotateRequest(next(self._numbers), force)
            send = partial(self._send, order, issuer)
            with contextlib.suppress(TimeoutError):
                return await self._replies.request(
                    issuer, order.number, send, ORDER_S, ORDER_AGAIN_S
                )
        return RotateReply(
            0,
            exits.UNREACHABLE,
            "nobody who holds the authority's key can be reached; nothing was changed.",
            "Start one of them or mend the network (`covey registry` names them), then run "
            "the same command again.",
        )

    def _serve(self, order: RotateRequest, peer: NodeId) -> None:
        """Carry an order out once, however often it comes, and answer each time."""
        if not self._identity.is_issuer:
            return
        if not self._cluster_view.may_order(peer):
            self.counts["keyrings/no_right"] += 1
            names = self._cluster_view.admitted()
            refusal = _no_right(order.number, names[peer], names[self._identity.node_id])
            self._send(refusal, peer)
            return
        name = peer, order.number
        if name not in self._orders:
            self._orders[name] = asyncio.create_task(self._begin(order.force), name="key-order")
            if len(self._orders) > ORDERS_REMEMBERED:
                self._orders.popitem(last=False)
        self._spawn(partial(self._answer, self._orders[name], order.number, peer))

    async def _answer(self, work: asyncio.Task[RotateReply], number: int, peer: NodeId) -> None:
        answer = await asyncio.shield(work)
        self._send(msgspec.structs.replace(answer, number=number), peer)

    # ---- small things ---------------------------------------------------------------------------

    def _has_ring(self, node: NodeId) -> bool:
        told = self._seen.get(node)
        mine = node == self._identity.node_id
        return mine or (told is not None and told.generation >= self.ring.generation)

    def _send(self, message: KeyMessage, to: NodeId) -> None:
        if to != self._identity.node_id:
            self._cluster_view.send_frame(CODEC.encode(message), to)

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.start("key-work", work)


def _no_right(number: int, name: str, issuer: str) -> RotateReply:
    return RotateReply(
        number,
        exits.NOT_PERMITTED,
        f"{name} may not order a rotation; nothing was changed.",
        f"Do it on {issuer}, or give {name} the right, on {issuer}: `covey members allow {name}`",
    )


def _differ(told: KeyringState, ours: KeyringState) -> bool:
    """Tell whether two issuers made two rings of one generation."""
    return told.generation == ours.generation and told.keys != ours.keys


def _now() -> float:
    return asyncio.get_running_loop().time()
