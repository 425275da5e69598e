"""The contract between a protocol machine and whatever drives it.

A machine never reads a clock, opens a socket, writes a file or draws a number that was not
handed to it. Inputs and the time go in; ordered effects come out::

    receive(data, source, now)   a datagram arrived
    wake(now)                    a deadline passed (harmless when called early)
    deadline()                   when wake() wants to be called next
    effects()                    what to do now, in order; drains the queue

Of a machine that is a whole node, the driver also tells what became of what it sent, as hints::

    peer_unreachable(peer, now)       frames to it could not be sent, or were lost
    stream_closed(peer, now)          an open stream to it ended, and not by us
    port_unreachable(address, now)    its host refused a datagram that we sent to this address

After *any* input call, the driver performs all ``effects()`` in order and then re-arms its one
timer at ``deadline()``. The same inputs give the same effects, byte for byte: so the simulator
in ``gossip/sim`` runs the very code that ``agent/runtime/driver.py`` runs on real sockets.

Disk. A machine that must not speak before something is durable emits ``Persist`` and stays
silent; the driver writes the changes, many batches in one transaction, and calls
``persisted(token, now)``; only then does the machine emit the sends that reveal them. A slow
disk thus delays the writes that wait for it, and never a probe's answer. (The rule is that of
etcd/raft's ``Ready``; the tokens are its asynchronous storage writes.) Each batch says what has to
be survived before it counts as written (``Durability``), and each durability has a queue and a
file of its own: a vote does not wait for a thousand records.

The reading order of this package is in its ``__init__``.
"""

import enum
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from gossip.core.ids import NodeId

Instant = float
"""Seconds on a clock that never goes back and goes on during suspend (CLOCK_BOOTTIME)."""


FrameHandler = Callable[[bytes, NodeId, Instant], None]
"""Takes in one frame from an authenticated peer, at this time."""


class Address(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Where datagrams and streams reach an agent: UDP and TCP share the port number.

    ``host`` is a literal IPv4 or IPv6 address, never a name; a link-local IPv6 address carries
    its zone (``fe80::1%eth0``) and is for local use only, it is never gossiped.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SendDatagram(msgspec.Struct, frozen=True, gc=False):
    """Send these sealed bytes once, to this address. May be lost; nobody is told."""

    data: bytes
    to: Address


class SendFrame(msgspec.Struct, frozen=True, gc=False):
    """Send this frame over an authenticated stream to this node, dialling if need be.

    Frames to one node arrive in order or not at all. When the stream cannot be opened or
    breaks with frames unsent, the driver says so through ``peer_unreachable``; frames that
    were written may or may not have arrived.
    """

    data: bytes
    to: NodeId


class Durability(enum.Enum):
    """What a batch must survive from the moment on at which ``persisted`` is called."""

    FLUSH = "flush"
    """The end of the process, ``kill -9`` included. A power cut may take the last seconds."""
    FSYNC = "fsync"
    """A power cut, too: it is on the disk."""


class Persist(msgspec.Struct, frozen=True):
    """Write these changes in one transaction, then call ``persisted(token, now)``.

    ``changes`` are structs of the plane that emitted them (see ``gossip/kv/storage.py``).
    Batches of one durability are committed, and reported, in the order of their emission; between
    those of two there is no order, neither on the disk nor in the reports. A token is used once.
    """

    token: int
    changes: tuple[object, ...]
    durability: Durability


class SyncDisk(msgspec.Struct, frozen=True):
    """Sync what was written with FLUSH up to this token, then call ``synced(token, now)``.

    One sync serves all that was written before it began: the token that is reported may be a larger
    one. What the process found on its disk when it began counts as written under the token 0; it
    may be that nobody has synced it.
    """

    token: int


class Emit(msgspec.Struct, frozen=True):
    """Tell the application: a member changed, a request completed, a record changed."""

    event: object


Effect = SendDatagram | SendFrame | Persist | SyncDisk | Emit


class Machine(Protocol):
    """What a driver needs; see the module's text for the order of calls."""

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        """Take in one datagram. Never raises for bad bytes: it counts them."""

    def wake(self, now: Instant) -> None:
        """Let due timers act."""

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due; None while nothing is waiting."""

    def effects(self) -> Iterator[Effect]:
        """Drain what is to be done, in order."""
