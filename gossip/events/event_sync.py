"""Event sync: what broadcasts of events missed, and what time it is for a newcomer.

Updates reach everybody with near certainty while few packets are lost. While there are recent
events, each node also compares them with a random member every few seconds, over a stream; without
recent events nothing is sent. Whoever was cut off for longer than events stay recent missed them.

The same frame tells the time. A node that meets a covey asks two members for their Lamport time.
Where all are new, as in a covey that is just forming, they agree on the largest time that any of
them has seen, after asking a few of each other. Members who meet again after a split compare at
once, so that their times go on from the larger one.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.tuning import FRAME_BYTES_MAX, Tuning
from gossip.events.events import EventBuffer
from gossip.events.lamport import JUMP_MAX, LEARNT_MAX
from gossip.events.messages import (
    BULLETIN_EVENTS_MAX,
    EVENT_FRAMES,
    Event,
    EventId,
    EventSyncMessage,
)
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import MemberTable
from gossip.membership.model.rate_limit import Throttle

NEVER = math.inf
SURE_ANSWERS = 2
"""One member might lie: of two times that are far apart, the lower one is taken."""
UNSURE_ANSWERS = 3
"""So many newcomers may be wrong together; then the covey is new, too."""
ASK_ROUNDS = 3
PEERS_MAX = 1024
RETURN_ROUNDS = 3
"""A member that returns gets about so many event syncs, from all others together."""


class EventSync:
    """Manages event syncs: when recent events are compared, and with whom."""

    def __init__(
        self,
        local: LocalMember,
        members: MemberTable,
        events: EventBuffer,
        outbound: Outbound,
        tuning: Tuning,
        rng: random.Random,
    ) -> None:
        self._local = local
        self._members = members
        self._events = events
        self._outbound = outbound
        self._counts: Counter[str] = outbound.counts
        self._tuning = tuning
        self._rng = rng
        self._answered = Throttle(tuning.gossip_interval_s, PEERS_MAX)
        self._returned: NodeId | None = None
        self._compare_at: Instant = NEVER
        # Learning the time.
        self._met_at: Instant | None = None
        self._ask_at: Instant = NEVER
        self._peer_times: dict[NodeId, tuple[bool, int]] = {}

    # When.

    def met(self, peer: NodeId, now: Instant, *, back: bool) -> None:
        """Note that a member is there; ``back``: again, after it had been given up."""
        if peer == self._local.id:
            return
        if self._met_at is None:
            self._met_at = self._ask_at = now
            self._events.is_sure = False
        elif back and self._rng.random() * len(self._members.live_ids) < RETURN_ROUNDS:
            self._returned = peer
            self._compare_at = min(self._compare_at, now + self._pause_s())

    def on_message(self, now: Instant) -> None:
        """Begin to compare when there is something recent; updates get a moment to do it first."""
        if self._compare_at == NEVER and self._events.recent_until() > now:
            self._compare_at = now + self._pause_s()

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        return self._compare_at if self._events.is_sure else self._ask_at

    def wake(self, now: Instant) -> None:
        """Send the event sync that is due."""
        if not self._events.is_sure:
            self._learn(now)
        elif self._compare_at <= now:
            peer, self._returned = self._returned, None
            if peer is None and self._events.recent_until() <= now:
                self._compare_at = NEVER
                return
            self._compare_at = now + self._pause_s()
            self._ask(self._somebody() if peer is None else peer, now)

    def _pause_s(self) -> float:
        interval_s = self._tuning.event_sync_rounds * self._tuning.gossip_interval_s
        return interval_s * self._rng.uniform(0.5, 1.5)

    def _somebody(self) -> NodeId | None:
        others = [one for one in self._members.live_ids if one != self._local.id]
        fresh = [one for one in others if one not in self._peer_times] or others
        return self._rng.choice(fresh) if fresh else None

    # Learning the time.

    def _learn(self, now: Instant) -> None:
        if self._met_at is None or self._ask_at > now:
            return
        others = max(1, len(self._members.live_ids) - 1)
        sure = [time for is_sure, time in self._peer_times.values() if is_sure]
        if (
            len(sure) >= min(SURE_ANSWERS, others)
            or len(self._peer_times) >= min(UNSURE_ANSWERS, others)
            or now >= self._met_at + self._tuning.event_patience_s
        ):
            times = sure or [self._events.time, *(time for _, time in self._peer_times.values())]
            honest = [time for time in times if time - min(times) <= JUMP_MAX]
            self._events.learn(max(honest), now)
            self._peer_times.clear()
            return
        self._ask_at = now + ASK_ROUNDS * self._tuning.gossip_interval_s
        self._ask(self._somebody(), now)

    # What goes out.

    def _ask(self, peer: NodeId | None, now: Instant) -> None:
        if peer is not None:
            self._counts["event_syncs/asked"] += 1
            self._send(peer, asks=True, recent=self._events.recent(now))

    def _send(
        self,
        peer: NodeId,
        *,
        asks: bool = False,
        recent: Iterable[EventId] = (),
        wanted: Iterable[EventId] = (),
        given: Iterable[Event] = (),
    ) -> None:
        sync_message = EventSyncMessage(
            self._events.time,
            self._events.is_sure,
            asks,
            tuple(recent)[-BULLETIN_EVENTS_MAX:],
            tuple(wanted)[-BULLETIN_EVENTS_MAX:],
            tuple(given)[-BULLETIN_EVENTS_MAX:],
        )
        data = EVENT_FRAMES.encode(sync_message)
        assert len(data) <= FRAME_BYTES_MAX, "512 events of the largest size fit a frame"
        self._outbound.send_frame(peer, data)

    # What comes in.

    def receive(self, sync_message: EventSyncMessage, peer: NodeId, now: Instant) -> None:
        """Take in an event sync: the time, the events, and what it asks for."""
        if not self._events.is_sure:
            self._record_time(sync_message, peer, now)
        elif sync_message.is_sure:
            self._events.witness(sync_message.time)
        for event in sync_message.events:
            self._events.receive(event, now, is_broadcast=False)
        if not sync_message.asks and not sync_message.wanted:
            return
        if not self._answered.allows((peer, sync_message.asks), now):
            self._counts["event_syncs/too many"] += 1
        elif sync_message.asks:
            self._answer(sync_message, peer, now)
        else:
            recent = self._events.recent(now)
            self._send(peer, given=[recent[key] for key in sync_message.wanted if key in recent])

    def _record_time(self, sync_message: EventSyncMessage, peer: NodeId, now: Instant) -> None:
        if sync_message.asks or self._met_at is None:
            return
        if sync_message.time > LEARNT_MAX:
            self._counts["events_ignored/implausible time"] += 1
            return
        self._peer_times[peer] = (sync_message.is_sure, sync_message.time)
        self._ask_at = now
        self._learn(now)

    def _answer(self, sync_message: EventSyncMessage, peer: NodeId, now: Instant) -> None:
        self._counts["event_syncs/answered"] += 1
        if not (sync_message.is_sure and self._events.is_sure):
            self._send(peer)
            return
        theirs, ours = set(sync_message.recent), self._events.recent(now)
        self._send(
            peer,
            wanted=[key for key in sync_message.recent if self._events.lacks(key)],
            given=[event for key, event in ours.items() if key not in theirs],
        )
