"""Devices that belong to a covey before any of them runs: admitted on disk, as the issuer would.

Joining by token is measured and tested elsewhere. Where it is not the point, it only costs time:
a hundred devices would stand in line at one issuer.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.config.settings import DEFAULT_PORT
from agent.files.private_files import replace_private, staged_directory, write_private
from agent.identity import certificates
from agent.identity.identity import Credentials, Identity, Peer, found, new_id, write_credentials
from agent.identity.private_keys import private_pem
from gossip.core.machine import Address
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import SignedRegistry, admit, open_registry
from tests.live.harness.network import Host


class Seat(NamedTuple):
    """One member's place: its name, its host, its folder."""

    name: str
    host: Host
    folder: Path


def identity_of(folder: Path) -> Path:
    """Return where an agent with this folder keeps its identity."""
    return folder / "data" / "identity"


def registry_on_disk(folder: Path) -> bytes:
    """Return the newest registry, signed, that an agent with this folder has on its disk."""
    rows = sqlite3.connect(f"file:{folder}/data/control.db?mode=ro", uri=True)
    try:
        [kept] = rows.execute("SELECT value FROM facts WHERE name = 'registry'").fetchone()
    finally:
        rows.close()
    signed: bytes = msgspec.msgpack.decode(kept, type=tuple[int, bytes])[1]
    return signed


def found_and_admit(seats: Sequence[Seat], covey: str) -> None:
    """Found a covey on the first device, and admit all others to it."""
    first, *others = seats
    issuer = found(identity_of(first.folder), covey, first.name)
    keys = [Ed25519PrivateKey.generate() for _ in others]
    entries = [
        RegisteredNode(
            new_id(),
            seat.name,
            key.public_key().public_bytes_raw(),
            serials=(certificates.new_serial(),),
            absent=True,
        )
        for seat, key in zip(others, keys, strict=True)
    ]
    registry = _admitted(issuer, entries)
    replace_private(identity_of(first.folder) / "registry", registry)
    peer = Peer(issuer.node_id, first.name, (Address(first.host.ipv4, DEFAULT_PORT),), time.time())
    for seat, key, entry in zip(others, keys, entries, strict=True):
        with staged_directory(identity_of(seat.folder)) as staged:
            write_private(staged / "node.key", private_pem(key))
            write_credentials(staged, _credentials(issuer, entry, registry, peer))


def _admitted(issuer: Identity, entries: Sequence[RegisteredNode]) -> bytes:
    registry = open_registry(issuer.first_registry(), issuer.verify)
    for entry in entries:
        registry = admit(registry, entry)
    payload = registry.encode()
    return SignedRegistry(payload, issuer.sign(payload)).encode()


def _credentials(
    issuer: Identity, entry: RegisteredNode, registry: bytes, peer: Peer
) -> Credentials:
    authority = issuer.authority
    subject = certificates.Subject(issuer.cluster_id, entry.id, entry.name)
    return Credentials(
        cluster_id=issuer.cluster_id,
        cluster_name=issuer.cluster_name,
        certificate=certificates.issue(
            issuer.authority_private_key(), authority, subject, entry.key, entry.serials[0]
        ),
        authority=authority,
        keyring=issuer.keyring_bytes(),
        registry=registry,
        peers=(peer,),
    )
