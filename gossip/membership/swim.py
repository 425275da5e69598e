"""The membership machine: every part of it, wired.

::

    datagram ─ header ─▶ MemberUpdates ◀─ a life seen             updates ─┐
             └ Dispatcher ─┬ Ping Ack Nack … ─▶ FailureDetector ─ accuses ─┤
                           ├ Alive Suspect … ─▶ MemberUpdates ─── news ────┼─▶ Outbound ─▶ effects
                           ├ Hello ───────────▶ Bootstrap ─────────────────┤
                           └ none of these ───▶ Delegate ──────────────────┤
    refusal, end of a stream ─────────────────▶ CrashDetector ─ accuses ───┤
    frame ────────────────────────────────────▶ StateSync ─────────────────┘

Time moves all of them through ``wake``; ``deadline`` is the earliest that any of them asks for. The
driver hands in every packet that has arrived before it lets timers act; see ``machine.py``.

Being stopped. When an input comes much later than the deadline we had asked for, then it was we who
were away, not the others: the probe under way is abandoned, suspects get the time back, and we
take a new incarnation and tell it before we judge anybody.
"""

import functools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address, Effect, FrameHandler, Instant
from gossip.core.trials import OnTrial
from gossip.core.tuning import NARROW_PATH_BYTES, PATH_BYTES, Tuning
from gossip.membership.anti_entropy.sync import StateSync
from gossip.membership.bootstrap import Bootstrap
from gossip.membership.delegate import Delegate, MakeDelegate
from gossip.membership.detection.awareness import Awareness
from gossip.membership.detection.crash_detector import CrashDetector
from gossip.membership.detection.failure_detector import FailureDetector
from gossip.membership.detection.observers import Observers
from gossip.membership.detection.path_checks import PathChecks
from gossip.membership.detection.planned_absence import PlannedAbsence
from gossip.membership.detection.probe import ProbeOrder
from gossip.membership.detection.shared_parts import SharedParts
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.dispatch import Dispatcher
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.members.contact_order import ContactOrder
from gossip.membership.members.member_list import REAP_INTERVAL_S, MemberList
from gossip.membership.model.addresses import only_gossiped
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import MemberChanged, MemberTable
from gossip.membership.model.messages import FRAMES
from gossip.membership.model.signatures import Signatures, SigningKeys, WordsRefused
from gossip.membership.network.coordinates import Coordinates
from gossip.membership.network.reachability import PathStatus, Reachability
from gossip.membership.rtt import RttService
from gossip.membership.warm_start import WarmStart

NEVER = math.inf
NO_KEYS: Mapping[NodeId, bytes] = {}

T = TypeVar("T")
D = TypeVar("D", bound=Delegate)


class Timed(Protocol):
    """A part that time moves."""

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due; infinity while nothing waits."""


class Swim(Generic[D]):
    """The membership of one node, as a machine (see ``machine.py`` for the contract).

    ``receive`` gets opened datagrams and ``effects`` yields bodies to be sealed with
    ``incarnation``. It emits MemberChanged, EpochReported (for the registry), BootSuperseded and
    WordsRefused. ``signing``: how it signs its words and checks those of others; None: it does not.
    """

    def __init__(
        self,
        me: NodeId,
        boot: Boot,
        name: str,
        addresses: tuple[Address, ...],
        tags: Mapping[str, str],
        tuning: Tuning,
        rng: random.Random,
        now: Instant,
        make_delegate: MakeDelegate[D],
        signing: SigningKeys | None = None,
    ) -> None:
        self.members = MemberTable()
        self._tuning, self._rng = tuning, rng
        outbound = self._outbound = Outbound(self.members, tuning)
        signatures = self._signatures = Signatures(
            me, signing, outbound.counts, self._words_refused
        )
        local = self._local = LocalMember(me, boot, name, addresses, tags, signatures)
        # Their own chances, so that nothing else depends on who is at the same place as whom.
        chances = random.Random(boot)
        coordinates = Coordinates(me, chances, outbound.counts, tuning.probe_interval_s)
        reachability = self._reachability = Reachability(coordinates)
        member_list = self._member_list = MemberList(
            local, self.members, reachability, tuning, self._changed, outbound.counts, signatures
        )
        self.delegate = make_delegate(local, self.members, outbound, tuning, now)
        self.rtt_service = RttService(me, reachability, outbound)
        self._reach = ContactOrder(me, self.members, member_list.departed, reachability)
        order = self._order = ProbeOrder(tuning, rng)
        awareness = self._awareness = Awareness(tuning)
        shared = SharedParts(
            local, member_list, outbound, awareness, order, reachability, tuning, rng, signatures
        )
        updates = self._updates = MemberUpdates(shared)
        self._failure_detector = FailureDetector(shared, updates, now)
        self._observers = Observers(me, self.members, outbound, tuning, now)
        number = self._failure_detector.next_number
        self._crash_detector = CrashDetector(shared, updates, self._observers, number)
        self._path_checks = PathChecks(
            me, self.members, reachability, outbound, tuning, number, now
        )
        self._bootstrap = Bootstrap(shared, updates, now)
        self._state_sync = StateSync(shared, updates, now)
        # Nearly all packets are ``QUIET``: after others alone are these asked when they are due.
        self._timed: tuple[Timed, ...] = (
            self._state_sync, self._bootstrap, self.delegate, self._crash_detector,
            self._observers, self._path_checks,
        )  # fmt: skip
        self._timers_moved, self._changes_seen = True, 0
        self._parts_at = self._gossip_at = now
        self._reap_at = now + REAP_INTERVAL_S
        self.absence = PlannedAbsence(shared, updates)
        self._dispatcher = Dispatcher(
            shared, updates, self._failure_detector, self._crash_detector, self._path_checks,
            self._bootstrap, self._state_sync, self.delegate, self.rtt_service, self.absence,
        )  # fmt: skip
        self._last_input_at = now
        updates.announce(now)

    def warm_start(self, start: WarmStart, now: Instant) -> None:
        """Know all members of a covey, ourselves among them, as after a long time with them."""
        assert self._local.id in start.members, "it knows us, too"
        self.members.warm_start(start.members, start.ids)
        self._order.warm_start(start.order)
        self._outbound.update_queue.drop(self._local.id)
        self._state_sync.warm_start(start.table, now)

    # Inputs.

    def receive(
        self,
        body: bytes,
        sender: NodeId,
        boot: Boot,
        incarnation: int,
        source: Address,
        now: Instant,
    ) -> None:
        """Take in an opened datagram. Never raises for bad bytes: it counts them."""
        if not self._enter(now, moves_timers=False):
            return
        self._bootstrap.reached(source, sender)
        self._signatures.hears(sender, source, now)
        if sender == self._local.id:
            # Not this life: the envelope keeps our own packets from us.
            self._meet_other_life(body, boot, now)
            return
        known = self.members.get(sender)
        if self._updates.saw_packet(sender, boot, incarnation, source, now):
            self._crash_detector.on_report(sender, now)
            if self._dispatcher.read(body, sender, boot, source, now):
                self._timers_moved = True
            if known is None or known.boot != boot:
                self._updates.met(sender, boot, source, now)
        self._settle(now)

    def _meet_other_life(self, body: bytes, boot: Boot, now: Instant) -> None:
        """Take in a packet of another life of ours: that it is one, its signed words show."""
        if self._signatures.may_live(self._local.id, boot, self._local.boot):
            self._updates.meet_other_life(boot)
        else:
            self._dispatcher.read_own(body, now)

    @functools.cached_property
    def frame_handlers(self) -> dict[int, FrameHandler]:
        """Who here takes in which frame, by its tag."""
        return {
            **dict.fromkeys(FRAMES.tags, self.receive_frame),
            **dict.fromkeys(self.delegate.frame_tags, self.receive_delegate_frame),
        }

    def receive_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in a frame with one of our tags. Never raises for bad bytes: it counts them."""
        self._read_frame(self._dispatcher.read_frame, data, peer, now)

    def receive_delegate_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in a frame with one of the delegate's tags. Never raises for bad bytes."""
        self._read_frame(self._dispatcher.read_delegate_frame, data, peer, now)

    def _read_frame(self, read: FrameHandler, data: bytes, peer: NodeId, now: Instant) -> None:
        self._outbound.counts["gossip_bytes/streams received"] += len(data)
        if self._enter(now) and peer != self._local.id:
            self._signatures.hears(peer, None, now)
            if peer in self.members:
                self._reachability.streamed(peer, now)
            read(data, peer, now)
            self._settle(now)

    def discovered(self, addresses: Iterable[Address], now: Instant) -> None:
        """Note that somebody may be at these addresses; they are greeted until somebody is."""
        if self._enter(now):
            self._bootstrap.add(addresses, now)
            self._settle(now)

    def peer_unreachable(self, peer: NodeId, now: Instant) -> None:
        """Note that a stream to a member broke, or could not be opened: it is probed next."""
        if self._enter(now) and peer in self.members:
            self._outbound.counts["streams/broken"] += 1
            self._reachability.stream_failed(peer, now)
            parts = (
                self._crash_detector.stream_failed(peer),
                self._path_checks.stream_failed(peer, now),
            )
            if not self._failure_detector.stream_failed(peer) and not any(parts):
                self._order.probe_next(peer)

    def stream_closed(self, peer: NodeId, now: Instant) -> None:
        """Note that an open stream to a member ended, and not by us: we look whether it is gone."""
        if self._enter(now) and peer in self.members:
            self._reachability.stream_failed(peer, now)
            self._crash_detector.stream_closed(peer, now)
            self._settle(now)

    def port_unreachable(self, address: Address, now: Instant) -> None:
        """Note that a host refused a datagram of ours: nobody listens there, says its kernel."""
        if self._enter(now):
            self._crash_detector.port_unreachable(address, now)
            self._settle(now)

    def set_tags(self, tags: Mapping[str, str], now: Instant) -> None:
        """Describe ourselves with other tags. Raises LimitExceeded; then nothing has changed."""
        if self._enter(now):
            self._local.describe(tags=tags)
            self._updates.announce(now)
            self._settle(now)

    def set_addresses(
        self, addresses: Iterable[Address], now: Instant, own: Iterable[Address] = ()
    ) -> None:
        """Tell where we are reached now, best first; of too many, those that have room.

        ``own``: where we would meet ourselves besides. Nobody else is looked for at any of them.
        """
        if self._enter(now):
            told = tuple(addresses)
            self._member_list.set_own(frozenset((*told, *own)))
            if self._local.wishes != only_gossiped(told):
                self._local.describe(addresses=told)
                self._updates.announce(now)
            self._settle(now)

    def set_facts(self, facts: Mapping[str, str], now: Instant) -> None:
        """Publish other facts about ourselves. Raises LimitExceeded; then nothing has changed."""
        if self._enter(now):
            self._state_sync.publish(facts, now)
            self._settle(now)

    def admit(
        self, names: Mapping[NodeId, str], now: Instant, keys: Mapping[NodeId, bytes] = NO_KEYS
    ) -> None:
        """Follow a registry: list those who are in it, under its names, and nobody else.

        ``keys``: their public keys, by which their words are checked.
        """
        self._signatures.admit(keys)
        if names != self._member_list.names and self._enter(now):
            self._updates.admit(names, now)
            self._settle(now)

    def leave(self, now: Instant) -> None:
        """Say goodbye, several times; ``left`` becomes true when it was said often enough."""
        if self.leaving or not self._enter(now):
            return
        self.absence.leave(now)
        self.wake(now)

    def sleep(self, duration_s: float, now: Instant) -> None:
        """Announce that we are silent for so long. Raises InvalidRequest; then we are not."""
        if not self._enter(now) or self.leaving:
            raise InvalidRequest("this node is leaving; nothing was announced")
        self.absence.sleep(duration_s, now)
        self.wake(now)

    def awaken(self, now: Instant) -> None:
        """End our sleep before its time; harmless when we are awake."""
        if self._enter(now) and self.asleep_until is not None:
            self._awaken(now)
            self._settle(now)

    # Time.

    def wake(self, now: Instant) -> None:
        """Let due timers act; harmless when called early."""
        if not self._enter(now, moves_timers=False):
            return
        if self.absence.is_away:
            if self.absence.wake(now):
                self._awaken(now)
            return
        is_time = self._has_moved or self._parts_at <= now
        if is_time:
            self._timers_moved = True
            self._crash_detector.wake(now)
            self._observers.wake(now)
            self._path_checks.wake(now)
        self._failure_detector.wake(now)
        self._updates.expire(now)
        if is_time:
            self._state_sync.wake(now)
            self._bootstrap.wake(now)
            self.delegate.wake(now)
        if self._reap_at <= now:
            self._reap_at = now + REAP_INTERVAL_S
            self._member_list.reap(now)
        self._gossip(now)
        self._settle(now)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due; None once we left."""
        absence = self.absence
        if absence.left:
            return None
        if absence.is_away:
            return self.absence.deadline()
        if self._has_moved:
            self._timers_moved, self._changes_seen = False, self.members.changes
            self._parts_at = min(part.deadline() for part in self._timed)
        updates, detector = self._updates, self._failure_detector
        due = min(self._parts_at, updates.deadline(), detector.deadline(), self._reap_at)
        return min(due, self._gossip_at) if self._has_news else due

    @property
    def _has_moved(self) -> bool:
        """Whether parts may want to act at another time than they said."""
        return self._timers_moved or self._changes_seen != self.members.changes

    def effects(self) -> Iterator[Effect]:
        """Drain what is to be done, in order."""
        return self._outbound.drain()

    def _enter(self, now: Instant, *, moves_timers: bool = True) -> bool:
        """Begin an input: notice whether we were stopped; say whether we still take part."""
        if moves_timers:
            self._timers_moved = True
        absence = self.absence
        absence.advance(now)
        # The deadline is asked for only when there was time to miss it: this runs for each packet.
        if now - self._last_input_at > self._tuning.pause_s and not absence.leaving:
            due = self.deadline()
            away_s = 0.0 if due is None else now - max(due, self._last_input_at)
            if away_s > self._tuning.pause_s:
                self._resume(away_s, now)
        self._last_input_at = now
        self._outbound.broadcast_queue.expire(now)
        return not absence.left

    def _resume(self, pause_s: float, now: Instant) -> None:
        self._outbound.counts["pauses/noticed"] += 1
        self._timers_moved = True
        if self.asleep_until is None:
            self._go_on(pause_s, now)
        else:
            self._awaken(now)

    def _awaken(self, now: Instant) -> None:
        """Be there again: our sleep is over, or we were suspended in it and run again."""
        self.absence.awaken()
        self._state_sync.speed_up(now)
        self._go_on(now - self.absence.slept_since, now)

    def _go_on(self, pause_s: float, now: Instant) -> None:
        """Announce ourselves, and judge nobody by the time that we were away."""
        self._timers_moved = True
        self._failure_detector.restart(now)
        self._crash_detector.restart()
        self._path_checks.restart(now)
        self._updates.extend_deadlines(pause_s, now)
        self._local.rise_above(self._local.incarnation)
        self._updates.announce(now)
        self._gossip_at = now
        self._gossip(now)

    def _settle(self, now: Instant) -> None:
        # While nothing was waiting the time for gossip went by; news go out now, not back then.
        if self._gossip_at < now:
            self._gossip_at = now
        self._observers.notice(now)

    # Gossip.

    @property
    def _has_news(self) -> bool:
        return self._outbound.has_news and len(self.members.live_ids) > 1

    def _gossip(self, now: Instant) -> None:
        """Tell a few members what is new, in packets of their own."""
        if self._gossip_at > now or not self._has_news:
            return
        self._gossip_at = now + self._tuning.gossip_interval_s
        fanout = self._tuning.gossip_fanout
        for member in self.members.sample_others(self._local.id, fanout, self._rng):
            self._outbound.send(member.addresses_by_preference[0])

    # Applications.

    def with_delegate(self, action: Callable[[D], T], now: Instant) -> T:
        """Let the layer on top send something, for an application. Raises LocalError."""
        if not self._enter(now) or self.absence.is_away:
            raise InvalidRequest("this node is leaving, or asleep; nothing was sent")
        result = action(self.delegate)
        self._settle(now)
        return result

    def _words_refused(self, refused: WordsRefused) -> None:
        name, sender_name = (
            member.name if (member := self.members.get(node)) is not None else ""
            for node in (refused.member, refused.sender)
        )
        named = msgspec.structs.replace(refused, name=name, sender_name=sender_name)
        self._outbound.emit(named)

    def _changed(self, change: MemberChanged) -> None:
        self._outbound.emit(change)
        self.delegate.on_member_changed(change)

    # What others ask.

    @property
    def leaving(self) -> bool:
        """Whether we are saying goodbye, or have said it."""
        return self.absence.leaving

    @property
    def left(self) -> bool:
        """Whether we said goodbye often enough; the machine does nothing any more."""
        return self.absence.left

    @property
    def asleep_until(self) -> Instant | None:
        """When our announced sleep ends; None while we are awake."""
        return self.absence.asleep_until

    def is_flapping(self, node: NodeId, now: Instant) -> bool:
        """Say whether a member comes and goes too often."""
        return self._member_list.flapping.is_flapping(node, now)

    def clones_of(self, node: NodeId, now: Instant) -> tuple[Address, ...]:
        """Return where several devices with this id were heard lately; empty if it is one."""
        return self._updates.id_conflicts.of(node, now)

    @property
    def boot(self) -> Boot:
        """Which life of this node this is."""
        return self._local.boot

    @property
    def incarnation(self) -> int:
        """What every packet's header must carry."""
        return self._local.incarnation

    @property
    def counts(self) -> Counter[str]:
        """What happened how often, by "family/label"."""
        return self._outbound.counts

    @property
    def health(self) -> int:
        """Our own health score: 0 well, up to ``Tuning.awareness_max``."""
        return self._awareness.score

    @property
    def epoch(self) -> int:
        """The epoch of our placement, which exchanges carry; set by the node."""
        return self._state_sync.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._state_sync.epoch = epoch

    @property
    def admitted(self) -> frozenset[NodeId] | None:
        """Who is in the registry: nobody else is listed. None as long as nobody told us."""
        return None if self._member_list.names is None else frozenset(self._member_list.names)

    @property
    def watched(self) -> tuple[NodeId, ...]:
        """To whom the driver keeps a stream open, so that we hear when it ends."""
        return self._observers.watched

    def paths_of(self, node: NodeId, now: Instant) -> PathStatus:
        """Return which ways to a member worked, and how long ago."""
        return self._reachability.paths_of(node, now)

    def path_bytes(self, node: NodeId) -> int:
        """Return how large an IP packet to a member may be."""
        return NARROW_PATH_BYTES if self._reachability.is_narrow(node) else PATH_BYTES

    def rtt_s(self, node: NodeId) -> float | None:
        """Return the smoothed round trip to a member in seconds; None when it is not known."""
        return self._reachability.rtt_s(node)

    def facts_of(self, node: NodeId) -> dict[str, str]:
        """Return what a listed member published about itself, as far as it has arrived here."""
        return self._state_sync.facts_of(node)

    def relays_to(self, node: NodeId) -> list[NodeId]:
        """Return who may carry a stream to a member that we cannot dial, best first."""
        return self._reach.relays_to(node)

    def put_on_trial(self, on_trial: OnTrial) -> None:
        """Have what is taken in from others noted by ``on_trial`` (``gossip/core/trials.py``)."""
        self._outbound.on_trial = on_trial

    def addresses_of(self, node: NodeId) -> list[Address]:
        """Return where a node may be reached, best first; empty when nobody knows."""
        return self._reach.addresses_of(node)

    def is_gone(self, node: NodeId) -> bool:
        """Tell whether a node is believed to be dead, or has left; not of one that is unknown."""
        member = self.members.get(node)
        return member is not None and member.state.is_departed

    def reachable_first(self, nodes: Iterable[NodeId]) -> list[NodeId]:
        """Return the nodes in the order in which to try them."""
        return self._reach.reachable_first(nodes)
