"""The keys that the configuration names for values at rest (``[storage]``)."""

import stat
from hashlib import blake2b
from pathlib import Path

from agent.config.credentials import file_at
from agent.config.settings import StorageSettings
from agent.exits import BAD_CONFIG, AgentError
from agent.identity.seal import seal_here
from agent.store.value_seal import KEY_BYTES, ValueSeal

KEY_FILE_BYTES_MAX = 4096


def value_seal(settings: StorageSettings) -> ValueSeal:
    """Return what closes and opens values as the configuration says.

    Raises AgentError for a key that is not there or cannot be used; nothing was done.
    """
    former = [read_key(file_at(text)) for text in settings.former_key_files]
    own = [key] if (key := _own_key(settings)) else []
    if settings.encryption == "on":
        if not own:
            raise AgentError(
                "`storage.encryption` is on, and there is no key: neither `storage.key_file`, nor "
                "the seal that `covey service install` makes; nothing was done",
                "`head -c 32 /dev/urandom > FILE`, `chmod 600 FILE`, keep a copy elsewhere, and "
                "name it in `storage.key_file`",
                BAD_CONFIG,
            )
        return ValueSeal(own[0], former)
    return ValueSeal(None, [*own, *former])


def _own_key(settings: StorageSettings) -> bytes | None:
    if settings.key_file:
        return read_key(file_at(settings.key_file))
    seal = seal_here()
    return None if seal is None else _key_of(seal.key)


def read_key(path: Path) -> bytes:
    """Return the key that is made of a file's bytes. Raises AgentError."""
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            data = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise AgentError(
            f"the key in {path} cannot be read: {error.strerror}; nothing was done",
            "bring the file back: without it the values that it seals cannot be read",
            BAD_CONFIG,
        ) from None
    if mode & stat.S_IRWXO:
        raise AgentError(
            f"everybody may read the key in {path}; it was not used",
            f"chmod 600 {path}",
            BAD_CONFIG,
        )
    if not KEY_BYTES <= len(data) <= KEY_FILE_BYTES_MAX:
        raise AgentError(
            f"{path} has {len(data)} bytes, and a key has {KEY_BYTES} to {KEY_FILE_BYTES_MAX}",
            "`head -c 32 /dev/urandom > FILE` makes one",
            BAD_CONFIG,
        )
    return _key_of(data)


def _key_of(secret: bytes) -> bytes:
    return blake2b(secret, digest_size=KEY_BYTES, person=b"covey values").digest()
