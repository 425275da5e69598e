"""Queries: asked of all members that have certain tags, answered by each to the asker.

A query is told like an event. Every member looks itself whether it is meant, and if so hands the
query to its application, once. The answer goes straight to the asker, in a datagram if it is
short; until the asker's receipt comes it is repeated, ever less often and then also through other
members, so that neither loss nor a blocked path between the two swallows it. A long answer takes a
stream.

The asker knows whom to expect: all members alive that have the tags, as it sees them. Those who
have not answered after a while get the query once more, from the asker itself. It ends when
everybody answered, or when the time is over.
"""

import math
import random
from collections import Counter
from collections.abc import Mapping

import msgspec

from gossip.core.errors import InvalidRequest, LimitExceeded
from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Instant
from gossip.core.tuning import Tuning
from gossip.events.events import check
from gossip.events.messages import (
    BROADCASTS,
    EVENT_FRAMES,
    LONG_ANSWER_BYTES_MAX,
    SENT,
    SHORT_ANSWER_BYTES_MAX,
    LongQueryResponse,
    Query,
    QueryResponse,
    ResponseKind,
)
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import Member, MemberState, MemberTable
from gossip.membership.model.messages import ALIVE_BYTES_MAX

NEVER = math.inf
REMEMBERED_S = 60.0
"""After its end, a query is remembered this long: a late copy of it is not a new one."""
REMEMBERED_MAX = 1024
REMINDERS_MAX = 16
REMINDER_FACTOR = 2
"""Answers are given twice the time of a repetition before the asker reminds."""

QueryKey = tuple[NodeId, Boot, int]
"""Asker, its boot, its number."""


class QueryReceived(msgspec.Struct, frozen=True):
    """Told to the application once for each query that means this node; answer it by its key."""

    key: QueryKey
    name: str
    payload: bytes
    timeout_s: float


class ResponseReceived(msgspec.Struct, frozen=True):
    """Told to the application for each answer to a query of its own."""

    number: int
    responder: NodeId
    kind: ResponseKind
    payload: bytes


class QueryEnded(msgspec.Struct, frozen=True):
    """Told to the application when all answers are there, or the time is over."""

    number: int
    answered: int
    expected: int
    missing: tuple[NodeId, ...]
    """Whoever said nothing; who failed, or has nobody to handle the query, is not among them."""


class OutgoingQuery(msgspec.Struct):
    """A query of our own."""

    query: Query
    expected: set[NodeId]
    until: Instant
    remind_at: Instant
    responses: dict[NodeId, ResponseKind] = {}

    @property
    def missing(self) -> tuple[NodeId, ...]:
        """Return who has said nothing yet."""
        return tuple(sorted(self.expected - self.responses.keys()))


class IncomingQuery(msgspec.Struct):
    """A query of somebody, ``given`` answer or not; repeated until the receipt comes."""

    until: Instant
    given: tuple[ResponseKind, bytes] | None = None
    repeat_at: Instant = NEVER
    pause_s: float = 0.0


class Queries:
    """The queries of this node, and its answers to those of others."""

    def __init__(
        self,
        local: LocalMember,
        members: MemberTable,
        outbound: Outbound,
        tuning: Tuning,
        rng: random.Random,
    ) -> None:
        self._local = local
        self._members = members
        self._outbound = outbound
        self._counts: Counter[str] = outbound.counts
        self._tuning = tuning
        self._rng = rng
        self._number = 0
        self._asked: dict[int, OutgoingQuery] = {}
        self._answering: dict[QueryKey, IncomingQuery] = {}
        self._remembered: dict[QueryKey, Instant] = {}

    # The asker.

    def ask(
        self, name: str, payload: bytes, filters: Mapping[str, str], timeout_s: float, now: Instant
    ) -> int:
        """Ask; return the query's number. Raises LimitExceeded and InvalidRequest."""
        longest_s = self._tuning.query_timeout_max_s
        if not 0 < timeout_s <= longest_s:
            raise InvalidRequest(f"a query waits for at most {longest_s:g} s; nobody was asked")
        if len(self._asked) >= self._tuning.queries_max:
            raise InvalidRequest(f"{len(self._asked)} queries wait for answers already; ask later")
        me, boot, number = self._local.id, self._local.boot, self._number + 1
        query = Query(me, boot, number, name, payload, {**filters}, int(1000 * timeout_s))
        check(query)
        data = BROADCASTS.encode(query)
        if len(data) > ALIVE_BYTES_MAX:
            raise LimitExceeded("the query does not fit a packet; nobody was asked: filter by less")
        self._number = number
        self._counts["queries/asked"] += 1
        alive = self._members.in_state(MemberState.ALIVE)
        expected = {one.id for one in alive if matches(filters, one.tags)}
        until = now + timeout_s
        self._asked[number] = OutgoingQuery(query, expected, until, now + self._reminder_s())
        self._outbound.broadcast_queue.put((me, boot, number), data, until)
        self._remembered[me, boot, number] = until
        self._consider(query, now)
        self._end_if_complete(number)
        return number

    def cancel(self, number: int) -> None:
        """Wait for answers no more."""
        asked = self._asked.pop(number, None)
        if asked is not None:
            self._outbound.broadcast_queue.drop((self._local.id, self._local.boot, number))

    def receive_response(self, answer: QueryResponse, sender: NodeId) -> None:
        """Take in an answer, or its receipt, or pass it on to the one it is for."""
        if answer.kind is ResponseKind.RECEIPT:
            if answer.responder == self._local.id:
                self._answering.pop((answer.asker, answer.boot, answer.number), None)
        elif answer.asker == self._local.id:
            if answer.boot == self._local.boot:
                self._collect(answer.number, answer.responder, answer.kind, answer.payload)
        elif answer.responder == sender and (asker := self._members.get(answer.asker)) is not None:
            self._counts["query_responses/passed on"] += 1
            self._send(asker, answer)

    def receive_long_response(self, answer: LongQueryResponse, peer: NodeId) -> None:
        """Take in an answer that came over a stream."""
        if (answer.asker, answer.boot) == (self._local.id, self._local.boot):
            self._collect(answer.number, peer, ResponseKind.ANSWERED, answer.payload)

    def _collect(self, number: int, responder: NodeId, kind: ResponseKind, payload: bytes) -> None:
        member = self._members.get(responder)
        if responder != self._local.id and member is not None:
            me, boot = self._local.id, self._local.boot
            receipt = QueryResponse(me, boot, number, responder, ResponseKind.RECEIPT, b"")
            self._send(member, receipt)
        asked = self._asked.get(number)
        if asked is None or member is None:
            self._counts[
                "query_responses_ignored/" + ("too late" if member else "unknown member")
            ] += 1
        elif responder in asked.responses:
            self._counts["query_responses_ignored/heard before"] += 1
        else:
            self._counts["query_responses/heard"] += 1
            asked.responses[responder] = kind
            asked.expected.add(responder)
            self._outbound.emit(ResponseReceived(number, responder, kind, payload))
            self._end_if_complete(number)

    def _end_if_complete(self, number: int) -> None:
        asked = self._asked.get(number)
        if asked is not None and not asked.missing:
            self._end(number)

    def _end(self, number: int) -> None:
        asked = self._asked[number]
        answered = sum(kind is ResponseKind.ANSWERED for kind in asked.responses.values())
        assert answered <= len(asked.expected), "whoever answers is expected from then on"
        self.cancel(number)
        self._outbound.emit(QueryEnded(number, answered, len(asked.expected), asked.missing))

    def _reminder_s(self) -> float:
        return REMINDER_FACTOR * self._tuning.query_rounds * self._tuning.gossip_interval_s

    def _remind(self, asked: OutgoingQuery, now: Instant) -> None:
        asked.remind_at = now + self._reminder_s()
        missing = asked.missing
        for node in self._rng.sample(missing, min(REMINDERS_MAX, len(missing))):
            member = self._members.get(node)
            if member is not None and node != self._local.id:
                self._counts["queries/asked again"] += 1
                self._send(member, asked.query)

    # The responder.

    def receive(self, query: Query, now: Instant) -> None:
        """Take in a query: pass it on, and hand it to the application if we are meant."""
        key = (query.asker, query.boot, query.number)
        if key in self._remembered or query.asker == self._local.id:
            self._counts["queries_ignored/heard before"] += 1
            return
        if query.asker not in self._members:
            self._counts["queries_ignored/unknown asker"] += 1
            return
        self._outbound.on_trial(title_of(key), lambda: self._accept(query, now))

    def _accept(self, query: Query, now: Instant) -> None:
        key = (query.asker, query.boot, query.number)
        timeout_s = min(query.timeout_ms / 1000, self._tuning.query_timeout_max_s)
        self._remembered[key] = now + timeout_s
        if len(self._remembered) > REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        self._outbound.broadcast_queue.put(key, BROADCASTS.encode(query), now + timeout_s)
        self._consider(query, now)

    def _consider(self, query: Query, now: Instant) -> None:
        if not matches(query.filters, self._members[self._local.id].tags):
            return
        key = (query.asker, query.boot, query.number)
        if len(self._answering) >= self._tuning.queries_max:
            self._counts["queries_ignored/too many"] += 1
            return
        self._counts["queries/heard"] += 1
        timeout_s = min(query.timeout_ms / 1000, self._tuning.query_timeout_max_s)
        self._answering[key] = IncomingQuery(now + timeout_s)
        self._outbound.emit(QueryReceived(key, query.name, query.payload, timeout_s))

    def answer(self, key: QueryKey, kind: ResponseKind, payload: bytes, now: Instant) -> bool:
        """Answer a query; False when its time is over, or it was answered before.

        Raises LimitExceeded for more than 64 KiB.
        """
        if len(payload) > LONG_ANSWER_BYTES_MAX:
            raise LimitExceeded(f"an answer has at most {LONG_ANSWER_BYTES_MAX} bytes")
        answering = self._answering.get(key)
        if answering is None or answering.given is not None or answering.until <= now:
            return False
        assert kind is not ResponseKind.RECEIPT, "only askers send these"
        if len(payload) > SHORT_ANSWER_BYTES_MAX and kind is not ResponseKind.ANSWERED:
            payload = payload[:SHORT_ANSWER_BYTES_MAX]
        self._counts["queries/answered"] += 1
        if key[0] == self._local.id:
            del self._answering[key]
            self._collect(key[2], self._local.id, kind, payload)
            return True
        answering.given = (kind, payload)
        answering.pause_s = self._tuning.query_rounds * self._tuning.gossip_interval_s
        answering.repeat_at = now + answering.pause_s
        self._give(key, kind, payload)
        return True

    def _give(self, key: QueryKey, kind: ResponseKind, payload: bytes) -> QueryResponse | None:
        """Send an answer to the asker; return it if it is one that others can pass on."""
        asker = self._members.get(key[0])
        if len(payload) > SHORT_ANSWER_BYTES_MAX:
            self._outbound.send_frame(key[0], EVENT_FRAMES.encode(LongQueryResponse(*key, payload)))
            return None
        answer = QueryResponse(*key, self._local.id, kind, payload)
        if asker is not None:
            self._send(asker, answer)
        return answer

    def _repeat(self, key: QueryKey, answering: IncomingQuery, now: Instant) -> None:
        assert answering.given is not None, "only an answer that was given is repeated"
        answering.pause_s *= 2
        answering.repeat_at = now + answering.pause_s
        self._counts["query_responses/repeated"] += 1
        answer = self._give(key, *answering.given)
        if answer is None:
            return
        concerned = (key[0], self._local.id)
        others = [one for one in self._members.live_ids if one not in concerned]
        relays = self._rng.sample(others, min(self._tuning.query_relays, len(others)))
        for relay in relays:
            self._send(self._members[relay], answer)

    def _send(self, member: Member, message: Query | QueryResponse) -> None:
        for address in member.addresses_by_preference[:1]:
            self._counts[SENT[type(message)]] += 1
            self._outbound.send_item(address, BROADCASTS.encode(message))

    # Time.

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        if not (self._asked or self._answering):
            return NEVER
        asked = (min(one.until, one.remind_at) for one in self._asked.values())
        answering = (min(one.until, one.repeat_at) for one in self._answering.values())
        return min(min(asked, default=NEVER), min(answering, default=NEVER))

    def wake(self, now: Instant) -> None:
        """Repeat, remind, and end what is over."""
        for number, asked in list(self._asked.items()):
            if asked.until <= now:
                self._end(number)
            elif asked.remind_at <= now:
                self._remind(asked, now)
        for key, answering in list(self._answering.items()):
            if answering.until <= now:
                late = "without receipt" if answering.given else "not handled in time"
                self._counts["queries_ended/" + late] += 1
                del self._answering[key]
            elif answering.repeat_at <= now:
                self._repeat(key, answering, now)
        # In the order in which they were heard, which is nearly that of their ends.
        while self._remembered:
            key, until = next(iter(self._remembered.items()))
            if until + REMEMBERED_S > now:
                break
            del self._remembered[key]


def matches(filters: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    """Say whether somebody with these tags is meant."""
    return all(tags.get(name) == value for name, value in filters.items())


def title_of(key: QueryKey) -> str:
    """Return what a query is called while it is on trial."""
    asker, boot, number = key
    return f"query {asker:016x}-{boot:x}-{number}"
