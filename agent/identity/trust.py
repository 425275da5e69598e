"""Whom a node trusts to sign for the covey: its authority, and during a roll-over the one before.

Registries count under the newest authority alone, and under one that a registry shows to have come
after it (``gossip/registry/succession.py``). Certificates and rings are good under the former, too,
until the registry says that this is over.
"""

import ssl
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gossip.core.errors import RemoteError
from gossip.core.ids import ClusterId
from gossip.registry.registry import Registry
from gossip.registry.succession import Authority, Succession, follow

REGISTRY_CONTEXT = b"covey registry v1\x00"
"""Put before what the authority signs: it also signs certificates, and a signature for one
purpose must never pass for another."""
KEYRING_CONTEXT = b"covey keyring v1\x00"


class Trust:
    """The authorities that a node trusts now, newest first."""

    def __init__(self, cluster_id: ClusterId, authorities: Sequence[Authority]) -> None:
        assert authorities, "somebody must be trusted"
        self._cluster_id, self.authorities = cluster_id, tuple(authorities)

    @property
    def newest(self) -> Authority:
        """The authority that signs registries."""
        return self.authorities[0]

    @property
    def bundle(self) -> str:
        """Their certificates, as OpenSSL takes them."""
        return "".join(ssl.DER_cert_to_PEM_cert(each.certificate) for each in self.authorities)

    def verify_registry(self, payload: bytes, signature: bytes) -> bool:
        """Tell whether the newest authority signed this registry, or the one to which it leads."""
        try:
            leader = self.lead_to(Registry.decode(payload).successions)
        except RemoteError:
            return False
        return is_signed(leader.key, REGISTRY_CONTEXT + payload, signature)

    def verify_keyring(self, payload: bytes, signature: bytes) -> bool:
        """Tell whether an authority that is trusted now signed this keyring."""
        return any(
            is_signed(each.key, KEYRING_CONTEXT + payload, signature) for each in self.authorities
        )

    def lead_to(self, successions: Sequence[Succession]) -> Authority:
        """Return the authority to which these steps lead from the newest. Raises Forged."""
        return follow(self.newest, successions, self._cluster_id, is_signed)

    def acceptable(self, successions: Sequence[Succession]) -> list[bytes]:
        """Return whose certificates a member may show that knows of these steps. Raises Forged."""
        leader = self.lead_to(successions)
        return [leader.certificate, *(each.certificate for each in self.authorities)]

    def adopt(self, registry: Registry) -> bool:
        """Trust whom a verified registry says; tell whether that is somebody else than before."""
        before, leader = self.authorities, self.lead_to(registry.successions)
        former = (registry.successions[0].former,) if registry.overlaps else ()
        self.authorities = (leader, *former)
        return self.authorities != before


def is_signed(key: bytes, data: bytes, signature: bytes) -> bool:
    """Tell whether whoever has the private half of this key (Ed25519) signed the data."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
