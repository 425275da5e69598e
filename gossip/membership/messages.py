"""Every message of the membership, as it goes over the wire.

Three families. *Probes* (Ping, Ack, PingRequest, Nack) ask whether somebody is reachable right
now. *Claims* (Alive, Suspect, Dead, Left) say something about one life of one member and are passed
on as rumours; which of two claims wins is decided in ``members.py``. *Meetings* (Hello, and the
exchange frames on streams) bring those together who do not yet know each other.

Field order is the format (see ``gossip/wire.py``): new fields go to the end, with a default.
Limits on lengths stand in the types, so that what decodes is also within bounds. A node id or a
boot is any unsigned 64-bit number, which msgpack enforces from above.
"""

from typing import Annotated

import msgspec

from gossip.ids import Boot, NodeId
from gossip.machine import Address
from gossip.membership.members import MemberState
from gossip.wire import Codec

ADDRESSES_MAX = 8
NAME_CHARACTERS_MAX = 64
TAGS_MAX = 32
TAG_KEY_CHARACTERS_MAX = 64
TAG_VALUE_CHARACTERS_MAX = 256

ALIVE_BYTES_MAX = 1200
"""An encoded Alive; less than a packet, so that it travels together with what asked for it."""

Id = Annotated[NodeId, msgspec.Meta(ge=1)]
Life = Annotated[Boot, msgspec.Meta(ge=0)]
Number = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS_MAX)]
Addresses = Annotated[tuple[Address, ...], msgspec.Meta(max_length=ADDRESSES_MAX)]
TagKey = Annotated[str, msgspec.Meta(max_length=TAG_KEY_CHARACTERS_MAX)]
TagValue = Annotated[str, msgspec.Meta(max_length=TAG_VALUE_CHARACTERS_MAX)]
Tags = Annotated[dict[TagKey, TagValue], msgspec.Meta(max_length=TAGS_MAX)]


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Are you there? Whoever is not the target (it moved, we did not notice) does not answer."""

    number: Number
    target: Id


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """I am; or, from a relay: it is. The number is the one that was asked with."""

    number: Number


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Ping the target for me, at this address, and pass its answer on."""

    number: Number
    target: Id
    address: Address


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """I am here, but the target did not answer me. Tells the asker that its own links work."""

    number: Number


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Said to an address at which somebody may be, together with one's own Alive."""

    wants_reply: bool


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """The member describes itself. Only its own newer incarnation changes the description."""

    member: Id
    boot: Life
    incarnation: Number
    name: Name
    addresses: Addresses
    tags: Tags


class Suspect(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """The accuser could not reach this incarnation of the member."""

    member: Id
    boot: Life
    incarnation: Number
    accuser: Id


class Dead(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """The accuser waited long enough for a refutation of this incarnation."""

    member: Id
    boot: Life
    incarnation: Number
    accuser: Id


class Left(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """The member itself says goodbye: nobody's accusation."""

    member: Id
    boot: Life
    incarnation: Number


Claim = Alive | Suspect | Dead | Left


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One member in an exchange of full states.

    ``described`` is the incarnation that name, addresses and tags come from; it can be behind
    ``incarnation``, which any packet's header raises. ``age_s`` is how long the state has held,
    so that a death is not young again for each who hears of it late.
    """

    member: Id
    boot: Life
    incarnation: Number
    state: MemberState
    described: Number
    age_s: Number
    name: Name
    addresses: Addresses
    tags: Tags


class ExchangeRequest(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """All that I know, with the epoch of my placement; tell me all that you know."""

    members: tuple[Entry, ...]
    epoch: Number


class ExchangeReply(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """All that I know, with the epoch of my placement."""

    members: tuple[Entry, ...]
    epoch: Number


Datagram = Ping | Ack | PingRequest | Nack | Hello | Alive | Suspect | Dead | Left
Frame = ExchangeRequest | ExchangeReply

DATAGRAMS: Codec[Datagram] = Codec(Datagram)
FRAMES: Codec[Frame] = Codec(Frame)
