"""A toy cipher suite FOR SIMULATION ONLY. It protects nothing against anybody.

The real suites live in the runtime and need a library of compiled code; ``gossip/`` has the
standard library alone. The simulator still wants whole datagrams, sealed and opened, so that a
wrong key, a flipped bit or a changed header is refused on the very path that refuses it in
production. What it gets here is a keystream from SHAKE-128 and a keyed BLAKE2b tag: the right
shape, the right failures, fast enough, and nobody's idea of a reviewed construction.
"""

import hashlib
import hmac
from functools import partial

from gossip.core.envelope import Aead
from gossip.core.errors import Forged
from gossip.core.ids import Boot, ClusterId, NodeId
from gossip.membership.model.signatures import SigningKeys

TAG_BYTES = 16
PRIMARY_KEY_ID = 1


class ToyAead:
    """Encrypts and authenticates with one derived key. For simulation only."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Return ciphertext and tag."""
        sealed = self._stream(nonce, data)
        return sealed + self._tag(nonce, sealed, aad)

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Return the plaintext. Raises Forged when the tag does not fit."""
        sealed, tag = data[:-TAG_BYTES], data[-TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(nonce, sealed, aad)):
            raise Forged("the tag does not fit the datagram")
        return self._stream(nonce, sealed)

    def _stream(self, nonce: bytes, data: bytes) -> bytes:
        keystream = hashlib.shake_128(self._key + nonce).digest(len(data))
        mixed = int.from_bytes(data) ^ int.from_bytes(keystream)
        return mixed.to_bytes(len(data))

    def _tag(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        # The length of aad keeps (aad, sealed) from being cut at another place.
        text = b"".join([nonce, len(aad).to_bytes(4), aad, sealed])
        return hashlib.blake2b(text, key=self._key, digest_size=TAG_BYTES).digest()


class ToySuite:
    """Derives one toy key per key id, sender and boot, all from one secret."""

    def __init__(
        self, secret: bytes, key_ids: frozenset[int] = frozenset({PRIMARY_KEY_ID})
    ) -> None:
        self.primary = PRIMARY_KEY_ID
        self._secret = secret
        self._key_ids = key_ids
        self._made: dict[tuple[int, NodeId, Boot], ToyAead] = {}

    def salt(self) -> int:
        """Draw nothing: no simulated life goes on twice."""
        return 0

    def aead(self, key_id: int, sender: NodeId, boot: Boot) -> Aead | None:
        """Return the cipher of that sender's life; None for a key id that nobody holds."""
        if key_id not in self._key_ids:
            return None
        made = self._made.get((key_id, sender, boot))
        if made is None:
            name = b"".join(part.to_bytes(8) for part in (key_id, sender, boot))
            key = hashlib.blake2b(name, key=self._secret, digest_size=32).digest()
            made = self._made[key_id, sender, boot] = ToyAead(key)
        return made


TOY_SIGNATURE_BYTES = 64


def toy_key(node: NodeId) -> bytes:
    """Return a node's key, which is as public as it is private. For simulation only."""
    return node.to_bytes(32)


def toy_words_fit(key: bytes, payload: bytes, signature: bytes) -> bool:
    """Tell whether the key's owner signed this, if nobody else ever would. For simulation only."""
    return hmac.compare_digest(signature, toy_sign_words(key, payload))


def toy_sign_words(key: bytes, payload: bytes) -> bytes:
    """Sign what a node says about itself, as long as Ed25519 does. For simulation only."""
    return hashlib.blake2b(payload, key=key, digest_size=TOY_SIGNATURE_BYTES).digest()


def toy_signing(cluster_id: ClusterId, node: NodeId) -> SigningKeys:
    """Return how a simulated node signs. For simulation only."""
    return SigningKeys(cluster_id, partial(toy_sign_words, toy_key(node)), toy_words_fit)


def toy_sign(secret: bytes, payload: bytes) -> bytes:
    """Sign a registry as the simulated issuer does. For simulation only."""
    return hashlib.blake2b(payload, key=secret, digest_size=32).digest()


def toy_verify(secret: bytes, payload: bytes, signature: bytes) -> bool:
    """Tell whether ``toy_sign`` made this signature. For simulation only."""
    return hmac.compare_digest(signature, toy_sign(secret, payload))
