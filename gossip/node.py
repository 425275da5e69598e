"""A whole node, wired: this file is the map, the planes are the territory.

::

    datagram ── Envelope.open ──▶ Swim ──▶ Envelope.seal ──▶ datagram
    frame ───── by its tag ──┬──▶ Swim ──▶ frame
                             ├──▶ KvPlane ──▶ frame, Persist, Emit
                             ├──▶ ControlPlane ──▶ frame, Persist, Emit
                             └──▶ whoever asked for it (``route_frames``)
    who is not in the registry ──▶ Strangers: counted, and shown which registry we follow
    registry committed ──▶ KvPlane: saved, then followed; the leader offers it to all
    registry adopted ──▶ Swim: who belongs, which epoch to tell in state syncs
    epoch heard in a state sync, member alive ──▶ KvPlane: who may know more, who is back
    member alive, member dead ──▶ ControlPlane: whom to ask, whether to look for another leader

The arrows between the planes carry hints alone. No replica list, quorum or epoch is computed from
the member list: a wrong view of who is alive may cost a request some time, and never its data.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import msgspec

from gossip.control.participation import TOKENS_FROM
from gossip.control.plane import FRAME_TAGS, ControlPlane, StoredLog
from gossip.control.requests import RegistryCommitted
from gossip.control.voters import SETTLE_S, settling, settling_learners
from gossip.core.envelope import CipherSuite, Envelope
from gossip.core.errors import Forged, InvalidRequest, Malformed, RemoteError, Replayed, UnknownKey
from gossip.core.ids import Boot, ClusterId, NodeId
from gossip.core.machine import (
    Address,
    Durability,
    Effect,
    Emit,
    FrameHandler,
    Instant,
    SendDatagram,
)
from gossip.core.trials import OnTrial, trusted
from gossip.core.tuning import Tuning
from gossip.core.wire import tag_of
from gossip.events.plane import EventPlane
from gossip.kv.limits import MISSING_AFTER_S
from gossip.kv.messages import CODEC
from gossip.kv.parts import MembershipView
from gossip.kv.plane import KvPlane
from gossip.kv.requests import RegistryAdopted, Request
from gossip.kv.storage import Storage
from gossip.kv.transfers import TransferBudget
from gossip.membership.anti_entropy.sync import EpochReported
from gossip.membership.model.members import RESTARTED, MemberChanged, MemberState
from gossip.membership.model.signatures import SigningKeys
from gossip.membership.swim import Swim
from gossip.registry.registry import Registry
from gossip.registry.strangers import DatagramRefused, Strangers

REGISTRY_FRAMES = range(48, 50)
"""What a stranger may say: which registry it follows."""

GATHERED = frozenset(FRAME_TAGS) | CODEC.tags - frozenset(REGISTRY_FRAMES)
"""Frames of which those that come in one turn share a batch to save, and what follows from it."""

POWER_TAG = "power"
POWERS = {"mains": True, "battery": False}
"""What the tag of a node says of its power; anything else says nothing."""

T = TypeVar("T")

DROPPED: dict[type[RemoteError], str] = {
    Malformed: "datagrams_dropped/malformed",
    Forged: "datagrams_dropped/forged",
    UnknownKey: "datagrams_dropped/unknown_key",
    Replayed: "datagrams_dropped/replayed",
}


UNKNOWN_KEYS_REPORTED_S = 1.0
"""How often at most somebody hears of datagrams under keys that we lack: anybody can send them."""


class UnknownKeyReported(msgspec.Struct, frozen=True):
    """Emitted when a datagram under an unknown key names an admitted node as its sender.

    Nothing of it is proved. Either of us two may have missed a new key.
    """

    sender: NodeId
    source: Address


class NodeConfig(msgspec.Struct, frozen=True):
    """What distinguishes one life of one node from all others."""

    me: NodeId
    boot: Boot
    name: str
    addresses: tuple[Address, ...]
    tags: dict[str, str]
    tuning: Tuning
    cluster_id: ClusterId
    actor: int
    """Random per process start: writes coordinated by this life are counted under it."""
    event_time: int = 0
    """The Lamport time of the last event that an earlier life delivered; older ones are over."""
    settle_s: float = SETTLE_S
    """Who has run for so long may vote."""
    missing_after_s: float = MISSING_AFTER_S
    """An owner that an issuer did not hear for so long is missing; 0: none ever is."""
    transfers: TransferBudget = TransferBudget()
    """How much of others' partitions is copied at a time."""


class Node:
    """One member of a covey, as a machine (see ``gossip/core/machine.py`` for the contract)."""

    def __init__(
        self,
        settings: NodeConfig,
        suite: CipherSuite,
        signed_registry: bytes,
        verify: Callable[[bytes, bytes], bool],
        storage: Storage,
        rng: random.Random,
        wall_ms: Callable[[Instant], int],
        now: Instant,
        on_trial: OnTrial = trusted,
        log: StoredLog | None = None,
        *,
        signing: SigningKeys | None,
    ) -> None:
        """``signing``: with what our words are signed; None: as in versions that signed none."""
        me, boot, tuning = settings.me, settings.boot, settings.tuning
        self.settings = settings
        told = settings.name, settings.addresses, settings.tags
        events = partial(EventPlane, time=settings.event_time)
        self.swim = Swim(me, boot, *told, tuning, rng, now, events, signing)
        view = MembershipView(self.swim.reachable_first, self.swim.is_gone)
        self.state = KvPlane(
            me, settings.actor, signed_registry, verify, storage, rng, wall_ms, view, now, boot=boot
        )
        self.state.transfers.limits = settings.transfers
        self.state.progress.judge_after(settings.missing_after_s, now)
        self.control = self._open_control(log, rng, now) if log is not None else None
        self.on_trial = on_trial
        self.swim.put_on_trial(on_trial)
        self.state.replica.on_trial = on_trial
        self._frame_handlers: dict[int, FrameHandler] = {
            **self.swim.frame_handlers,
            **dict.fromkeys(CODEC.tags, self.state.receive_frame),
        }
        if self.control is not None:
            self.route_frames(FRAME_TAGS, self.control.receive_frame)
            self.state.progress.voting = self.control.voting
        self._envelope = Envelope(settings.cluster_id, me, boot, suite)
        self._counts: Counter[str] = Counter()
        self._effects: deque[Effect] = deque()
        self._due: Instant | None = None
        self._unsettled: Instant | None = None
        """When something came that is not settled yet."""
        self._unknown_key_at = now - UNKNOWN_KEYS_REPORTED_S
        self.strangers = Strangers()
        self._admitted: frozenset[NodeId] = frozenset()
        self._on_event(self.state.registry, now)
        self._settle(now)

    def _open_control(self, log: StoredLog, rng: random.Random, now: Instant) -> ControlPlane:
        """Go on with the log; who knows no voter asks the nodes of the registry for one."""

        def contacts() -> Iterable[NodeId]:
            return self.swim.reachable_first(self.state.registry.ids())

        def zones() -> dict[NodeId, str]:
            return {node.id: node.zone for node in self.state.registry.nodes}

        def draining() -> set[NodeId]:
            return {node.id for node in self.state.registry.draining}

        rng = random.Random(rng.getrandbits(64))
        is_on_mains = POWERS.get(self.settings.tags.get(POWER_TAG, ""))
        return ControlPlane(
            self.settings.me, log, contacts, zones, rng, now,
            settling_learners(self.settings.settle_s),
            voter_tuning=settling(self.settings.settle_s), is_on_mains=is_on_mains,
            members_of=self.state.registry_sync.members_of, draining=draining,
            entry_of=lambda node: self.state.registry.node(node),
        )  # fmt: skip

    # ------------------------------------------------------------------ inputs

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        """Take in one datagram. What is not from a member of this covey is counted, no more."""
        try:
            opened = self._envelope.open(data)
        except RemoteError as error:
            self._counts[DROPPED[type(error)]] += 1
            if isinstance(error, UnknownKey):
                self._report_unknown_key(error.sender, source, now)
            return
        self._counts["gossip_bytes/datagrams received"] += len(data)
        self.state.on_registry_named(opened.sender, opened.epoch, opened.mark, now)
        if not self.belong(opened.sender):
            self._counts["datagrams_dropped/stranger"] += 1
            self.knocked(opened.sender, source, now)
            return
        sender, boot, incarnation = opened.sender, opened.boot, opened.incarnation
        self.swim.receive(opened.body, sender, boot, incarnation, source, now)
        self._settle(now)

    def route_frames(self, tags: Iterable[int], handler: FrameHandler) -> None:
        """Have frames with these tags taken in by somebody else, if their peers belong."""
        routes = dict.fromkeys(tags, handler)
        assert self._frame_handlers.keys().isdisjoint(routes), "one tag, one reader"
        self._frame_handlers.update(routes)

    def receive_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in one frame from an authenticated peer."""
        if self._take_frame(data, peer, now, is_stranger=not self.belong(peer)):
            self.knocked(peer, None, now)

    def overhear(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in one frame of somebody who was not let in: which registry it follows, no more."""
        self._take_frame(data, peer, now, is_stranger=True)

    def _take_frame(self, data: bytes, peer: NodeId, now: Instant, *, is_stranger: bool) -> bool:
        """Hand a frame to whom it is for; say whether it was refused as a stranger's.

        No other place reads tags, or looks who may say what; and here is counted what nobody knows.
        """
        try:
            tag = tag_of(data)
        except Malformed:
            self._counts["frames_dropped/malformed"] += 1
            return False
        if is_stranger and tag not in REGISTRY_FRAMES:
            self._counts["frames_dropped/stranger"] += 1
            return True
        handler = self._frame_handlers.get(tag)
        if handler is None:
            self._counts["frames_skipped/unknown"] += 1
            return False
        handler(data, peer, now)
        if tag in GATHERED:
            self._settle_later(now)
        else:
            self._settle(now)
        return False

    def knocked(self, stranger: NodeId, source: Address | None, now: Instant) -> None:
        """Take note that somebody who is not in the registry wants something of us.

        ``source``: where it is reached, if anybody knows. Once in a while it is told.
        """
        self.strangers.record(stranger, source, now)
        if source is not None:
            self._effects.append(Emit(DatagramRefused(stranger, source)))
        if self.strangers.source_of(stranger) and self.strangers.is_due(stranger, now):
            self.state.show_registry(stranger)
        self._settle(now)

    def peer_unreachable(self, peer: NodeId, now: Instant) -> None:
        """Take note that frames to a peer could not be sent, or were lost."""
        self.swim.peer_unreachable(peer, now)
        self.state.peer_unreachable(peer, now)
        if self.control is not None:
            self.control.peer_unreachable(peer, now)
        self._settle(now)

    def stream_closed(self, peer: NodeId, now: Instant) -> None:
        """Take note that an open stream to a peer ended, and not by this node."""
        self.swim.stream_closed(peer, now)
        self._settle(now)

    def port_unreachable(self, address: Address, now: Instant) -> None:
        """Take note that a host said that nobody receives datagrams at this address."""
        self.swim.port_unreachable(address, now)
        self._settle(now)

    def discovered(self, addresses: Iterable[Address], now: Instant) -> None:
        """Take a hint that somebody may be at these addresses."""
        self.swim.discovered(addresses, now)
        self._settle(now)

    def hold_back(self, durability: Durability, now: Instant, *, held: bool) -> None:
        """Begin nothing that has to be saved so, while the disk takes nothing; or again."""
        if durability is Durability.FLUSH:
            self.state.hold_back(held=held)
        elif self.control is not None:
            self.control.hold_back(now, held=held)

    def limit_puts(self, now: Instant, *, limited: bool) -> None:
        """Take no new values of shared keys, while the disk is nearly full; or again."""
        self.state.limit_puts(limited=limited)
        self._settle(now)

    def persisted(self, token: int, now: Instant) -> None:
        """Take note that the changes of this Persist are durable."""
        if token > TOKENS_FROM and self.control is not None:
            self.control.persisted(token, now)
            self._settle_later(now)
        else:
            self.state.persisted(token, now)
            self._settle_later(now)

    def synced(self, token: int, now: Instant) -> None:
        """Take note that what was written with FLUSH up to this token survives a power cut."""
        self.state.synced(token, now)
        self._settle_later(now)

    def submit(self, request: Request, now: Instant) -> int:
        """Begin a request; return its number, under which ``Completed`` will come."""
        number = self.state.submit(request, now)
        self._settle_later(now)
        return number

    def cancel(self, request: int, now: Instant) -> None:
        """Forget a request, or end a watch."""
        self.state.cancel(request, now)
        self._settle(now)

    def adopt_registry(self, signed: bytes, now: Instant, *, announce: bool = False) -> bool:
        """Follow a signed registry, which is on our disk, if it is newer; tell whether it was.

        ``announce``: offer it to all its nodes, as the issuer does. Raises Malformed or Forged.
        """
        adopted = self.state.adopt(signed, now, announce=announce)
        self._settle(now)
        return adopted

    def set_tags(self, tags: dict[str, str], now: Instant) -> None:
        """Describe this node anew to all others."""
        self.swim.set_tags(tags, now)
        self._settle(now)

    def set_facts(self, facts: dict[str, str], now: Instant) -> None:
        """Publish other facts about this node; they travel with the exchanges."""
        self.swim.set_facts(facts, now)
        self._settle(now)

    def set_addresses(
        self, addresses: tuple[Address, ...], now: Instant, own: Iterable[Address] = ()
    ) -> None:
        """Tell all others where this node is reached; ``own``: where it would meet itself, too."""
        self.swim.set_addresses(addresses, now, own)
        self._settle(now)

    def with_events(self, action: Callable[[EventPlane], T], now: Instant) -> T:
        """Send an event, ask, or answer, for an application. Raises LocalError."""
        result = self.swim.with_delegate(action, now)
        self._settle(now)
        return result

    def with_control(self, action: Callable[[ControlPlane], T], now: Instant) -> T:
        """Ask something of the control plane, for an application. Raises LocalError."""
        result = self.see_control(action)
        self._settle_later(now)
        return result

    def see_control(self, look: Callable[[ControlPlane], T]) -> T:
        """Return what a look that changes nothing finds. Raises LocalError."""
        if self.control is None:
            raise InvalidRequest("this node keeps no log of the control plane")
        return look(self.control)

    def ask_round_trip(self, peer: NodeId, target: NodeId, now: Instant) -> int:
        """Ask a member how far another is from it; RttReported brings the answer, if any."""
        number = self.swim.rtt_service.ask(peer, target)
        self._settle(now)
        return number

    def sleep(self, duration_s: float, now: Instant) -> None:
        """Announce to all others that this node is silent for so long. Raises InvalidRequest."""
        self.swim.sleep(duration_s, now)
        if self.control is not None:
            self.control.hand_over(now)
        self._settle(now)

    def awaken(self, now: Instant) -> None:
        """End an announced sleep before its time."""
        self.swim.awaken(now)
        self._settle(now)

    def leave(self, now: Instant) -> None:
        """Say goodbye; ``swim.left`` becomes true when it was said often enough."""
        self.swim.leave(now)
        if self.control is not None:
            self.control.hand_over(now)
        self._settle(now)

    def wake(self, now: Instant) -> None:
        """Let due timers act; harmless when called early."""
        self.swim.wake(now)
        self.state.wake(now)
        if self.control is not None:
            self.control.wake(now)
        self._settle(now)

    # ------------------------------------------------------------------ outputs

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        self._settle_now()
        return self._due

    def effects(self) -> Iterator[Effect]:
        """Drain what is to be done, in order."""
        self._settle_now()
        while self._effects:
            yield self._effects.popleft()

    @property
    def counts(self) -> Counter[str]:
        """What was counted in all planes together."""
        counts = self._counts + self.swim.counts + self.state.counts
        return counts + self.control.counts if self.control is not None else counts

    def addresses_of(self, node: NodeId) -> list[Address]:
        """Return where a node may be reached, best first."""
        return self.swim.addresses_of(node) or self.strangers.source_of(node)

    def belong(self, *nodes: NodeId) -> bool:
        """Say whether all of these nodes are in the registry."""
        return self._admitted.issuperset(nodes)

    def path_bytes(self, node: NodeId) -> int:
        """Return how large an IP packet to a member may be."""
        return self.swim.path_bytes(node)

    # ------------------------------------------------------------------ between the planes

    def _settle_later(self, now: Instant) -> None:
        """Settle when the effects are asked for: many commands may come to share one batch."""
        self._unsettled = now

    def _settle_now(self) -> None:
        if self._unsettled is not None:
            self._settle(self._unsettled)

    def _settle(self, now: Instant) -> None:
        """Gather the effects of all planes until none has moved another any more."""
        self._unsettled = None
        swim, state = self.swim, self.state
        planes = (swim, state) if self.control is None else (swim, state, self.control)
        while fresh := [effect for plane in planes for effect in plane.effects()]:
            epoch, mark = state.registry.epoch, state.registry_sync.short_mark
            for effect in fresh:
                if isinstance(effect, Emit) and isinstance(effect.event, RegistryCommitted):
                    self._follow_log(effect.event, now)
                    continue
                if isinstance(effect, SendDatagram):
                    sealed = self._envelope.seal(effect.data, swim.incarnation, epoch, mark)
                    self._counts["gossip_bytes/datagrams sent"] += len(sealed)
                    self._effects.append(SendDatagram(sealed, effect.to))
                    continue
                self._effects.append(effect)
                if isinstance(effect, Emit):
                    self._pass_on(effect.event, now)
        due = [at for at in (plane.deadline() for plane in planes) if at is not None]
        self._due = min(due, default=None)

    def _follow_log(self, event: RegistryCommitted, now: Instant) -> None:
        """Have a committed registry saved and followed; the leader shows it to all others."""
        control = self.control
        leads = control is not None and control.leadership.leads
        self.state.on_committed(event.signed, now, announce=leads)

    def _pass_on(self, event: object, now: Instant) -> None:
        """Tell one plane what the other has learnt."""
        if isinstance(event, RegistryAdopted):
            self._on_event(event.registry, now)
        elif isinstance(event, EpochReported):
            self.state.on_epoch(event.peer, event.epoch, now)
        elif isinstance(event, MemberChanged):
            self._member_changed(event, now)

    def _member_changed(self, event: MemberChanged, now: Instant) -> None:
        member = event.member
        if _is_return(event):
            self.state.peer_alive(member.id, now)
            if self.control is not None:
                self.control.peer_alive(member.id, now)
        elif member.state is MemberState.DEAD and self.control is not None:
            self.control.peer_gone(member.id, now)

    def _report_unknown_key(self, sender: NodeId, source: Address, now: Instant) -> None:
        if sender == self.settings.me:
            return
        if not self.belong(sender):
            if self._was_removed(sender):
                self.knocked(sender, source, now)
            return
        if now - self._unknown_key_at >= UNKNOWN_KEYS_REPORTED_S:
            self._unknown_key_at = now
            self._effects.append(Emit(UnknownKeyReported(sender, source)))

    def _was_removed(self, node: NodeId) -> bool:
        return any(gone.id == node for gone in self.state.registry.removed)

    def _on_event(self, registry: Registry, now: Instant) -> None:
        self.swim.epoch = registry.epoch
        before, self._admitted = self._admitted, frozenset(registry.ids())
        self.strangers.part(before - self._admitted, now)
        self.strangers.admit(self._admitted)
        names = {node.id: node.name for node in registry.nodes}
        self.swim.admit(names, now, {node.id: node.key for node in registry.nodes if node.key})


def _is_return(change: MemberChanged) -> bool:
    """Tell whether a member is there that was away, or that has started anew meanwhile."""
    if change.member.state is not MemberState.ALIVE:
        return False
    return change.before is not MemberState.ALIVE or change.reason == RESTARTED
