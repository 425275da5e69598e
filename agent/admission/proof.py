"""How a device shows that it has a token without showing it.

Members pass admissions on to the issuer. A secret that went through their hands could let in a
device of theirs, so what goes through is a keyed hash (BLAKE2, RFC 7693) of everything else in the
admission, under what the issuer keeps of the secret. It is good for this signing request alone,
whose private key stays on the device, and for this name, zone and weight.
"""

import hashlib
import hmac

import msgspec

from agent.admission.messages import PROOF_BYTES, Admission


def prove(admission: Admission, secret_hash: bytes) -> Admission:
    """Return the admission with its proof; ``secret_hash``: what ``hash_secret`` returned."""
    return msgspec.structs.replace(admission, proof=_proof(admission, secret_hash))


def is_proven(admission: Admission, secret_hash: bytes) -> bool:
    """Tell whether whoever wrote this admission has the token's secret."""
    return hmac.compare_digest(admission.proof, _proof(admission, secret_hash))


def _proof(admission: Admission, secret_hash: bytes) -> bytes:
    told = msgspec.msgpack.encode(msgspec.structs.replace(admission, proof=b""))
    return hashlib.blake2b(told, digest_size=PROOF_BYTES, key=secret_hash).digest()
