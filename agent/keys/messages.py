"""What members say to each other about their keys, over mutual streams only.

::

    a stream opens        ── KeyringState ──▶     which generation do you have?
    its holder is behind  ◀── KeyringState ──     (wants_reply)
                          ── KeyringOffer ──▶     the ring, signed by the authority
    a member's user       ── RotateRequest ───▶     the issuer    ── RotateReply ──▶

The offer is the one message that carries secrets; it is sent to nodes in the registry alone, on
streams whose certificate proved who they are. The field order is the format
(``gossip/core/wire.py``).
"""

from typing import Annotated

import msgspec

from agent.identity.keyring import KEYS_MAX, SECRET_BYTES, KeyringFile
from gossip.core.wire import Codec

Number = Annotated[int, msgspec.Meta(ge=0)]
Word = Annotated[str, msgspec.Meta(max_length=32)]
Secret = Annotated[bytes, msgspec.Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
Sentence = Annotated[str, msgspec.Meta(max_length=500)]


class KeyShown(msgspec.Struct, frozen=True, array_like=True):
    """A key as others may see it."""

    id: Number
    fingerprint: Word


class KeyringState(msgspec.Struct, frozen=True, array_like=True, tag=90):
    """Which keys the sender holds; the first thing said on each stream."""

    generation: Number
    phase: Word
    primary: Number
    keys: Annotated[tuple[KeyShown, ...], msgspec.Meta(max_length=KEYS_MAX)]
    wants_reply: bool = False


class KeyringOffer(msgspec.Struct, frozen=True, array_like=True, tag=91):
    """A whole ring, secrets and all."""

    generation: Number
    phase: Word
    cipher: Word
    primary: Number
    secrets: Annotated[tuple[tuple[Number, Secret], ...], msgspec.Meta(max_length=KEYS_MAX)]
    signature: Annotated[bytes, msgspec.Meta(max_length=64)]
    epoch: Number = 0
    forced: bool = False
    """It waits for nobody who is away: believed of an issuer, which may be the next to go on."""

    def __repr__(self) -> str:
        return f"KeyringOffer(generation {self.generation}, {len(self.secrets)} keys)"


class RotateRequest(msgspec.Struct, frozen=True, array_like=True, tag=92):
    """A member's user wants another key; ``force``: wait for nobody who is away."""

    number: Number
    force: bool = False


class RotateReply(msgspec.Struct, frozen=True, array_like=True, tag=93):
    """The issuer has begun, or why it has not: a status of ``agent/exits.py``, and sentences."""

    number: Number
    status: Number
    message: Sentence = ""
    hint: Sentence = ""


KeyMessage = KeyringState | KeyringOffer | RotateRequest | RotateReply
CODEC: Codec[KeyMessage] = Codec(KeyMessage)


def offer_of(ring: KeyringFile) -> KeyringOffer:
    """Return a ring as it travels."""
    return KeyringOffer(
        ring.generation,
        ring.phase,
        ring.cipher,
        ring.primary,
        tuple(sorted(ring.secrets.items())),
        ring.signature,
        ring.epoch,
        ring.forced,
    )


def ring_of(offer: KeyringOffer) -> KeyringFile:
    """Return an offer as it is kept."""
    return KeyringFile(
        offer.cipher,
        offer.primary,
        dict(offer.secrets),
        offer.generation,
        offer.phase,
        offer.signature,
        offer.epoch,
        offer.forced,
    )
