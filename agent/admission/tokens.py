"""The token: one string that lets a device into a covey.

``covey1-`` and then, in base64url, what both sides need to trust each other before they have
met: the covey's id (to find a member of this covey and no other), the fingerprint of its
certificate authority (so that the device can tell a member from somebody who poses as one,
before it says anything), the token's own id, a secret (so that the covey can tell the device
from a stranger), and four check bytes (so that a slip of the hand is called one).

The secret is the seed of an Ed25519 key, of which the issuer keeps the public half: whoever reads
its disk, or a backup of it, learns nothing that joins (docs/adr/0032-tokens-are-keys.md). 160
random bits need no slow hash: there is nothing to guess. Whoever has the string may join until it
expires or is used up, so treat it like a password; it is never logged. A device that joins signs
what it asks for, and keeps the secret to itself (``proofs.py``).
"""

import base64
import binascii
import hashlib
import secrets

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.admission.messages import TOKEN_ID_BYTES
from agent.exits import AgentError
from gossip.core.ids import CLUSTER_ID_BYTES, ClusterId

PREFIX = "covey1-"
SECRET_BYTES = 20
SEED_BYTES = 32
FINGERPRINT_BYTES = 32
CHECK_BYTES = 4


class Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A join token: where to ask, whom to trust, and the secret."""

    cluster_id: ClusterId
    fingerprint: bytes
    token_id: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Token({self.token_id.hex()})"

    def key(self) -> Ed25519PrivateKey:
        """Return the key that signs as the holder of this token."""
        seed = hashlib.blake2b(
            self.secret, digest_size=SEED_BYTES, key=self.token_id, person=b"covey token v2"
        )
        return Ed25519PrivateKey.from_private_bytes(seed.digest())

    def public_key(self) -> bytes:
        """Return what the issuer keeps in place of the secret."""
        return self.key().public_key().public_bytes_raw()

    def encode(self) -> str:
        """Return the string that is handed to the device."""
        parts = msgspec.msgpack.encode(self)
        body = base64.urlsafe_b64encode(parts + _check_bytes(parts))
        return PREFIX + body.decode().rstrip("=")


def new_token(cluster_id: ClusterId, fingerprint: bytes) -> Token:
    """Draw a token for the covey whose authority has this fingerprint."""
    token_id, secret = secrets.token_bytes(TOKEN_ID_BYTES), secrets.token_bytes(SECRET_BYTES)
    return Token(cluster_id, fingerprint, token_id, secret)


def parse_token(text: str) -> Token:
    """Read the string. Raises AgentError (TOKEN_UNKNOWN) when it is not one, or not all of one."""
    try:
        token = _decode(text.strip())
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise AgentError(
            "this is not a token, or a character of it is wrong or missing; nothing was changed.",
            hint=f"Copy the whole line that `covey token create` printed; it begins with {PREFIX}",
            status=exits.TOKEN_UNKNOWN,
        ) from None
    return token


def _decode(text: str) -> Token:
    """Read a token. Raises ValueError, binascii.Error, msgspec.DecodeError."""
    if not text.startswith(PREFIX):
        raise ValueError("it does not begin with " + PREFIX)
    body = text.removeprefix(PREFIX)
    data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    token = msgspec.msgpack.decode(data[:-CHECK_BYTES], type=Token)
    sizes = [len(part) for part in msgspec.structs.astuple(token)]
    if sizes != [CLUSTER_ID_BYTES, FINGERPRINT_BYTES, TOKEN_ID_BYTES, SECRET_BYTES]:
        raise ValueError("its parts have the wrong sizes")
    # Also where base64 has bits to spare: one token has one written form.
    if token.encode() != text:
        raise ValueError("a character is wrong")
    return token


def _check_bytes(parts: bytes) -> bytes:
    """Return what tells a mistyped token from one that the issuer does not know."""
    return hashlib.blake2b(parts, digest_size=CHECK_BYTES, person=b"covey token v1").digest()


def foreign_token() -> AgentError:
    """Return the refusal of a token that is for another covey."""
    return AgentError(
        "this token belongs to another covey than the one that answered; nothing was changed.",
        hint="Make a token on a member of the covey that this device is to join, or name a member "
        "of the token's covey with --seed HOST.",
        status=exits.TOKEN_FOREIGN,
    )
