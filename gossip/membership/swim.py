"""The membership machine: every part of it, wired.

::

    datagram ─ header ─▶ Beliefs ◀─ claims ──┐          rumours ─┐
             └ items ──┬ Ping Ack Nack … ──▶ Detector ──accuses──┤
                       ├ Alive Suspect … ──▶ Beliefs ──news──────┼─▶ Post ─▶ effects
                       └ Hello ────────────▶ Introductions ──────┤
    frame ───────────────────────────────▶ Exchange ─────────────┘

Time moves all of them through ``wake``; ``deadline`` is the earliest that any of them asks for. The
driver hands in every packet that has arrived before it lets timers act; see ``machine.py``.

Being stopped. When an input comes much later than the deadline we had asked for, then it was we who
were away, not the others: the probe under way is abandoned, suspects get the time back, and we
take a new incarnation and tell it before we judge anybody.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from gossip.errors import Malformed
from gossip.ids import Boot, NodeId
from gossip.machine import Address, Effect, Instant
from gossip.membership.awareness import Awareness
from gossip.membership.beliefs import Beliefs
from gossip.membership.book import addresses_of
from gossip.membership.contacts import Contacts
from gossip.membership.detector import Detector
from gossip.membership.exchange import Exchange
from gossip.membership.introductions import Introductions
from gossip.membership.local import LocalMember
from gossip.membership.members import Member, MemberState, MemberTable
from gossip.membership.messages import (
    DATAGRAMS,
    Ack,
    Alive,
    Claim,
    Datagram,
    Dead,
    Hello,
    Left,
    Nack,
    Ping,
    PingRequest,
    Suspect,
)
from gossip.membership.post import Post
from gossip.membership.probe import ProbeOrder
from gossip.membership.roll import REAP_INTERVAL_S, Roll
from gossip.membership.throttle import Throttle
from gossip.tuning import Tuning
from gossip.wire import unpack

ASKED_MAX = 256
FAREWELLS = 3
FAREWELL_PEERS_MAX = 64
FEED_MAX = 16
NEVER = math.inf

Handler = Callable[[Datagram, NodeId, Address, Instant], None]


class Swim:
    """The membership of one node, as a machine (see ``machine.py`` for the contract).

    ``receive`` gets opened datagrams and ``effects`` yields bodies to be sealed with
    ``incarnation``. It emits MemberChanged, EpochHeard (for the registry) and IdentityOutrun.
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
    ) -> None:
        self.members = MemberTable()
        self.leaving = False
        self.left = False
        """Whether we said goodbye often enough; the machine does nothing any more."""
        self._tuning = tuning
        self._rng = rng
        self._local = LocalMember(me, boot, name, addresses, tags)
        self._post = Post(self.members, tuning)
        self._contacts = Contacts()
        self._roll = Roll(
            self.members, self._contacts, tuning, self._post.emit, self._post.counts
        )
        order = self._order = ProbeOrder(tuning, rng)
        awareness = self._awareness = Awareness(tuning)
        local, post, roll = self._local, self._post, self._roll
        beliefs = self._beliefs = Beliefs(
            local, roll, post, awareness, order, self._contacts, tuning
        )
        self._detector = Detector(
            local,
            self.members,
            beliefs,
            post,
            awareness,
            order,
            self._contacts,
            tuning,
            rng,
            now,
        )
        self._introductions = Introductions(local, roll, beliefs, post, tuning, rng, now)
        self._exchange = Exchange(local, roll, beliefs, post, order, tuning, rng, now)
        self._asked = Throttle(tuning.gossip_interval_s, ASKED_MAX)
        self._gossip_at = now
        self._reap_at = now + REAP_INTERVAL_S
        self._farewell_at = NEVER
        self._farewells = 0
        self._handlers: dict[type[Datagram], Handler] = {
            Ping: self._on_ping,
            Ack: self._on_ack,
            PingRequest: self._on_ping_request,
            Nack: self._on_nack,
            Hello: self._on_hello,
            Alive: self._on_claim,
            Suspect: self._on_claim,
            Dead: self._on_claim,
            Left: self._on_claim,
        }
        beliefs.announce(now)

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
        if not self._enter(now):
            return
        self._introductions.met(source)
        if sender == self._local.id:
            # Not this life: the envelope keeps our own packets from us.
            self._beliefs.claim(Left(sender, boot, incarnation), None, now)
            return
        if self._beliefs.hear(sender, boot, incarnation, source, now):
            self._read(body, sender, source, now)
            self._ask_for_words(sender, source, now)
        self._settle(now)

    def receive_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in a frame that an authenticated stream brought. Never raises for bad bytes."""
        if self._enter(now) and peer != self._local.id:
            self._exchange.receive(data, peer, now)
            self._settle(now)

    def discovered(self, addresses: Iterable[Address], now: Instant) -> None:
        """Note that somebody may be at these addresses; they are greeted until somebody is."""
        if self._enter(now):
            self._introductions.add(addresses, now)
            self._settle(now)

    def peer_unreachable(self, peer: NodeId, now: Instant) -> None:
        """Note that a stream to a member broke, or could not be opened: it is probed next."""
        if self._enter(now):
            self._post.counts["streams/broken"] += 1
            self._order.urge(peer)

    def set_tags(self, tags: Mapping[str, str], now: Instant) -> None:
        """Describe ourselves with other tags. Raises LimitExceeded; then nothing has changed."""
        if self._enter(now):
            self._local.describe(tags=tags)
            self._beliefs.announce(now)
            self._settle(now)

    def set_addresses(self, addresses: Iterable[Address], now: Instant) -> None:
        """Tell where we are reached now, best first; of more than eight, the first eight."""
        if self._enter(now):
            self._local.describe(addresses=addresses)
            self._beliefs.announce(now)
            self._settle(now)

    def leave(self, now: Instant) -> None:
        """Say goodbye, several times; ``left`` becomes true when it was said often enough."""
        if self.leaving or not self._enter(now):
            return
        self.leaving = True
        # Above everything that is on its way about us, so that nothing brings us back.
        self._local.rise_above(self._local.incarnation)
        me = self._local.id
        goodbye = Left(me, self._local.boot, self._local.incarnation)
        self._post.rumours.drop(me)
        self._post.farewell = goodbye
        ourselves = msgspec.structs.replace(
            self.members[me], state=MemberState.LEFT, incarnation=goodbye.incarnation
        )
        self._roll.put(ourselves, now)
        self._farewell_at = now
        self.wake(now)

    # Time.

    def wake(self, now: Instant) -> None:
        """Let due timers act; harmless when called early."""
        if not self._enter(now):
            return
        if self.leaving:
            self._wake_leaving(now)
            return
        self._detector.wake(now)
        self._beliefs.expire(now)
        self._exchange.wake(now)
        self._introductions.wake(now)
        if self._reap_at <= now:
            self._reap_at = now + REAP_INTERVAL_S
            self._roll.reap(now)
        self._gossip(now)
        self._settle(now)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due; None once we left."""
        if self.left:
            return None
        if self.leaving:
            return self._farewell_at
        trial = self._beliefs.deadline()
        return min(
            self._detector.deadline(),
            self._exchange.deadline(),
            self._introductions.deadline(),
            self._reap_at,
            self._gossip_at if self._has_news else NEVER,
            NEVER if trial is None else trial,
        )

    def effects(self) -> Iterator[Effect]:
        """Drain what is to be done, in order."""
        return self._post.drain()

    def _enter(self, now: Instant) -> bool:
        """Begin an input: notice whether we were stopped; say whether we still take part."""
        due = self.deadline()
        if due is not None and not self.leaving and now - due > self._tuning.pause_s:
            self._resume(now - due, now)
        return not self.left

    def _resume(self, pause_s: float, now: Instant) -> None:
        self._post.counts["pauses/noticed"] += 1
        self._detector.restart(now)
        self._beliefs.postpone(pause_s)
        self._local.rise_above(self._local.incarnation)
        self._beliefs.announce(now)
        self._gossip_at = now
        self._gossip(now)

    def _settle(self, now: Instant) -> None:
        # While nothing was waiting the time for gossip went by; news go out now, not back then.
        self._gossip_at = max(self._gossip_at, now)

    # Gossip.

    @property
    def _has_news(self) -> bool:
        return len(self._post.rumours) > 0 and len(self.members.live) > 1

    def _gossip(self, now: Instant) -> None:
        """Tell a few members what is new, in packets of their own."""
        if self._gossip_at > now or not self._has_news:
            return
        self._gossip_at = now + self._tuning.gossip_interval_s
        for member in self._sample(self._tuning.gossip_fanout):
            self._post.send(addresses_of(member)[0])

    def _wake_leaving(self, now: Instant) -> None:
        if self._farewell_at > now:
            return
        if self._farewells == FAREWELLS:
            self.left = True
            return
        self._farewells += 1
        self._farewell_at = now + self._tuning.leave_linger_s / FAREWELLS
        for member in self._sample(FAREWELL_PEERS_MAX):
            self._post.send(addresses_of(member)[0])

    def _sample(self, count: int) -> list[Member]:
        """Return some of the others who are there, at random."""
        others = [
            member
            for member in self.members.live
            if member.id != self._local.id and addresses_of(member)
        ]
        return self._rng.sample(others, min(count, len(others)))

    # Messages.

    def _read(self, body: bytes, sender: NodeId, source: Address, now: Instant) -> None:
        """Act on the messages of a packet, up to the first that is malformed."""
        try:
            for item in unpack(body):
                message = DATAGRAMS.decode(item)
                if message is None:
                    self._post.counts["messages_skipped/unknown kind"] += 1
                else:
                    self._handlers[type(message)](message, sender, source, now)
        except Malformed:
            self._post.counts["datagrams_dropped/malformed"] += 1

    def _ask_for_words(self, sender: NodeId, source: Address, now: Instant) -> None:
        """Ask a member who it is, when we hear it without knowing its latest words."""
        member = self.members.get(sender)
        if member is not None and (member.described == member.incarnation or not member.is_live):
            return
        if not self.leaving and self._asked.allows(source, now):
            self._post.counts["introductions/asked for"] += 1
            self._introductions.hello(source, wants_reply=True)

    def _on_ping(self, message: Datagram, sender: NodeId, source: Address, now: Instant) -> None:
        assert isinstance(message, Ping)
        self._detector.ping(message, source)

    def _on_ack(self, message: Datagram, sender: NodeId, source: Address, now: Instant) -> None:
        assert isinstance(message, Ack)
        self._detector.ack(message, sender, now)
