"""The state plane of one node: everything in this room, wired on one screen.

What a write goes through: ``submit`` → ``forwards`` finds an owner → ``writes`` there commits to
its ``replica`` and tells the other owners → their ``serving`` merges → ``Stored`` → ``Completed``.
What a read goes through: ``submit`` → ``reads`` asks R owners → their ``serving`` → ``Completed``.
Frames to ourselves take the same way, without becoming bytes.

This is a machine as in ``gossip/core/machine.py``, except that frames come in whole and
authenticated, so ``receive_frame`` takes the place of ``receive``.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from gossip.core.errors import InvalidRequest, LimitExceeded, RemoteError
from gossip.core.hlc import HybridClock
from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Effect, Instant
from gossip.kv import messages as m
from gossip.kv.agreed_clock import AgreedClock
from gossip.kv.changes import CounterUpdate
from gossip.kv.dots import Dot
from gossip.kv.expiry_keeper import ExpiryKeeper
from gossip.kv.forwarding import WriteForwarder
from gossip.kv.handoff import Handoff
from gossip.kv.hints import Hints
from gossip.kv.informed_writes import InformedWrites, decision_of
from gossip.kv.limits import REQUESTS_MAX
from gossip.kv.listing import Listings
from gossip.kv.misplaced_keys import MisplacedKeys
from gossip.kv.outbound import OutboundFrames
from gossip.kv.own_home import OwnHome
from gossip.kv.ownership_progress import OwnershipProgress
from gossip.kv.parts import KvParts, MembershipView
from gossip.kv.reads import AskedRead, Reads
from gossip.kv.records import Record, coverage, decode_context
from gossip.kv.registry_sync import RegistrySync
from gossip.kv.repair import RepairScheduler
from gossip.kv.replica import Replica
from gossip.kv.replica_server import ReplicaServer
from gossip.kv.requests import (
    CLOCK_DOUBTED,
    FORK_REASON,
    Completed,
    Delete,
    Get,
    List,
    Put,
    Rejected,
    Request,
    Result,
    Update,
    Watch,
    check_request,
)
from gossip.kv.restored_key import RestoreKey
from gossip.kv.scan_server import ScanServer
from gossip.kv.shown_values import ShownValues
from gossip.kv.spaces import Spaces
from gossip.kv.storage import Storage
from gossip.kv.sync_session import SyncSessions
from gossip.kv.takeover import Copy
from gossip.kv.transfers import Transfers
from gossip.kv.typed_values import pack_register
from gossip.kv.watch import WatchSource
from gossip.kv.watch_client import WatchClient
from gossip.kv.writes import AskedWrite, Write, Writes
from gossip.registry.registry import Registry, Verify

SAVED = (m.Forward, m.Increment, m.Restore, m.Store, m.SyncStates, m.StatesSynced)
"""Frames of others that bring something to save."""
OPEN_TO_ALL = (m.RegistryOffer, m.RegistryAsk)
"""What anybody may say."""


class KvPlane:
    """The shared keys of one node, as a machine. ``actor`` must be random and new at every start.

    Raises Malformed or Forged for a registry that does not verify.
    """

    def __init__(
        self,
        me: NodeId,
        actor: int,
        signed: bytes,
        verify: Verify,
        storage: Storage,
        rng: random.Random,
        wall_ms: Callable[[Instant], int],
        view: MembershipView,
        now: Instant,
        *,
        boot: Boot,
    ) -> None:
        self.outbound = OutboundFrames(me, rng)
        tokens = itertools.count(1)
        self.registry_sync = RegistrySync(signed, verify, self.outbound, tokens, now)
        self.replica = Replica(me, actor, storage, HybridClock(wall_ms), rng, tokens, boot)
        self.replica.on_foretold = self._count_foretold
        self._away: set[NodeId] = set()
        self._requests: dict[int, Callable[[], object]] = {}
        self.spaces = Spaces()
        self.clock = AgreedClock(self.registry_sync, self.outbound, view.order, wall_ms, now)
        shown = ShownValues(self.spaces, self.clock)
        home = OwnHome(me, self.registry_sync, self.replica)
        self.transfers = Transfers()
        parts = KvParts(
            self.replica, self.registry_sync, self.outbound, home, view, rng, self.spaces, shown,
            self.transfers,
        )  # fmt: skip
        self.sync_sessions = SyncSessions(parts)
        self.repair = RepairScheduler(parts, self.sync_sessions, now)
        self.handoff = Handoff(parts, self.repair)
        self.progress = OwnershipProgress(parts, self.handoff)
        self.serving = ReplicaServer(parts)
        self.scanning = ScanServer(parts)
        self.writes = Writes(parts, self.repair)
        self.hints = Hints(parts, self.repair.returned)
        self.writes.missed = self._missed
        self.expiries = ExpiryKeeper(parts, self.clock, self.writes, now)
        self.forwards = WriteForwarder(parts, self.writes)
        self.reads = Reads(parts)
        self.informed_writes = InformedWrites(self.reads, self.forwards)
        self.listings = Listings(parts, self.reads)
        self.owners = WatchSource(parts)
        self.watchers = WatchClient(parts)
        self.misplaced = MisplacedKeys(parts, self.repair)
        self.replica.listener = self._on_record
        self.sync_sessions.finished = self._pass_finished
        self.registry_sync.on_adopted = self._adopted
        self._handlers = self._wire()
        self._timed = (
            self.writes, self.forwards, self.reads, self.listings, self.owners, self.watchers,
            self.sync_sessions, self.handoff, self.progress, self.repair, self.scanning, self.hints,
            self.misplaced, self.clock, self.expiries, self.writes.full_disks,
        )  # fmt: skip
        self.handoff.adopted(now)
        self.progress.adopted(set(), now)
        self.misplaced.adopted(now)

    def _wire(self) -> dict[type, Callable[[Any, NodeId, Instant], object]]:
        """Say who takes in which frame."""
        return {
            m.RegistryOffer: self.registry_sync.offered,
            m.RegistryAsk: self.registry_sync.asked,
            m.Ready: self.serving.ready,
            m.ReadyReply: self._ready,
            m.Forward: self.forwards.forward,
            m.Increment: self.forwards.increment,
            m.Restore: self.forwards.restore,
            m.Forwarded: self.forwards.forwarded,
            m.Store: self.serving.store,
            m.Stored: self._stored,
            m.Fetch: self.serving.fetch,
            m.Fetched: self.reads.fetched,
            m.Scan: self.scanning.scan,
            m.Scanned: self.listings.scanned,
            m.Refused: self._refused,
            m.Subscribe: self.owners.subscribe,
            m.Unsubscribe: self.owners.unsubscribe,
            m.Changed: self.watchers.changed_before,
            m.WatchSubscribe: self.owners.renew,
            m.WatchedChange: self.watchers.changed,
            m.WatchSubscribeReply: self.watchers.subscribed,
            m.WatchAsk: self.owners.ask,
            m.WatchPage: self.watchers.paged,
            m.DigestRequest: self.serving.survey,
            m.DigestReply: self.repair.surveyed,
            m.DigestSummary: self.repair.summarised,
            m.SummaryReply: self.repair.compared,
            m.SyncStart: self.serving.compare,
            m.SyncStarted: self.sync_sessions.compared,
            m.KeyPageRequest: self.serving.page,
            m.KeyPage: self.sync_sessions.paged,
            m.SyncStates: self.serving.exchange,
            m.StatesSynced: self.sync_sessions.exchanged,
            m.Reached: self.progress.reached,
            m.ClockRequest: self.clock.request,
            m.ClockReply: self.clock.reply,
        }

    def _on_record(
        self,
        partition: int,
        key: str,
        before: Record,
        after: Record,
        dots: frozenset[Dot],
        token: int,
    ) -> None:
        """Versions of a key have changed: some watch it, and it may lie in the wrong place."""
        self.owners.changed(partition, key, before, after, dots, token)
        if after.live:
            self.misplaced.changed(partition, key)

    @property
    def registry(self) -> Registry:
        """The registry that this node follows."""
        return self.registry_sync.registry

    @property
    def signed(self) -> bytes:
        """The registry with its signature, as it is stored and sent."""
        return self.registry_sync.signed

    def _count_foretold(self) -> None:
        self.counts["writes_foretold/ours"] += 1

    @property
    def counts(self) -> Counter[str]:
        """What happened so far, by "family/label"."""
        return self.outbound.counts

    def pending(self) -> int:
        """Return how many requests are under way here, our own and forwarded ones."""
        return len(self._requests) + len(self.writes)

    # What applications ask

    def submit(self, request: Request, now: Instant) -> int:
        """Begin a request; ``Completed`` or ``WatchEvent`` will carry the number returned.

        Raises InvalidRequest or LimitExceeded; then nothing was begun.
        """
        check_request(request)
        self.spaces.check(request)
        if len(self._requests) >= REQUESTS_MAX:
            raise LimitExceeded(
                f"{REQUESTS_MAX} requests are under way on this node; wait for some to complete"
            )
        number = self.outbound.number()
        if self.registry_sync.rival is not None:
            self._refuse_forked(number, request)
            return number
        self._requests[number] = lambda: None
        try:
            self._begin(number, request, now)
        except InvalidRequest:
            self._requests.pop(number, None)
            raise
        self._deliver_own(now)
        return number

    def _refuse_forked(self, number: int, request: Request) -> None:
        """Answer nothing while nobody can tell who owns what. Raises InvalidRequest for a watch."""
        self.counts["requests/forked"] += 1
        if isinstance(request, Watch):
            raise InvalidRequest(FORK_REASON)
        self.outbound.emit(Completed(number, Rejected(FORK_REASON, unreachable=True)))

    def _begin(self, number: int, request: Request, now: Instant) -> None:
        cancel: Callable[[], object] = lambda: None  # noqa: E731  a write is not called back
        match request:
            case Update(change=CounterUpdate(by)):
                self._write(number, request, None, None, now, by)
            case Delete(context=None) | Update() | RestoreKey():
                self._write_informed(number, request, now)
            case Put():
                self._put(number, request, now)
            case Delete():
                self._write(number, request, None, self._dots(request), now)
            case Get():
                finish = self._finisher(number)
                asked = AskedRead(request.key, request.r, now + request.timeout_s, finish)
                name = self.reads.begin(asked, now)
                cancel = lambda: self.reads.cancel(name)  # noqa: E731
            case List():
                listing = self.listings.begin(request, self._finisher(number), now)
                cancel = lambda: self.listings.cancel(listing)  # noqa: E731
            case Watch():
                self.watchers.begin(number, request, now)
                cancel = lambda: self.watchers.cancel(number)  # noqa: E731
        if number in self._requests:
            self._requests[number] = cancel

    def _put(self, number: int, request: Put, now: Instant) -> None:
        """Write a value, that expires if it is to."""
        ttl_s = request.ttl_s
        if ttl_s is None:
            ttl_s = self.spaces.asked_for(request.key).ttl_default_s or 0
        wall_ms = self.clock.said_ms(now) if ttl_s else 0
        if wall_ms is None:
            self._finisher(number)(Rejected(CLOCK_DOUBTED, unreachable=True), now)
            return
        value = pack_register(request.value, wall_ms + round(ttl_s * 1000) if ttl_s else 0)
        if request.if_unchanged:
            self._write_informed(number, request, now, value)
        else:
            self._write(number, request, value, self._dots(request), now)

    def _finisher(self, number: int) -> Callable[[Result, Instant], None]:
        """Return what completes a request."""

        def finish(result: Result, _now: Instant) -> None:
            if self._requests.pop(number, None) is not None:
                self.outbound.emit(Completed(number, result))

        return finish

    def _dots(self, request: Put | Delete) -> tuple[tuple[int, int], ...] | None:
        if request.context is None:
            return None
        return decode_context(request.key, request.context)

    def _write(
        self,
        number: int,
        request: Put | Delete | Update,
        value: bytes | None,
        replaced: tuple[tuple[int, int], ...] | None,
        now: Instant,
        by: int | None = None,
    ) -> None:
        until, finish = now + request.timeout_s, self._finisher(number)
        asked = AskedWrite(
            request.key, value, request.w, replaced, until, finish, by, request.fsync
        )
        self.forwards.begin(asked, now)

    def _write_informed(
        self,
        number: int,
        request: Put | Delete | Update | RestoreKey,
        now: Instant,
        value: bytes = b"",
    ) -> None:
        until, finish = now + request.timeout_s, self._finisher(number)
        fsync = request.fsync
        asked = AskedWrite(request.key, None, request.w, None, until, finish, fsync=fsync)
        is_wanted = lambda: number in self._requests  # noqa: E731
        self.informed_writes.begin(asked, decision_of(request, value), is_wanted, now)

    def cancel(self, request: int, now: Instant) -> None:
        """Forget a request: no event will carry its number any more.

        A write that is under way is still carried out.
        """
        cancel = self._requests.pop(request, None)
        if cancel is not None:
            cancel()
        self._deliver_own(now)

    # What the network, the disk and the clock bring

    def receive_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in a frame with one of our tags from an authenticated peer. Never raises."""
        self._on_frame(peer, now)
        try:
            message = m.CODEC.decode_known(data)
        except RemoteError:
            self.counts["frames_dropped/malformed"] += 1
            return
        self._accept(message, peer, now)
        self._deliver_own(now)

    def _accept(self, message: m.Message, peer: NodeId, now: Instant) -> None:
        if not self._belongs(message, peer):
            self.counts["frames_dropped/not_admitted"] += 1
            return
        self.progress.on_frame(peer, now)
        if self.replica.is_held_back and isinstance(message, SAVED):
            self.counts["frames_dropped/held_back"] += 1
            if isinstance(message, m.Question):
                self.registry_sync.refuse(message, peer, m.FULL)
            return
        try:
            self._handlers[type(message)](message, peer, now)
        except RemoteError:
            self.counts["frames_dropped/invalid"] += 1

    def _belongs(self, message: m.Message, peer: NodeId) -> bool:
        """Tell whether a peer may speak: all in the registry, and who shows a newer one."""
        if peer in self.registry_sync.members or isinstance(message, OPEN_TO_ALL):
            return True
        return isinstance(message, m.Question) and message.epoch > self.registry.epoch

    def _deliver_own(self, now: Instant) -> None:
        """Take in what we asked of ourselves."""
        while self.outbound.own:
            self._accept(self.outbound.own.popleft(), self.outbound.me, now)

    def _on_frame(self, peer: NodeId, now: Instant) -> None:
        self.forwards.last_frame_at[peer] = now
        if peer in self._away:
            self.peer_alive(peer, now)

    def _ready(self, message: m.ReadyReply, peer: NodeId, now: Instant) -> None:
        if not self.progress.answered(message.number):
            self.forwards.ready(message, peer, now)

    def _stored(self, message: m.Stored, peer: NodeId, now: Instant) -> None:
        # One of these asked; a late answer to what is over is nobody's.
        _ = (
            self.writes.stored(message, peer, now)
            or self.reads.stored(message.number, peer, now)
            or self.misplaced.stored(message, peer, now)
        )

    def _refused(self, message: m.Refused, peer: NodeId, now: Instant) -> None:
        number = message.number
        # One of these asked; a late refusal of what is over is nobody's.
        _ = (
            self.writes.refused(number, peer, message.reason, now)
            or self.forwards.refused(number, peer, message.reason, now)
            or self.reads.refused(number, peer, message.reason, now)
            or self.sync_sessions.refused(number, peer, now, message.reason)
            or self.watchers.refused(number, peer, now)
            or self.misplaced.refused(number)
        )

    def peer_unreachable(self, peer: NodeId, now: Instant) -> None:
        """A stream to a peer broke or could not be opened; frames may be lost."""
        self._away.add(peer)
        self.writes.unreachable(peer, now)
        self.forwards.unreachable(peer, now)
        self.reads.unreachable(peer, now)
        self.listings.unreachable(peer, now)
        self.sync_sessions.unreachable(peer, now)
        self.watchers.unreachable(peer, now)
        self._deliver_own(now)

    def _missed(self, node: NodeId, write: Write) -> None:
        """Note what is to be told to an owner that is away; whoever is there may be slow."""
        if node in self._away:
            self.hints.keep(node, write.partition, write.key, coverage(write.state))

    def peer_alive(self, peer: NodeId, now: Instant) -> None:
        """A peer is there again, after it was away or has started anew."""
        self._away.discard(peer)
        if self.registry.node(peer) is None or peer == self.outbound.me:
            return
        self.writes.returned(peer)
        self.watchers.returned(peer, now)
        self.hints.returned(peer, now)
        self._deliver_own(now)

    def hold_back(self, *, held: bool) -> None:
        """Begin nothing here that has to be saved, while the disk takes nothing; or again."""
        self.replica.is_held_back = held

    def limit_puts(self, *, limited: bool) -> None:
        """Take no new values here, while the disk is nearly full; or again."""
        self.replica.takes_puts = not limited

    def persisted(self, token: int, now: Instant) -> None:
        """The batch with this token, and all before it of its durability, are on disk."""
        if not self.registry_sync.saved(token, now):
            self.replica.saved(token)
            self.outbound.saved(token)
        self._deliver_own(now)

    def synced(self, token: int, now: Instant) -> None:
        """What was written with FLUSH up to this token survives a power cut."""
        self.outbound.synced(token)
        self._deliver_own(now)

    def wake(self, now: Instant) -> None:
        """Let due timers act."""
        for part in self._timed:
            part.wake(now)
        self._deliver_own(now)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        dues = [due for part in self._timed if (due := part.deadline()) is not None]
        return min(dues, default=None)

    def effects(self) -> Iterator[Effect]:
        """Drain what is to be done, in order: first what must be saved."""
        persist = self.replica.flush()
        if persist is not None:
            yield persist
        yield from self.outbound.drain()

    # Placement

    def adopt(self, signed: bytes, now: Instant, *, announce: bool = False) -> bool:
        """Follow a newer registry, which is on our disk.

        ``announce``: offer it to all its nodes, as the issuer does. False if it is not newer than
        ours. Raises Malformed or Forged.
        """
        adopted = self.registry_sync.adopt(signed, now, announce=announce)
        self._deliver_own(now)
        return adopted

    def on_committed(self, signed: bytes, now: Instant, *, announce: bool) -> None:
        """Save and follow a registry that the control plane's log has, if it is newer than ours."""
        self.registry_sync.committed(signed, announce=announce)
        self._deliver_own(now)

    def on_epoch(self, peer: NodeId, epoch: int, now: Instant) -> None:
        """A peer has mentioned the epoch that it follows: ask for it if it is newer."""
        self.registry_sync.follow_epoch(peer, epoch, now)

    def on_registry_named(self, peer: NodeId, epoch: int, short_mark: int, now: Instant) -> None:
        """A packet of a peer names the registry that it follows."""
        self.registry_sync.on_epoch(peer, epoch, short_mark, now)
        self._deliver_own(now)

    def show_registry(self, peer: NodeId) -> None:
        """Offer our registry to somebody who is not in it."""
        self.outbound.send(m.RegistryOffer(self.signed), peer)

    def _adopted(self, epoch_before: int, now: Instant) -> None:
        """The registry has changed under everything that is under way."""
        changed = self.registry.changed_after(epoch_before)
        self.repair.restart(changed)
        self.sync_sessions.restart(changed, now)
        self.handoff.adopted(now)
        self.progress.adopted(changed, now)
        self.misplaced.adopted(now)
        self.clock.adopted(now)
        self.writes.adopted(epoch_before)
        self.reads.adopted(epoch_before, now)
        self.listings.adopted(now)
        self.watchers.adopted(changed, now)
        for question, peer in self.registry_sync.unpark():
            self._accept(question, peer, now)

    def _pass_finished(self, partition: int, peer: NodeId, copy: Copy | None, now: Instant) -> None:
        self.repair.finished(partition, peer)
        if copy is not None:
            self.handoff.finished(partition, peer, copy, now)
            self.progress.advance(now)
            self.misplaced.finished(partition, peer, now)
        self.repair.work(now)
