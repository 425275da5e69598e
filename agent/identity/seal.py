"""The seal of what is secret in a file: AES-256-GCM under a key that systemd hands the service.

::

    magic | key id (8) | nonce (12) | ciphertext and tag

The key is the credential ``covey.seal`` (``agent/config/credentials.py``), 32 bytes that lie on the
disk sealed with the machine's own key, or its TPM; ``covey service install`` makes it. The key's id
is in the file, so that a file of another machine is told from a damaged one. The file's name and
all that stands before the ciphertext are authenticated with it: no sealed file can stand for
another.

A few dozen files are sealed in the life of a key, so random nonces are safe (NIST SP 800-38D, 8.3,
allows 2^32). The key is read when it is used, and not kept.
"""

import os
import secrets
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agent.config.credentials import SEAL, VARIABLE
from agent.exits import BAD_CONFIG, AgentError

KEY_BYTES, KEY_ID_BYTES, NONCE_BYTES, TAG_BYTES = 32, 8, 12, 16
MAGIC = b"covey sealed file v1\n"
HEADER_BYTES = len(MAGIC) + KEY_ID_BYTES + NONCE_BYTES


class SealBroken(ValueError):
    """A sealed file does not verify: it is damaged, or not the one that it stands for."""


class Seal(NamedTuple):
    """The key that seals files, with the id that tells it from others."""

    key: bytes
    key_id: bytes

    def __repr__(self) -> str:
        return f"Seal({self.key_id.hex()})"

    def close(self, name: str, data: bytes) -> bytes:
        """Return what a file of this name holds in place of ``data``."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        header = MAGIC + self.key_id + nonce
        return header + AESGCM(self.key).encrypt(nonce, data, header + name.encode())

    def open(self, name: str, data: bytes) -> bytes:
        """Return what was sealed for a file of this name. Raises SealBroken."""
        header, ciphertext = data[:HEADER_BYTES], data[HEADER_BYTES:]
        try:
            nonce = header[-NONCE_BYTES:]
            return AESGCM(self.key).decrypt(nonce, ciphertext, header + name.encode())
        except InvalidTag:
            raise SealBroken("its seal does not verify") from None

    def has_sealed(self, data: bytes) -> bool:
        """Say whether a sealed file names this key as its own."""
        return data[len(MAGIC) : len(MAGIC) + KEY_ID_BYTES] == self.key_id


def is_sealed(data: bytes) -> bool:
    """Say whether a file holds something sealed."""
    return data.startswith(MAGIC) and len(data) >= HEADER_BYTES + TAG_BYTES


def seal_here(environ: Mapping[str, str] | None = None) -> Seal | None:
    """Return the seal that systemd has handed this process; None if it has handed none.

    Raises AgentError for one that cannot be used.
    """
    environ = os.environ if environ is None else environ
    directory = environ.get(VARIABLE)
    if not directory:
        return None
    path = Path(directory) / SEAL
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error.strerror or "it cannot be read") from None
    if len(key) != KEY_BYTES:
        raise _unusable(path, f"it has {len(key)} bytes, and should have {KEY_BYTES}")
    return Seal(key, blake2b(key, digest_size=KEY_ID_BYTES, person=b"covey seal id").digest())


def _unusable(path: Path, why: str) -> AgentError:
    return AgentError(
        f"{path}, the key that seals this node's files, cannot be used: {why}; nothing was done.",
        f"The credential {SEAL} of the service has to be the one that `covey service install`"
        " has made.",
        BAD_CONFIG,
    )
