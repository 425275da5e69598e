"""Every message of the membership, as it goes over the wire.

Three families. *Probes* (Ping, Ack, PingRequest, Nack) ask whether somebody is reachable right
now, and a Filler makes one large. *Claims* (Alive, Suspect, Dead, Left, Asleep) say something about
one life of one member and are passed on as updates; which of two updates wins is decided in
``members.py``. *Meetings* (Hello, and the exchange frames on streams) bring those together who do
not yet know each other. What travels beside them is the delegate's (``gossip/events/messages.py``).

Field order is the format (see ``gossip/core/wire.py``): new fields go to the end, with a default.
Limits on lengths stand in the types, so that what decodes is also within bounds. A node id or a
boot is any unsigned 64-bit number, which msgpack enforces from above.

What a member says about itself carries its signature (``signatures.py``). ``said`` is what is
signed: these fields and never more, so that older members can check the words of a later version. A
field that comes to be needs a signature of its own.
"""

from typing import Annotated

import msgspec

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address
from gossip.core.names import Name
from gossip.core.tuning import BODY_BYTES_MAX
from gossip.core.wire import Codec
from gossip.membership.model.facts import Facts
from gossip.membership.model.members import MemberState
from gossip.membership.model.signatures import SIGNATURE_BYTES_MAX

ADDRESSES_MAX = 8
TAGS_MAX = 32
TAG_KEY_CHARACTERS_MAX = 64
TAG_VALUE_CHARACTERS_MAX = 256

ALIVE_BYTES_MAX = 1024
"""An Alive without its signature; less than a packet, to travel together with what asked for it."""

SIGNATURE_HEAD_BYTES = 2
"""What a signature takes beside its own bytes, also when it is empty."""

POSITION_BYTES_MAX = 128

FILLER_BYTES_MAX = BODY_BYTES_MAX

SLEEP_S_MAX = 31 * 86400
"""The longest sleep that a member may announce."""

SILENCE, REFUSAL = 0, 1
"""What an accusation rests on: no answer, or the host's word that nobody is there any more."""

Id = Annotated[NodeId, msgspec.Meta(ge=1)]
Life = Annotated[Boot, msgspec.Meta(ge=0)]
Number = Annotated[int, msgspec.Meta(ge=0)]
SleepSeconds = Annotated[int, msgspec.Meta(ge=0, le=SLEEP_S_MAX)]
Microseconds = Annotated[int, msgspec.Meta(ge=0, le=60_000_000)]
Addresses = Annotated[tuple[Address, ...], msgspec.Meta(max_length=ADDRESSES_MAX)]
TagKey = Annotated[str, msgspec.Meta(max_length=TAG_KEY_CHARACTERS_MAX)]
TagValue = Annotated[str, msgspec.Meta(max_length=TAG_VALUE_CHARACTERS_MAX)]
Signature = Annotated[bytes, msgspec.Meta(max_length=SIGNATURE_BYTES_MAX)]
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


class CoordinateUpdate(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """Where the sender is in the space of coordinates; beside an Ack, when it is news.

    The bytes are those of ``Place.encode``; of another length they are a later version's.
    """

    place: Annotated[bytes, msgspec.Meta(max_length=POSITION_BYTES_MAX)]


class Filler(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """Means nothing: makes a packet as large as packets may be, to see whether such ones pass."""

    zeros: Annotated[bytes, msgspec.Meta(max_length=FILLER_BYTES_MAX)]


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """The member describes itself. Only its own newer incarnation changes the description."""

    member: Id
    boot: Life
    incarnation: Number
    name: Name
    addresses: Addresses
    tags: Tags
    signature: Signature = b""

    def said(self) -> tuple[object, ...]:
        """Return what is signed."""
        life = self.member, self.boot, self.incarnation
        return 8, *life, self.name, self.addresses, self.tags


class Suspect(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """The accuser could not reach this incarnation of the member."""

    member: Id
    boot: Life
    incarnation: Number
    accuser: Id
    evidence: Number = SILENCE


class Dead(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """The accuser waited long enough for a refutation of this incarnation."""

    member: Id
    boot: Life
    incarnation: Number
    accuser: Id
    evidence: Number = SILENCE


class Left(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """The member itself says goodbye: nobody's accusation."""

    member: Id
    boot: Life
    incarnation: Number
    signature: Signature = b""

    def said(self) -> tuple[object, ...]:
        """Return what is signed."""
        return 11, self.member, self.boot, self.incarnation


class Asleep(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """The member itself says that it will be silent, for this long from now.

    Whoever passes it on says how much of the time is left by then, of what was announced.
    """

    member: Id
    boot: Life
    incarnation: Number
    duration_s: SleepSeconds
    announced_s: SleepSeconds = 0
    signature: Signature = b""

    def said(self) -> tuple[object, ...]:
        """Return what is signed."""
        return 12, self.member, self.boot, self.incarnation, self.announced_s


Update = Alive | Suspect | Dead | Left | Asleep


class SyncEntry(msgspec.Struct, frozen=True, array_like=True):
    """One member in a state sync.

    ``described`` is the incarnation that name, addresses and tags come from; it can be behind
    ``incarnation``, which any packet's header raises. ``age_s`` is how long the state has held,
    so that a death is not young again for each who hears of it late. ``facts`` are those that the
    member published in this life, if the sender keeps them. ``asleep_s`` is what is left of an
    announced sleep of ``announced_s``. ``signature`` is the description's, ``absence`` that of
    a goodbye or of a sleep.
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
    facts: Facts | None = None
    asleep_s: SleepSeconds = 0
    signature: Signature = b""
    absence: Signature = b""
    announced_s: SleepSeconds = 0

    @property
    def words(self) -> Alive:
        """The description, as the member gave it."""
        return Alive(
            self.member, self.boot, self.described, self.name, self.addresses, self.tags,
            self.signature,
        )  # fmt: skip


class SyncVersion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How new what somebody knows of one member is; two who have the same agree about it.

    ``rank`` is that of the state; ``described`` as in SyncEntry, and ``facts`` the number of the
    publication; both are 0 for a departed member, whose words nobody needs any more.
    """

    member: Id
    boot: Life
    incarnation: Number
    rank: Number
    described: Number
    facts: Number


TABLE_HASH_BYTES = 16
BUCKET_HASH_BYTES = 4
BUCKETS_MAX = 1024
VERSIONS_MAX = 16_384

TableHash = Annotated[bytes, msgspec.Meta(min_length=TABLE_HASH_BYTES, max_length=TABLE_HASH_BYTES)]
Bucket = Annotated[int, msgspec.Meta(ge=0, lt=BUCKETS_MAX)]


class SyncSummary(msgspec.Struct, frozen=True, array_like=True, tag=34, gc=False):
    """A hash over all that I believe, and the epoch of my placement."""

    table: TableHash
    epoch: Number


class SyncBuckets(msgspec.Struct, frozen=True, array_like=True, tag=35, gc=False):
    """Mine. If yours was another: one short hash, salted with mine, for each bucket of members.

    A member belongs to the share "id modulo number of shares".
    """

    table: TableHash
    buckets: Annotated[bytes, msgspec.Meta(max_length=BUCKETS_MAX * BUCKET_HASH_BYTES)]
    epoch: Number


class SyncDigest(msgspec.Struct, frozen=True, array_like=True, tag=36):
    """All versions that I have in those buckets of which our hashes differ."""

    buckets: Annotated[int, msgspec.Meta(ge=1, le=BUCKETS_MAX)]
    differing: Annotated[tuple[Bucket, ...], msgspec.Meta(max_length=BUCKETS_MAX)]
    versions: Annotated[tuple[SyncVersion, ...], msgspec.Meta(max_length=VERSIONS_MAX)]


class SyncDelta(msgspec.Struct, frozen=True, array_like=True, tag=37):
    """What you lack; tell me of the ``wanted``, too. ``is_partial``: there is more, ask again."""

    entries: Annotated[tuple[SyncEntry, ...], msgspec.Meta(max_length=VERSIONS_MAX)]
    wanted: Annotated[tuple[Id, ...], msgspec.Meta(max_length=VERSIONS_MAX)]
    is_partial: bool


Datagram = (
    Ping | Ack | PingRequest | Nack | Hello | Alive | Suspect | Dead | Left
    | Asleep | CoordinateUpdate | Filler
)  # fmt: skip

DATAGRAMS: Codec[Datagram] = Codec(Datagram)


def described_bytes(alive: Alive) -> int:
    """Return how long an Alive is without its signature, which has room of its own."""
    return len(DATAGRAMS.encode(alive)) - SIGNATURE_HEAD_BYTES - len(alive.signature)


class RttRequest(msgspec.Struct, frozen=True, array_like=True, tag=40, gc=False):
    """Asks a member how far the target is from it."""

    number: Number
    target: Id


class RttReply(msgspec.Struct, frozen=True, array_like=True, tag=41, gc=False):
    """As I measured it, and as coordinates have it; None: I do not know."""

    number: Number
    measured_us: Microseconds | None
    estimated_us: Microseconds | None
    error_us: Microseconds | None


class StreamPong(msgspec.Struct, frozen=True, array_like=True, tag=46, gc=False):
    """I am here, as a stream shows; with my latest words, which end a suspicion of me."""

    number: Number
    alive: Alive


class StreamPing(msgspec.Struct, frozen=True, array_like=True, tag=47, gc=False):
    """Are you there? No ping of mine is answered. ``suspect``: what is said about you."""

    number: Number
    suspect: Suspect | None = None


SyncFrame = SyncSummary | SyncBuckets | SyncDigest | SyncDelta
RttFrame = RttRequest | RttReply
ProbeFrame = StreamPing | StreamPong
Frame = SyncFrame | RttFrame | ProbeFrame

FRAMES: Codec[Frame] = Codec(Frame)
