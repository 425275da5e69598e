"""Takes packets and frames apart, and hands each message to the part that acts on it.

A packet carries several messages. Unknown ones are skipped, as they come from a later version; a
malformed one ends the packet. Probes and updates, which are nearly all that is ever said, move the
detector and the updates; whoever schedules the other parts is told when a message concerned them.
"""

from gossip.core.errors import Malformed
from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address, Instant
from gossip.core.wire import unpack
from gossip.membership.anti_entropy.merge import title_of
from gossip.membership.anti_entropy.sync import StateSync
from gossip.membership.bootstrap import Bootstrap
from gossip.membership.delegate import Delegate
from gossip.membership.detection.crash_detector import CrashDetector
from gossip.membership.detection.failure_detector import FailureDetector
from gossip.membership.detection.known_words import KnownWords
from gossip.membership.detection.path_checks import PathChecks
from gossip.membership.detection.planned_absence import PlannedAbsence
from gossip.membership.detection.shared_parts import SharedParts
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.messages import (
    DATAGRAMS,
    FRAMES,
    REFUSAL,
    Ack,
    Alive,
    Asleep,
    CoordinateUpdate,
    Datagram,
    Dead,
    Filler,
    Frame,
    Hello,
    Left,
    Nack,
    Ping,
    PingRequest,
    RttReply,
    RttRequest,
    StreamPing,
    StreamPong,
    Suspect,
)
from gossip.membership.rtt import RttService

INTRODUCED_MAX = 16
QUIET = frozenset({
    Ping, Ack, PingRequest, Nack, CoordinateUpdate, Filler, Alive, Suspect, Dead, Left, Asleep,
})  # fmt: skip
"""Kinds that move the timers of the failure detector and the updates alone, which are asked each
time. Any other kind moves those of all parts, unless it is put here."""
REQUESTS = frozenset({Ping, PingRequest})
REQUESTS_MAX = 8
"""So many of one packet are answered: an honest one carries one or two. A packet may name any
address as its source, and must not earn it a flood."""
MEETING_S = 5.0
"""An answered greeting is a meeting if the member is new to us, or back, since this long."""


class Dispatcher:
    """Acts on the messages of datagrams and frames whose sender is known and believed to be one."""

    def __init__(
        self,
        shared: SharedParts,
        updates: MemberUpdates,
        detector: FailureDetector,
        crash_detector: CrashDetector,
        path_checks: PathChecks,
        bootstrap: Bootstrap,
        state_sync: StateSync,
        delegate: Delegate,
        rtt_service: RttService,
        absence: PlannedAbsence,
    ) -> None:
        self._local = shared.local
        self._signatures = shared.signatures
        self._members = shared.members
        self._reachability = shared.reachability
        self._outbound = shared.outbound
        self._rng = shared.rng
        self._updates = updates
        self._failure_detector = detector
        self._crash_detector = crash_detector
        self._path_checks = path_checks
        self._bootstrap = bootstrap
        self._state_sync = state_sync
        self._delegate = delegate
        self._rtt_service = rtt_service
        self._absence = absence
        self._known_words = KnownWords(shared.members, shared.local.id)
        self._moved = False
        """Whether what was read so far may have moved the timers of parts."""

    def read(self, body: bytes, sender: NodeId, boot: Boot, source: Address, now: Instant) -> bool:
        """Act on the messages of a packet, up to the first that is malformed, or falsely signed.

        Says whether parts may be due at other times than before: see ``QUIET``.
        """
        self._moved, requests = False, 0
        forgeries = self._signatures.forgeries
        try:
            for item in unpack(body):
                if self._known_words.has(item):
                    self._outbound.counts["updates_ignored/known already"] += 1
                    continue
                message = DATAGRAMS.decode(item)
                is_request = type(message) in REQUESTS
                requests += is_request
                if message is None:
                    self._pass_on(item, sender, now)
                elif is_request and requests > REQUESTS_MAX:
                    self._outbound.counts["messages_skipped/too many requests"] += 1
                else:
                    self._moved = self._moved or type(message) not in QUIET
                    self._act(message, sender, source, now)
                    if type(message) is Alive:
                        self._known_words.record(item, message)
                if self._signatures.forgeries != forgeries:
                    # To see that a signature is false takes longer than all else in a packet.
                    self._outbound.counts["datagrams_dropped/false signature"] += 1
                    break
        except Malformed:
            self._outbound.counts["datagrams_dropped/malformed"] += 1
        self._ask_for_words(sender, boot, source, now)
        return self._moved

    def read_own(self, body: bytes, now: Instant) -> None:
        """Look for words by which another life of ours shows that it is one."""
        try:
            for item in unpack(body):
                message = DATAGRAMS.decode(item)
                if isinstance(message, Alive | Left | Asleep) and message.member == self._local.id:
                    self._updates.apply(message, None, now)
                    return
        except Malformed:
            self._outbound.counts["datagrams_dropped/malformed"] += 1

    def _act(self, message: Datagram, sender: NodeId, source: Address, now: Instant) -> None:
        match message:
            case Ping():
                self._failure_detector.ping(message, sender, source, now)
            case Ack():
                self._acked(message, sender, now)
            case CoordinateUpdate():
                if sender in self._members:
                    self._reachability.coordinates.learn(sender, message.place)
            case Alive():
                words = title_of(message.member, message.boot, message.incarnation)
                self._outbound.on_trial(words, lambda: self._updates.apply(message, source, now))
            case Suspect() | Dead() | Left() | Asleep():
                self._updates.apply(message, source, now)
                if isinstance(message, Suspect) and message.evidence == REFUSAL:
                    self._crash_detector.confirmed_by_other(message, now)
                    self._moved = True
            case PingRequest():
                self._failure_detector.ping_request(message, source, now)
            case Nack():
                self._failure_detector.nack(message, sender)
            case Hello():
                self._greeted(message, sender, source, now)

    def _acked(self, ack: Ack, sender: NodeId, now: Instant) -> None:
        """Hand an answer to whoever asked."""
        if self._path_checks.ack(ack, sender, now):
            self._moved = True
        elif not self._crash_detector.ack(ack, sender, now):
            self._failure_detector.ack(ack, sender, now)

    def _greeted(self, hello: Hello, sender: NodeId, source: Address, now: Instant) -> None:
        """Answer a greeting with who we are and whom we know; an answer begins an exchange."""
        if hello.wants_reply:
            if not self._absence.is_away:
                some = self._members.sample_others(self._local.id, INTRODUCED_MAX, self._rng)
                self._bootstrap.reply_hello(source, some, now)
            return
        member = self._members.get(sender)
        if member is not None and now - member.changed_at < MEETING_S:
            self._state_sync.request(sender, now)

    def _pass_on(self, item: bytes, sender: NodeId, now: Instant) -> None:
        """Hand a message that is none of ours to the delegate; what it does not know is skipped."""
        if self._delegate.receive(item, sender, now):
            self._moved = True
        else:
            self._outbound.counts["messages_skipped/unknown kind"] += 1

    def read_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Act on a frame with one of our tags; one that is malformed is counted, no more."""
        try:
            frame = FRAMES.decode_known(data)
        except Malformed:
            self._outbound.counts["frames_dropped/malformed"] += 1
            return
        self._act_on_frame(frame, peer, now)

    def read_delegate_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Hand a frame to the delegate; one that is malformed is counted, no more."""
        try:
            self._delegate.receive_frame(data, peer, now)
        except Malformed:
            self._outbound.counts["frames_dropped/malformed"] += 1

    def _act_on_frame(self, frame: Frame, peer: NodeId, now: Instant) -> None:
        match frame:
            case StreamPing():
                self._failure_detector.stream_ping(frame, peer, now)
            case StreamPong():
                self._ponged(frame, peer, now)
            case RttRequest() | RttReply():
                self._rtt_service.receive(frame, peer)
            case _:
                self._state_sync.receive(frame, peer, now)

    def _ponged(self, pong: StreamPong, peer: NodeId, now: Instant) -> None:
        """Hand an answer that came by a stream to whoever asked."""
        if self._failure_detector.stream_pong(pong, peer, now) or self._path_checks.pong(
            pong, peer, now
        ):
            return
        self._crash_detector.pong(pong, peer, now)

    def _ask_for_words(self, sender: NodeId, boot: Boot, source: Address, now: Instant) -> None:
        """Ask a member who it is, when we hear it without knowing its latest words."""
        if self._updates.lacks_words(sender, boot) and not self._absence.is_away:
            self._bootstrap.request_description(source, now)
