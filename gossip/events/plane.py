"""Events and queries, wired: the layer on the membership that applications talk through.

::

    Event ──▶ EventBuffer ◀── EventSync ◀── frame   Query ──▶ Queries ◀── response, frame
                └── hold, in order ──▶ Emit                      └──▶ Emit

All of it rides on what the membership knows and sends; nothing in the membership depends on it.
"""

import random
from collections.abc import Mapping

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.tuning import Tuning
from gossip.events.event_sync import EventSync
from gossip.events.events import EventBuffer
from gossip.events.messages import (
    BROADCASTS,
    EVENT_FRAMES,
    Event,
    EventId,
    EventSyncMessage,
    Query,
    QueryResponse,
    ResponseKind,
)
from gossip.events.queries import Queries, QueryKey
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import MemberChanged, MemberState, MemberTable

AWAY = frozenset({MemberState.ASLEEP, MemberState.DEAD, MemberState.LEFT})


class EventPlane:
    """Manages what applications tell and ask each other: events, queries, and their syncs.

    ``time`` is the Lamport time of the last event that this node delivered in its life before.
    """

    def __init__(
        self,
        local: LocalMember,
        members: MemberTable,
        outbound: Outbound,
        tuning: Tuning,
        now: Instant,
        time: int = 0,
    ) -> None:
        # A source of its own: what applications say does not change what the detector draws.
        rng = random.Random(local.id ^ local.boot)
        self._outbound = outbound
        self._events = EventBuffer(local, members, outbound, tuning, time, now)
        self._event_sync = EventSync(local, members, self._events, outbound, tuning, rng)
        self._queries = Queries(local, members, outbound, tuning, rng)

    @property
    def time(self) -> int:
        """The largest Lamport time that we know of."""
        return self._events.time

    # What applications do.

    def held(self) -> frozenset[EventId]:
        """Return the events that were heard and are not delivered yet."""
        return self._events.held()

    def send_event(self, name: str, payload: bytes, now: Instant) -> int:
        """Send an event; return its sequence. Raises LimitExceeded and TooManyEvents."""
        sequence = self._events.send(name, payload, now)
        self._event_sync.on_message(now)
        return sequence

    def ask(
        self, name: str, payload: bytes, filters: Mapping[str, str], timeout_s: float, now: Instant
    ) -> int:
        """Ask all members with these tags; return the number of the query.

        Answers are emitted as ResponseReceived, the end as QueryEnded. Raises LimitExceeded and
        InvalidRequest.
        """
        return self._queries.ask(name, payload, filters, timeout_s, now)

    def cancel(self, number: int) -> None:
        """Wait for answers to this query no more."""
        self._queries.cancel(number)

    def answer(self, key: QueryKey, kind: ResponseKind, payload: bytes, now: Instant) -> bool:
        """Answer a query; False when it is too late. Raises LimitExceeded."""
        return self._queries.answer(key, kind, payload, now)

    # What comes in.

    @property
    def frame_tags(self) -> frozenset[int]:
        """The tags of our frames."""
        return EVENT_FRAMES.tags

    def receive(self, item: bytes, sender: NodeId, now: Instant) -> bool:
        """Take in a message of a datagram if it is one of ours; say whether. Raises Malformed."""
        message = BROADCASTS.decode(item)
        match message:
            case Event():
                self._events.receive(message, now, is_broadcast=True)
                self._event_sync.on_message(now)
            case Query():
                self._queries.receive(message, now)
            case QueryResponse():
                self._queries.receive_response(message, sender)
        return message is not None

    def receive_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in events to catch up with, or a long response. Raises Malformed."""
        frame = EVENT_FRAMES.decode_known(data)
        if isinstance(frame, EventSyncMessage):
            self._event_sync.receive(frame, peer, now)
            self._event_sync.on_message(now)
        else:
            self._queries.receive_long_response(frame, peer)

    def on_member_changed(self, change: MemberChanged) -> None:
        """Take note of who is there."""
        member, before = change.member, change.before
        if member.state is MemberState.ALIVE and before is not MemberState.ALIVE:
            self._event_sync.met(member.id, member.changed_at, back=before in AWAY)

    # Time.

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        event_sync = self._event_sync.deadline()
        return min(event_sync, self._events.deadline(), self._queries.deadline())

    def wake(self, now: Instant) -> None:
        """Let due timers act."""
        self._events.wake(now)
        self._event_sync.wake(now)
        self._queries.wake(now)
