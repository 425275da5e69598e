"""Mallory: a member of a simulated covey that holds all keys, and is played by a test.

It is in the registry and was a good member once; then its device vanished, and whoever writes the
test speaks in its place: in its own name or, since all members share the keys of the datagrams, in
any other.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from gossip.core.envelope import Envelope
from gossip.core.ids import Boot, ClusterId, NodeId, next_boot
from gossip.core.machine import Address, Instant
from gossip.core.tuning import BODY_BYTES_MAX
from gossip.core.wire import LENGTH_BYTES, pack
from gossip.membership.model.messages import Alive, Asleep, Left
from gossip.membership.model.signatures import Signatures
from gossip.node import Node
from gossip.sim.host import Host
from gossip.sim.script.message_text import MESSAGES, Message
from gossip.sim.toy_cipher import ToySuite, toy_signing
from gossip.sim.world import SECRET, World
from tests.fuzz.codecs import codecs


class Mallory:
    """Sends what it likes to nodes of a world of which ``name`` was a member."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.host = world.hosts[name]
        world.vanish(name)
        self.id = self.host.id
        self.boot = next_boot(self.host.starts + 1, world.driver._disk)
        self._suite = ToySuite(SECRET)
        self._envelopes: dict[tuple[ClusterId, NodeId, Boot], Envelope] = {}

    def seal(
        self,
        body: bytes,
        sender: NodeId | None = None,
        boot: Boot | None = None,
        incarnation: int = 1,
        cluster_id: ClusterId | None = None,
    ) -> bytes:
        """Return a packet of this life of this sender: by default our own."""
        sender, boot = sender or self.id, self.boot if boot is None else boot
        name = cluster_id or self.world.issuer.cluster_id, sender, boot
        if name not in self._envelopes:
            self._envelopes[name] = Envelope(*name, self._suite)
        return self._envelopes[name].seal(body, incarnation)

    def deliver(self, to: Host, packet: bytes, source: Address | None = None) -> None:
        """Let a packet arrive."""
        place = source or self.host.address
        self.call(to, lambda node, now: node.receive(packet, place, now))

    def say(self, to: Host, *messages: Message, **header: Any) -> None:
        """Say these, in as many packets as they take; what is about ourselves, as ourselves."""
        for body in bodies(tuple(map(self.signed, messages))):
            self.deliver(to, self.seal(body, **header))

    def signed(self, message: Message) -> Message:
        """Return the message with our signature, if it is what we say about ourselves."""
        if isinstance(message, Alive | Left | Asleep) and message.member == self.id:
            return msgspec.structs.replace(message, signature=self.sign(message.said()))
        return message

    def sign(self, said: tuple[object, ...]) -> bytes:
        """Sign with the one key that is ours."""
        signing = toy_signing(self.world.issuer.cluster_id, self.id)
        return Signatures(self.id, signing).sign(said)

    def introduce(self, to: Host) -> None:
        """Tell of this life of ours."""
        self.say(to, Alive(self.id, self.boot, 1, self.host.name, (self.host.address,), {}))

    def frame(self, to: Host, message: Any) -> None:
        """Send a frame of the membership or of the state plane."""
        tag = message.__struct_config__.tag
        [codec] = [each for each in codecs().values() if tag in each.tags]
        data = codec.encode(message)
        self.call(to, lambda node, now: node.receive_frame(data, self.id, now))

    def call(self, to: Host, action: Callable[[Node, Instant], None]) -> None:
        """Let something happen to a node."""
        self.world.driver.call(to, action)


def bodies(messages: tuple[Message, ...]) -> list[bytes]:
    """Return bodies that hold these messages, in order, each within a packet's size."""
    found = [b""]
    for message in messages:
        item = MESSAGES.encode(message)
        if len(found[-1]) + LENGTH_BYTES + len(item) > BODY_BYTES_MAX:
            found.append(b"")
        found[-1] += pack([item])
    return found
