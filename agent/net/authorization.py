"""Who gets in: a certificate of the covey's authority is not enough, the registry has to know it.

A device that was removed keeps its certificate, and so does whoever copied a disk before a
certificate was renewed. So each stream, dialled or accepted, is held against the registry when the
handshake is over, and again whenever the registry changes. To a stranger one thing is said, which
registry we follow, and one thing is heard, which it follows (``gossip/registry/strangers.py``).
"""

from typing import NamedTuple, Protocol

from gossip.core.errors import Forged
from gossip.core.ids import NodeId


class ShownCertificate(NamedTuple):
    """What a certificate says, once OpenSSL has checked it."""

    node: NodeId
    serial: bytes


class StreamRefused(NamedTuple):
    """Told when somebody dialled from this host and was not let in."""

    shown: ShownCertificate
    host: str


class NotAdmitted(Forged):
    """The other side is who it says, and is not in our registry with this certificate."""

    label = "notadmitted"


class Authorization(Protocol):
    """Says whose certificate opens a stream, by the registry: ``agent/runtime/driver.py``."""

    def admits(self, shown: ShownCertificate) -> bool:
        """Tell whether the registry has this node, with this certificate."""

    def registry_frame(self) -> bytes:
        """Return the frame that shows our registry."""

    def overheard(self, frame: bytes, shown: ShownCertificate) -> None:
        """Take in what somebody says who was not let in: which registry it follows, no more.

        Its id may be that of a node that belongs: a certificate that was replaced names it, too.
        """

    def knocked(self, shown: ShownCertificate, host: str) -> None:
        """Take note of somebody who was not let in. Never from within a call of the node."""
