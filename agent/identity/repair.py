"""Which files an identity has, what tells that one can be read, and a start that mends them.

What can be read is *sound*; what is not comes back from its spare (``spares.py``). A file that is
sealed can only be taken for sound by a command beside the service, which has no key; the agent's
own start ends there (``at_rest.py``).
"""

import contextlib
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from agent.exits import AgentError
from agent.identity import at_rest, spares
from agent.identity.identity import Identity, IdentityFile, Peer, load
from agent.identity.keyring import parse_keyring
from agent.identity.private_keys import parse_private_pem
from gossip.core.errors import RemoteError
from gossip.core.ids import CLUSTER_ID_BYTES
from gossip.registry.registry import SignedRegistry


def load_mended(identity_dir: Path) -> Identity:
    """Restore what the disk has damaged, from the spares, and read the directory.

    For the agent, which starts here. Raises AgentError.
    """
    with contextlib.suppress(PermissionError):  # load says it better
        at_rest.check_key(identity_dir)
        spares.mend(identity_dir, {**FILES, **_proved(identity_dir)})
    return load(identity_dir)


def _proved(identity_dir: Path) -> Mapping[str, spares.IsSound]:
    """Return what tells that a file is sound by what ``identity.json`` says, which is mended first.

    A flipped bit in a signed registry or in a key can be read as well as any other.
    """

    def is_signed(data: bytes) -> bool:
        try:
            signed = SignedRegistry.decode(data)
            return load(identity_dir).verify(signed.payload, signed.signature)
        except (RemoteError, AgentError):
            return False

    def is_authority(data: bytes) -> bool:
        try:
            if at_rest.is_closed_to_us(data):
                return True
            key = parse_private_pem(at_rest.open_secret("authority.key", data))
            raw = key.public_key().public_bytes_raw()
            return raw in {each.key for each in load(identity_dir).trust.authorities}
        except (ValueError, AgentError):
            return False

    return {"registry": is_signed, "authority.key": is_authority}


def _decodes(decode: Callable[[bytes], object]) -> Callable[[bytes], bool]:
    """Return what tells whether ``decode`` takes something."""

    def is_sound(data: bytes) -> bool:
        try:
            decode(data)
        except (ValueError, TypeError, msgspec.DecodeError, RemoteError):
            return False
        return True

    return is_sound


def _secret(name: str, decode: Callable[[bytes], object]) -> spares.IsSound:
    """Return what tells whether ``decode`` takes what is in a file that may be sealed.

    What is sealed can only be taken for sound where there is no key.
    """
    return _decodes(
        lambda data: at_rest.is_closed_to_us(data) or decode(at_rest.open_secret(name, data))
    )


FILES: Mapping[str, spares.IsSound] = {
    "identity.json": _decodes(
        lambda data: Identity(Path(), msgspec.json.decode(data, type=IdentityFile))
    ),
    "node.key": _secret("node.key", parse_private_pem),
    "authority.key": _secret("authority.key", parse_private_pem),
    "authority.next": _secret("authority.next", parse_private_pem),
    "node.pem": _decodes(lambda data: ssl.PEM_cert_to_DER_cert(data.decode())),
    "keyring.json": _secret(
        "keyring.json", lambda data: parse_keyring(data, bytes(CLUSTER_ID_BYTES))
    ),
    "registry": _decodes(SignedRegistry.decode),
    "peers.json": _decodes(lambda data: msgspec.json.decode(data, type=list[Peer])),
}
"""The files of an identity, and what tells that one can be read."""
