"""How a covey gets another key without losing a member: three steps, each a ring of its own.

::

    steady ──▶ installed ──▶ used ──▶ steady
    {old}      {OLD, new}    {old, NEW}   {new}        capitals: the primary, which seals

A step is taken when everybody who has to know of the last one does. Until all can open the new
key nobody seals with it, and until nobody seals with the old one it is not dropped; so at any
moment any two members open each other's datagrams, whichever of two neighbouring steps each has
reached.

A ring names the epoch of the registry by which its newest secret was made. Whoever was removed
later may know the secret, so another has to be made; and nobody passes a ring on before it has a
registry of that epoch, by which it can tell who still belongs.

The steps are a table, and each step is a pure function of the ring before it, but for the one that
draws the new secret. So two issuers, or one that was killed in the middle and reads its file
again, sign the same bytes: Ed25519 signatures are the same each time (RFC 8032).
"""

import hashlib
import secrets
from collections.abc import Callable
from enum import StrEnum

import msgspec

from agent.identity.keyring import KEY_ID_BITS, SECRET_BYTES, KeyringFile, check_keyring
from gossip.core.errors import Forged, Malformed
from gossip.core.ids import ClusterId

FINGERPRINT_BYTES = 8
GENERATION_JUMP_MAX = 1 << 20
"""A ring this far ahead of ours is refused, though signed: its number must never run out."""


class RotationPhase(StrEnum):
    """Which step made a ring."""

    STEADY = "steady"
    INSTALLED = "installed"
    USED = "used"


NEXT: dict[RotationPhase, RotationPhase] = {
    RotationPhase.STEADY: RotationPhase.INSTALLED,
    RotationPhase.INSTALLED: RotationPhase.USED,
    RotationPhase.USED: RotationPhase.STEADY,
}

Sign = Callable[[bytes], bytes]
Verify = Callable[[bytes, bytes], bool]


def next_ring(ring: KeyringFile, cluster_id: ClusterId, sign: Sign, epoch: int) -> KeyringFile:
    """Return the ring of the next step, signed; ``epoch``: of our registry, for a new secret."""
    phase = NEXT[RotationPhase(ring.phase)]
    primary, held = ring.primary, dict(ring.secrets)
    if phase is RotationPhase.INSTALLED:
        held = {primary: held[primary], _fresh_id(held): secrets.token_bytes(SECRET_BYTES)}
    elif phase is RotationPhase.USED:
        [primary] = set(held) - {primary}
    else:
        held = {primary: held[primary]}
    made_at = epoch if phase is RotationPhase.INSTALLED else ring.epoch
    generation, forced = ring.generation + 1, ring.forced and phase is not RotationPhase.STEADY
    fresh = KeyringFile(
        ring.cipher, primary, held, generation, phase.value, epoch=made_at, forced=forced
    )
    signature = sign(signed_part(fresh, cluster_id))
    return msgspec.structs.replace(fresh, signature=signature)


def signed_again(
    ring: KeyringFile, cluster_id: ClusterId, sign: Sign, verify: Verify
) -> KeyringFile | None:
    """Return the same keys under another authority's signature, as the next ring.

    None when there is no need: the authority has signed it, or nobody has, as the first of a covey.
    Raises Forged for one that nobody signed whom we trust: our signature would make it good.
    """
    part = signed_part(ring, cluster_id)
    if not ring.generation or sign(part) == ring.signature:
        return None
    if not verify(part, ring.signature):
        raise Forged("the keyring on this disk is not signed by this covey's authority")
    fresh = msgspec.structs.replace(ring, generation=ring.generation + 1)
    return msgspec.structs.replace(fresh, signature=sign(signed_part(fresh, cluster_id)))


def signed_part(ring: KeyringFile, cluster_id: ClusterId) -> bytes:
    """Return what the authority signs: everything but the signature, in one order only."""
    return msgspec.msgpack.encode(
        (
            cluster_id,
            ring.generation,
            ring.phase,
            ring.cipher,
            ring.primary,
            sorted(ring.secrets.items()),
            ring.epoch,
        )
    )


def check_offer(
    offered: KeyringFile, held: KeyringFile, cluster_id: ClusterId, verify: Verify
) -> bool:
    """Tell whether an offered ring replaces the one that is held.

    Raises Malformed for keys that cannot be used, Forged when the authority did not sign them.
    """
    if not precedes(held, offered):
        return False
    try:
        check_keyring(offered)
        RotationPhase(offered.phase)
    except ValueError as error:
        raise Malformed(str(error)) from None
    if offered.generation > held.generation + GENERATION_JUMP_MAX:
        raise Malformed("the keyring's generation is far ahead of ours")
    if not verify(signed_part(offered, cluster_id), offered.signature):
        raise Forged("the keyring is not signed by this covey's authority")
    return True


def precedes(one: KeyringFile, other: KeyringFile) -> bool:
    """Tell whether ``other`` is newer; of two of one generation, the larger signature holds."""
    return (one.generation, one.signature) < (other.generation, other.signature)


def fingerprint(secret: bytes, cluster_id: ClusterId) -> str:
    """Return what names a key without giving it away: 16 hexadecimal digits."""
    digest = hashlib.blake2b(secret, digest_size=FINGERPRINT_BYTES, key=cluster_id)
    return digest.hexdigest()


def _fresh_id(held: dict[int, bytes]) -> int:
    while True:
        key_id = secrets.randbits(KEY_ID_BITS)
        if key_id not in held:
            return key_id
