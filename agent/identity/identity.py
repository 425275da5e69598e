"""Who this node is, and the covey it belongs to: the contents of the identity directory.

::

    identity/           0700, put in place whole by one rename
      identity.json     ids and names, the authorities that are trusted, the certificate's dates
      node.key          this node's private key (Ed25519, PKCS #8): never leaves the device
      node.pem          its certificate
      authority.key     the authority's private key: on issuers only, which are the nodes that vote
      authority.next    the next one's, while it takes over (``agent/admission/ca_rollover.py``)
      keyring.json      the shared secrets of the datagrams; it and the keys may be sealed
      registry          the signed registry of when the node joined, or of the last time at which
                        the authority or its holders were others
      peers.json        members to try first
      spare/            a second copy of each (``spares.py``), made by the first start

``covey init`` founds a covey and makes all of it; ``covey join`` receives the covey's part from
a member (``agent/admission/joining.py``). Afterwards the directory is only read, but for a renewed
certificate, a rotated keyring and another authority. What else changes while the agent runs, a
newer registry and a longer list of peers, lives in ``control.db``.

Two rules for secrets: they are read when they are used and not kept, and no ``repr``, message or
log line shows one. The node's own key alone is kept while the agent runs, as its streams keep it:
what it says of itself is signed with it, also when the disk does not answer.
"""

import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.exits import AgentError
from agent.files.private_files import closed, staged_directory, write_private
from agent.identity import at_rest, spares
from agent.identity.keyring import DEFAULT_CIPHER, Keyring, load_keyring, new_keyring
from agent.identity.private_keys import private_pem, read_private_key
from agent.identity.trust import KEYRING_CONTEXT, REGISTRY_CONTEXT, Trust
from agent.system.wall_clock import flaw
from gossip.core.ids import (
    CLUSTER_ID_BYTES,
    ClusterId,
    NodeId,
    format_cluster_id,
    format_node_id,
    new_node_id,
    parse_node_id,
)
from gossip.core.machine import Address
from gossip.core.names import NAME_RULE, is_name
from gossip.registry.node import ISSUER, RegisteredNode
from gossip.registry.registry import Registry, SignedRegistry
from gossip.registry.registry import found as found_registry
from gossip.registry.succession import Authority


class IdentityFile(msgspec.Struct, frozen=True):
    """The public facts, as ``identity.json`` holds them."""

    cluster_id: str
    cluster_name: str
    node_id: str
    node_name: str
    authorities: Annotated[tuple[Authority, ...], msgspec.Meta(min_length=1, max_length=2)]
    """Who is trusted to sign, newest first; two during a roll-over."""
    issued_by: int
    """The number of the authority that signed the certificate."""
    valid_from: float
    valid_until: float
    authority_until: float = 0.0
    """The end of an authority's certificate: a clock that says more cannot be right."""


class Peer(msgspec.Struct, frozen=True):
    """A node and where it was reached: an entry of the known peers."""

    id: NodeId
    name: str
    addresses: tuple[Address, ...]
    seen_at: float = 0.0
    """Unix time at which it was last known to be alive; 0 when nobody knows."""


class Credentials(msgspec.Struct, frozen=True):
    """What a covey gives to a node that it admits, and to its founder."""

    cluster_id: ClusterId
    cluster_name: str
    certificate: bytes
    authority: bytes
    keyring: bytes
    registry: bytes
    peers: tuple[Peer, ...] = ()

    def __repr__(self) -> str:
        return f"Credentials({self.cluster_name})"


class Identity:
    """A loaded identity directory."""

    def __init__(self, directory: Path, facts: IdentityFile) -> None:
        self.directory = directory
        self.cluster_id: ClusterId = bytes.fromhex(facts.cluster_id)
        self.cluster_name = facts.cluster_name
        self.node_id: NodeId = parse_node_id(facts.node_id)
        self.node_name = facts.node_name
        self.facts = facts
        self.trust = Trust(self.cluster_id, facts.authorities)
        self._writing = threading.Lock()

    def __repr__(self) -> str:
        return f"Identity({self.node_name} {format_node_id(self.node_id)} of {self.cluster_name})"

    @property
    def valid_from(self) -> float:
        """From when the certificate is good, in Unix seconds."""
        return self.facts.valid_from

    @property
    def valid_until(self) -> float:
        """Until when."""
        return self.facts.valid_until

    @property
    def plausible(self) -> tuple[float, float]:
        """From when to when a clock can be right: we were here, and so is the authority."""
        return self.facts.valid_from, max(self.facts.authority_until, self.facts.valid_until)

    @property
    def authority(self) -> bytes:
        """The certificate of the newest authority that this node trusts (DER)."""
        return self.trust.newest.certificate

    @property
    def is_certified(self) -> bool:
        """Whether the certificate is of the newest authority."""
        return self.facts.issued_by >= self.trust.newest.number

    def _replace(self, **changes: Any) -> None:
        """Write some of the facts anew. From any thread. Raises OSError."""
        with self._writing:
            self.facts = msgspec.structs.replace(self.facts, **changes)
            spares.replace_with_spare(self.directory / "identity.json", encode_facts(self.facts))

    def renew(self, certificate: bytes) -> None:
        """Put a new certificate (DER) in place of the one that is used.

        Cut off in the middle, the new one is used, and the next start asks for another. Raises
        OSError, and Forged when nobody whom we trust has signed it.
        """
        from agent.identity import certificates

        valid_from, valid_until = certificates.validity_of(certificate)
        issuer = certificates.issuer_among(certificate, self.trust.authorities)
        spares.replace_with_spare(self.certificate_file, certificates.to_pem(certificate))
        self._replace(issued_by=issuer.number, valid_from=valid_from, valid_until=valid_until)

    def keep_trust(self, authorities: Sequence[Authority], signed: bytes) -> None:
        """Write down who is trusted, and the signed registry that says so. Raises OSError.

        The registry comes first: it can be verified by who was trusted before, too.
        """
        from agent.identity import certificates

        ends = [certificates.validity_of(each.certificate)[1] for each in authorities]
        spares.replace_with_spare(self.directory / "registry", signed)
        until = max(self.facts.authority_until, *ends)
        self._replace(authorities=tuple(authorities), authority_until=until)

    @property
    def key_file(self) -> Path:
        """This node's private key."""
        return self.directory / "node.key"

    @property
    def certificate_file(self) -> Path:
        """This node's certificate."""
        return self.directory / "node.pem"

    @property
    def authority_key_file(self) -> Path:
        """The authority's private key; exists on issuers only."""
        return self.directory / "authority.key"

    @property
    def next_authority_file(self) -> Path:
        """The private key of the authority that is about to take over, and its certificate."""
        return self.directory / "authority.next"

    @property
    def is_issuer(self) -> bool:
        """Whether this node can admit others by itself."""
        return self.authority_key_file.exists()

    def private_key(self) -> Ed25519PrivateKey:
        """Load the node's own key. Raises AgentError."""
        return read_private_key(self.key_file)

    def forget_authority(self) -> bool:
        """Wipe the authority's key, and the next one's; tell whether any was here. Raises OSError.

        Only where others have it: nobody could make it again.
        """
        was_here = self.is_issuer
        for file in (self.next_authority_file, self.authority_key_file):
            spares.remove_with_spare(file)
        return was_here

    def is_only_issuer(self) -> bool:
        """Tell whether this node lets others in, and nobody else ever did, as far as we know."""
        registry = Registry.decode(SignedRegistry.decode(self.first_registry()).payload)
        issuers = [each.id for each in registry.nodes if each.is_issuer]
        return self.is_issuer and issuers == [self.node_id]

    def keyring(self) -> Keyring:
        """Load the keys of the datagrams. Raises AgentError."""
        return load_keyring(self.keyring_file, self.cluster_id)

    @property
    def keyring_file(self) -> Path:
        """The keys of the datagrams; replaced as a whole when they are rotated."""
        return self.directory / "keyring.json"

    def keyring_bytes(self) -> bytes:
        """Return the keyring as it is handed to a node that is admitted."""
        return at_rest.read_secret(self.keyring_file)

    def first_registry(self) -> bytes:
        """Return the signed registry that came with the credentials."""
        return (self.directory / "registry").read_bytes()

    def first_peers(self) -> list[Peer]:
        """Return the members that were known when this node was admitted."""
        return msgspec.json.decode((self.directory / "peers.json").read_bytes(), type=list[Peer])

    def verify(self, payload: bytes, signature: bytes) -> bool:
        """Tell whether the covey's authority signed this registry."""
        return self.trust.verify_registry(payload, signature)

    def sign(self, payload: bytes, by: Authority | None = None) -> bytes:
        """Sign a registry with an authority's key, the newest unless named. Issuers only."""
        return self.authority_private_key(by).sign(REGISTRY_CONTEXT + payload)

    def verify_keyring(self, payload: bytes, signature: bytes) -> bool:
        """Tell whether the covey's authority signed this keyring."""
        return self.trust.verify_keyring(payload, signature)

    def sign_keyring(self, payload: bytes) -> bytes:
        """Sign a keyring with the authority's key. Issuers only."""
        return self.authority_private_key().sign(KEYRING_CONTEXT + payload)

    def authority_private_key(self, of: Authority | None = None) -> Ed25519PrivateKey:
        """Load the key of an authority, the newest unless named. Issuers only. Raises AgentError.

        While the next authority takes over, its key may still be in the file of its own.
        """
        wanted = (of or self.trust.newest).key
        for file in (self.authority_key_file, self.next_authority_file):
            if file == self.authority_key_file or file.exists():
                key = read_private_key(file)
                if key.public_key().public_bytes_raw() == wanted:
                    return key
        raise AgentError(
            "the authority's key on this device is not the one that the covey trusts by now; "
            "nothing was changed.",
            hint="This directory is older than the last `covey keys rotate --authority`: restore a "
            "newer backup of it.",
            status=exits.NOT_PERMITTED,
        )


def check_name(name: str, what: str) -> str:
    """Return the name if a covey or node may have it. Raises AgentError."""
    if is_name(name):
        return name
    raise AgentError(
        f"{name[:80]!r} cannot be the name of a {what}; nothing was changed.",
        hint=f"Use {NAME_RULE}.",
        status=exits.USAGE,
    )


TAKES_PART = "takes part while its agent runs; `covey status` tells whether it does"


def check_absent(directory: Path) -> None:
    """Raise AgentError when there is an identity already: two would be one too many."""
    if not directory.exists():
        return
    try:
        owner = f"node {load(directory).node_name} of covey {load(directory).cluster_name}"
    except AgentError:
        owner = "an identity that cannot be read"
    raise AgentError(
        f"{directory} already holds {owner}; nothing was changed.",
        hint=f"It {TAKES_PART}. To give it up: `covey leave --forget`; to run a second agent "
        "here, give it its own directory with --dir PATH.",
        status=exits.NO,
    )


def found(
    identity_dir: Path,
    cluster_name: str,
    node_name: str,
    *,
    weight: float = 1.0,
    zone: str = "",
    cipher: str = DEFAULT_CIPHER,
) -> Identity:
    """Found a covey with this node as its first member and issuer.

    Makes ``identity_dir`` whole or not at all. Raises AgentError when there is an identity
    already, a name cannot be used, the clock cannot be right, or the file system refuses.
    """
    from agent.identity import certificates  # 3 MiB that a running agent rarely needs

    check_name(cluster_name, "covey")
    check_name(node_name, "node")
    check_absent(identity_dir)
    if (wrong := flaw(time.time())) is not None:  # it would be in every certificate
        raise AgentError(
            f"{wrong.message}; nothing was changed.", f"First {wrong.hint}.", exits.CLOCK_OFF
        )
    cluster_id, node_id = secrets.token_bytes(CLUSTER_ID_BYTES), new_id()
    authority_key, node_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = node_key.public_key().public_bytes_raw()
    authority = certificates.make_authority(authority_key, cluster_id, cluster_name)
    subject = certificates.Subject(cluster_id, node_id, node_name)
    serial = certificates.new_serial()
    founder = RegisteredNode(node_id, node_name, public, weight, zone, (ISSUER,), (serial,))
    payload = found_registry(cluster_id, founder).encode()
    signature = authority_key.sign(REGISTRY_CONTEXT + payload)
    credentials = Credentials(
        cluster_id=cluster_id,
        cluster_name=cluster_name,
        certificate=certificates.issue(authority_key, authority, subject, public, serial),
        authority=authority,
        keyring=new_keyring(cipher),
        registry=SignedRegistry(payload, signature).encode(),
    )
    with staged_directory(identity_dir) as staged:
        at_rest.write_secret(staged / "node.key", private_pem(node_key))
        at_rest.write_secret(staged / "authority.key", private_pem(authority_key))
        write_credentials(staged, credentials)
    return load(identity_dir)


def write_credentials(staged: Path, credentials: Credentials) -> None:
    """Write all but the private keys into a directory that is not yet in place."""
    from agent.identity import certificates

    subject, _ = certificates.check_issued(credentials.certificate, credentials.authority)
    valid_from, valid_until = certificates.validity_of(credentials.certificate)
    authority = Authority(
        _number_of(credentials),
        certificates.authority_key_of(credentials.authority),
        credentials.authority,
    )
    facts = IdentityFile(
        cluster_id=format_cluster_id(credentials.cluster_id),
        cluster_name=credentials.cluster_name,
        node_id=format_node_id(subject.node_id),
        node_name=subject.name,
        authorities=(authority,),
        issued_by=authority.number,
        valid_from=valid_from,
        valid_until=valid_until,
        authority_until=certificates.validity_of(credentials.authority)[1],
    )
    write_private(staged / "node.pem", certificates.to_pem(credentials.certificate))
    at_rest.write_secret(staged / "keyring.json", credentials.keyring)
    write_private(staged / "registry", credentials.registry)
    write_private(staged / "peers.json", msgspec.json.encode(credentials.peers))
    write_private(staged / "identity.json", encode_facts(facts))


def _number_of(credentials: Credentials) -> int:
    """Return the number of the authority; the registry's own signature is checked at the start."""
    registry = Registry.decode(SignedRegistry.decode(credentials.registry).payload)
    return registry.authority_number


def encode_facts(facts: IdentityFile) -> bytes:
    """Return ``identity.json`` as people may read it."""
    return msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n"


def load(identity_dir: Path) -> Identity:
    """Read the identity directory. Raises AgentError when there is none or it is damaged."""
    try:
        facts = msgspec.json.decode(
            (identity_dir / "identity.json").read_bytes(), type=IdentityFile
        )
        return Identity(identity_dir, facts)
    except FileNotFoundError:
        raise AgentError(
            f"this node belongs to no covey yet: there is no identity in {identity_dir}.",
            hint="Found a covey with `covey init`, or join one with `covey join TOKEN`.",
            status=exits.NOT_FOUND,
        ) from None
    except PermissionError:
        raise closed(identity_dir / "identity.json") from None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise AgentError(
            f"the identity in {identity_dir} cannot be read: {error}; nothing was changed.",
            hint="Restore the directory from a backup, or move it away and join anew.",
            status=exits.BAD_CONFIG,
        ) from None


def new_id() -> NodeId:
    """Draw a node id from the system's generator."""
    return new_node_id(secrets.SystemRandom())
