"""Round trips between members, for whoever asks: measured where possible, estimated elsewhere.

What a member measured itself it knows best, so the member at one end is asked. When it does not
answer, what coordinates say is still there: everybody knows everybody's place.
"""

import msgspec

from gossip.core.ids import NodeId
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.model.messages import FRAMES, RttFrame, RttReply, RttRequest
from gossip.membership.network.coordinates import RTT_MAX_S
from gossip.membership.network.reachability import Reachability

MICROSECONDS_PER_S = 1_000_000


class Rtt(msgspec.Struct, frozen=True):
    """What is known of a round trip, in seconds; None where nothing is."""

    measured_s: float | None = None
    """Smoothed over the last probes."""
    estimated_s: float | None = None
    error_s: float | None = None
    """How far off the estimate may well be."""

    @property
    def is_known(self) -> bool:
        """Whether there is any figure at all."""
        return self.measured_s is not None or self.estimated_s is not None


class RttReported(msgspec.Struct, frozen=True):
    """Told when a member answered ``ask``."""

    peer: NodeId
    number: int
    round_trip: Rtt


class RttService:
    """Answers from our own experience, and asks others for theirs."""

    def __init__(self, me: NodeId, reachability: Reachability, outbound: Outbound) -> None:
        self._me = me
        self._reachability = reachability
        self._outbound = outbound
        self._number = 0

    def between(self, one: NodeId, other: NodeId) -> Rtt:
        """Return what we know ourselves of the way between two nodes."""
        measured_s = None
        if self._me in (one, other):
            measured_s = self._reachability.rtt_s(other if one == self._me else one)
        estimate = self._reachability.coordinates.estimate(one, other)
        if estimate is None:
            return Rtt(measured_s)
        return Rtt(measured_s, estimate.rtt_s, estimate.error_s)

    def ask(self, peer: NodeId, target: NodeId) -> int:
        """Ask a member how far another is from it; the answer is emitted under this number."""
        self._number += 1
        request = RttRequest(self._number, target)
        self._outbound.send_frame(peer, FRAMES.encode(request))
        return self._number

    def receive(self, frame: RttFrame, peer: NodeId) -> None:
        """Answer a request, or emit a reply as RttReported."""
        if isinstance(frame, RttRequest):
            reply = _reply(frame.number, self.between(self._me, frame.target))
            self._outbound.send_frame(peer, FRAMES.encode(reply))
        else:
            self._outbound.emit(RttReported(peer, frame.number, _round_trip(frame)))


def _reply(number: int, known: Rtt) -> RttReply:
    return RttReply(number, _us(known.measured_s), _us(known.estimated_s), _us(known.error_s))


def _round_trip(reply: RttReply) -> Rtt:
    return Rtt(_s(reply.measured_us), _s(reply.estimated_us), _s(reply.error_us))


def _us(seconds: float | None) -> int | None:
    """Return whole microseconds: unlike a float, a number on the wire is always a number."""
    if seconds is None:
        return None
    return round(min(seconds, 2 * RTT_MAX_S) * MICROSECONDS_PER_S)


def _s(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / MICROSECONDS_PER_S
