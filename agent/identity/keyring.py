"""The covey's shared secrets, and the ciphers that seal datagrams with them.

The keyring is one private file with a few 32-byte secrets, each under a random key id. New
datagrams are sealed with the *primary*; any of the others still opens, so that a key can be
replaced while the covey runs: add the new one everywhere, make it primary, drop the old one
(``rotation.py`` says how, ``key_service.py`` does it). A ring that was rotated carries its
generation and the authority's signature, so that nobody but the issuer can give a node other keys.

No secret ever encrypts anything itself. For each sender and each of its lives (its *boot*) a key
of its own is derived with HKDF-SHA256 (RFC 5869), so the senders' counters can be plain
counters: two nodes, or two lives of one node, can never use the same key with the same nonce. The
derivation also names the covey and the cipher, so a key means one thing only.

ChaCha20-Poly1305 (RFC 8439) is the default because small ARM boards have no AES instructions;
AES-256-GCM can be chosen when the covey is founded.
"""

import os
import secrets
from collections import OrderedDict
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent import exits
from agent.exits import AgentError
from agent.files.private_files import closed
from agent.identity.at_rest import read_secret
from gossip.core.envelope import SALT_BITS
from gossip.core.errors import Forged
from gossip.core.ids import Boot, ClusterId, NodeId

SECRET_BYTES = 32
KEY_ID_BITS = 32
KEYS_MAX = 8
DERIVED_KEYS_MAX = 2048
"""Derived keys kept at hand: some 300 bytes each. A forged sender id costs one derivation (3 µs)
and at most pushes out a key that is derived again."""

CIPHERS: dict[str, type[ChaCha20Poly1305] | type[AESGCM]] = {
    "chacha20-poly1305": ChaCha20Poly1305,
    "aes-256-gcm": AESGCM,
}
DEFAULT_CIPHER = "chacha20-poly1305"


class KeyringFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the file holds, as JSON; secrets are base64 (msgspec's form of bytes)."""

    cipher: str
    primary: int
    secrets: dict[int, bytes]
    generation: int = 0
    """Grows by one with each step of a rotation; the founder's ring has 0, and no signature."""
    phase: str = "steady"
    """Which step of a rotation made it: a word of ``RotationPhase``."""
    signature: bytes = b""
    """The authority's, over all of this and the covey's id."""
    epoch: int = 0
    """Of the registry by which the newest secret was made: who was removed since knows it."""
    forced: bool = False
    """On the issuer: the rotation is to end without those who are away. Never leaves the device."""

    def __repr__(self) -> str:
        return f"KeyringFile({self.cipher}, {len(self.secrets)} keys)"


class SealingKey:
    """One sender's derived key; turns the library's error into the protocol's."""

    __slots__ = ("_cipher",)

    def __init__(self, cipher: ChaCha20Poly1305 | AESGCM) -> None:
        self._cipher = cipher

    def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Return ciphertext and tag."""
        return self._cipher.encrypt(nonce, data, aad)

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Return the plaintext. Raises Forged."""
        try:
            return self._cipher.decrypt(nonce, data, aad)
        except InvalidTag:
            raise Forged("the datagram's seal does not verify") from None


class Keyring:
    """The keys of one covey: the ``CipherSuite`` of ``gossip/core/envelope.py``."""

    def __init__(self, cluster_id: ClusterId, content: KeyringFile) -> None:
        self.content = content
        self.primary = content.primary
        self.cipher = content.cipher
        self._cluster_id = cluster_id
        self._secrets = content.secrets
        self._derived: OrderedDict[tuple[int, NodeId, Boot], SealingKey] = OrderedDict()

    def adopt(self, content: KeyringFile) -> None:
        """Seal and open with these keys from now on; a key that is gone opens nothing more."""
        self.content, self._secrets = content, content.secrets
        self.primary, self.cipher = content.primary, content.cipher
        self._derived.clear()

    def __repr__(self) -> str:
        return f"Keyring({self.cipher}, {len(self._secrets)} keys)"

    def salt(self) -> int:
        """Draw from the kernel, which a snapshot of this process does not hold.

        One of a virtual machine does: its kernel draws anew when it is told of the resumption
        (VM generation ID), and else within a minute.
        """
        return int.from_bytes(os.urandom(SALT_BITS // 8))

    def aead(self, key_id: int, sender: NodeId, boot: Boot) -> SealingKey | None:
        """Return the key that seals what ``sender`` says in this life.

        None for a key id that is not on the ring.
        """
        secret = self._secrets.get(key_id)
        if secret is None:
            return None
        name = (key_id, sender, boot)
        found = self._derived.get(name)
        if found is None:
            found = self._derived[name] = SealingKey(self._derive(secret, sender, boot))
            if len(self._derived) > DERIVED_KEYS_MAX:
                self._derived.popitem(last=False)
        else:
            self._derived.move_to_end(name)
        return found

    def _derive(self, secret: bytes, sender: NodeId, boot: Boot) -> ChaCha20Poly1305 | AESGCM:
        purpose = b"covey datagram v1 " + self.cipher.encode()
        info = purpose + sender.to_bytes(8) + boot.to_bytes(8)
        derivation = HKDF(hashes.SHA256(), SECRET_BYTES, salt=self._cluster_id, info=info)
        return CIPHERS[self.cipher](derivation.derive(secret))


def new_keyring(cipher: str = DEFAULT_CIPHER) -> bytes:
    """Return the content of a keyring file with one fresh secret."""
    if cipher not in CIPHERS:
        raise AgentError(
            f"unknown cipher {cipher!r}.",
            hint=f"Nothing was made. Choose one of: {', '.join(CIPHERS)}.",
            status=exits.USAGE,
        )
    key_id = secrets.randbits(KEY_ID_BITS)
    return encode_keyring(KeyringFile(cipher, key_id, {key_id: secrets.token_bytes(SECRET_BYTES)}))


def encode_keyring(content: KeyringFile) -> bytes:
    """Return a keyring as its file holds it."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def parse_keyring(data: bytes, cluster_id: ClusterId) -> Keyring:
    """Read what ``new_keyring`` wrote. Raises ValueError; its message shows no secret."""
    try:
        content = msgspec.json.decode(data, type=KeyringFile)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a keyring: {error}") from None
    check_keyring(content)
    return Keyring(cluster_id, content)


def check_keyring(content: KeyringFile) -> None:
    """Raise ValueError when these keys cannot be used; its message shows no secret."""
    if content.cipher not in CIPHERS:
        raise ValueError(f"the keyring is for the cipher {content.cipher!r}, which is not known")
    if content.primary not in content.secrets or len(content.secrets) > KEYS_MAX:
        raise ValueError(f"a keyring has 1 to {KEYS_MAX} keys, one of them primary")
    if any(len(secret) != SECRET_BYTES for secret in content.secrets.values()):
        raise ValueError(f"a key on the ring does not have {SECRET_BYTES} bytes")
    if any(not 0 <= key_id < 2**KEY_ID_BITS for key_id in content.secrets):
        raise ValueError(f"a key id has {KEY_ID_BITS} bits")


def load_keyring(path: Path, cluster_id: ClusterId) -> Keyring:
    """Read the keyring file. Raises AgentError, which says what to do."""
    try:
        return parse_keyring(read_secret(path), cluster_id)
    except PermissionError:
        raise closed(path) from None
    except (OSError, ValueError) as error:
        raise AgentError(
            f"the keyring {path} cannot be used: {error}.",
            hint="Nothing was changed. Restore the file from a backup, or move the identity "
            "directory away and join again.",
            status=exits.BAD_CONFIG,
        ) from None
