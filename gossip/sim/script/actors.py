"""Who says something to a node in a transcript, and what came back.

Whatever is said here is said as if its sender's packet had just been opened: by a scripted peer, or
in the name of a real member whose device was stolen. What a node sends to scripted peers is written
down, and told with the seconds since somebody last spoke.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import msgspec

from gossip.core.envelope import Envelope
from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.wire import pack
from gossip.events.messages import Event
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import (
    FRAMES,
    Alive,
    Asleep,
    Left,
    SyncDelta,
    SyncEntry,
)
from gossip.membership.model.signatures import Signatures
from gossip.node import Node
from gossip.sim.host import Host, Hosted
from gossip.sim.issuer import Issuer
from gossip.sim.network import Conditions
from gossip.sim.rng import stream
from gossip.sim.script.message_text import (
    KINDS,
    MESSAGES,
    STATES,
    Life,
    Message,
    ReceiverView,
    at,
    is_about,
    life_of,
    name_in,
    read,
    write,
)
from gossip.sim.script.scripted_peer import ScriptedPeer
from gossip.sim.toy_cipher import ToySuite, toy_signing
from gossip.sim.world import SECRET, World

FIRST_ADDRESS = 200
PATIENCE_S, LISTEN_S = 120.0, 0.01
PLACE = "position"
STRANGER_IDS_FROM = 1 << 40
# Exactly so long on the way, so that what is told of times is the protocol's and not the air's.
STILL_AIR = Conditions(delay_s=0.001, jitter_s=0.0)


class Speaker(NamedTuple):
    """In whose name a packet is said, and from where."""

    host: Host
    life: Life


class Actors:
    """The scripted peers of a world, and everything that is said by a transcript's hand."""

    def __init__(self, world: World) -> None:
        self.scripted_peers: dict[str, ScriptedPeer] = {}
        self._world = world
        self._suite = ToySuite(SECRET)
        self._spoke_at: Instant = 0.0
        self._read_to: dict[str, int] = {}

    # Who is there.

    def solo(self, name: str, among: str, *others: str) -> None:
        """Start one real node in still air; the others have introduced themselves to it."""
        if among != "among":
            raise ValueError("it is: solo NAME among OTHERS")
        world = self._world
        world.network.conditions = STILL_AIR
        if not world.hosts:
            # Scripted peers hand no partition over: there is one, so that little is spent on asking
            # them.
            world.issuer = Issuer(world.issuer.cluster_id, SECRET, partitions=1)
        self.add_scripted(*others)
        world.add(name)
        for other in others:
            self.say(other, name, "alive", other)

    def add_scripted(self, *names: str) -> None:
        """Bring in scripted peers that nobody has heard of; all know that they belong."""
        world = self._world
        for name in names:
            number = FIRST_ADDRESS + len(self.scripted_peers)
            assert name not in world.hosts, "a name is a scripted peer's or a whole node's"
            host = Host(name, number, stream(world.seed, "puppets", name))
            scripted = ScriptedPeer(host, world.issuer.cluster_id, self._suite)
            self.scripted_peers[name] = scripted
            world.names[host.id] = name
            world.issuer.admit(host)
            world.driver.plug_in(host)
            world.driver.start(host, scripted)
        signed = world.issuer.signed()
        for node in world.hosts.values():
            world.driver.call(node, partial(_adopt, signed))

    def mute(self, *names: str, is_mute: bool = True) -> None:
        """Let scripted peers answer nothing any more, or again."""
        for name in names:
            self.scripted_peers[name].is_mute = is_mute

    def move(self, name: str, place: str) -> None:
        """Give a device another address; a process that runs there notices it."""
        host, address = self.host(name), at(place)
        self._world.driver.unplug(host.address)
        host.address = address
        self._world.driver.plug_in(host)
        if name not in self.scripted_peers:
            self._world.record(name, f"is at {place}")
            self._world.driver.call(host, lambda node, now: node.set_addresses((address,), now))

    def host(self, name: str) -> Host:
        """Return a device, a scripted peer's or a real one."""
        scripted = self.scripted_peers.get(name)
        return self._world.hosts[name] if scripted is None else scripted.host

    # What is said.

    def say(self, sender: str, receiver: str, *words: str) -> None:
        """Say one or several messages, parted by commas, in one packet.

        What a member says about itself has its signature, as if it had said so, unless it is said
        to be ``unsigned``, or ``forged``.
        """
        look = partial(self._known_to, receiver)
        asked = self._asked(sender, receiver)
        texts = " ".join(words).split(",")
        messages = [
            self._signed(message, text)
            for text in texts
            for message in read(_bare(text), look, asked)
        ]
        speaker = self._speaker(sender, look, messages)
        self._deliver(speaker, receiver, pack(MESSAGES.encode(message) for message in messages))

    def raw(self, sender: str, receiver: str, *octets: str) -> None:
        """Say bytes that a broken program might send: sealed as they should be."""
        speaker = self._speaker(sender, partial(self._known_to, receiver))
        self._deliver(speaker, receiver, bytes.fromhex("".join(octets)))

    def tell(self, sender: str, receiver: str, state: str, subject: str) -> None:
        """Let a member tell in an exchange of states what it believes of another."""
        name, look = name_in(subject), partial(self._known_to, receiver)
        life, told = life_of(subject, look), STATES[state]
        entry = SyncEntry(
            member=life.node,
            boot=life.boot,
            incarnation=life.incarnation,
            state=told,
            described=life.incarnation if told is MemberState.ALIVE else 1,
            age_s=0,
            name=name,
            addresses=(look(name).address,),
            tags={},
        )
        words, goodbye = entry.words, Left(life.node, life.boot, life.incarnation)
        entry = msgspec.structs.replace(
            entry,
            signature=self._sign(life.node, words.said()),
            absence=self._sign(life.node, goodbye.said()) if told is MemberState.LEFT else b"",
        )
        frame = FRAMES.encode(SyncDelta((entry,), (), is_partial=False))
        peer = self.host(sender).id
        self._to(receiver, lambda node, now: node.receive_frame(frame, peer, now))

    def record(self, name: str) -> None:
        """Let a scripted peer keep the last packet that it got, as it is."""
        scripted = self.scripted_peers[name]
        scripted.recorded = scripted.last_packet

    def replay(self, sender: str, receiver: str) -> None:
        """Send somebody what a scripted peer recorded."""
        data, source = (
            self.scripted_peers[sender].recorded,
            self.scripted_peers[sender].host.address,
        )
        assert data, "it is recorded first"
        self._to(receiver, lambda node, now: node.receive(data, source, now))

    def foreign(self, sender: str, receiver: str, *words: str) -> None:
        """Say something under the same keys in the name of another covey."""
        scripted = self.scripted_peers[sender]
        other = bytes(reversed(self._world.issuer.cluster_id))
        look = partial(self._known_to, receiver)
        body = pack(MESSAGES.encode(message) for message in read(" ".join(words), look))
        data = Envelope(other, scripted.host.id, scripted.boot, self._suite).seal(body, 1)
        source = scripted.host.address
        self._to(receiver, lambda node, now: node.receive(data, source, now))

    def flood(self, sender: str, receiver: str, count: str) -> None:
        """Let a member tell of so many others that nobody has ever seen."""
        look = partial(self._known_to, receiver)
        speaker, [alive] = self._speaker(sender, look), read(f"alive {sender}", look)
        assert isinstance(alive, Alive), "what was written above"
        for number in range(int(count)):
            invented = msgspec.structs.replace(alive, member=STRANGER_IDS_FROM + number)
            self._deliver(speaker, receiver, pack([MESSAGES.encode(invented)]))

    def invent(self, sender: str, receiver: str, count: str) -> None:
        """Let a member send so many events at once."""
        speaker = self._speaker(sender, partial(self._known_to, receiver))
        for number in range(1, int(count) + 1):
            event = Event(
                speaker.life.node, speaker.life.boot, number, number, f"event-{number}", b""
            )
            self._deliver(speaker, receiver, pack([MESSAGES.encode(event)]))

    def refuse(self, victim: str, receiver: str) -> None:
        """Tell a node that the victim's host has nobody at its port; true or forged."""
        address = self.host(victim).address
        self._to(receiver, lambda node, now: node.port_unreachable(address, now))

    def hint(self, receiver: str, name: str) -> None:
        """Tell a node that somebody may be where this device is."""
        address = self.host(name).address
        self._to(receiver, lambda node, now: node.discovered([address], now))

    # What came back.

    def heard(self, *words: str) -> str:
        """Tell what scripted peers were sent since the last time: ``heard b c suspect ping``."""
        names, kinds = self._split(words)
        found = self._packets(names, kinds)
        return "\n".join(self._line(*packet, names) for packet in found) or "nothing"

    def first(self, *words: str) -> str:
        """Tell the first of what ``heard`` would tell, whenever it was."""
        names, kinds = self._split(words)
        found = self._packets(names, kinds)
        return self._line(*found[0], names).partition(": ")[2] if found else "nothing"

    def listen(self, name: str, kind: str) -> str:
        """Let time pass until a scripted peer is sent such a message; tell the whole packet."""
        scripted, since = self.scripted_peers[name], len(self.scripted_peers[name].heard)

        def answer() -> list[str]:
            for _, messages in scripted.heard[since:]:
                texts = [text for text in map(self._text, messages) if text != PLACE]
                if any(text.split()[0] == kind for text in texts):
                    return list(dict.fromkeys(texts))
            return []

        end = self._world.now + PATIENCE_S
        while not answer() and self._world.now < end:
            self._world.run(LISTEN_S)
        return ", ".join(answer()) or "nothing"

    def pace(self, *words: str) -> str:
        """Tell the seconds between the packets that ``heard`` would tell."""
        names, kinds = self._split(words)
        times = [when for when, _, _ in self._packets(names, kinds)]
        gaps = [f"{later - sooner:.2f}" for sooner, later in pairwise(times)]
        return " ".join(gaps) or "nothing"

    def skip(self) -> None:
        """Count all that scripted peers heard as told."""
        self._packets(tuple(self.scripted_peers), ())

    def tally(self, *words: str) -> str:
        """Tell how often each message of these kinds was sent to all scripted peers together."""
        _, kinds = self._split(words)
        told: Counter[str] = Counter()
        for _, _, texts in self._packets(tuple(self.scripted_peers), kinds):
            told.update(texts)
        return "\n".join(f"{what}: {told[what]} times" for what in sorted(told)) or "nothing"

    def _split(self, words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        names = tuple(word for word in words if word in self.scripted_peers)
        kinds = tuple(word for word in words if word not in self.scripted_peers)
        for kind in kinds:
            if kind not in KINDS.values():
                raise ValueError(
                    f"{kind} is neither a scripted peer nor one of {[*KINDS.values()]}"
                )
        return names or tuple(self.scripted_peers), kinds

    def _packets(
        self, names: tuple[str, ...], kinds: tuple[str, ...]
    ) -> list[tuple[Instant, str, list[str]]]:
        found: list[tuple[Instant, str, list[str]]] = []
        for name in names:
            heard = self.scripted_peers[name].heard
            for when, messages in heard[self._read_to.get(name, 0) :]:
                # What is said and an update may be the same: then it stands in the packet twice.
                unique = dict.fromkeys(map(self._text, messages))
                picked = [text for text in unique if not kinds or text.split()[0] in kinds]
                if picked:
                    found.append((when, name, picked))
            self._read_to[name] = len(heard)
        return sorted(found, key=lambda packet: packet[:2])

    def _line(self, when: Instant, name: str, texts: list[str], names: tuple[str, ...]) -> str:
        to = f" to {name}" if len(names) > 1 else ""
        return f"{when - self._spoke_at:.2f} s{to}: {', '.join(texts)}"

    def _text(self, message: Message) -> str:
        return write(message, self._world.names)

    # Inside.

    def _known_to(self, receiver: str, name: str) -> ReceiverView:
        """Return a member as the receiver knows it, else as it is."""
        host = self.host(name)
        member = self._world.hosts[receiver].node.swim.members.get(host.id)
        if member is not None:
            return ReceiverView(Life(host.id, member.boot, member.incarnation), host.address)
        if name in self.scripted_peers:
            scripted = self.scripted_peers[name]
            return ReceiverView(Life(host.id, scripted.boot, scripted.incarnation), host.address)
        swim = host.node.swim
        return ReceiverView(Life(host.id, swim.boot, swim.incarnation), host.address)

    def _speaker(
        self, sender: str, look: Callable[[str], ReceiverView], messages: Iterable[Message] = ()
    ) -> Speaker:
        """Read ``NAME``, or ``NAME/LIFE@INCARNATION`` for a header that says so."""
        name, life = name_in(sender), life_of(sender, look)
        scripted = self.scripted_peers.get(name)
        if scripted is None:
            return Speaker(self.host(name), life)
        if "/" not in sender:
            life = life._replace(boot=scripted.boot)
        if "@" not in sender:
            said = (one.incarnation for one in messages if is_about(one, life))
            life = life._replace(incarnation=max([scripted.incarnation, *said]))
        scripted.speaks_as(life.boot, life.incarnation)
        return Speaker(scripted.host, life)

    def _signed(self, message: Message, text: str) -> Message:
        """Return a message with the signature that it has by its text."""
        if not isinstance(message, Alive | Left | Asleep) or text.split()[0] == "unsigned":
            return message
        if isinstance(message, Asleep):
            message = msgspec.structs.replace(message, announced_s=message.duration_s)
        signature = self._sign(message.member, message.said())
        if text.split()[0] == "forged":
            signature = bytes(len(signature))
        return msgspec.structs.replace(message, signature=signature)

    def _sign(self, node: NodeId, said: tuple[object, ...]) -> bytes:
        signing = toy_signing(self._world.issuer.cluster_id, node)
        return Signatures(node, signing).sign(said)

    def _asked(self, sender: str, receiver: str) -> list[int]:
        """Return the pings of the receiver that the sender has not answered; it does so now."""
        scripted = self.scripted_peers.get(name_in(sender))
        return scripted.asked.pop(self._world.hosts[receiver].id, []) if scripted else []

    def _deliver(self, speaker: Speaker, receiver: str, body: bytes) -> None:
        """Let a node take in a packet as if its envelope had just been opened."""
        life, source = speaker.life, speaker.host.address

        def take(node: Node, now: Instant) -> None:
            node.swim.receive(body, *life, source, now)
            # Harmless when nothing is due; then the node gathers what its planes have to say.
            node.wake(now)

        self._to(receiver, take)

    def _to(self, receiver: str, action: Callable[[Node, Instant], None]) -> None:
        assert receiver not in self.scripted_peers, (
            "scripted peers are told nothing by hand: they would not mind"
        )
        self._spoke_at = self._world.now
        self._world.driver.call(self._world.hosts[receiver], action)


def _bare(text: str) -> str:
    """Return the text of a message without what is said of its signature."""
    return text.strip().removeprefix("unsigned ").removeprefix("forged ")


def _adopt(signed: bytes, node: Hosted, now: Instant) -> None:
    node.adopt_registry(signed, now)
