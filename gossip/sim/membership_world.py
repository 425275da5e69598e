"""A membership world: membership alone, of thousands.

    world = MembershipWorld(seed=7)
    world.add(1000)
    world.run_until(world.is_whole, within_s=60)
    world.crash("n17", "n18")
    world.run(60)

A world (``world.py``) runs whole nodes: it seals every datagram, keeps every disk, and looks at
each step. A membership world runs the very same membership machines on the same network, and
nothing else: a body travels as it is, with what its envelope's header would say beside it, and is
counted with the envelope's size. So its members are cheaper by far, and as it has no registry,
nobody has to be admitted. What it finds out about the membership is what a world finds out; what it
draws by chance is drawn in another order.

``add`` starts members that know some addresses and find each other. ``settle`` starts
members that have known each other for long: thousands would need minutes to meet.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

from gossip.core.ids import Boot, NodeId, new_node_id, next_boot
from gossip.core.machine import Address, Emit, Instant, SendDatagram, SendFrame
from gossip.core.tuning import ENVELOPE_BYTES, LAN, Tuning
from gossip.core.wire import tag_of
from gossip.events.plane import EventPlane
from gossip.membership.detection.observers import SubjectsChanged
from gossip.membership.model.local_member import FIRST_INCARNATION
from gossip.membership.model.members import Member, MemberChanged, MemberState
from gossip.membership.swim import Swim
from gossip.membership.warm_start import warm_start_of
from gossip.sim.host import PORT
from gossip.sim.kernel import Kernel
from gossip.sim.network import CALM, Conditions, Network
from gossip.sim.rng import stream
from gossip.sim.schedule import Schedule
from gossip.sim.streams import Streams

LOOK_EVERY_S = 0.125
DIAL_FAILS_S = 0.05
Kind = Literal["process", "host"]


class SimMember:
    """One member of the world: a device, and the membership machine on it."""

    __slots__ = ("address", "due", "has_vanished", "id", "is_down", "life", "name", "swim", "timer")
    is_full = False
    """Nobody in it pauses, so nothing waits in a socket buffer."""

    def __init__(self, number: int, node: NodeId, swim: Swim[EventPlane]) -> None:
        self.name = f"n{number}"
        self.id = node
        self.address = address_of(number)
        self.swim = swim
        self.life = 1
        self.is_down = False
        self.has_vanished = False
        self.due: Instant = math.inf
        """When its machine wants to act ..."""
        self.timer: Instant = math.inf
        """... and when that is looked at next."""

    def __repr__(self) -> str:
        return f"Bird({self.name})"


class MembershipWorld:
    """Members, the air between them, and time. Whoever has no patience for detail looks here."""

    def __init__(
        self,
        seed: int,
        *,
        conditions: Conditions = CALM,
        tuning: Tuning = LAN,
        known_max: int | None = None,
        changed: Callable[[SimMember, MemberChanged, Instant], None] | None = None,
    ) -> None:
        """``known_max``: whoever starts is told of so many others, the first; None: of all.

        ``changed`` hears of every change of every member list, while it happens.
        """
        self.seed, self.tuning = seed, tuning
        self.network = Network(stream(seed, "network"), conditions)
        self.schedule = Schedule()
        self.sim_members: dict[str, SimMember] = {}
        self.by_id: dict[NodeId, SimMember] = {}
        self.counts: Counter[str] = Counter()
        self.datagrams_sent = 0
        self.bytes_sent = 0
        """Of datagrams with their envelopes, and of frames; without the headers of IP, UDP, TCP."""
        self._known_max = known_max
        self._changed = changed
        self._by_address: dict[Address, SimMember] = {}
        self._identities = stream(seed, "identities")
        # Agents share their streams: in a world the state plane soon has one open to everybody.
        rng = stream(seed, "streams")
        self._streams = Streams[SimMember](self.schedule, self.network, rng, self, are_open=True)
        rng = stream(seed, "kernels")
        self._kernels = Kernel[SimMember](self.schedule, self.network, rng, self.counts, self)

    # ------------------------------------------------------------------ time

    @property
    def now(self) -> Instant:
        """Seconds since the world began."""
        return self.schedule.now

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        self.schedule.run_to(self.now + seconds)

    def run_until(self, true: Callable[[], bool], *, within_s: float) -> float | None:
        """Let time pass until something is true; return how many seconds that took, or None."""
        start = self.now
        while not true():
            if self.now >= start + within_s:
                return None
            self.run(LOOK_EVERY_S)
        return self.now - start

    # ------------------------------------------------------------------ members

    def add(self, count: int) -> None:
        """Start so many members that look for each other."""
        for sim_member in [self._start_member() for _ in range(count)]:
            known = [other.address for other in self._first() if other is not sim_member]
            sim_member.swim.discovered(known[: self._known_max], self.now)
            self._settle(sim_member)

    def settle(self, count: int) -> None:
        """Start so many members that have all known each other for long; the world is empty."""
        assert not self.sim_members, "whoever is there would not know them"
        sim_members = [self._start_member() for _ in range(count)]
        members = [_known(sim_member, self.now) for sim_member in sim_members]
        start = warm_start_of(members, self.tuning, stream(self.seed, "company"))
        for sim_member in sim_members:
            sim_member.swim.warm_start(start, self.now)
            self._settle(sim_member)

    def crash(self, *names: str, kind: Kind = "process") -> None:
        """End processes at once; kind "host": their devices are gone with them."""
        for name in names:
            sim_member = self.sim_members[name]
            sim_member.life += 1
            sim_member.is_down, sim_member.has_vanished = True, kind == "host"
            self._kernels.process_ended(sim_member, self.sim_members.values())

    def _first(self) -> Iterator[SimMember]:
        """Return so many of the first members that whoever starts can be told of enough."""
        limit = len(self.sim_members) if self._known_max is None else self._known_max + 1
        return (
            sim_member
            for sim_member, _ in zip(self.sim_members.values(), range(limit), strict=False)
        )

    def _start_member(self) -> SimMember:
        number, node = len(self.sim_members), new_node_id(self._identities)
        sim_member = SimMember(number, node, self._new_swim(number, node, 1))
        self.sim_members[sim_member.name] = self.by_id[sim_member.id] = self._by_address[
            sim_member.address
        ] = sim_member
        return sim_member

    def _new_swim(self, number: int, node: NodeId, starts: int) -> Swim[EventPlane]:
        rng = stream(self.seed, "node", number)
        boot: Boot = next_boot(starts, rng)
        told = f"n{number}", (address_of(number),), dict[str, str]()
        return Swim(node, boot, *told, self.tuning, rng, self.now, EventPlane)

    # ------------------------------------------------------------------ views

    def up(self) -> list[str]:
        """Return the names of the members that run."""
        return [name for name, sim_member in self.sim_members.items() if not sim_member.is_down]

    def alive(self, name: str) -> set[str]:
        """Return whom a member takes for alive."""
        return {other for other, state in self.members(name).items() if state is MemberState.ALIVE}

    def members(self, name: str) -> dict[str, MemberState]:
        """Return what a member thinks of whom."""
        members = self.sim_members[name].swim.members
        return {self.by_id[member.id].name: member.state for member in members}

    def is_whole(self) -> bool:
        """Whether every running member takes exactly the running ones for alive."""
        up = [sim_member for sim_member in self.sim_members.values() if not sim_member.is_down]
        ids = tuple(sorted(sim_member.id for sim_member in up))
        tables = [sim_member.swim.members for sim_member in up]
        # The quick look first: while all meet, mostly somebody is not known yet.
        return all(len(table.live_ids) >= len(ids) for table in tables) and all(
            tuple(each.id for each in table.live if each.state is MemberState.ALIVE) == ids
            for table in tables
        )

    # ------------------------------------------------------------------ what is driven

    def _settle(self, sim_member: SimMember) -> None:
        """Perform all effects of a machine in order, and re-arm its timer."""
        for effect in sim_member.swim.effects():
            if type(effect) is SendDatagram:
                self._send(sim_member, effect.data, effect.to)
            elif type(effect) is SendFrame:
                self._send_frame(sim_member, effect)
            elif type(effect) is Emit:
                self._emitted(sim_member, effect.event)
        self._arm(sim_member)

    def _arm(self, sim_member: SimMember) -> None:
        """Note when a machine wants to act. A timer that is set too early stays, and re-arms."""
        due = sim_member.swim.deadline()
        sim_member.due = math.inf if due is None else due
        if sim_member.due < sim_member.timer:
            self._set_timer(sim_member)

    def _set_timer(self, sim_member: SimMember) -> None:
        sim_member.timer = sim_member.due
        self.schedule.at(sim_member.due, self._timer_fires, sim_member, sim_member.due)

    def _timer_fires(self, sim_member: SimMember, timer: Instant) -> None:
        if sim_member.is_down or sim_member.timer != timer:
            return
        sim_member.timer = math.inf
        if sim_member.due <= self.schedule.now:
            sim_member.swim.wake(self.schedule.now)
            self._settle(sim_member)
        else:
            self._set_timer(sim_member)

    def _emitted(self, sim_member: SimMember, event: object) -> None:
        if isinstance(event, MemberChanged):
            if self._changed is not None:
                self._changed(sim_member, event, self.now)
        elif isinstance(event, SubjectsChanged):
            self._kernels.watched[sim_member.name] = event.watched

    def _send(self, sim_member: SimMember, body: bytes, to: Address) -> None:
        self.datagrams_sent += 1
        self.bytes_sent += len(body) + ENVELOPE_BYTES
        target = self._by_address.get(to)
        if target is None:
            self.counts["datagrams/nobody_there"] += 1
            return
        now, incarnation = self.schedule.now, sim_member.swim.incarnation
        for delay_s in self.network.datagram_delays(sim_member.name, target.name, now):
            self.schedule.at(now + delay_s, self._arrives, target, sim_member, body, incarnation)

    def _arrives(self, target: SimMember, sender: SimMember, body: bytes, incarnation: int) -> None:
        if target.is_down:
            self.counts["datagrams/nobody_there"] += 1
            if self.network.hears(sender.name, target.name):
                self._kernels.refuse(target, target.address, sender)
        elif not self.network.hears(sender.name, target.name):
            self.counts["datagrams/cut_under_way"] += 1
        else:
            boot, source = sender.swim.boot, sender.address
            target.swim.receive(body, sender.id, boot, incarnation, source, self.schedule.now)
            self._settle(target)

    def stream_closed(self, device: SimMember, ended: SimMember) -> None:
        """Tell a member that its stream to another has ended."""
        device.swim.stream_closed(ended.id, self.now)
        self._settle(device)

    def port_refused(self, device: SimMember, address: Address) -> None:
        """Tell a member that nobody receives datagrams at this address."""
        device.swim.port_unreachable(address, self.now)
        self._settle(device)

    # ------------------------------------------------------------------ frames

    def _send_frame(self, sim_member: SimMember, effect: SendFrame) -> None:
        self.bytes_sent += len(effect.data)
        target = self.by_id.get(effect.to)
        if target is not None and target.address in sim_member.swim.addresses_of(effect.to):
            self._streams.send(sim_member, target, effect.data)
        else:
            self.schedule.after(
                DIAL_FAILS_S, self._unreachable, sim_member, sim_member.life, effect.to
            )

    def frame_arrived(self, receiver: SimMember, data: bytes, sender: SimMember) -> None:
        """Hand a frame to a member."""
        receiver.swim.frame_handlers[tag_of(data)](data, sender.id, self.now)
        self._settle(receiver)

    def stream_broke(self, sender: SimMember, receiver: SimMember) -> None:
        """Tell a member that frames to another were lost."""
        self._unreachable(sender, sender.life, receiver.id)

    def _unreachable(self, sim_member: SimMember, life: int, peer: NodeId) -> None:
        if sim_member.life == life:
            sim_member.swim.peer_unreachable(peer, self.now)
            self._settle(sim_member)


def address_of(number: int) -> Address:
    """Return where the member with this number is reached."""
    return Address(f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}", PORT)


def _known(sim_member: SimMember, now: Instant) -> Member:
    """Return what somebody who has met a member long ago believes about it."""
    return Member(
        id=sim_member.id,
        name=sim_member.name,
        addresses=(sim_member.address,),
        tags={},
        state=MemberState.ALIVE,
        boot=sim_member.swim.boot,
        incarnation=FIRST_INCARNATION,
        changed_at=now,
        described=FIRST_INCARNATION,
        path=sim_member.address,
    )
