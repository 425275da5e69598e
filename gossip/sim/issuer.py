"""The simulated issuer: says who belongs, as the device that holds the CA key does.

In production the registry is signed by the issuer's agent and spreads from there. Here the world
itself holds the key, so that a test can admit and remove nodes at any moment; how the signed
registry then reaches everybody is the nodes' own business, and is what gets tested.
"""

from gossip.core.ids import CLUSTER_ID_BYTES, ClusterId
from gossip.kv.requests import OwnersReady
from gossip.registry.node import ISSUER, RegisteredNode
from gossip.registry.registry import Registry, SignedRegistry, admit, advance, found, remove
from gossip.sim.host import Host
from gossip.sim.toy_cipher import toy_key, toy_sign, toy_verify


class Issuer:
    """Keeps the newest registry and signs it."""

    def __init__(self, cluster_id: ClusterId, secret: bytes, partitions: int) -> None:
        assert len(cluster_id) == CLUSTER_ID_BYTES, "cluster ids have 16 bytes"
        self.cluster_id = cluster_id
        self._newest: Registry | None = None
        self._secret = secret
        self._partitions = partitions

    @property
    def newest(self) -> Registry:
        """The registry that was signed last."""
        assert self._newest is not None, "nobody was admitted yet"
        return self._newest

    def admit(self, host: Host, *, weight: float = 1.0, zone: str = "") -> None:
        """Let a host belong; the first one founds the covey."""
        node = RegisteredNode(
            id=host.id,
            name=host.name,
            key=toy_key(host.id),
            weight=weight,
            zone=zone,
            roles=(ISSUER,) if self._newest is None else (),
        )
        if self._newest is None:
            self._newest = found(self.cluster_id, node, self._partitions)
        else:
            self._newest = admit(self._newest, node)

    def remove(self, host: Host) -> None:
        """Let a host no longer belong."""
        self._newest = remove(self.newest, host.id)

    def advance(self, ready: OwnersReady) -> bool:
        """Carry partitions on to their next stage; tell whether there were any."""
        before = self.newest
        heard = ready.here, ready.away, ready.missing, ready.found
        self._newest = advance(before, ready.done, ready.epoch, *heard)
        return self.newest is not before

    def signed(self) -> bytes:
        """Return the newest registry as it travels."""
        payload = self.newest.encode()
        return SignedRegistry(payload, toy_sign(self._secret, payload)).encode()

    def verify(self, payload: bytes, signature: bytes) -> bool:
        """Tell whether this issuer signed that payload."""
        return toy_verify(self._secret, payload, signature)
