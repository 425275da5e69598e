"""Every frame of the state plane.

Frames travel over authenticated streams: who sent one is known, and those from one peer arrive
in order or not at all. ``number`` ties an answer to its question; it is chosen by the asker
and unlike any that an earlier life of the asker used. Each question about data carries the
placement ``epoch`` of the asker. A holder that knows of a change of that partition's owners
since then sends its registry and refuses; one that is itself behind asks for the registry, and
answers afterwards.

The bytes of each message are pinned in ``tests/vectors/state-v1.json``.
"""

from typing import Annotated

import msgspec

from gossip.core.wire import Codec
from gossip.kv.dots import Coverage, Dot
from gossip.kv.leaves import GROUPS, LEAVES, LEAVES_ASKED_MAX, Leaf
from gossip.kv.limits import (
    KEY_BYTES_MAX,
    REQUEST_TIMEOUT_S_MAX,
    RESTORED_VERSIONS_MAX,
    SUMMARY_BYTES,
    SURVEY_PARTITIONS_MAX,
    VALUE_BYTES_MAX,
)
from gossip.kv.records import KeyState, Version
from gossip.kv.requests import Key
from gossip.kv.takeover import Copy
from gossip.kv.typed_values import Total
from gossip.registry.placement import PARTITIONS_MAX

Number = Annotated[int, msgspec.Meta(ge=0)]
Epoch = Annotated[int, msgspec.Meta(ge=0)]
Partition = Annotated[int, msgspec.Meta(ge=0)]
Mark = int
Life = Annotated[int, msgspec.Meta(ge=1)]
"""Which start of its process answers a pass; the rest of it is for that one alone."""
Marks = Annotated[
    tuple[tuple[Partition, Mark, Mark], ...], msgspec.Meta(max_length=SURVEY_PARTITIONS_MAX)
]
WatchMarks = Annotated[
    tuple[tuple[Partition, Mark], ...], msgspec.Meta(max_length=SURVEY_PARTITIONS_MAX)
]
Bytes = Annotated[bytes, msgspec.Meta(max_length=VALUE_BYTES_MAX)]
Prefix = Annotated[str, msgspec.Meta(max_length=KEY_BYTES_MAX)]

STALE_EPOCH, NOT_OWNER, INCOMPLETE, TOO_LARGE, INVALID, BUSY, FORKED, ABSENT, FULL = range(9)
NO_COUNTER, NOT_EMPTY, NO_QUOTA = 9, 12, 13
"""Why a question was refused; nothing was changed by it."""


class RegistryOffer(msgspec.Struct, frozen=True, array_like=True, tag=48):
    """Here is a signed registry; newer than yours, I believe."""

    signed: bytes


class RegistryAsk(msgspec.Struct, frozen=True, array_like=True, tag=49):
    """Mine is of this epoch; send me yours if it is newer."""

    epoch: Epoch


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=50):
    """A question for a sign of life, before a write is sent that must not go to two owners."""

    number: Number


class ReadyReply(msgspec.Struct, frozen=True, array_like=True, tag=51):
    """I am."""

    number: Number
    is_full: bool = False
    """Whether my disk is so full that I take no puts."""


class Forward(msgspec.Struct, frozen=True, array_like=True, tag=52):
    """Coordinate this write. ``value`` None deletes; ``w`` and ``context`` None: the default."""

    number: Number
    epoch: Epoch
    key: Key
    value: Bytes | None
    w: int | None
    context: tuple[Dot, ...] | None
    timeout_s: Annotated[float, msgspec.Meta(ge=0, le=REQUEST_TIMEOUT_S_MAX)]
    fsync: bool = False


class Forwarded(msgspec.Struct, frozen=True, array_like=True, tag=53):
    """How the write that you forwarded ended; ``ok`` False is indeterminate.

    ``synced``: a power cut of all that have it takes nothing of it; who asks for that and is not
    told so has asked a version that does not know of it.
    """

    number: Number
    ok: bool
    acks: int
    needed: int
    context: bytes
    versions: int = 1
    synced: bool = False


class Store(msgspec.Struct, frozen=True, array_like=True, tag=54):
    """Merge this state of a key. ``fsync``: say so when it survives a power cut."""

    number: Number
    epoch: Epoch
    key: Key
    state: KeyState
    fsync: bool = False
    is_put: bool = False
    """Whether a put brings it, which an owner may refuse as FULL, and not a delete or a read."""


class Stored(msgspec.Struct, frozen=True, array_like=True, tag=55):
    """Merged, and on disk; ``synced``: also after a power cut."""

    number: Number
    synced: bool = False


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag=56):
    """Tell me what you have under this key, and which of these dots you have seen."""

    number: Number
    epoch: Epoch
    key: Key
    asked: tuple[Dot, ...] = ()


class Fetched(msgspec.Struct, frozen=True, array_like=True, tag=57):
    """This is what I have on disk."""

    number: Number
    state: KeyState


class Scan(msgspec.Struct, frozen=True, array_like=True, tag=58):
    """Tell me what you have with this prefix, after this key, in these partitions."""

    number: Number
    epoch: Epoch
    partitions: tuple[Partition, ...]
    prefix: Prefix
    after: Prefix
    limit: Annotated[int, msgspec.Meta(ge=1)]


class Scanned(msgspec.Struct, frozen=True, array_like=True, tag=59):
    """These, for these of the partitions; complete up to ``horizon``, or to the end if empty."""

    number: Number
    partitions: tuple[Partition, ...]
    entries: tuple[tuple[Key, tuple[Version, ...]], ...]
    horizon: str


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=60):
    """I did not do what you asked, and nothing was changed. ``epoch`` is mine."""

    number: Number
    epoch: Epoch
    reason: int


class Subscribe(msgspec.Struct, frozen=True, array_like=True, tag=61):
    """Tell me of changes for the length of a lease. Repeat it to renew.

    Versions before ``WatchSubscribe`` say it so, and hear ``Changed``.
    """

    number: Number
    text: Prefix
    is_prefix: bool


class Unsubscribe(msgspec.Struct, frozen=True, array_like=True, tag=62):
    """No more, thank you."""

    number: Number


class Changed(msgspec.Struct, frozen=True, array_like=True, tag=63):
    """A watched key changed here: these versions came, these dots went, ``left`` still live."""

    number: Number
    key: Key
    came: tuple[Version, ...]
    went: tuple[Dot, ...]
    left: int


class DigestRequest(msgspec.Struct, frozen=True, array_like=True, tag=64):
    """Digest and clock mark of each of these partitions, as I hold them."""

    number: Number
    epoch: Epoch
    marks: Marks


class DigestReply(msgspec.Struct, frozen=True, array_like=True, tag=65):
    """In these partitions I hold something else."""

    number: Number
    partitions: tuple[Partition, ...]


class SyncStart(msgspec.Struct, frozen=True, array_like=True, tag=66):
    """Let us compare a partition. This is my digest."""

    number: Number
    epoch: Epoch
    partition: Partition
    digest: Mark


class SyncStarted(msgspec.Struct, frozen=True, array_like=True, tag=67):
    """Whether mine is the same, how good my copy is, my clock; if it is not, my leaves' digests.

    Versions before the leaves name none.
    """

    number: Number
    same: bool
    copy: Copy
    coverage: Coverage
    life: Life
    leaves: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=LEAVES)] = ()


class KeyPageRequest(msgspec.Struct, frozen=True, array_like=True, tag=68):
    """Name your keys after this one, with their live dots: those of these leaves, or all."""

    number: Number
    epoch: Epoch
    partition: Partition
    after: Prefix
    life: Life
    leaves: Annotated[
        tuple[Annotated[Leaf, msgspec.Meta(ge=0, lt=LEAVES)], ...],
        msgspec.Meta(max_length=LEAVES_ASKED_MAX),
    ] = ()


class KeyPage(msgspec.Struct, frozen=True, array_like=True, tag=69):
    """These, in order; complete up to ``horizon``, or to the end if empty."""

    number: Number
    entries: tuple[tuple[Key, tuple[Dot, ...]], ...]
    horizon: str


class SyncStates(msgspec.Struct, frozen=True, array_like=True, tag=70):
    """Merge these, and tell me yours of the same keys."""

    number: Number
    epoch: Epoch
    partition: Partition
    states: tuple[tuple[Key, KeyState], ...]
    life: Life


class StatesSynced(msgspec.Struct, frozen=True, array_like=True, tag=71):
    """Merged and on disk; these are mine. Fewer than you sent if they did not fit."""

    number: Number
    states: tuple[tuple[Key, KeyState], ...]


class Reached(msgspec.Struct, frozen=True, array_like=True, tag=72):
    """To the issuer: of these partitions I have done what their stage asks, as of this epoch."""

    epoch: Epoch
    partitions: Annotated[tuple[Partition, ...], msgspec.Meta(max_length=PARTITIONS_MAX)]


class DigestSummary(msgspec.Struct, frozen=True, array_like=True, tag=73):
    """One hash over digests and clock marks of all partitions that I share with you."""

    number: Number
    epoch: Epoch
    summary: Annotated[bytes, msgspec.Meta(max_length=SUMMARY_BYTES)]


class SummaryReply(msgspec.Struct, frozen=True, array_like=True, tag=74):
    """Whether it is the same here. Where it is not, ask by partition, in the groups that differ.

    Versions before the groups name none.
    """

    number: Number
    same: bool
    groups: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=GROUPS)] = ()


class Increment(msgspec.Struct, frozen=True, array_like=True, tag=75):
    """Coordinate this increment, if your copy is complete; answered like ``Forward``."""

    number: Number
    epoch: Epoch
    key: Key
    by: Total
    w: int | None
    timeout_s: Annotated[float, msgspec.Meta(ge=0, le=REQUEST_TIMEOUT_S_MAX)]
    fsync: bool = False


class WatchSubscribeReply(msgspec.Struct, frozen=True, array_like=True, tag=76):
    """You will be told. In these partitions my clock has the mark that you named; in those not."""

    number: Number
    life: Life
    same: WatchMarks
    differing: Annotated[tuple[Partition, ...], msgspec.Meta(max_length=SURVEY_PARTITIONS_MAX)]


class WatchAsk(msgspec.Struct, frozen=True, array_like=True, tag=77):
    """Tell me the watched keys of this partition beyond what I have settled and seen.

    ``is_new``: nothing was seen yet, and nothing is to be told but your clock. ``life``: whose
    answer this goes on from, behind ``after``; 0 at the beginning.
    """

    number: Number
    epoch: Epoch
    partition: Partition
    text: Prefix
    is_prefix: bool
    settled: Coverage
    seen: Coverage
    is_new: bool
    after: Prefix
    life: Annotated[int, msgspec.Meta(ge=0)]


class WatchPage(msgspec.Struct, frozen=True, array_like=True, tag=78):
    """These, in order; complete up to ``horizon``, or to the end if empty.

    ``is_level``: my clock has all that you have settled; where it lacks something I tell nothing.
    ``extras``: what my clock has beyond that, as of the first page. ``others``: deletes of keys
    that you do not watch.
    """

    number: Number
    life: Life
    is_level: bool
    extras: Coverage
    entries: tuple[tuple[Key, KeyState], ...]
    others: tuple[Dot, ...]
    horizon: str


class WatchSubscribe(msgspec.Struct, frozen=True, array_like=True, tag=79):
    """Tell me the states of changed keys for the length of a lease. Repeat it to renew.

    ``marks``: the partitions of which I ask you, each with the mark of what I have settled there.
    """

    number: Number
    text: Prefix
    is_prefix: bool
    marks: WatchMarks


class Restore(msgspec.Struct, frozen=True, array_like=True, tag=28):
    """Coordinate this: add these versions, under dots of yours; answered like ``Forward``."""

    number: Number
    epoch: Epoch
    key: Key
    versions: Annotated[
        tuple[Version, ...], msgspec.Meta(min_length=1, max_length=RESTORED_VERSIONS_MAX)
    ]
    w: int | None
    timeout_s: Annotated[float, msgspec.Meta(ge=0, le=REQUEST_TIMEOUT_S_MAX)]
    fsync: bool = False


class WatchedChange(msgspec.Struct, frozen=True, array_like=True, tag=45):
    """A watched key changed here: this is its state, which covers the dots of this change.

    ``order`` grows with each frame of this kind in one life of the owner.
    """

    number: Number
    key: Key
    state: KeyState
    life: Life
    order: Annotated[int, msgspec.Meta(ge=1)]


class ClockRequest(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """What time is it at your place, please."""

    number: Number


class ClockReply(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """So many Unix milliseconds; 0 if my clock cannot be right."""

    number: Number
    wall_ms: Annotated[int, msgspec.Meta(ge=0)]


Question = (
    Forward
    | Increment
    | Restore
    | Store
    | Fetch
    | Scan
    | DigestRequest
    | DigestSummary
    | SyncStart
    | KeyPageRequest
    | SyncStates
    | WatchAsk
)
Answer = (
    ReadyReply
    | Forwarded
    | Stored
    | Fetched
    | Scanned
    | Refused
    | DigestReply
    | SummaryReply
    | SyncStarted
    | KeyPage
    | StatesSynced
    | ClockReply
    | WatchSubscribeReply
    | WatchPage
)
Notice = (
    RegistryOffer
    | RegistryAsk
    | Ready
    | ClockRequest
    | Subscribe
    | Unsubscribe
    | Changed
    | Reached
    | WatchSubscribe
    | WatchedChange
)
Message = Question | Answer | Notice

CODEC: Codec[Message] = Codec(Message)
