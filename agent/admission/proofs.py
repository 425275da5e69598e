"""How a device shows that it has a token without showing it, and a node that it has its key.

Members pass admissions on to the issuer. A secret that went through their hands could let in a
device of theirs, so what goes through is a signature of the token's key over everything else in the
admission. It is good for this signing request alone, whose private key stays on the device, and for
this name, zone and weight. The issuer checks it with the public half, which proves nothing to it.

A signing request says the same whenever it is sent, and by whomever. So whoever asks signs what it
asks for, with the time: else somebody with a token could show the request of a node that belongs,
and be given the covey's keys in its place, again and again, though it was removed itself.
"""

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.admission.messages import AdmissionRequest, Granted, Renewal
from gossip.core.errors import Forged

CONTEXTS: dict[type[AdmissionRequest | Renewal | Granted], bytes] = {
    AdmissionRequest: b"covey admission v1\x00",
    Renewal: b"covey renewal v1\x00",
    Granted: b"covey granted v1\x00",
}
"""Put before what is signed: a signature for one purpose must never pass for another."""
PROOF_CONTEXT = b"covey token proof v1\x00"


def prove(
    admission: AdmissionRequest, token_key: Ed25519PrivateKey, key: Ed25519PrivateKey
) -> AdmissionRequest:
    """Return the admission signed by the device's key, and then by the token's."""
    signed = msgspec.structs.replace(admission, signature=key.sign(_signed_part(admission)))
    return msgspec.structs.replace(signed, proof=token_key.sign(_proven_part(signed)))


def is_proven(admission: AdmissionRequest, token_public_key: bytes) -> bool:
    """Tell whether whoever wrote this admission has the token's secret."""
    try:
        key = Ed25519PublicKey.from_public_bytes(token_public_key)
        key.verify(admission.proof, _proven_part(admission))
    except (InvalidSignature, ValueError):  # ValueError: what is kept is no key
        return False
    return True


def _proven_part(admission: AdmissionRequest) -> bytes:
    bare = msgspec.structs.replace(admission, proof=b"")
    return PROOF_CONTEXT + msgspec.msgpack.encode(bare)


def sign_renewal(renewal: Renewal, key: Ed25519PrivateKey) -> Renewal:
    """Return the renewal with the signature of the node's own key."""
    return msgspec.structs.replace(renewal, signature=key.sign(_signed_part(renewal)))


def sign_granted(granted: Granted, key: Ed25519PrivateKey) -> Granted:
    """Return what a device is given with the signature of the authority's key."""
    return msgspec.structs.replace(granted, signature=key.sign(_signed_part(granted)))


def check_signed(asked: AdmissionRequest | Renewal | Granted, key: bytes) -> None:
    """Raise Forged unless whoever has this public key asks for it, or grants it."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(asked.signature, _signed_part(asked))
    except InvalidSignature:
        whose = "the authority" if isinstance(asked, Granted) else "the key that it is for"
        raise Forged(f"it is not signed by {whose}") from None


def _signed_part(asked: AdmissionRequest | Renewal | Granted) -> bytes:
    bare = msgspec.structs.replace(asked, signature=b"")
    if isinstance(bare, AdmissionRequest):
        bare = msgspec.structs.replace(bare, proof=b"")
    return CONTEXTS[type(asked)] + msgspec.msgpack.encode(bare)
