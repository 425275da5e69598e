"""Which files an identity has, what tells that one can be read, and a start that mends them.

What can be read is *sound*; what is not comes back from its spare (``spares.py``). A command beside
the service has no key to what is sealed, cannot tell, and leaves it as it is; the agent's own start
ends there (``at_rest.py``). A secret in clear before a sealed one is damage, whatever it says.
"""

import contextlib
import logging
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from agent import exits
from agent.exits import AgentError
from agent.identity import at_rest, spares
from agent.identity.identity import Identity, IdentityFile, Peer, load
from agent.identity.keyring import parse_keyring
from agent.identity.private_keys import parse_private_pem
from agent.identity.seal import is_sealed
from gossip.core.errors import RemoteError
from gossip.core.ids import CLUSTER_ID_BYTES
from gossip.registry.registry import SignedRegistry

PUBLIC_KEY_HEAD = bytes.fromhex("302a300506032b6570032100")
"""SubjectPublicKeyInfo of an Ed25519 key (RFC 8410), up to the key itself."""

log = logging.getLogger(__name__)


def load_mended(identity_dir: Path) -> Identity:
    """Restore what the disk has damaged, from the spares, and read the directory.

    For the agent, which starts here. Raises AgentError.
    """
    with contextlib.suppress(PermissionError):  # load says it better
        at_rest.check_key(identity_dir)
        _refuse_planted(identity_dir)
        spares.mend(identity_dir, _checks(identity_dir))
    return load(identity_dir)


def _checks(identity_dir: Path) -> Mapping[str, spares.FileCheck]:
    """Return what tells of each file whether it is sound."""
    secret = {name: _ours(identity_dir, name, FILES[name]) for name in at_rest.SECRETS}
    readable = {name: secret.get(name, is_readable) for name, is_readable in FILES.items()}
    proofs = _proofs(identity_dir)
    return {
        name: spares.FileCheck(
            is_readable, proofs.get(name, spares.unasked), at_rest.is_closed_to_us
        )
        for name, is_readable in readable.items()
    }


def _refuse_planted(identity_dir: Path) -> None:
    """Tell of secrets in clear that are not of this agent's making.

    Raises AgentError for one in whose place there is nothing to restore.
    """
    for name in at_rest.SECRETS:
        path = identity_dir / name
        copies = [each for each in (spares.read(path), spares.read_spare(path)) if each]
        if all(map(is_sealed, copies)) or not (sealed := at_rest.planted(identity_dir, name)):
            continue
        what = (
            f"{path} lies in clear beside sealed files ({', '.join(sealed)}): this agent did not "
            "write it"
        )
        if not any(map(is_sealed, copies)):
            raise AgentError(
                f"{what}; it was not used, and nothing was changed.",
                hint="Somebody could write to this directory, or to the copy that it was restored "
                f"from: find out who. Then move the file (and {spares.place_of(path)}) away, or "
                "restore the whole directory from a backup.",
                status=exits.BAD_CONFIG,
            )
        log.error("%s. Somebody could write to this directory: find out who.", what)


def _ours(identity_dir: Path, name: str, is_readable: spares.IsSound) -> spares.IsSound:
    """Return what tells that a secret is sealed as it has to be, and can be read.

    Asked when those that are sealed after it have been mended.
    """
    return lambda data: (
        (is_sealed(data) or not at_rest.planted(identity_dir, name)) and is_readable(data)
    )


def _proofs(identity_dir: Path) -> Mapping[str, spares.IsSound]:
    """Return what tells that a file is right by those that are mended before it.

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
            key = parse_private_pem(at_rest.open_secret("authority.key", data))
            raw = key.public_key().public_bytes_raw()
            return raw in {each.key for each in load(identity_dir).trust.authorities}
        except (ValueError, AgentError):
            return False

    def is_certified(data: bytes) -> bool:
        if is_sealed(data):
            return True  # for its name, by us; the certificate may be what is damaged
        try:
            key = parse_private_pem(data).public_key()
            certificate = ssl.PEM_cert_to_DER_cert((identity_dir / "node.pem").read_text())
            return PUBLIC_KEY_HEAD + key.public_bytes_raw() in certificate
        except (ValueError, OSError, AgentError):
            return False

    return {"registry": is_signed, "authority.key": is_authority, "node.key": is_certified}


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
    """Return what tells whether ``decode`` takes what is in a file that may be sealed."""
    return _decodes(lambda data: decode(at_rest.open_secret(name, data)))


FILES: Mapping[str, spares.IsSound] = {
    "identity.json": _decodes(
        lambda data: Identity(Path(), msgspec.json.decode(data, type=IdentityFile))
    ),
    "node.pem": _decodes(lambda data: ssl.PEM_cert_to_DER_cert(data.decode())),
    "authority.key": _secret("authority.key", parse_private_pem),
    "node.key": _secret("node.key", parse_private_pem),
    "authority.next": _secret("authority.next", parse_private_pem),
    "keyring.json": _secret(
        "keyring.json", lambda data: parse_keyring(data, bytes(CLUSTER_ID_BYTES))
    ),
    "registry": _decodes(SignedRegistry.decode),
    "peers.json": _decodes(lambda data: msgspec.json.decode(data, type=list[Peer])),
}
"""The files of an identity, and what tells that one can be read, in the order in which they are
mended: what tells of another comes first, and so what is sealed last."""
