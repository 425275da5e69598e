"""One probe of one member, and the order in which members are probed.

A probe is a small machine::

    DIRECT ──time──▶ RETRIED ──time──▶ INDIRECT ──time──▶ LOST
      └──answer──┐      └──answer──┐       └──answer──┐
                 ▼                 ▼                  ▼
                           ANSWERED

The direct ping is repeated once before others are asked to help: at 10 % loss that alone turns one
failed round trip in five into one in twenty-eight, and it goes to another address of the target if
there is one.

Members are probed in a random order, all of them once before any again (SWIM section 4.3), except
that some jump the queue: members that others suspect, and members whose stream just broke. Each
member decides by chance whether it checks a new suspect, so that about ``probe_checkers`` do:
enough to confirm a death within two periods, or to carry the accusation to a living one.

The helping side: we ping the target under a number of our own, and pass its ack on to whoever
asked, under theirs. When the target is silent for most of a timeout, the asker gets a nack, so that
it can tell a dead target from a link of its own that does not work (Lifeguard section IV.A); an ack
that comes later than that is still passed on.
"""

import enum
import math
import random

import msgspec

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address, Instant
from gossip.core.tuning import Tuning
from gossip.membership.model.members import Member, MemberTable

RETRY_SHARE = 0.4
"""When the direct ping is repeated, as a share of the timeout; above a healthy round trip."""

NACK_SHARE = 0.8
"""When the nack goes out, as a share of the timeout (the Lifeguard paper's figure)."""


class ProbeState(enum.StrEnum):
    """How far a probe has come."""

    DIRECT = "direct"
    RETRIED = "retried"
    INDIRECT = "indirect"
    ANSWERED = "answered"
    LOST = "lost"


class ProbeEvent(enum.StrEnum):
    """What moves a probe on."""

    TIME = "time"
    ANSWER = "answer"


TRANSITIONS: dict[tuple[ProbeState, ProbeEvent], ProbeState] = {
    (ProbeState.DIRECT, ProbeEvent.TIME): ProbeState.RETRIED,
    (ProbeState.RETRIED, ProbeEvent.TIME): ProbeState.INDIRECT,
    (ProbeState.INDIRECT, ProbeEvent.TIME): ProbeState.LOST,
    (ProbeState.DIRECT, ProbeEvent.ANSWER): ProbeState.ANSWERED,
    (ProbeState.RETRIED, ProbeEvent.ANSWER): ProbeState.ANSWERED,
    (ProbeState.INDIRECT, ProbeEvent.ANSWER): ProbeState.ANSWERED,
}
"""What is not in the table does not move: ANSWERED and LOST are final."""


class Probe:
    """One probe; lasts one period, in whose course it is answered or lost."""

    def __init__(
        self, number: int, target: NodeId, boot: Boot, incarnation: int, now: Instant
    ) -> None:
        self.number = number
        self.target = target
        self.boot = boot
        self.incarnation = incarnation
        self.started_at = now
        self.state = ProbeState.DIRECT
        self.pinged_at: dict[int, Instant] = {}
        """Our own pings, by the number that their answer carries."""
        self.nacks: dict[NodeId, bool] = {}
        """The relays that were asked, and whether each said nack."""
        self.due_at = now
        """When time next moves this probe, or its period ends."""
        self._schedule: dict[ProbeState, Instant] = {}

    def schedule(self, timeout_s: float, period_s: float) -> None:
        """Fix the times at which the probe goes on without an answer."""
        assert timeout_s < period_s, "relays get the rest of the period"
        end = self.started_at + period_s
        self._schedule = {
            ProbeState.DIRECT: self.started_at + RETRY_SHARE * timeout_s,
            ProbeState.RETRIED: self.started_at + timeout_s,
            ProbeState.INDIRECT: end,
            ProbeState.ANSWERED: end,
            ProbeState.LOST: end,
        }
        self.due_at = self._schedule[self.state]

    def catch_up(self, now: Instant) -> None:
        """Give every later phase its full time, although this one is noticed late."""
        late_s = now - self.due_at
        assert late_s >= 0, "a phase is not cut short"
        if late_s:
            self._schedule = {state: at + late_s for state, at in self._schedule.items()}

    @property
    def is_over(self) -> bool:
        """Whether nothing moves it any more; it still lasts until ``due_at``."""
        return self.state in (ProbeState.ANSWERED, ProbeState.LOST)

    def move(self, event: ProbeEvent) -> bool:
        """Take the event in; say whether it moved the probe."""
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            return False
        self.state = following
        self.due_at = self._schedule[following]
        return True

    def expects_answer(self, number: int, sender: NodeId) -> bool:
        """Say whether this ack by this sender answers the probe."""
        if sender == self.target:
            return number == self.number or number in self.pinged_at
        return number == self.number and sender in self.nacks


class ProbeOrder:
    """Whom to probe next."""

    def __init__(self, tuning: Tuning, rng: random.Random) -> None:
        self._tuning = tuning
        self._rng = rng
        self._pass: list[NodeId] = []
        self._urgent: dict[NodeId, None] = {}

    def insert(self, node: NodeId) -> None:
        """Give a new member a random place among those that this pass has yet to visit."""
        if node not in self._pass:
            self._pass.insert(self._rng.randrange(len(self._pass) + 1), node)

    def probe_next(self, node: NodeId) -> None:
        """Probe this member next."""
        self._urgent[node] = None

    def probe_next_by_chance(self, node: NodeId, members: int) -> None:
        """Probe a new suspect next, if chance makes us one of its checkers."""
        if self._rng.random() * max(1, members - 2) < self._tuning.probe_checkers:
            self.probe_next(node)

    def next(self, members: MemberTable, me: NodeId) -> Member | None:
        """Return whom but ourselves to probe; None when there is nobody.

        Of whom we know no address, we cannot judge either.
        """
        for waiting in (self._next_urgent, self._next_in_turn):
            while (node := waiting()) is not None:
                member = members.get(node)
                if member is not None and node != me and member.is_live and member.has_address:
                    return member
        self._pass = [node for node in members.reachable_ids if node != me]
        self._rng.shuffle(self._pass)
        return members[self._pass.pop()] if self._pass else None

    def warm_start(self, order: list[NodeId]) -> None:
        """Be somewhere in a pass of this order: shuffling thousands takes long."""
        at = self._rng.randrange(len(order))
        self._pass = order[at:] + order[:at]

    def _next_urgent(self) -> NodeId | None:
        for node in self._urgent:
            del self._urgent[node]
            return node
        return None

    def _next_in_turn(self) -> NodeId | None:
        return self._pass.pop() if self._pass else None


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
        """Return the indirect ping that this ack completes; None when it completes none."""
        indirect_ping = self._indirect_pings.get(number)
        if indirect_ping is None or indirect_ping.target != sender:
            return None
        return self._indirect_pings.pop(number)

    def expire(self, now: Instant) -> list[IndirectPing]:
        """Drop what is over; return those whose asker is to get a nack now."""
        over = [
            number
            for number, indirect_ping in self._indirect_pings.items()
            if indirect_ping.ends_at <= now
        ]
        due = [e for e in self._indirect_pings.values() if e.nack_at <= now and not e.nacked]
        for indirect_ping in due:
            indirect_ping.nacked = True
        for number in over:
            del self._indirect_pings[number]
        return due

    def deadline(self) -> Instant:
        """Return when ``expire`` is next due; infinity without indirect pings."""
        return min(
            (e.ends_at if e.nacked else e.nack_at for e in self._indirect_pings.values()),
            default=math.inf,
        )
