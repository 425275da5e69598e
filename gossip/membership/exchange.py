"""Exchanges of full states over streams: what rumours missed is found here.

Regularly, two members tell each other all that they believe about everybody. So a lost packet
never matters for long, a newcomer knows all at once, and two halves of a split that met again,
through one single greeting, learn of each other as a whole.

What the other side says is hearsay. Lives and descriptions that are newer than ours we believe. But
hearsay neither accuses nor kills: after a long split each half holds the other for dead, and
taking that over would kill the living. Such a belief is passed to the one concerned, who refutes it
if it can, and we look for ourselves soon; if the member is indeed dead, our own suspicion of it
reaches somebody who knows, and is answered with the death.
"""

import random
from collections.abc import Iterable

import msgspec

from gossip.errors import Malformed
from gossip.ids import NodeId
from gossip.machine import Instant
from gossip.membership.beliefs import Beliefs
from gossip.membership.book import addresses_of
from gossip.membership.local import LocalMember
from gossip.membership.members import Member, MemberState, precedence
from gossip.membership.messages import (
    ALIVE_BYTES_MAX,
    DATAGRAMS,
    FRAMES,
    Alive,
    Claim,
    Dead,
    Entry,
    ExchangeReply,
    ExchangeRequest,
    Left,
    Suspect,
)
from gossip.membership.plausible import follows
from gossip.membership.post import Post
from gossip.membership.probe import ProbeOrder
from gossip.membership.roll import Roll
from gossip.membership.throttle import Throttle
from gossip.tuning import FRAME_BYTES_MAX, Tuning

WANTED_MAX = 8
MET_MAX = 1024
MEETING_S = 5.0
"""Greetings by the same peer within this time call for one exchange."""


class EpochHeard(msgspec.Struct, frozen=True):
    """Told when a peer's placement has another epoch than ours."""

    peer: NodeId
    epoch: int


class Exchange:
    """Begins exchanges, answers them, and takes in what they bring."""

    def __init__(
        self,
        local: LocalMember,
        roll: Roll,
        beliefs: Beliefs,
        post: Post,
        order: ProbeOrder,
        tuning: Tuning,
        rng: random.Random,
        now: Instant,
    ) -> None:
        self.epoch = 0
        self._local = local
        self._roll = roll
        self._members = roll.members
        self._beliefs = beliefs
        self._post = post
        self._counts = post.counts
        self._order = order
        self._tuning = tuning
        self._rng = rng
        self._wanted: dict[NodeId, None] = {}
        self._met = Throttle(MEETING_S, MET_MAX)
        # A newcomer missed rumours that others heard: its first exchanges follow each other soon.
        self._pause_s = tuning.exchange_gap_s * (1 + rng.random())
        self._regular_at = now + self._pause_s
        self._wanted_at = now

    # When, and with whom.

    def want(self, peer: NodeId, now: Instant) -> None:
        """Exchange states with somebody whom we just met."""
        if self._met.allows(peer, now) and len(self._wanted) < WANTED_MAX:
            self._wanted[peer] = None
            self._wanted_at = max(self._wanted_at, now)

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        return min(self._wanted_at, self._regular_at) if self._wanted else self._regular_at

    def wake(self, now: Instant) -> None:
        """Begin the exchanges that are due."""
        if self._wanted and self._wanted_at <= now:
            peer = next(iter(self._wanted))
            del self._wanted[peer]
            self._begin(peer, now)
        if self._regular_at <= now:
            live = self._members.live
            self._pause_s = min(2 * self._pause_s, self._tuning.exchange_s(len(live)))
            self._regular_at = now + self._pause_s
            peers = [member.id for member in live if member.id != self._local.id]
            if peers:
                self._begin(self._rng.choice(peers), now)

    def _begin(self, peer: NodeId, now: Instant) -> None:
        self._wanted_at = now + self._tuning.exchange_gap_s
        self._counts["exchanges/begun"] += 1
        self._send(peer, ExchangeRequest, now)

    # Frames.

    def receive(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in a frame; what does not decode is counted and changes nothing."""
        try:
            frame = FRAMES.decode(data)
        except Malformed:
            self._counts["frames_dropped/malformed"] += 1
            return
        if frame is None:
            self._counts["frames_dropped/unknown kind"] += 1
            return
        if isinstance(frame, ExchangeRequest):
            self._counts["exchanges/answered"] += 1
            self._send(peer, ExchangeReply, now)
        else:
            self._counts["exchanges/completed"] += 1
        if frame.epoch != self.epoch:
            self._post.emit(EpochHeard(peer, frame.epoch))
        self._merge(frame.members, now)

    def _send(
        self, peer: NodeId, kind: type[ExchangeRequest] | type[ExchangeReply], now: Instant
    ) -> None:
        entries = [_entry(member, now) for member in self._members]
        data = FRAMES.encode(kind(tuple(entries), self.epoch))
        while len(data) > FRAME_BYTES_MAX:
            # Too many, or too talkative, for one frame: each time another half of them.
            entries = self._rng.sample(entries, len(entries) // 2)
            data = FRAMES.encode(kind(tuple(entries), self.epoch))
        assert len(data) <= FRAME_BYTES_MAX, "the loop above ends with what fits"
        self._post.send_frame(peer, data)

    # What the other side believes.

    def _merge(self, entries: Iterable[Entry], now: Instant) -> None:
        for entry in entries:
            known = self._members.get(entry.member)
            if not _is_sound(entry):
                self._counts["claims_ignored/unsound"] += 1
            elif entry.member == self._local.id:
                self._beliefs.claim(_claim(entry, self._local.id), None, now)
            elif not follows(known, entry.boot, entry.incarnation):
                self._counts["claims_ignored/implausible"] += 1
            elif not entry.state.is_live and (known is None or not known.is_live):
                self._merge_departed(known, entry, now)
            elif entry.state is MemberState.LEFT:
                self._beliefs.claim(_claim(entry, self._local.id), None, now)
            else:
                self._merge_life(known, entry, now)

    def _merge_departed(self, known: Member | None, entry: Entry, now: Instant) -> None:
        standing = precedence(entry.boot, entry.incarnation, entry.state)
        if known is None or standing > known.precedence:
            self._roll.list_departed(entry, now)

    def _merge_life(self, known: Member | None, entry: Entry, now: Instant) -> None:
        """Believe that the member lived then; see to it ourselves whether it still does."""
        described = (entry.boot, entry.described)
        if known is None or described > (known.boot, known.described):
            alive = Alive(entry.member, *described, entry.name, entry.addresses, entry.tags)
            self._beliefs.claim(alive, None, now)
        if self._members.get(entry.member) is None:
            return
        self._beliefs.lived(entry.member, entry.boot, entry.incarnation, now)
        member = self._members[entry.member]
        standing = precedence(entry.boot, entry.incarnation, entry.state)
        if entry.state is not MemberState.ALIVE and standing > member.precedence:
            self._doubt(member, _claim(entry, self._local.id))

    def _doubt(self, member: Member, claim: Claim) -> None:
        """Look for ourselves soon, and let the member itself know what is said about it."""
        self._counts["claims_told/hearsay to the one concerned"] += 1
        self._order.urge(member.id)
        for address in addresses_of(member)[:1]:
            self._post.send(address, claim)


def _entry(member: Member, now: Instant) -> Entry:
    return Entry(
        member=member.id,
        boot=member.boot,
        incarnation=member.incarnation,
        state=member.state,
        described=member.described,
        age_s=max(0, int(now - member.changed_at)),
        name=member.name,
        addresses=member.addresses,
        tags=member.tags,
    )


def _is_sound(entry: Entry) -> bool:
    """Say whether the entry can be passed on: within a packet, and not described by its future."""
    words = Alive(
        entry.member, entry.boot, entry.described, entry.name, entry.addresses, entry.tags
    )
    return entry.described <= entry.incarnation and len(DATAGRAMS.encode(words)) <= ALIVE_BYTES_MAX


def _claim(entry: Entry, accuser: NodeId) -> Claim:
    """Return the entry as a claim; the accuser is whoever passes it on."""
    life = (entry.member, entry.boot, entry.incarnation)
    match entry.state:
        case MemberState.SUSPECT:
            return Suspect(*life, accuser)
        case MemberState.DEAD:
            return Dead(*life, accuser)
        case MemberState.LEFT:
            return Left(*life)
        case MemberState.ALIVE:
            return Alive(*life, entry.name, entry.addresses, entry.tags)
