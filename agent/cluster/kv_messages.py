"""What members ask each other about the shared keys for an operator, over their streams.

Nothing follows from an answer but what a person is shown, and whether a put is beyond the quota of
its space (``gossip/kv/quotas.py``): no read, write or comparison counts it.

Field order is the format (``gossip/core/wire.py``); new fields go to the end with a default.
"""

from typing import Annotated

import msgspec

from gossip.core.hlc import Stamp
from gossip.core.ids import NodeId
from gossip.core.wire import Codec
from gossip.kv.dots import MARK_BYTES, Actor, Counter, Dot
from gossip.kv.limits import QUOTA_MAX, QUOTAS_MAX, SPACE_NAME_BYTES_MAX
from gossip.kv.requests import Key
from gossip.kv.takeover import Copy
from gossip.registry.placement import PARTITIONS_MAX

DOTS_MAX = 4096
"""Of one key; with as many versions an answer is well within a frame. What is more is cut off."""

PEERS_MAX = 1024

Number = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Dots = Annotated[tuple[Dot, ...], msgspec.Meta(max_length=DOTS_MAX)]
Digest = Annotated[bytes, msgspec.Meta(max_length=MARK_BYTES)]


Amount = Annotated[int, msgspec.Meta(ge=0, le=QUOTA_MAX)]
SpaceName = Annotated[str, msgspec.Meta(min_length=1, max_length=SPACE_NAME_BYTES_MAX)]


class SpaceUse(msgspec.Struct, frozen=True, array_like=True):
    """What the teller has of a space: keys and bytes of each partition of which there are any."""

    name: SpaceName
    parts: Annotated[
        tuple[tuple[Number, Amount, Amount], ...], msgspec.Meta(max_length=PARTITIONS_MAX)
    ]


class VersionView(msgspec.Struct, frozen=True, array_like=True):
    """One live version: under which dot, of when, how large, and the BLAKE2b of its value."""

    actor: Actor
    n: Counter
    stamp: Stamp
    size_bytes: Number
    digest: Digest
    expires_ms: Number = 0
    """Unix milliseconds; 0: it does not, or the teller is of a version that knows no such thing."""

    @property
    def dot(self) -> Dot:
        """The name of the write."""
        return (self.actor, self.n)


class KeyViewRequest(msgspec.Struct, frozen=True, array_like=True, tag=98):
    """Asks what the other has of a key, and which of these dots it has seen."""

    number: Number
    key: Key
    asked: Dots = ()


class KeyView(msgspec.Struct, frozen=True, array_like=True, tag=99):
    """What the teller has of a key, and how good its copy of the partition is."""

    number: Number
    epoch: Number
    """Of the registry that the teller follows."""
    copy: Copy
    may_answer: bool
    """Whether a read may be answered from there."""
    is_held_back: bool
    """Whether its disk takes nothing just now."""
    versions: Annotated[tuple[VersionView, ...], msgspec.Meta(max_length=DOTS_MAX)]
    context: Dots
    covered: Dots
    is_cut: bool = False
    """Whether there is more of any of the three than was told."""


class ComparisonView(msgspec.Struct, frozen=True, array_like=True):
    """When the teller last compared with another owner, and what is to be compared again."""

    peer: NodeId
    age_s: Seconds | None
    """Since that one answered; None if it has not since the teller started."""
    waiting: Number
    """Partitions that are to be compared with it: hints, and what comparisons found to differ."""


class KvStatsRequest(msgspec.Struct, frozen=True, array_like=True, tag=102):
    """Asks how the other's shared keys stand."""

    number: Number


class KvStats(msgspec.Struct, frozen=True, array_like=True, tag=103):
    """How the teller's shared keys stand. What is counted is so since ``since_s`` ago."""

    number: Number
    epoch: Number
    since_s: Seconds
    bytes_used: Number
    keys: Annotated[tuple[tuple[Number, Number], ...], msgspec.Meta(max_length=PARTITIONS_MAX)]
    """Of each partition of which there are any."""
    incomplete: Number
    """Partitions that it owns, and does not answer reads of yet."""
    damaged: Number
    is_held_back: bool
    comparing: Number
    """Partitions that are being compared just now, with anybody."""
    differing: Number
    """Comparisons that found a difference."""
    failed: Number
    """Comparisons that were not ended."""
    diverged: Number
    """Reads that found a difference."""
    repaired: Number
    """Keys that were made equal, by either."""
    comparisons: Annotated[tuple[ComparisonView, ...], msgspec.Meta(max_length=PEERS_MAX)]
    copied: Number = 0
    """Bytes of records that came with its own passes, and went with them."""
    copied_per_s: Seconds = 0.0
    sent: Number = 0
    """Bytes of records that it told others in theirs."""
    transferring: Number = 0
    """Partitions that it copies just now, and those that wait for these."""
    queued: Number = 0
    unfinished: Number = 0
    """Partitions that it has to take over, or to let go of."""
    takes_puts: bool = True
    """Whether its disk has room for new values."""
    uses: Annotated[tuple[SpaceUse, ...], msgspec.Meta(max_length=QUOTAS_MAX)] = ()
    """Of each space that has a quota, as far as the teller knows."""


KeyViewMessage = KeyViewRequest | KeyView
VIEW_CODEC: Codec[KeyViewMessage] = Codec(KeyViewMessage)
KvStatsMessage = KvStatsRequest | KvStats
STATS_CODEC: Codec[KvStatsMessage] = Codec(KvStatsMessage)
