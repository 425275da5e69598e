"""A small covey with one hostile member, which says whatever a seed tells it to say.

Three honest nodes run in the simulator: the real ones, over sealed datagrams and streams, with
disks and timers. The fourth holds the same keys and a certificate, is in the registry, and is
played by a generator: good messages and spoilt ones, in its own name and in that of others, packets
of another covey, recorded ones again, broken seals, addresses at which nobody may be, and the hints
that a kernel gives.

Behind each input, ``check`` looks at what must hold whatever anybody says; at the end ``aftermath``
leaves the covey alone and looks whether it is one again.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from gossip.core.errors import Malformed
from gossip.core.ids import NodeId
from gossip.core.machine import Address, Emit, Instant, SendDatagram
from gossip.core.tuning import BODY_BYTES_MAX
from gossip.core.wire import LENGTH_BYTES, pack, tag_of, unpack
from gossip.events.messages import BROADCASTS, EVENT_FRAMES
from gossip.kv.messages import CODEC
from gossip.membership.detection.updates import BootSuperseded
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import DATAGRAMS, FRAMES
from gossip.membership.model.sanity import starts_of
from gossip.node import Node
from gossip.sim.host import Host
from gossip.sim.invariants import IncarnationGrows, SelfAlive
from gossip.sim.script.message_text import MESSAGES
from gossip.sim.world import World
from tests.fuzz.codecs import Golden, goldens
from tests.fuzz.hostile import HOSTS, PORTS, Mutator
from tests.fuzz.mallory import Mallory
from tests.fuzz.memory import bytes_kept, outgrown
from tests.fuzz.places import may_be_sent_to

HONEST = ("ada", "bob", "cy")
HOSTILE = "mallory"
PAUSES_S = (0.0, 0.0, 0.0, 0.001, 0.02, 0.2, 1.5)
INCARNATIONS = (0, 1, 2, 2**32, 2**62, 2**64 - 1)
INCARNATION_MAX = 2**48
"""What a run's few hundred claims can add up to; the end of the numbers is 2**64."""
HEALED_S = 60.0
SETTLED_S = 30.0
DROPS = ("datagrams_dropped/", "frames_dropped/", "frames_skipped/", "updates_ignored/")
BYTES_KEPT_MAX = 24 * 2**20

Action = Callable[[Host], None]


class Broken(AssertionError):
    """Something that must hold whatever anybody says did not."""


class Weighted(NamedTuple):
    """One kind of attack, and how often it is chosen among the others."""

    weight: int
    attack: Action


class Siege:
    """The covey, its attacker, and what must hold."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"siege {seed}")
        self.inputs = 0
        self.last = ""
        self._outrun: dict[str, int] = {}
        self.world = World(seed, checkers=[SelfAlive(), IncarnationGrows()])
        self.world.add(*HONEST, HOSTILE)
        assert self.world.run_until(self.world.is_whole, within_s=20) is not None
        self.hosts = [self.world.hosts[name] for name in HONEST]
        self._recorded: list[bytes] = []
        self._watch_effects()
        self.world.run(2.0)
        self.mallory = Mallory(self.world, HOSTILE)
        lives = [(host.id, host.node.swim.boot) for host in self.hosts]
        epoch = self.world.issuer.newest.epoch
        self._likely = (
            *(n for life in lives for n in life),
            self.mallory.id,
            self.mallory.boot,
            epoch,
            1,
            2,
        )
        self._mutator = Mutator(self.rng, self._likely)
        self._datagrams = [each for each in goldens() if each.codec in (DATAGRAMS, BROADCASTS)]
        framed = FRAMES.tags | EVENT_FRAMES.tags | CODEC.tags
        self._frames = [_timely(each, epoch) for each in goldens() if each.tag in framed]
        kinds = (
            Weighted(40, self._datagram),
            Weighted(30, self._frame),
            Weighted(6, self._garbage_sealed),
            Weighted(6, self._as_somebody_else),
            Weighted(5, self._broken_seal),
            Weighted(4, self._again),
            Weighted(2, self._of_another_covey),
            Weighted(3, self._header),
            Weighted(2, self._hints),
            Weighted(2, self._kernel),
        )
        self._attacks = [each.attack for each in kinds]
        self._weights = [each.weight for each in kinds]

    # ------------------------------------------------------------------ the attack

    def attack(self) -> None:
        """Make one input at one honest node, look at everything, and let some time pass."""
        self.inputs += 1
        [attack] = self.rng.choices(self._attacks, self._weights)
        host = self.rng.choice(self.hosts)
        self.last = f"{attack.__name__.strip('_')} at {host.name}"
        attack(host)
        self.check()
        self.world.run(self.rng.choice(PAUSES_S))
        self._restart_the_outrun()

    def _datagram(self, host: Host) -> None:
        """Say one to five things in one packet, each good or spoilt."""
        count = self.rng.choice([1, 1, 2, 5, 40])
        items = [self._spoilt(self._datagrams) for _ in range(count)]
        self._send(host, self.mallory.id, self._packed(items))

    def _frame(self, host: Host) -> None:
        data = self._spoilt(self._frames)
        expected = _is_refused(data)
        before = _dropped(host)
        self._note(data)
        self._call(host, lambda node, now: node.receive_frame(data, self.mallory.id, now))
        if expected and _dropped(host) == before:
            raise Broken(f"{host.name} dropped a frame uncounted: {data[:80].hex()}")

    def _garbage_sealed(self, host: Host) -> None:
        """Send what is no message at all, under a good seal."""
        self._send(host, self.mallory.id, self.rng.randbytes(self.rng.randrange(200)))

    def _as_somebody_else(self, host: Host) -> None:
        """Speak in another's name, or a stranger's: they all hold the same keys."""
        sender = self.rng.choice([*(each.id for each in self.hosts), self.rng.randrange(1, 2**64)])
        items = [self._spoilt(self._datagrams) for _ in range(self.rng.randrange(3))]
        self._send(host, sender, self._packed(items))

    def _broken_seal(self, host: Host) -> None:
        packet = self._packet(host, self.mallory.id, b"")
        spoilt = self._mutator._blindly(packet)
        if spoilt != packet:
            self._refused(host, spoilt)

    def _again(self, host: Host) -> None:
        """Send what was sent before: by us, or overheard. Opened once at most."""
        if self._recorded:
            packet = self.rng.choice(self._recorded)
            self._deliver(host, packet)
            self._refused(host, packet)

    def _of_another_covey(self, host: Host) -> None:
        body = self._spoilt(self._datagrams)[:900]
        self._refused(host, self.mallory.seal(body, cluster_id=bytes(16)))

    def _header(self, host: Host) -> None:
        """Say nothing, with a header that says too much."""
        boot = self.rng.choice([0, 1, 2**32, 2**63, 2**64 - 1, *self._likely])
        sender = self.rng.choice([self.mallory.id, *(each.id for each in self.hosts)])
        incarnation = self.rng.choice(INCARNATIONS)
        self._deliver(host, self.mallory.seal(b"", sender, boot, incarnation))

    def _hints(self, host: Host) -> None:
        """Announce ourselves by mDNS wherever we like."""
        places = [self._place() for _ in range(self.rng.choice([1, 3, 40]))]
        self._note(repr(places).encode())
        self._call(host, lambda node, now: node.discovered(places, now))

    def _kernel(self, host: Host) -> None:
        """Let the kernel say something: forged refusals, streams that end or do not open."""
        place = self._place()
        peer = self.rng.choice([number for number in self._likely if number != host.id])
        self._call(
            host,
            self.rng.choice(
                [
                    lambda node, now: node.port_unreachable(place, now),
                    lambda node, now: node.stream_closed(peer, now),
                    lambda node, now: node.peer_unreachable(peer, now),
                ]
            ),
        )

    # ------------------------------------------------------------------ how it is done

    def _place(self) -> Address:
        honest = [host.address for host in self.hosts]
        anywhere = Address(self.rng.choice(HOSTS), self.rng.choice(PORTS))
        return self.rng.choice([*honest, self.mallory.host.address, anywhere, anywhere, anywhere])

    def _spoilt(self, among: list[Golden]) -> bytes:
        return self._mutator.spoil(self.rng.choice(among).data)

    def _packed(self, items: list[bytes]) -> bytes:
        """Join what fits into a packet; sometimes with a length that lies."""
        body = b""
        for item in items:
            if len(body) + LENGTH_BYTES + len(item) <= BODY_BYTES_MAX:
                body += pack([item])
        return body if self.rng.random() < 0.95 else body[: self.rng.randrange(len(body) + 1)]

    def _packet(self, host: Host, sender: NodeId, body: bytes) -> bytes:
        """Seal a body so that the host reads it: in the life in which it believes the sender.

        Whoever lies about its own life is not listened to any more, and that is soon found out.
        """
        believed = host.node.swim.members.get(sender)
        boot = self.mallory.boot if believed is None else believed.boot
        incarnation = 1 if believed is None else believed.incarnation
        if self.rng.random() < 0.1:
            incarnation = self.rng.choice(INCARNATIONS)
        return self.mallory.seal(body, sender, boot, incarnation)

    def _send(self, host: Host, sender: NodeId, body: bytes) -> None:
        packet = self._packet(host, sender, body)
        self._recorded = [*self._recorded[-30:], packet]
        expected = _is_bad_body(body)
        before = _dropped(host)
        self._deliver(host, packet)
        if expected and sender != host.id and _dropped(host) == before:
            raise Broken(f"{host.name} dropped a message uncounted: {body[:80].hex()}")

    def _deliver(self, host: Host, packet: bytes) -> None:
        source = self.rng.choice(
            [self.mallory.host.address, self.mallory.host.address, self._place()]
        )
        if not may_be_sent_to(source):
            source = self.mallory.host.address  # a kernel delivers from unicast addresses alone
        self._note(packet)
        self._call(host, lambda node, now: node.receive(packet, source, now))

    def _refused(self, host: Host, packet: bytes) -> None:
        """Send what must not be opened, and be counted."""
        before, told = _dropped(host), host.node.swim.members.changes
        self._deliver(host, packet)
        if _dropped(host) != before + 1 or host.node.swim.members.changes != told:
            raise Broken(f"{host.name} did not drop and count {packet[:80].hex()}")

    def _call(self, host: Host, action: Callable[[Node, Instant], None]) -> None:
        self.world.driver.call(host, action)

    def _note(self, data: bytes) -> None:
        self.last += f" {data.hex()}"

    def _watch_effects(self) -> None:
        """Look at every datagram that an honest node sends, and at what it tells its agent."""
        perform = self.world.driver._perform
        send, emit = perform[SendDatagram], perform[Emit]

        def look(host: Host, effect: object) -> None:
            assert isinstance(effect, SendDatagram)
            if not may_be_sent_to(effect.to):
                raise Broken(f"{host.name} sent to {effect.to.host!r} port {effect.to.port}")
            if host.name != HOSTILE and self.rng.random() < 0.02:
                self._recorded.append(effect.data)
            send(host, effect)

        def heed(host: Host, effect: object) -> None:
            assert isinstance(effect, Emit)
            emit(host, effect)
            if isinstance(effect.event, BootSuperseded):
                self._outrun[host.name] = starts_of(effect.event.boot)

        perform[SendDatagram], perform[Emit] = look, heed

    def _restart_the_outrun(self) -> None:
        """Start those anew of whom a later life was invented, as their agents do."""
        while self._outrun:
            name, starts = self._outrun.popitem()
            self.world.hosts[name].starts = max(starts, self.world.hosts[name].starts)
            self.world.crash(name)
            self.world.restart(name)

    # ------------------------------------------------------------------ what must hold

    def check(self) -> None:
        """Look at what must hold at every moment. Raises Broken."""
        for host in self.hosts:
            swim = host.node.swim
            if swim.members[host.id].state is not MemberState.ALIVE:
                raise Broken(f"{host.name} takes itself for {swim.members[host.id].state}")
            if swim.incarnation > INCARNATION_MAX:
                raise Broken(f"{host.name} was driven to incarnation {swim.incarnation}")
            strangers = len(swim.members) - len(self.world.hosts)
            if strangers > 0:
                raise Broken(f"{host.name} lists {strangers} strangers")

    def aftermath(self) -> None:
        """Leave the covey alone, and look whether it is whole and small. Raises Broken."""
        for host in self.hosts:
            if path := outgrown(host.node):
                raise Broken(f"{host.name} keeps too much: {path}")
            if (kept := bytes_kept(host.node)) > BYTES_KEPT_MAX:
                raise Broken(f"{host.name} keeps {kept} bytes")
        if self.world.run_until(self._is_healed, within_s=HEALED_S) is None:
            raise Broken("honest members take each other for dead: " + self._views())
        self._serves()

    def _is_healed(self) -> bool:
        self._restart_the_outrun()
        return all(self._state(one, other) for one in self.hosts for other in self.hosts)

    def _state(self, one: Host, other: Host) -> bool:
        member = one.node.swim.members.get(other.id)
        return member is not None and member.state is MemberState.ALIVE

    def _views(self) -> str:
        return "; ".join(
            f"{one.name} of {other.name}"
            for one in self.hosts
            for other in self.hosts
            if not self._state(one, other)
        )

    def _serves(self) -> None:
        """Write and read a key, and tell an event, as applications do.

        Not at once: who was started anew a moment ago takes what it hears for old.
        """
        self.world.run(SETTLED_S)
        write = self.world.put("ada", "after all", b"well")
        # A newcomer can be told a time that is yet to come; until then it takes events for old.
        steady = {host.name for host in self.hosts if host.starts == 1}
        for name in sorted(steady)[:1]:
            self.world.send_event(name, "after all")
        self.world.run(8.0)
        read = self.world.get("bob", "after all")
        self.world.run(8.0)
        for operation in (write, read):
            if getattr(operation.result, "outcome", None) != "ok":
                raise Broken(f"after all, {operation}")
        heard = {name for name, _, told in self.world.delivered if told.event.name == "after all"}
        if not steady <= heard:
            raise Broken(f"the event after all reached {sorted(heard)} alone")


def _timely(golden: Golden, epoch: int) -> Golden:
    """Return a frame as of this epoch, if it says one: what is of the future only waits."""
    message: Any = golden.codec.decode(golden.data)
    if not hasattr(message, "epoch"):
        return golden
    data = golden.codec.encode(msgspec.structs.replace(message, epoch=epoch))
    return golden._replace(data=data)


def _is_refused(data: bytes) -> bool:
    """Say whether a frame is none that its plane reads."""
    try:
        readers = [each.codec for each in goldens() if each.tag == tag_of(data)]
        return not readers or readers[0].decode(data) is None
    except Malformed:
        return True


def _is_bad_body(body: bytes) -> bool:
    """Say whether a datagram's body has a message that does not decode."""
    try:
        for item in unpack(body):
            MESSAGES.decode(item)
    except Malformed:
        return True
    return False


def _dropped(host: Host) -> int:
    return sum(n for label, n in host.node.counts.items() if label.startswith(DROPS))
