"""Scripted peers: members that say only what a transcript makes them say.

One real node among scripted peers shows a rule of the protocol by itself: what it was told stands
in the file, and so does every packet that it sent. A scripted peer answers pings at once, says nack
when it is asked to ping somebody else, and refutes nothing; told to be mute, it does not even do
that.

To the simulated driver a scripted peer is a node like any other: it gets sealed datagrams, and what
it answers goes through the air.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from gossip.core.envelope import CipherSuite, Envelope
from gossip.core.errors import RemoteError
from gossip.core.ids import BOOT_RANDOM_BITS, Boot, ClusterId, NodeId
from gossip.core.machine import Address, Effect, Instant, SendDatagram
from gossip.core.wire import pack, unpack
from gossip.membership.model.messages import Ack, Filler, Nack, Ping, PingRequest
from gossip.sim.host import Host
from gossip.sim.script.message_text import MESSAGES, Message


class ReceivedPacket(NamedTuple):
    """One packet that reached a scripted peer."""

    at: Instant
    messages: tuple[Message, ...]


class ScriptedPeer:
    """A member that says only what a script makes it say; has what the driver needs of a node."""

    def __init__(self, host: Host, cluster_id: ClusterId, suite: CipherSuite) -> None:
        self.host = host
        self.boot = 1 << BOOT_RANDOM_BITS
        self.incarnation = 1
        self.is_mute = False
        self.heard: list[ReceivedPacket] = []
        self.last_packet = b""
        self.recorded = b""
        self.asked: dict[NodeId, list[int]] = {}
        """The numbers of the pings that were not answered, which an ack or a nack repeats."""
        self._ears = Envelope(cluster_id, host.id, 0, suite)
        self._lives: dict[Boot, Envelope] = {}
        self._cluster_id = cluster_id
        self._suite = suite
        self._effects: deque[Effect] = deque()

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        """Write down what arrived, and answer a ping."""
        with contextlib.suppress(RemoteError):
            opened = self._ears.open(data)
            self.last_packet = data
            read = [MESSAGES.decode(item) for item in unpack(opened.body)]
            messages = tuple(message for message in read if message is not None)
            # Path checks are pings too, and no part of what is told of probes.
            if not any(isinstance(message, Filler) for message in messages):
                self.heard.append(ReceivedPacket(self.host.world_time(now), messages))
            for message in messages:
                self._answer(message, opened.sender, source)

    def _answer(self, message: Message, sender: NodeId, source: Address) -> None:
        if not isinstance(message, Ping | PingRequest):
            return
        if self.is_mute:
            self.asked.setdefault(sender, []).append(message.number)
        elif isinstance(message, PingRequest):
            self.send(source, Nack(message.number))
        elif message.target == self.host.id:
            self.send(source, Ack(message.number))

    def send(self, to: Address, *messages: Message) -> None:
        """Put a packet on its way, once the driver asks for effects."""
        assert not self.is_mute, "whoever is mute answers only by hand"
        self._effects.append(SendDatagram(self.seal(*messages), to))

    def seal(self, *messages: Message) -> bytes:
        """Return a packet of this scripted peer."""
        if self.boot not in self._lives:
            life = self._cluster_id, self.host.id, self.boot
            self._lives[self.boot] = Envelope(*life, self._suite)
        body = pack(MESSAGES.encode(message) for message in messages)
        return self._lives[self.boot].seal(body, self.incarnation)

    def speaks_as(self, boot: Boot, incarnation: int) -> None:
        """Go on in this life and incarnation."""
        assert boot > 0, (
            "the ears of a scripted peer have life 0, so that no packet of its own is theirs"
        )
        self.boot, self.incarnation = boot, incarnation

    def effects(self) -> Iterator[Effect]:
        """Drain the answers."""
        while self._effects:
            yield self._effects.popleft()

    def deadline(self) -> Instant | None:
        """Return None: a scripted peer has no timers."""
        return None

    def wake(self, now: Instant) -> None:
        """Do nothing."""

    def receive_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take no notice: scripted peers have no state to exchange."""
