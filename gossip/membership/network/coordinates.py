"""Network coordinates: round trips between members that never measured each other.

Each member has a place in a space that nobody drew: eight dimensions, and a height for the last
stretch to it, which no way avoids. The distance of two places estimates the round trip. Whoever
measures one pulls or pushes its own place a little, as a spring between the two would, by Vivaldi
(Dabek, Cox, Kaashoek and Morris, SIGCOMM 2004). The refinements are those of Ledlie, Gardner and
Seltzer (NSDI 2007), which Serf has shown to work: the median of the last three samples stands for
a peer, because single packets are late for reasons of their own; gravity keeps the whole cloud
near its origin, or it would drift for ever; and an adjustment, half the mean of how far the last
twenty samples were off, catches what no such space can hold.

What others say about their place is checked and never trusted far: a place outside the bounds is
refused, and one within them moves ours by a quarter of the discrepancy at most. If ours still
comes to be no number, or leaves the bounds, it begins anew.

Our place travels beside our acks, in 44 bytes, and only to a peer for whom it would be news.
"""

import math
import random
import struct
from collections import Counter, deque
from typing import Final

import msgspec

from gossip.core.errors import Malformed
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

DIMENSIONS = 8
ERROR_MAX = 1.5
"""The error of whoever has measured nothing yet; nobody claims to be worse."""
ERROR_SHARE = 0.25
"""How much one sample moves the error (c_e in the paper)."""
MOVE_SHARE = 0.25
"""How much of a discrepancy one sample moves us (c_c in the paper)."""
HEIGHT_MIN_S = 1e-5
ADJUSTMENT_SAMPLES = 20
LATENCY_SAMPLES = 3
GRAVITY_RHO_S = 150.0
"""How far out gravity weighs as much as a second of discrepancy."""
RTT_MAX_S = 10.0
"""A longer round trip says nothing about the network; nobody is further from the origin either."""
TINY_S = 1e-6
"""What is closer than this is at the same place, and no divisor."""

AGAIN_S, AGAIN_PERIODS = 60.0, 60
"""A peer is told our place again after this long, and so many probes of ours, in case the last time
was lost. Where each byte is paid for, a place would else be told with every answer."""
SOON_S = 20.0
MOVED_S = 0.001
MOVED_SHARE = 0.1
"""... after this long if we are somewhere else, by so much or this share of our distance, and at
once when our error has halved."""

PLACE: Final = struct.Struct(f">{DIMENSIONS + 3}f")
PLACE_BYTES = PLACE.size

Vector = tuple[float, ...]
ORIGIN: Vector = (0.0,) * DIMENSIONS


class Coordinate(msgspec.Struct, frozen=True):
    """Where somebody is, in seconds of round trip; ``error`` is relative."""

    vector: Vector = ORIGIN
    height_s: float = HEIGHT_MIN_S
    error: float = ERROR_MAX
    adjustment_s: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether all numbers are numbers, and within bounds."""
        return (
            math.hypot(*self.vector) <= RTT_MAX_S
            and 0.0 <= self.height_s <= RTT_MAX_S
            and 0.0 <= self.error <= ERROR_MAX
            and abs(self.adjustment_s) <= RTT_MAX_S
        )

    def raw_distance_s(self, other: "Coordinate") -> float:
        """Return the distance in the space, heights included."""
        return math.dist(self.vector, other.vector) + self.height_s + other.height_s

    def rtt_s(self, other: "Coordinate") -> float:
        """Return the estimate of the round trip between the two."""
        raw_s = self.raw_distance_s(other)
        adjusted_s = raw_s + self.adjustment_s + other.adjustment_s
        return adjusted_s if adjusted_s > 0.0 else raw_s

    def encode(self) -> bytes:
        """Return the place in PLACE_BYTES bytes: single precision is a microsecond in 10 s."""
        return PLACE.pack(*self.vector, self.height_s, self.error, self.adjustment_s)


NOWHERE = Coordinate()
"""Where everybody begins, and to where gravity draws."""


def decode_place(data: bytes) -> Coordinate:
    """Return the place. Raises Malformed for another length, no numbers, or out of bounds."""
    if len(data) != PLACE_BYTES:
        raise Malformed(f"a place has {PLACE_BYTES} bytes, not {len(data)}")
    *vector, height_s, error, adjustment_s = PLACE.unpack(data)
    place = Coordinate(tuple(vector), height_s, error, adjustment_s)
    if not place.is_sound:
        raise Malformed("a place that cannot be")
    return place


class RttEstimate(msgspec.Struct, frozen=True):
    """A round trip as the coordinates have it."""

    rtt_s: float
    error_s: float
    """How far off it may well be: the worse of the two members' own errors."""


def estimate_between(one: Coordinate, other: Coordinate) -> RttEstimate:
    """Return the estimate of the round trip between two places."""
    rtt_s = min(one.rtt_s(other), RTT_MAX_S)
    return RttEstimate(rtt_s, rtt_s * max(one.error, other.error))


class Vivaldi:
    """Our own coordinate, moved by what we measure (Vivaldi, section 3.3)."""

    def __init__(self, rng: random.Random) -> None:
        self.place = Coordinate()
        self._rng = rng
        self._misses_s: deque[float] = deque(maxlen=ADJUSTMENT_SAMPLES)

    def observe(self, other: Coordinate, rtt_s: float) -> bool:
        """Move by one sample; say False when that led nowhere and we began anew."""
        assert 0.0 <= rtt_s <= RTT_MAX_S, "the caller sorts out samples that say nothing"
        rtt_s = max(rtt_s, TINY_S)
        place = self._pulled(other, rtt_s)
        self._misses_s.append(rtt_s - place.raw_distance_s(other))
        adjustment_s = sum(self._misses_s) / (2.0 * ADJUSTMENT_SAMPLES)
        place = self._weighed(msgspec.structs.replace(place, adjustment_s=adjustment_s))
        if not place.is_sound:
            self.place = Coordinate()
            self._misses_s.clear()
            return False
        self.place = place
        return True

    def _pulled(self, other: Coordinate, rtt_s: float) -> Coordinate:
        """Return our place after the spring to the other has acted (figure 4 of the paper)."""
        distance_s = self.place.rtt_s(other)
        wrongness = abs(distance_s - rtt_s) / rtt_s
        weight = self.place.error / max(self.place.error + other.error, TINY_S)
        share = ERROR_SHARE * weight
        error = min(ERROR_MAX, wrongness * share + self.place.error * (1.0 - share))
        force_s = MOVE_SHARE * weight * (rtt_s - distance_s)
        return self._pushed(msgspec.structs.replace(self.place, error=error), force_s, other)

    def _weighed(self, place: Coordinate) -> Coordinate:
        """Return the place after gravity has acted."""
        force_s = -((place.raw_distance_s(NOWHERE) / GRAVITY_RHO_S) ** 2)
        return self._pushed(place, force_s, NOWHERE)

    def _pushed(self, place: Coordinate, force_s: float, other: Coordinate) -> Coordinate:
        """Return the place moved away from another by a force in seconds."""
        here, there, height_s = place.vector, other.vector, place.height_s
        apart_s = math.dist(here, there)
        if apart_s > TINY_S:
            pairs = zip(here, there, strict=True)
            vector = tuple([a + force_s * ((a - b) / apart_s) for a, b in pairs])
            height_s += (height_s + other.height_s) * force_s / apart_s
        else:
            away = zip(here, self._any_direction(), strict=True)
            vector = tuple([a + force_s * b for a, b in away])
        return Coordinate(vector, max(height_s, HEIGHT_MIN_S), place.error, place.adjustment_s)

    def _any_direction(self) -> list[float]:
        """Return a random unit vector, for two who are at the same place."""
        drawn = [self._rng.gauss(0.0, 1.0) for _ in range(DIMENSIONS)]
        length = math.hypot(*drawn)
        return [x / length for x in drawn] if length > TINY_S else [1.0, *ORIGIN[1:]]


class PeerSamples:
    """What the coordinates know of one member, and it of ours."""

    __slots__ = ("place", "samples_s", "sent", "sent_at")

    def __init__(self) -> None:
        self.place: Coordinate | None = None
        self.samples_s: tuple[float, ...] = ()
        self.sent: Coordinate | None = None
        self.sent_at: Instant = 0.0


class Coordinates:
    """Manages our coordinate, and those of the members; bounded by whoever says ``forget``."""

    def __init__(
        self, me: NodeId, rng: random.Random, counts: Counter[str], probe_interval_s: float = 1.0
    ) -> None:
        self.me = me
        self._again_s = max(AGAIN_S, AGAIN_PERIODS * probe_interval_s)
        self._vivaldi = Vivaldi(rng)
        self._counts = counts
        self._peers: dict[NodeId, PeerSamples] = {}

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def place(self) -> Coordinate:
        """Where we are."""
        return self._vivaldi.place

    def learn(self, node: NodeId, data: bytes) -> None:
        """Take in what a member says about its place; what cannot be is counted."""
        try:
            place = decode_place(data)
        except Malformed:
            self._counts["coordinates/refused"] += 1
            return
        self._peer(node).place = place

    def measured(self, node: NodeId, rtt_s: float) -> None:
        """Take in a round trip to a member."""
        if not 0.0 <= rtt_s <= RTT_MAX_S:
            self._counts["coordinates/sample out of bounds"] += 1
            return
        peer = self._peer(node)
        peer.samples_s = (*peer.samples_s, rtt_s)[-LATENCY_SAMPLES:]
        if peer.place is None:
            return
        median_s = sorted(peer.samples_s)[len(peer.samples_s) // 2]
        moved = self._vivaldi.observe(peer.place, median_s)
        self._counts["coordinates/moved" if moved else "coordinates/begun anew"] += 1

    def news_for(self, node: NodeId, now: Instant) -> bytes | None:
        """Return our place if this member should hear it now; it counts as told then."""
        place, peer = self.place, self._peer(node)
        age_s = now - peer.sent_at
        if (
            peer.sent is not None
            and age_s < self._again_s
            and not _is_news(place, peer.sent, age_s)
        ):
            return None
        peer.sent, peer.sent_at = place, now
        return place.encode()

    def estimate(self, one: NodeId, other: NodeId) -> RttEstimate | None:
        """Return the estimated round trip between two nodes; None if we do not know a place."""
        places = self._place_of(one), self._place_of(other)
        if places[0] is None or places[1] is None:
            return None
        return RttEstimate(0.0, 0.0) if one == other else estimate_between(places[0], places[1])

    def rtt_from_here_s(self, node: NodeId) -> float | None:
        """Return the estimated round trip to a member; None if we do not know its place."""
        peer = self._peers.get(node)
        return None if peer is None or peer.place is None else self.place.rtt_s(peer.place)

    def forget(self, node: NodeId) -> None:
        """Drop what we know of a node."""
        self._peers.pop(node, None)

    def _peer(self, node: NodeId) -> PeerSamples:
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = PeerSamples()
        return peer

    def _place_of(self, node: NodeId) -> Coordinate | None:
        if node == self.me:
            return self.place
        peer = self._peers.get(node)
        return peer.place if peer else None


def _is_news(place: Coordinate, sent: Coordinate, age_s: float) -> bool:
    """Say whether to tell a place to somebody to whom another was told that long ago."""
    if place.error < sent.error / 2:
        return True
    if age_s < SOON_S:
        return False
    moved_s = math.dist(place.vector, sent.vector)
    moved_s += abs(place.height_s - sent.height_s) + abs(place.adjustment_s - sent.adjustment_s)
    span_s = math.hypot(*place.vector) + place.height_s
    return moved_s > max(MOVED_S, MOVED_SHARE * span_s)
