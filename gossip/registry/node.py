"""A node's place in the registry: who it is, what it may do, and which certificates are its own.

A certificate alone opens nothing. Its serial must stand in the entry of the node that it names, so
that a lost one is refused by everybody who has the registry, without waiting until it expires.
There are two from the first renewal on: the newest, and the one that was in use when that was made.
"""

from typing import Annotated

import msgspec

from gossip.core.ids import NodeId
from gossip.core.names import Name

WEIGHT_MAX = 1e6
"""Far beyond what an issuer grants; an infinite share of the partitions cannot be placed."""
SERIAL_BYTES = 20
"""The longest serial of a certificate (RFC 5280, section 4.1.2.2), and the length of ours."""
SERIALS_MAX = 2
ROLES_MAX = 8

ISSUER = "issuer"
"""It holds the authority's key: it signs certificates, registries and rings."""
INVITER = "inviter"
"""The issuer makes tokens for it."""

Serial = Annotated[bytes, msgspec.Meta(min_length=SERIAL_BYTES, max_length=SERIAL_BYTES)]
Role = Annotated[str, msgspec.Meta(max_length=16)]
"""Text and no number: a role that a later version has made is one that we do not grant."""


class RegisteredNode(msgspec.Struct, frozen=True, array_like=True):
    """A node that belongs. ``key`` is its public key; every node is a member without any role."""

    id: NodeId
    name: Name
    key: bytes = b""
    weight: Annotated[float, msgspec.Meta(gt=0, le=WEIGHT_MAX)] = 1.0
    zone: str = ""
    roles: Annotated[tuple[Role, ...], msgspec.Meta(max_length=ROLES_MAX)] = ()
    serials: Annotated[tuple[Serial, ...], msgspec.Meta(max_length=SERIALS_MAX)] = ()
    """Of its certificates, newest first."""
    authority: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The number of the authority that signed the newest (``succession.py``)."""
    absent: bool = False
    """Whether it gets no partitions, since the issuer has not heard it (``presence.py``)."""
    drains: bool = False
    """Whether it is to own nothing, by an operator's word (``node_change.py``)."""
    missing: bool = False
    """Whether others are to have its share, since it was not heard for long (``contact.py``)."""

    @property
    def is_issuer(self) -> bool:
        """Whether it may sign registries."""
        return ISSUER in self.roles

    @property
    def may_invite(self) -> bool:
        """Whether the issuer makes tokens for it."""
        return ISSUER in self.roles or INVITER in self.roles

    def shows(self, serial: bytes) -> bool:
        """Tell whether the certificate with this serial is one that it has now."""
        return serial in self.serials


class RemovedNode(msgspec.Struct, frozen=True, array_like=True):
    """A node that belonged once, so that it can be told, and people hear its name when it knocks.

    ``epoch`` is that of the first registry without it.
    """

    id: NodeId
    name: Name
    epoch: Annotated[int, msgspec.Meta(ge=1)]
    spared: bool = False
    """Whether nothing that was acknowledged may be on it alone: then it deletes what it held."""
    held_authority: int = -1
    """The number of the authority whose key it held when it was taken out; -1: none."""
