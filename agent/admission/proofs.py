"""How a device shows that it has a token without showing it, and a node that it has its key.

Members pass admissions on to the issuer. A secret that went through their hands could let in a
device of theirs, so what goes through is a keyed hash (BLAKE2, RFC 7693) of everything else in the
admission, under what the issuer keeps of the secret. It is good for this signing request alone,
whose private key stays on the device, and for this name, zone and weight.

A signing request says the same whenever it is sent, and by whomever. So whoever asks signs what it
asks for, with the time: else somebody with a token could show the request of a node that belongs,
and be given the covey's keys in its place, again and again, though it was removed itself.
"""

import hashlib
import hmac

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.admission.messages import PROOF_BYTES, AdmissionRequest, Granted, Renewal
from gossip.core.errors import Forged

CONTEXTS: dict[type[AdmissionRequest | Renewal | Granted], bytes] = {
    AdmissionRequest: b"covey admission v1\x00",
    Renewal: b"covey renewal v1\x00",
    Granted: b"covey granted v1\x00",
}
"""Put before what is signed: a signature for one purpose must never pass for another."""


def prove(
    admission: AdmissionRequest, secret_hash: bytes, key: Ed25519PrivateKey
) -> AdmissionRequest:
    """Return the admission signed by the device's key, and with its proof.

    ``secret_hash``: what ``hash_secret`` returned.
    """
    signed = msgspec.structs.replace(admission, signature=key.sign(_signed_part(admission)))
    return msgspec.structs.replace(signed, proof=_proof(signed, secret_hash))


def is_proven(admission: AdmissionRequest, secret_hash: bytes) -> bool:
    """Tell whether whoever wrote this admission has the token's secret."""
    return hmac.compare_digest(admission.proof, _proof(admission, secret_hash))


def _proof(admission: AdmissionRequest, secret_hash: bytes) -> bytes:
    told = msgspec.msgpack.encode(msgspec.structs.replace(admission, proof=b""))
    return hashlib.blake2b(told, digest_size=PROOF_BYTES, key=secret_hash).digest()


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
