"""What nodes say of events and queries, as it goes over the wire.

Event, Query and QueryResponse travel in the datagrams of the membership, beside its own messages;
event syncs and long responses are frames on streams. The membership carries them all unread, as its
``Delegate`` asks it to.

Field order is the format (see ``gossip/core/wire.py``, which has the table of all tags): new fields
go to the end, with a default. Limits on lengths stand in the types, so that what decodes is also
within bounds.
"""

import enum
from typing import Annotated

import msgspec

from gossip.core.wire import Codec
from gossip.membership.model.messages import Id, Life, Number, Tags

EVENT_NAME_CHARACTERS_MAX = 64
EVENT_PAYLOAD_BYTES_MAX = 512
"""So that an event fits a datagram, beside what else goes there."""
SHORT_ANSWER_BYTES_MAX = 1024
"""An answer that fits a datagram."""
LONG_ANSWER_BYTES_MAX = 65_536
BULLETIN_EVENTS_MAX = 512

EventName = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=EVENT_NAME_CHARACTERS_MAX,
        pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]+\Z",
    ),
]
"""Any text on one line: it becomes a variable of a handler's environment."""
EventPayload = Annotated[bytes, msgspec.Meta(max_length=EVENT_PAYLOAD_BYTES_MAX)]


class Event(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """Something happened at the sender; told to everybody once, in the order of Lamport times."""

    sender: Id
    boot: Life
    sequence: Number
    time: Number
    name: EventName
    payload: EventPayload


class Query(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """The asker wants to know something of every member that has all these tags."""

    asker: Id
    boot: Life
    number: Number
    name: EventName
    payload: EventPayload
    filters: Tags
    timeout_ms: Number


class ResponseKind(enum.IntEnum):
    """What a QueryResponse is."""

    ANSWERED = 0
    FAILED = 1
    """Whoever handles such queries failed; the payload says how."""
    NOBODY = 2
    """Nobody at the responder handles such queries."""
    RECEIPT = 3
    """From the asker: your answer has arrived, say it no more."""


class QueryResponse(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """The responder's answer, or its receipt. Whoever is not concerned passes it on."""

    asker: Id
    boot: Life
    number: Number
    responder: Id
    kind: ResponseKind
    payload: Annotated[bytes, msgspec.Meta(max_length=SHORT_ANSWER_BYTES_MAX)]


Broadcast = Event | Query | QueryResponse

BROADCASTS: Codec[Broadcast] = Codec(Broadcast)

SENT = {Query: "messages_sent/query", QueryResponse: "messages_sent/query_response"}
"""How those that are sent to one member are counted; this is never changed with a class name."""


class EventId(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What tells two events apart, also two of the same name, payload and time."""

    sender: Id
    boot: Life
    sequence: Number


EventIds = Annotated[tuple[EventId, ...], msgspec.Meta(max_length=BULLETIN_EVENTS_MAX)]


class EventSyncMessage(msgspec.Struct, frozen=True, array_like=True, tag=38):
    """What gossip of events missed: which recent ones I have, want, and give you.

    ``is_sure``: ``time`` is the covey's Lamport time, not that of a newcomer who has not learnt
    it. ``asks``: answer with what I lack, and with ``wanted`` for what you lack.
    """

    time: Number
    is_sure: bool
    asks: bool
    recent: EventIds
    wanted: EventIds
    events: Annotated[tuple[Event, ...], msgspec.Meta(max_length=BULLETIN_EVENTS_MAX)]


class LongQueryResponse(msgspec.Struct, frozen=True, array_like=True, tag=39, gc=False):
    """The sender's answer to a query, when it does not fit a datagram."""

    asker: Id
    boot: Life
    number: Number
    payload: Annotated[bytes, msgspec.Meta(max_length=LONG_ANSWER_BYTES_MAX)]


EventFrame = EventSyncMessage | LongQueryResponse

EVENT_FRAMES: Codec[EventFrame] = Codec(EventFrame)
