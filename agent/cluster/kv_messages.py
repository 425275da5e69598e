"""What members ask each other about the shared keys for an operator, over their streams.

Nothing follows from an answer but what a person is shown: no read, write or comparison counts it.

Field order is the format (``gossip/core/wire.py``); new fields go to the end with a default.
"""

from typing import Annotated

import msgspec

from gossip.core.hlc import Stamp
from gossip.core.wire import Codec
from gossip.kv.dots import MARK_BYTES, Actor, Counter, Dot
from gossip.kv.requests import Key
from gossip.kv.takeover import Copy

DOTS_MAX = 4096
"""Of one key; with as many versions an answer is well within a frame. What is more is cut off."""

Number = Annotated[int, msgspec.Meta(ge=0)]
Dots = Annotated[tuple[Dot, ...], msgspec.Meta(max_length=DOTS_MAX)]
Digest = Annotated[bytes, msgspec.Meta(max_length=MARK_BYTES)]


class VersionView(msgspec.Struct, frozen=True, array_like=True):
    """One live version: under which dot, of when, how large, and the BLAKE2b of its value."""

    actor: Actor
    n: Counter
    stamp: Stamp
    size_bytes: Number
    digest: Digest

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


KvLookMessage = KeyViewRequest | KeyView
CODEC: Codec[KvLookMessage] = Codec(KvLookMessage)
