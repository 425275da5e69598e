"""Takes packets apart, and hands each message to the part of the membership that acts on it.

A packet carries several messages. Unknown ones are skipped, as they come from a later version; a
malformed one ends the packet. Probes and claims, which are nearly all that is ever said, move the
detector and the beliefs; whoever schedules the other parts is told when a message concerned them.
"""

import random

from gossip.errors import Malformed
from gossip.ids import NodeId
from gossip.machine import Address, Instant
from gossip.membership.absence import Absence
from gossip.membership.beliefs import Beliefs
from gossip.membership.contacts import Contacts
from gossip.membership.detector import Detector
from gossip.membership.evidence import Evidence
from gossip.membership.exchange import Exchange
from gossip.membership.forum import Forum
from gossip.membership.hearsay import title_of
from gossip.membership.introductions import Introductions
from gossip.membership.local import LocalMember
from gossip.membership.members import MemberTable
from gossip.membership.messages import (
    DATAGRAMS,
    REFUSAL,
    Ack,
    Alive,
    Asleep,
    Datagram,
    Dead,
    Event,
    Hello,
    Left,
    Nack,
    Ping,
    PingRequest,
    Position,
    Query,
    QueryAnswer,
    Suspect,
)
from gossip.membership.path_checks import PathChecks
from gossip.membership.post import Post
from gossip.wire import unpack

INTRODUCED_MAX = 16
REQUESTS = frozenset({Ping, PingRequest})
REQUESTS_MAX = 8
"""So many of one packet are answered: an honest one carries one or two. A packet may name any
address as its source, and must not earn it a flood."""
MEETING_S = 5.0
"""An answered greeting is a meeting if the member is new to us, or back, since this long."""


class Reader:
    """Acts on the messages of datagrams whose sender is known and believed to be one."""

    def __init__(
        self,
        detector: Detector,
        beliefs: Beliefs,
        evidence: Evidence,
        path_checks: PathChecks,
        introductions: Introductions,
        exchange: Exchange,
        forum: Forum,
        contacts: Contacts,
        absence: Absence,
        local: LocalMember,
        members: MemberTable,
        post: Post,
        rng: random.Random,
    ) -> None:
        self._detector = detector
        self._beliefs = beliefs
        self._evidence = evidence
        self._path_checks = path_checks
        self._introductions = introductions
        self._exchange = exchange
        self._forum = forum
        self._contacts = contacts
        self._absence = absence
        self._local = local
        self._members = members
        self._post = post
        self._rng = rng

    def read(self, body: bytes, sender: NodeId, source: Address, now: Instant) -> bool:
        """Act on the messages of a packet, up to the first that is malformed.

        Says whether it moved other parts than detector and beliefs (and the list of members).
        """
        stirs, requests = False, 0
        try:
            for item in unpack(body):
                message = DATAGRAMS.decode(item)
                is_request = type(message) in REQUESTS
                requests += is_request
                if message is None:
                    self._post.counts["messages_skipped/unknown kind"] += 1
                elif is_request and requests > REQUESTS_MAX:
                    self._post.counts["messages_skipped/too many requests"] += 1
                elif self._act(message, sender, source, now):
                    stirs = True
        except Malformed:
            self._post.counts["datagrams_dropped/malformed"] += 1
        self._ask_for_words(sender, source, now)
        return stirs

    def _act(self, message: Datagram, sender: NodeId, source: Address, now: Instant) -> bool:
        match message:
            case Ping():
                self._detector.ping(message, sender, source, now)
            case Ack():
                return self._acked(message, sender, now)
            case Position():
                if sender in self._members:
                    self._contacts.coordinates.learn(sender, message.place)
            case Alive():
                words = title_of(message.member, message.boot, message.incarnation)
                self._post.on_trial(words, lambda: self._beliefs.claim(message, source, now))
            case Suspect() | Dead() | Left() | Asleep():
                self._beliefs.claim(message, source, now)
                if isinstance(message, Suspect) and message.evidence == REFUSAL:
                    self._evidence.seconded(message, now)
                    return True
            case PingRequest():
                self._detector.ping_request(message, source, now)
            case Nack():
                self._detector.nack(message, sender)
            case Hello():
                self._greeted(message, sender, source, now)
                return True
            case Event() | Query() | QueryAnswer():
                self._forum.receive(message, sender, now)
                return True
        return False

    def _acked(self, ack: Ack, sender: NodeId, now: Instant) -> bool:
        """Hand an answer to whoever asked; say whether that was another part than the detector."""
        if self._path_checks.ack(ack, sender, now):
            return True
        if not self._evidence.ack(ack, sender, now):
            self._detector.ack(ack, sender, now)
        return False

    def _greeted(self, hello: Hello, sender: NodeId, source: Address, now: Instant) -> None:
        """Answer a greeting with who we are and whom we know; an answer begins an exchange."""
        if hello.wants_reply:
            if not self._absence.is_away:
                some = self._members.sample_others(self._local.id, INTRODUCED_MAX, self._rng)
                self._introductions.answer(source, some, now)
            return
        member = self._members.get(sender)
        if member is not None and now - member.changed_at < MEETING_S:
            self._exchange.want(sender, now)

    def _ask_for_words(self, sender: NodeId, source: Address, now: Instant) -> None:
        """Ask a member who it is, when we hear it without knowing its latest words."""
        member = self._members.get(sender)
        if member is not None and (member.described == member.incarnation or not member.is_live):
            return
        if not self._absence.is_away:
            self._introductions.ask(source, now)
