"""Registries as an issuer makes them, signed by nobody in particular."""

from gossip.registry.node import RegisteredNode
from gossip.registry.registry import Registry, SignedRegistry, admit, found

COVEY = bytes(range(16))


def registries(count: int, covey: bytes = COVEY, partitions: int = 4) -> list[Registry]:
    """Return so many registries, each of which follows the one before it."""
    chain = [found(covey, RegisteredNode(1, "n1"), partitions)]
    for number in range(2, count + 1):
        chain.append(admit(chain[-1], RegisteredNode(number, f"n{number}")))
    return chain


def signed(registry: Registry) -> bytes:
    return SignedRegistry(registry.encode(), bytes(64)).encode()
