"""How a covey comes to trust another authority: the former one says so, and so does the next.

The authority's key signs all registries, certificates and rings. Who has it can pose as anybody, so
it must be possible to give it up. A *succession* names two authorities and is signed by both:
by the former, which everybody trusts, and by the next, which shows that somebody has its key.
It travels in the registry, which the next one signs. Who trusts the former follows it there.

From then on both are good for certificates, until the registry says that the *overlap* is over.
Registries count only under the newest: a former authority's word about who belongs is worth nothing
to whoever has followed. The last few successions stay in each registry, so that a node that was
away meanwhile can take one step after the other.

Two successions of one authority cannot be told apart by their signatures: whoever stole its key
before the roll-over can make one of his own. A node follows the one that it sees first, and
refuses the other for ever (docs/attacks.md).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

import msgspec

from gossip.core.errors import Forged
from gossip.core.ids import ClusterId

CONTEXT = b"covey authority v1\x00"
"""Put before what is signed: a signature for one purpose must never pass for another."""
SUCCESSIONS_MAX = 4
"""Under four kilobytes in each registry. Who missed more than these joins again."""
CERTIFICATE_BYTES_MAX = 1024
KEY_BYTES, SIGNATURE_BYTES = 32, 64

Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Certificate = Annotated[bytes, msgspec.Meta(max_length=CERTIFICATE_BYTES_MAX)]

Check = Callable[[bytes, bytes, bytes], bool]
"""(public key, data, signature) -> whether the key's owner signed the data (Ed25519)."""


class Authority(msgspec.Struct, frozen=True, array_like=True):
    """An authority of the covey: the how many-th, its public key, its certificate (DER)."""

    number: Annotated[int, msgspec.Meta(ge=0)]
    """0 for the one that came with the covey."""
    key: Key
    certificate: Certificate


class Succession(msgspec.Struct, frozen=True, array_like=True):
    """One authority takes the place of another; both have signed ``statement`` about it."""

    former: Authority
    next: Authority
    by_former: Signature
    by_next: Signature


Successions = Annotated[tuple[Succession, ...], msgspec.Meta(max_length=SUCCESSIONS_MAX)]


def statement(cluster_id: ClusterId, former: Authority, following: Authority) -> bytes:
    """Return what both authorities sign."""
    return CONTEXT + msgspec.msgpack.encode((cluster_id, former, following))


def follow(
    trusted: Authority, successions: Sequence[Succession], cluster_id: ClusterId, check: Check
) -> Authority:
    """Return the authority that the one we trust has led to, by the newest of these.

    Those before the trusted one are passed over. Raises Forged for a step that was not signed by
    both, or that leads away from another authority than ours.
    """
    for step in sorted(successions, key=lambda each: each.next.number):
        if step.next.number <= trusted.number:
            continue
        if step.former != trusted or step.next.number != trusted.number + 1:
            raise Forged("an authority that does not follow the one that this node trusts")
        told = statement(cluster_id, step.former, step.next)
        signed_by = (step.former.key, step.by_former), (step.next.key, step.by_next)
        if not all(check(key, told, signature) for key, signature in signed_by):
            raise Forged("an authority that the former one did not name")
        trusted = step.next
    return trusted


def are_linked(successions: Sequence[Succession]) -> bool:
    """Tell whether each, newest first, begins where the one behind it ends."""
    steps = all(each.next.number == each.former.number + 1 for each in successions)
    return steps and all(later.former == earlier.next for later, earlier in pairwise(successions))
