"""Events: sent by one node, delivered to all, once, in the order of their Lamport times.

An event is told as an update (``broadcast_queue.py``); whom updates missed is found by
``event_sync.py``. Whoever hears of one does not deliver it at once, but holds it for a moment,
because an earlier one may still be under way. What arrives later than that is delivered all the
same, marked as late.

Twice. An event is known by its sender, the sender's boot and a sequence number; so two nodes that
send the same words at the same time are both heard. The latest few hundred events are remembered.
Anything at or below the time of one that was forgotten counts as old and is dropped.

Not again. A node that joins or comes back first learns what time it is in the covey (``learn``),
and drops all events up to then: nobody wants last year's alarm. Until it knows, it holds its own
events back, because with a time that has passed nobody would listen to them. Only a node that never
delivered anything takes every update in its first seconds with the others: an update is seconds
old, and cannot come a second time.
"""

import math
import re
from collections import Counter, deque
from typing import NamedTuple

import msgspec

from gossip.core.errors import LimitExceeded, LocalError
from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.tuning import Tuning
from gossip.events.lamport import LEARNT_MAX, LamportClock, TokenBucket
from gossip.events.messages import (
    BROADCASTS,
    EVENT_NAME_CHARACTERS_MAX,
    EVENT_PAYLOAD_BYTES_MAX,
    Event,
    EventId,
    Query,
)
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.model.local_member import LocalMember, flaw_of_tags
from gossip.membership.model.members import MemberTable

NEVER = math.inf
LINE_BREAKERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class EventDelivered(msgspec.Struct, frozen=True):
    """Told to the application once for each event. ``is_late``: a later one came before it."""

    event: Event
    is_late: bool


class TooManyEvents(LocalError):
    """This node sends more events than it may; this one was not sent."""


class BufferedEvent(NamedTuple):
    """An event that we remember, and when we heard of it."""

    event: Event
    at: Instant


class EventBuffer:
    """Manages the events that we know of, and the order in which they are delivered."""

    def __init__(
        self,
        local: LocalMember,
        members: MemberTable,
        outbound: Outbound,
        tuning: Tuning,
        time: int,
        now: Instant,
    ) -> None:
        self.is_sure = True
        """Whether we know the covey's time, or have nobody to ask."""
        self._local = local
        self._members = members
        self._outbound = outbound
        self._counts: Counter[str] = outbound.counts
        self._tuning = tuning
        self._clock = LamportClock(time)
        self._is_first_life = time == 0
        self._old = time
        """Events of this time, or earlier, are not delivered any more ..."""
        self._learnt = 0
        """... nor those up to this one, except as updates while we are new here."""
        self._is_new_until: Instant = NEVER if self._is_first_life else -NEVER
        self._delivered_time = time
        self._kept: dict[EventId, BufferedEvent] = {}
        self._held: dict[EventId, Instant] = {}
        self._unsent: deque[tuple[int, str, bytes]] = deque()
        self._sequence = 0
        self._bucket = TokenBucket(tuning.event_burst_max, tuning.events_per_s, now)
        self._buckets: dict[NodeId, TokenBucket] = {}

    @property
    def time(self) -> int:
        """The largest Lamport time that we know of."""
        return self._clock.time

    def held(self) -> frozenset[EventId]:
        """Return what was heard and is not delivered yet: an earlier one may be under way."""
        return frozenset(self._held)

    # Our own.

    def send(self, name: str, payload: bytes, now: Instant) -> int:
        """Send an event; return its sequence number.

        Raises LimitExceeded for a name or payload that does not fit, and TooManyEvents.
        """
        event = Event(self._local.id, self._local.boot, self._sequence + 1, 0, name, payload)
        check(event)
        if not self._bucket.take(now):
            raise TooManyEvents(
                f"more than {self._tuning.event_burst_max} events at once, or "
                f"{self._tuning.events_per_s:g} a second; this one was not sent: wait a moment"
            )
        self._sequence += 1
        self._unsent.append((self._sequence, name, payload))
        self._counts["events/sent"] += 1
        if self.is_sure:
            self._release(now)
        return self._sequence

    def _release(self, now: Instant) -> None:
        while self._unsent:
            sequence, name, payload = self._unsent.popleft()
            me, boot = self._local.id, self._local.boot
            self._buffer(Event(me, boot, sequence, self._clock.tick(), name, payload), now)

    def learn(self, time: int, now: Instant) -> None:
        """Take this for the covey's time: what happened up to then is not for us."""
        assert time <= LEARNT_MAX or time <= self.time, "whoever calls has looked"
        self._clock.time = max(self._clock.time, time)
        self._learnt = max(self._learnt, time)
        self._is_new_until = min(self._is_new_until, now + self._tuning.event_transmit_s)
        self.is_sure = True
        self._release(now)

    # Those of others.

    def witness(self, time: int) -> None:
        """Note the time that another member shows."""
        if not self._clock.witness(time):
            self._counts["events_ignored/implausible time"] += 1

    def receive(self, event: Event, now: Instant, *, is_broadcast: bool) -> None:
        """Take in an event that was told; one that we do not want is counted."""
        is_fresh = is_broadcast and now < self._is_new_until
        old = self._old if is_fresh else max(self._old, self._learnt)
        reason = self._objection(event, now, old)
        if reason is not None:
            self._counts["events_ignored/" + reason] += 1
            return
        self._outbound.on_trial(title_of(event), lambda: self._buffer(event, now))

    def _objection(self, event: Event, now: Instant, old: int) -> str | None:
        if id_of(event) in self._kept:
            return "heard before"
        if event.sender == self._local.id:
            return "our own, of before"
        sender = self._members.get(event.sender)
        if sender is None or event.boot > sender.boot:
            return "unknown sender"
        if not self._clock.is_plausible(event.time):
            return "implausible time"
        if not (self.is_sure or self._is_first_life):
            self._clock.witness(event.time)
            return "time not learnt yet"
        if event.time <= old:
            return "old"
        if not self._bucket_of(event.sender, now).take(now):
            return "too many"
        return None

    def _bucket_of(self, sender: NodeId, now: Instant) -> TokenBucket:
        """Return what we believe of one sender: twice what an honest one sends."""
        bucket = self._buckets.pop(sender, None)
        if bucket is None:
            burst, per_s = 2 * self._tuning.event_burst_max, 2 * self._tuning.events_per_s
            bucket = TokenBucket(burst, per_s, now)
        # Who was silent longest goes first: its allowance has grown back, so nothing is forgiven.
        self._buckets[sender] = bucket
        if len(self._buckets) > self._tuning.events_kept_max:
            del self._buckets[next(iter(self._buckets))]
        return bucket

    def _buffer(self, event: Event, now: Instant) -> None:
        """Remember an event, pass it on, and hold it for delivery."""
        key = id_of(event)
        assert key not in self._kept, "whoever calls has looked"
        self._clock.witness(event.time)
        self._kept[key] = BufferedEvent(event, now)
        self._held[key] = now + self._tuning.event_hold_rounds * self._tuning.gossip_interval_s
        until = now + self._tuning.event_transmit_s
        if not self._outbound.broadcast_queue.put(key, BROADCASTS.encode(event), until):
            self._counts["events_ignored/too many to tell"] += 1
        if len(self._kept) > self._tuning.events_kept_max:
            self._forget(next(iter(self._kept)))
        assert len(self._held) <= len(self._kept), "what is held is remembered"

    def _forget(self, key: EventId) -> None:
        """Make room; an event that still waits is delivered first, before its time."""
        event = self._kept[key].event
        if key in self._held:
            self._deliver_up_to(event)
        del self._kept[key]
        self._old = max(self._old, event.time)

    # Delivery.

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        return min(self._held.values()) if self._held else NEVER

    def wake(self, now: Instant) -> None:
        """Deliver what was held long enough, and whatever comes before it."""
        if not self._held:
            return
        due = [self._kept[key].event for key, at in self._held.items() if at <= now]
        if due:
            self._deliver_up_to(max(due, key=_order))

    def _deliver_up_to(self, last: Event) -> None:
        held = (self._kept[key].event for key in self._held)
        for event in sorted((one for one in held if _order(one) <= _order(last)), key=_order):
            del self._held[id_of(event)]
            is_late = event.time < self._delivered_time
            self._delivered_time = max(self._delivered_time, event.time)
            self._counts["events/delivered late" if is_late else "events/delivered"] += 1
            self._outbound.emit(EventDelivered(event, is_late))

    # What event syncs ask.

    def recent(self, now: Instant) -> dict[EventId, Event]:
        """Return the events that some may still have missed."""
        since = now - self._tuning.event_recent_s
        return {key: kept.event for key, kept in self._kept.items() if kept.at > since}

    def lacks(self, key: EventId) -> bool:
        """Say whether we would want to be told of this event."""
        return key not in self._kept and key.sender != self._local.id

    def recent_until(self) -> Instant:
        """Return when the newest event will be recent no more."""
        if not self._kept:
            return -NEVER
        return self._kept[next(reversed(self._kept))].at + self._tuning.event_recent_s


def id_of(event: Event) -> EventId:
    """Return what tells this event apart from all others."""
    return EventId(event.sender, event.boot, event.sequence)


def title_of(event: Event) -> str:
    """Return what an event is called while it is on trial."""
    return f"event {event.sender:016x}-{event.boot:x}-{event.sequence}"


def check(words: "Event | Query") -> None:
    """Raise LimitExceeded if a message that we are to send would be refused by others."""
    if problem := _flaw(words):
        raise LimitExceeded(f"{problem}; nothing was sent")
    msgspec.convert(msgspec.to_builtins(words), type(words))  # no other limit is the caller's


def _flaw(words: "Event | Query") -> str:
    """Say what others would not accept, for whoever wrote it; empty if there is nothing."""
    if not 1 <= len(words.name) <= EVENT_NAME_CHARACTERS_MAX:
        return f"a name has 1 to {EVENT_NAME_CHARACTERS_MAX} characters, not {len(words.name)}"
    if LINE_BREAKERS.search(words.name):
        return f"the name {words.name!r} has a control character or ends a line"
    if len(words.payload) > EVENT_PAYLOAD_BYTES_MAX:
        return (
            f"a payload has at most {EVENT_PAYLOAD_BYTES_MAX} bytes, not {len(words.payload)}: put "
            "larger things into a shared key, and send its name"
        )
    tags = words.filters if isinstance(words, Query) else {}
    if (problem := flaw_of_tags(tags)) or all(map(_is_text, (words.name, *tags, *tags.values()))):
        return problem
    return "a name or a tag is no text: it has half of a surrogate pair"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _order(event: Event) -> tuple[int, NodeId, int, int]:
    return event.time, event.sender, event.boot, event.sequence
