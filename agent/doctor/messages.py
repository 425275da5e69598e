"""What members ask each other for the doctor, over their streams: what they see.

Field order is the format (``gossip/core/wire.py``); new fields go to the end with a default.
"""

from typing import Annotated

import msgspec

from gossip.core.ids import NodeId
from gossip.core.wire import Codec

SEEN_MAX = 1024

Number = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Word = Annotated[str, msgspec.Meta(max_length=32)]


class ViewRequest(msgspec.Struct, frozen=True, array_like=True, tag=96):
    """Asks how the other reaches all members, and what time it is there."""

    number: Number


class PeerView(msgspec.Struct, frozen=True, array_like=True):
    """One member in the teller's eyes: seconds since a way last worked, None for never."""

    member: NodeId
    state: Word
    udp_in_s: Seconds | None
    udp_out_s: Seconds | None
    stream_s: Seconds | None
    streams_blocked: bool = False
    narrow: bool = False


class NodeView(msgspec.Struct, frozen=True, array_like=True, tag=97):
    """The teller's wall clock in Unix milliseconds, and the members it lists."""

    number: Number
    clock_ms: Number
    seen: Annotated[tuple[PeerView, ...], msgspec.Meta(max_length=SEEN_MAX)]


DoctorMessage = ViewRequest | NodeView
CODEC: Codec[DoctorMessage] = Codec(DoctorMessage)
