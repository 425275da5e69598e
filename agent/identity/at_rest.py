"""A node's secret files at rest: sealed where systemd hands the agent a key, else in clear.

What is secret is written sealed whenever the key is here (``seal.py``). Where a command made an
identity outside of the service, or an installation is older than its seal, the files lie in clear
until the service's next start, which seals them, each in steps that may end anywhere::

    node.key                    clear     clear             sealed    sealed
    .node.key.clear                       clear, linked     clear     (zeros, then gone)

So the clear bytes keep a name until they are overwritten. Overwriting reaches the blocks that the
file had: not what a file system that copies on write, or the card's own wear levelling, keeps
elsewhere.

A file that is sealed and cannot be opened ends the start. No new identity is made in its place.

The seal also tells whose a file is, and only if nothing in clear is taken for it any more. Files
are sealed in one order, of which the last is the one that nobody can make who has no key: the
authority's, or the node's own. So one that lies in clear *before* a sealed one is not of our
making, but of somebody who could write to the directory or to the copy that was restored, and
counts as damaged (``repair.py``).
"""

import logging
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from agent import exits
from agent.config.credentials import SEAL, SYSTEM_SEAL
from agent.exits import AgentError
from agent.files.directories import make_directory
from agent.files.private_files import (
    DIRECTORY_MODE,
    discard,
    remains,
    replace_wiping,
    wipe_remains,
    write_private,
)
from agent.identity import spares
from agent.identity.seal import SealBroken, is_sealed, seal_here

SECRETS = ("keyring.json", "authority.next", "node.key", "authority.key")
"""The files of an identity that are for its node alone, in the order in which they are sealed."""

log = logging.getLogger(__name__)


def write_secret(path: Path, data: bytes) -> None:
    """Create a secret file, sealed if the key is here.

    Raises OSError, and AgentError where others beside it are sealed and the key is not here.
    """
    write_private(path, _closed(path, data))


def replace_secret(path: Path, data: bytes) -> None:
    """Replace a secret file and its spare, sealed if the key is here, and those before it, too.

    Raises OSError when the file could not be replaced, and AgentError where it or others beside it
    are sealed and the key is not here; nothing was then changed.
    """
    closed = _closed(path, data)
    if is_sealed(closed):
        for earlier in _files(path.parent, SECRETS[: SECRETS.index(path.name)]):
            _seal(earlier)
    spares.replace_with_spare(path, closed)


def read_secret(path: Path) -> bytes:
    """Return what a secret file holds.

    Raises OSError, SealBroken for one that does not verify, and AgentError without its key.
    """
    data = path.read_bytes()
    if is_shut(data):
        raise _no_key(path)
    return open_secret(path.name, data)


def open_secret(name: str, data: bytes) -> bytes:
    """Return what was sealed for a file of this name, or ``data`` itself in clear.

    Raises SealBroken, also where it is shut, and AgentError.
    """
    if not is_sealed(data):
        return data
    seal = seal_here()
    if seal is None:
        raise SealBroken("it is sealed, and the key is not here")
    return seal.open(name, data)


def is_shut(data: bytes) -> bool:
    """Say whether a file is sealed with a key that is not here. Raises AgentError."""
    seal = seal_here()
    return is_sealed(data) and (seal is None or not seal.has_sealed(data))


def is_closed_to_us(data: bytes) -> bool:
    """Say whether a file is sealed, and this process has no key at all. Raises AgentError."""
    return is_sealed(data) and seal_here() is None


def check_key(directory: Path) -> None:
    """Raise AgentError when the key that is here is another than the one of a file.

    Of a file and its spare one may be damaged in just that place.
    """
    if seal_here() is None:
        return  # a command beside the service
    for path in (directory / name for name in SECRETS):
        copies = spares.read(path) or b"", spares.read_spare(path) or b""
        sealed = list(filter(is_sealed, copies))
        if sealed and all(map(is_shut, sealed)):
            raise _no_key(path)


def planted(directory: Path, name: str) -> list[str]:
    """Return which files make one in clear of this name, if there is one, somebody else's.

    Those are the sealed ones that are sealed after it. Raises OSError.
    """
    later = SECRETS[SECRETS.index(name) + 1 :]
    return [path.name for path in _files(directory, later) if is_sealed(spares.read(path) or b"")]


def load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have a context show a certificate. Raises OSError, SealBroken and AgentError.

    OpenSSL takes keys from files alone, so an unsealed one is given in one that has no name and is
    on no disk (memfd_create(2)).
    """
    handle = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.write(handle, read_secret(key))
        context.load_cert_chain(certificate, f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def seal_identity(directory: Path) -> None:
    """Seal what of an identity lies in clear, if the key is here; for the start of an agent.

    A disk that refuses leaves files as they are, that one and all after it, and ``covey doctor``
    tells. Raises AgentError for what is sealed with a key that is not here.
    """
    files = _files(directory, SECRETS)
    for path in files:
        if is_shut(path.read_bytes()):
            raise _no_key(path)
    if seal_here() is None:
        return
    for path in (directory / name for name in SECRETS):
        _wipe_remains(path)  # first: they have the names under which clear bytes are overwritten
        _wipe_remains(spares.place_of(path))
    try:
        for path in files:
            _seal(path)
    except OSError as error:
        log.warning("the keys in %s are not all sealed: %s", directory, error)
    for left in directory.parent.glob(f".{directory.name}.*"):
        discard(left)  # of a join or a founding that was cut off; a key may be among it


def sealed(directory: Path) -> list[str]:
    """Return the names of the secret files that are sealed. Raises OSError."""
    return [path.name for path in _files(directory, SECRETS) if is_sealed(path.read_bytes())]


def in_clear(directory: Path) -> list[str]:
    """Return the names of the secret files that lie in clear, spares and remains among them.

    Raises OSError.
    """
    places = [directory, directory / spares.DIRECTORY]
    found = [each for place in places for name in SECRETS for each in _all_of(place / name)]
    return [
        str(each.relative_to(directory)) for each in found if not _is_sealed_copy(each.read_bytes())
    ]


def _seal(path: Path) -> None:
    """Seal a file and its spare, and wipe what they held. Raises OSError."""
    data = path.read_bytes()
    if not is_sealed(data):
        data = _closed(path, data)
        replace_wiping(path, data)
    if spares.read_spare(path) != data:
        make_directory(spares.place_of(path).parent, DIRECTORY_MODE)
        replace_wiping(spares.place_of(path), spares.with_digest(data))


def _wipe_remains(path: Path) -> None:
    try:
        wipe_remains(path)
    except OSError as error:
        log.warning("what is left beside %s was not overwritten: %s", path, error)


def _files(directory: Path, names: Sequence[str]) -> list[Path]:
    """Return those of these files that are there."""
    return [path for path in (directory / name for name in names) if path.exists()]


def _all_of(path: Path) -> list[Path]:
    return [*([path] if path.exists() else []), *remains(path)]


def _is_sealed_copy(data: bytes) -> bool:
    return is_sealed(data) or is_sealed(data[spares.DIGEST_BYTES :])


def _closed(path: Path, data: bytes) -> bytes:
    """Return what a file is to hold. Raises AgentError where only a key that is away could seal."""
    for each in _files(path.parent, SECRETS):
        if is_shut(spares.read(each) or b""):
            raise _no_key(each)  # a credential can be taken from a service that runs
    seal = seal_here()
    return data if seal is None else seal.close(path.name, data)


def _no_key(path: Path) -> AgentError:
    """Return the error for a file that is sealed with a key that is not here."""
    is_another = seal_here() is not None
    what = "another key than the one" if is_another else "a key"
    and_not = "this process was given" if is_another else "this process was not given"
    data = path.parent.parent
    return AgentError(
        f"{path} is sealed with {what} that {and_not} (the credential {SEAL} of systemd); "
        "nothing was changed.",
        hint="Start the agent as its service, on the machine that sealed it: `systemctl start "
        f"covey`. If that says this and {SYSTEM_SEAL} is there, `sudo covey service install --now` "
        f"puts it back into the unit. {how_to_bring_the_key(data)}",
        status=exits.BAD_CONFIG,
    )


def how_to_bring_the_key(data: Path) -> str:
    """Return what to do on a machine that has not the key with which ``data`` was sealed."""
    return (
        f"Where {SYSTEM_SEAL} is gone, or another machine's: seal the key that you have kept, "
        f"`sudo mkdir -p -m 700 {SYSTEM_SEAL.parent}`, `sudo systemd-creds encrypt --name={SEAL} "
        f"--tpm2-pcrs=23 KEPT {SYSTEM_SEAL}`, then `sudo covey service install --now`. Where no "
        f"key was kept: move {data} away, and `covey join --replace NAME TOKEN` makes a new node."
    )
