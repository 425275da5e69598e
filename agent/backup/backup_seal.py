"""The seal of a backup: AES-256-GCM under a key of its own, made of a passphrase or a key file.

The header has the salt, and of which kind the secret is. A passphrase becomes the key by scrypt
(RFC 7914), at 64 MiB and a second or so on a small device; a key file, which is random and has 32
bytes at least, by HKDF. Each part has a random nonce, of which one key may have four billion (NIST
SP 800-38D, 8.3), and is sealed to its backup, kind and number: none can stand for another.
"""

import secrets
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from agent.exits import NO, NOT_FOUND, NOT_PERMITTED, USAGE, AgentError

KEY_BYTES, NONCE_BYTES, SALT_BYTES = 32, 12, 16
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**16, 8, 1
PASSPHRASE, KEY_FILE = "passphrase", "key-file"
SECRET_BYTES_MAX = 4096
PASSPHRASE_BYTES_MIN = 8


class WrongKey(AgentError):
    """A part does not open: the secret is another one, or the part was made by somebody else."""

    def __init__(self) -> None:
        super().__init__(
            "this backup does not open with that secret; nothing was changed",
            "is it the passphrase, or the key file, that it was made with?",
            NO,
        )


class SealTerms(msgspec.Struct, frozen=True):
    """What the key was made of, without the secret."""

    by: str
    salt: bytes


class BackupKey:
    """The key to one backup."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def close(self, place: bytes, data: bytes) -> bytes:
        """Return what stands in the file at this place for ``data``."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, data, place)

    def open(self, place: bytes, sealed: bytes) -> bytes:
        """Return what was sealed for this place. Raises WrongKey."""
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
        except (InvalidTag, ValueError):
            raise WrongKey from None


def new_terms(by: str) -> SealTerms:
    """Return terms for a new backup."""
    return SealTerms(by, secrets.token_bytes(SALT_BYTES))


def key_of(terms: SealTerms, secret: bytes) -> BackupKey:
    """Return the key to a backup. Raises AgentError for terms that this version does not know."""
    if terms.by == PASSPHRASE:
        scrypt = Scrypt(salt=terms.salt, length=KEY_BYTES, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)
        return BackupKey(scrypt.derive(secret))
    if terms.by == KEY_FILE:
        return BackupKey(HKDF(SHA256(), KEY_BYTES, terms.salt, b"covey backup").derive(secret))
    raise AgentError(
        "this backup is sealed in a way that this version does not know; nothing was changed",
        "update this agent",
        NO,
    )


def read_secret(path: Path, by: str) -> bytes:
    """Return the secret that a file holds: one line, or bytes. Raises AgentError."""
    try:
        with path.open("rb") as file:
            secret = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_PERMITTED
        raise AgentError(f"{path}: {error.strerror}", "is it the right file?", status) from None
    if by == PASSPHRASE:
        secret = secret.rstrip(b"\r\n")
    least = PASSPHRASE_BYTES_MIN if by == PASSPHRASE else KEY_BYTES
    if not least <= len(secret) <= SECRET_BYTES_MAX:
        raise AgentError(
            f"{path} has {len(secret)} bytes, and a {by} has {least} to {SECRET_BYTES_MAX}",
            "`head -c 32 /dev/urandom > FILE` makes a key file",
            USAGE,
        )
    return secret
