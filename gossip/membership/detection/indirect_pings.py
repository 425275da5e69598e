"""Pings that we do for others: the helping side of an indirect probe.

The target is pinged under a number of our own; its ack is passed on to whoever asked, under theirs.
When the target is silent for most of a timeout, the asker gets a nack, so that it can tell a dead
target from a link of its own that does not work (Lifeguard section IV.A); an ack that comes later
than that is still passed on.
"""

import math

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Address, Instant
from gossip.core.tuning import Tuning

NACK_SHARE = 0.8
"""When the nack goes out, as a share of the timeout (the Lifeguard paper's figure)."""


class IndirectPing(msgspec.Struct):
    """One ping on somebody's behalf."""

    target: NodeId
    asker: Address
    asked_number: int
    nack_at: Instant
    ends_at: Instant
    nacked: bool = False


class IndirectPings:
    """All pings on behalf of others that are under way, by our own number; oldest first."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self._indirect_pings: dict[int, IndirectPing] = {}

    def __len__(self) -> int:
        return len(self._indirect_pings)

    def begin(
        self, number: int, target: NodeId, asker: Address, asked_number: int, now: Instant
    ) -> bool:
        """Take on a ping; say whether there was room for it."""
        if len(self._indirect_pings) >= self._tuning.relayed_max:
            return False
        assert number not in self._indirect_pings, "our own numbers do not repeat"
        self._indirect_pings[number] = IndirectPing(
            target,
            asker,
            asked_number,
            now + NACK_SHARE * self._tuning.probe_timeout_s,
            now + self._tuning.probe_interval_s,
        )
        return True

    def answered(self, number: int, sender: NodeId) -> IndirectPing | None:
        """Return the errand that this ack completes; None when it completes none."""
        errand = self._indirect_pings.get(number)
        if errand is None or errand.target != sender:
            return None
        return self._indirect_pings.pop(number)

    def expire(self, now: Instant) -> list[IndirectPing]:
        """Drop what is over; return those whose asker is to get a nack now."""
        over = [number for number, errand in self._indirect_pings.items() if errand.ends_at <= now]
        due = [e for e in self._indirect_pings.values() if e.nack_at <= now and not e.nacked]
        for errand in due:
            errand.nacked = True
        for number in over:
            del self._indirect_pings[number]
        return due

    def deadline(self) -> Instant:
        """Return when ``expire`` is next due; infinity without errands."""
        return min(
            (e.ends_at if e.nacked else e.nack_at for e in self._indirect_pings.values()),
            default=math.inf,
        )
