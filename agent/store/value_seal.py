"""The seal of values at rest: ChaCha20-Poly1305, a key of its own for each start of the process.

::

    mark (2) | key id (8) | salt (16) | nonce (12) | ciphertext and tag

What is sealed with is never the node's key itself, but one made of it (HKDF) with a salt that is
drawn at each start; the nonce counts from there on, behind four bytes of chance. So no nonce is
used twice under a key, whatever the disk or a clock forgets, and a process that goes on twice from
one snapshot has the four bytes between it and a repetition. What stands before the ciphertext, and
the name of what is sealed, are authenticated with it: no value can stand for another key's.

No msgpack begins with the mark, so what was written in clear is told from what is sealed, and both
may lie in one file: each is sealed, or put in clear, when it is written next.

``key_note.py`` remembers which keys a file needs.
"""

import secrets
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from itertools import count

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent.exits import BAD_CONFIG, AgentError

MARK = b"\xc1\x53"
KEY_BYTES, KEY_ID_BYTES, SALT_BYTES, NONCE_BYTES, TAG_BYTES = 32, 8, 16, 12, 16
CHANCE_BYTES = 4
HEADER_BYTES = len(MARK) + KEY_ID_BYTES + SALT_BYTES + NONCE_BYTES
STARTS_REMEMBERED = 64
"""Keys of so many starts are kept: making one takes longer than opening a value."""


class KeyMissing(AgentError):
    """A value is sealed with a key that is not here. Nothing was changed."""

    def __init__(self, what: str, ids: Iterable[str]) -> None:
        super().__init__(
            f"{what} is sealed with a key that this agent was not given ({', '.join(ids)}); nothing"
            " was changed",
            "name the file of that key: `storage.key_file`, or among `storage.former_key_files`; "
            "without it these values cannot be read, and a new device that joins in its place "
            "(`covey join --replace`) takes them from the other owners",
            BAD_CONFIG,
        )


class ValueBroken(ValueError):
    """A sealed value does not verify: it is damaged, or stands for another one."""


def key_id_of(key: bytes) -> bytes:
    """Return what names a key without giving it away."""
    return blake2b(key, digest_size=KEY_ID_BYTES, person=b"covey value id").digest()


class ValueSeal:
    """Closes values with one key, or with none, and opens what it or former ones have closed."""

    def __init__(self, key: bytes | None = None, former: Iterable[bytes] = ()) -> None:
        self.key_id = b"" if key is None else key_id_of(key)
        self._keys = {key_id_of(each): each for each in (*former, *([key] if key else []))}
        self._made_of = lru_cache(STARTS_REMEMBERED)(self._make)
        self._salt = secrets.token_bytes(SALT_BYTES)
        self._count = count(1)

    @property
    def known(self) -> frozenset[bytes]:
        """The ids of all keys that are here."""
        return frozenset(self._keys)

    def is_current(self, data: bytes) -> bool:
        """Tell whether something lies as it would be written now."""
        if not is_sealed(data):
            return not self.key_id
        return bool(self.key_id) and data[len(MARK) : len(MARK) + KEY_ID_BYTES] == self.key_id

    def close(self, name: str, data: bytes) -> bytes:
        """Return what is to lie on the disk for ``data`` under this name."""
        if not self.key_id:
            return data
        nonce = secrets.token_bytes(CHANCE_BYTES) + next(self._count).to_bytes(
            NONCE_BYTES - CHANCE_BYTES
        )
        head = MARK + self.key_id + self._salt
        aead = self._made_of(self.key_id, self._salt)
        return head + nonce + aead.encrypt(nonce, data, head + name.encode())

    def open(self, name: str, data: bytes) -> bytes:
        """Return what lies there under this name, in clear. Raises KeyMissing and ValueBroken."""
        if not is_sealed(data):
            return data
        head, nonce = data[: HEADER_BYTES - NONCE_BYTES], data[HEADER_BYTES - NONCE_BYTES :][:12]
        key_id, salt = head[len(MARK) :][:KEY_ID_BYTES], head[-SALT_BYTES:]
        if key_id not in self._keys:
            raise KeyMissing(repr(name), [key_id.hex()])
        try:
            aead = self._made_of(key_id, salt)
            return aead.decrypt(nonce, data[HEADER_BYTES:], head + name.encode())
        except InvalidTag:
            raise ValueBroken(f"the value of {name!r} does not fit its seal") from None

    def _make(self, key_id: bytes, salt: bytes) -> ChaCha20Poly1305:
        made = HKDF(SHA256(), KEY_BYTES, salt, b"covey values").derive(self._keys[key_id])
        return ChaCha20Poly1305(made)


def is_sealed(data: bytes) -> bool:
    """Say whether these bytes are sealed."""
    return data.startswith(MARK) and len(data) >= HEADER_BYTES + TAG_BYTES
