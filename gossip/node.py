"""A whole node, wired: this file is the map, the planes are the territory.

::

    datagram ── Envelope.open ──▶ Swim ──▶ Envelope.seal ──▶ datagram
    frame ───── by its tag ──┬──▶ Swim ──▶ frame
                             └──▶ KvPlane ──▶ frame, Persist, Emit
    who is not in the registry ──▶ Strangers: counted, and shown which registry we follow
    registry adopted ──▶ Swim: who belongs, which epoch to tell in state syncs
    epoch heard in a state sync, member alive ──▶ KvPlane: who may know more, who is back

The arrows between the planes carry hints alone. No replica list, quorum or epoch is computed from
the member list: a wrong view of who is alive may cost a request some time, and never its data.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import msgspec

from gossip.core.envelope import CipherSuite, Envelope
from gossip.core.errors import Forged, Malformed, RemoteError, Replayed, UnknownKey
from gossip.core.ids import Boot, ClusterId, NodeId
from gossip.core.machine import Address, Effect, Emit, Instant, SendDatagram, SendFrame
from gossip.core.trials import OnTrial, trusted
from gossip.core.tuning import Tuning
from gossip.core.wire import tag_of
from gossip.events.plane import EventPlane
from gossip.kv.plane import KvPlane
from gossip.kv.requests import RegistryAdopted, Request
from gossip.kv.storage import Storage
from gossip.membership.anti_entropy.sync import EpochReported
from gossip.membership.model.members import RESTARTED, MemberChanged, MemberState
from gossip.membership.swim import Swim
from gossip.registry.registry import Registry
from gossip.registry.strangers import Strangers

MEMBERSHIP_FRAMES = range(32, 48)
STATE_FRAMES = range(48, 80)
REGISTRY_FRAMES = range(48, 50)
"""What a stranger may say: which registry it follows."""

T = TypeVar("T")

DROPPED: dict[type[RemoteError], str] = {
    Malformed: "datagrams_dropped/malformed",
    Forged: "datagrams_dropped/forged",
    UnknownKey: "datagrams_dropped/unknown_key",
    Replayed: "datagrams_dropped/replayed",
}


UNKNOWN_KEYS_HEARD_S = 1.0
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
    ) -> None:
        me, boot, tuning = settings.me, settings.boot, settings.tuning
        self.settings = settings
        told = settings.name, settings.addresses, settings.tags
        events = partial(EventPlane, time=settings.event_time)
        self.swim = Swim(me, boot, *told, tuning, rng, now, events)
        hints = self.swim.reachable_first, self.swim.is_gone
        self.state = KvPlane(
            me, settings.actor, signed_registry, verify, storage, rng, wall_ms, *hints, now
        )
        self.on_trial = on_trial
        self.swim.put_on_trial(on_trial)
        self.state.replica.on_trial = on_trial
        self._frame_handlers: dict[int, Callable[[bytes, NodeId, Instant], None]] = {
            **dict.fromkeys(MEMBERSHIP_FRAMES, self._receive_membership_frame),
            **dict.fromkeys(STATE_FRAMES, self.state.receive_frame),
        }
        self._envelope = Envelope(settings.cluster_id, me, boot, suite)
        self._counts: Counter[str] = Counter()
        self._effects: deque[Effect] = deque()
        self._due: Instant | None = None
        self._unknown_key_at = now - UNKNOWN_KEYS_HEARD_S
        self.strangers = Strangers()
        self._admitted: frozenset[NodeId] = frozenset()
        self._on_event(self.state.registry, now)
        self._settle(now)

    # ------------------------------------------------------------------ inputs

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        """Take in one datagram. What is not from a member of this covey is counted, no more."""
        try:
            opened = self._envelope.open(data)
        except RemoteError as error:
            self._counts[DROPPED[type(error)]] += 1
            if isinstance(error, UnknownKey):
                self._hear_unknown_key(error.sender, source, now)
            return
        self._counts["gossip_bytes/datagrams received"] += len(data)
        self.state.heard_registry(opened.sender, opened.epoch, opened.mark, now)
        if not self.belong(opened.sender):
            self._counts["datagrams_dropped/stranger"] += 1
            self.knocked(opened.sender, source, now)
            return
        sender, boot, incarnation = opened.sender, opened.boot, opened.incarnation
        self.swim.receive(opened.body, sender, boot, incarnation, source, now)
        self._settle(now)

    def receive_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in one frame from an authenticated peer."""
        try:
            tag = tag_of(data)
        except Malformed:
            self._counts["frames_dropped/malformed"] += 1
            return
        if tag not in REGISTRY_FRAMES and not self.belong(peer):
            self._counts["frames_dropped/stranger"] += 1
            self.knocked(peer, None, now)
            return
        self._frame_handlers.get(tag, self._skip_frame)(data, peer, now)
        self._settle(now)

    def _receive_membership_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        self._counts["gossip_bytes/streams received"] += len(data)
        self.swim.receive_frame(data, peer, now)

    def _skip_frame(self, _data: bytes, _peer: NodeId, _now: Instant) -> None:
        self._counts["frames_skipped/unknown"] += 1

    def knocked(self, stranger: NodeId, source: Address | None, now: Instant) -> None:
        """Take note that somebody who is not in the registry wants something of us.

        ``source``: where it is reached, if anybody knows. Once in a while it is told.
        """
        self.strangers.record(stranger, source, now)
        if self.strangers.source_of(stranger) and self.strangers.is_due(stranger, now):
            self.state.show_registry(stranger)
        self._settle(now)

    def peer_unreachable(self, peer: NodeId, now: Instant) -> None:
        """Take note that frames to a peer could not be sent, or were lost."""
        self.swim.peer_unreachable(peer, now)
        self.state.peer_unreachable(peer, now)
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

    def hold_back(self, *, held: bool) -> None:
        """Begin nothing that has to be saved, while the disk takes nothing; or again."""
        self.state.hold_back(held=held)

    def persisted(self, token: int, now: Instant) -> None:
        """Take note that the changes of this Persist are durable."""
        self.state.persisted(token, now)
        self._settle(now)

    def submit(self, request: Request, now: Instant) -> int:
        """Begin a request; return its number, under which ``Completed`` will come."""
        number = self.state.submit(request, now)
        self._settle(now)
        return number

    def cancel(self, request: int, now: Instant) -> None:
        """Forget a request, or end a watch."""
        self.state.cancel(request, now)
        self._settle(now)

    def adopt_registry(self, signed: bytes, now: Instant, *, announce: bool = False) -> bool:
        """Follow a signed registry if it is newer; tell whether it was.

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

    def ask_round_trip(self, peer: NodeId, target: NodeId, now: Instant) -> int:
        """Ask a member how far another is from it; RttReported brings the answer, if any."""
        number = self.swim.rtt_service.ask(peer, target)
        self._settle(now)
        return number

    def sleep(self, duration_s: float, now: Instant) -> None:
        """Announce to all others that this node is silent for so long. Raises InvalidRequest."""
        self.swim.sleep(duration_s, now)
        self._settle(now)

    def awaken(self, now: Instant) -> None:
        """End an announced sleep before its time."""
        self.swim.awaken(now)
        self._settle(now)

    def leave(self, now: Instant) -> None:
        """Say goodbye; ``swim.left`` becomes true when it was said often enough."""
        self.swim.leave(now)
        self._settle(now)

    def wake(self, now: Instant) -> None:
        """Let due timers act; harmless when called early."""
        self.swim.wake(now)
        self.state.wake(now)
        self._settle(now)

    # ------------------------------------------------------------------ outputs

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        return self._due

    def effects(self) -> Iterator[Effect]:
        """Drain what is to be done, in order."""
        while self._effects:
            yield self._effects.popleft()

    @property
    def counts(self) -> Counter[str]:
        """What was counted in all planes together."""
        return self._counts + self.swim.counts + self.state.counts

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

    def _settle(self, now: Instant) -> None:
        """Gather the effects of both planes until neither has moved the other any more."""
        swim, state = self.swim, self.state
        while fresh := [*swim.effects(), *state.effects()]:
            epoch, mark = state.registry.epoch, state.registry_sync.short_mark
            for effect in fresh:
                if isinstance(effect, SendDatagram):
                    sealed = self._envelope.seal(effect.data, swim.incarnation, epoch, mark)
                    self._counts["gossip_bytes/datagrams sent"] += len(sealed)
                    self._effects.append(SendDatagram(sealed, effect.to))
                    continue
                if isinstance(effect, SendFrame) and tag_of(effect.data) in MEMBERSHIP_FRAMES:
                    self._counts["gossip_bytes/streams sent"] += len(effect.data)
                self._effects.append(effect)
                if isinstance(effect, Emit):
                    self._pass_on(effect.event, now)
        due = [at for at in (swim.deadline(), state.deadline()) if at is not None]
        self._due = min(due, default=None)

    def _pass_on(self, event: object, now: Instant) -> None:
        """Tell one plane what the other has learnt."""
        if isinstance(event, RegistryAdopted):
            self._on_event(event.registry, now)
        elif isinstance(event, EpochReported):
            self.state.note_epoch(event.peer, event.epoch, now)
        elif isinstance(event, MemberChanged) and _is_return(event):
            self.state.peer_alive(event.member.id, now)

    def _hear_unknown_key(self, sender: NodeId, source: Address, now: Instant) -> None:
        if sender == self.settings.me:
            return
        if not self.belong(sender):
            if self._was_removed(sender):
                self.knocked(sender, source, now)
            return
        if now - self._unknown_key_at >= UNKNOWN_KEYS_HEARD_S:
            self._unknown_key_at = now
            self._effects.append(Emit(UnknownKeyReported(sender, source)))

    def _was_removed(self, node: NodeId) -> bool:
        return any(gone.id == node for gone in self.state.registry.removed)

    def _on_event(self, registry: Registry, now: Instant) -> None:
        self.swim.epoch = registry.epoch
        before, self._admitted = self._admitted, frozenset(registry.ids())
        self.strangers.part(before - self._admitted, now)
        self.strangers.admit(self._admitted)
        self.swim.admit({node.id: node.name for node in registry.nodes}, now)


def _is_return(change: MemberChanged) -> bool:
    """Tell whether a member is there that was away, or that has started anew meanwhile."""
    if change.member.state is not MemberState.ALIVE:
        return False
    return change.before is not MemberState.ALIVE or change.reason == RESTARTED
