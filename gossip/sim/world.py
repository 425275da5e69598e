"""A covey in a box: whole nodes, virtual time, and a hand that breaks things.

    world = World(seed=7)
    world.add("a", "b", "c")
    world.run(10)
    world.partition(["a"], ["b", "c"])
    write = world.put("b", "greeting", b"hello")
    world.run(5)
    world.heal()
    world.run_until(world.is_whole, within_s=60)

A world is decided by its seed and the calls made on it: the same again gives the same trace, byte
for byte. Its nodes are the real ones; the world stands in for devices, cables, disks, clocks and
clients, and shows every transition to its checkers while it happens.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

from gossip.core.ids import CLUSTER_ID_BYTES, ClusterId, NodeId, next_boot
from gossip.core.machine import Address, Instant
from gossip.core.tuning import LAN, Tuning
from gossip.events.events import EventDelivered
from gossip.kv.requests import (
    Completed,
    Delete,
    Get,
    List,
    OwnersReady,
    Put,
    RegistryAdopted,
    Request,
    WatchEvent,
)
from gossip.kv.storage import RegistryChange
from gossip.membership.model.members import MemberChanged, MemberState
from gossip.node import Node, NodeConfig
from gossip.registry.registry import WouldLose
from gossip.sim.disk import others_have_all_of
from gossip.sim.driver import SimulatedDriver
from gossip.sim.host import DISK_DELAY_S, Host, HostState, addresses_of
from gossip.sim.invariants import Checker
from gossip.sim.issuer import Issuer
from gossip.sim.network import CALM, Conditions, Network
from gossip.sim.operations import Operation
from gossip.sim.requests import RequestLog
from gossip.sim.rng import stream
from gossip.sim.toy_cipher import ToySuite, toy_signing
from gossip.sim.trace import Trace

# Fewer than a real covey has, so that a hand-off of all of them is a moment and not the whole run.
PARTITIONS = 16
# How often run_until looks: its results are multiples of this.
LOOK_EVERY_S = 0.125
Kind = Literal["process", "host"]
SECRET = b"the secret of a simulated covey"


class World:
    """Hosts, the air between them, and time. All names are names of hosts."""

    def __init__(
        self,
        seed: int,
        *,
        conditions: Conditions = CALM,
        tuning: Tuning = LAN,
        partitions: int = PARTITIONS,
        checkers: Iterable[Checker] = (),
        trace: Trace | None = None,
        known_max: int | None = None,
    ) -> None:
        """``known_max``: whoever starts is told of so many others, the first; None: of all."""
        self.seed = seed
        self._known_max = known_max
        self.tuning = tuning
        self.network = Network(stream(seed, "network"), conditions)
        self.driver = SimulatedDriver(seed, self.network, self)
        self.issuer = Issuer(_cluster_id(seed), SECRET, partitions)
        self.hosts: dict[str, Host] = {}
        self.names: dict[NodeId, str] = {}
        self.request_log = RequestLog(self.driver)
        self.checkers = list(checkers)
        self.trace = trace or Trace()
        self._suite = ToySuite(SECRET)
        self._identities = stream(seed, "identities")
        self._power = stream(seed, "power")
        self.delivered: list[tuple[str, int, EventDelivered]] = []
        """Every event that a node delivered to its application, with the number of its life."""
        self._node_counts: Counter[str] = Counter()

    # ------------------------------------------------------------------ time

    @property
    def now(self) -> Instant:
        """Seconds since the world began."""
        return self.driver.schedule.now

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        self.driver.schedule.run_to(self.now + seconds)

    def run_until(self, true: Callable[[], bool], *, within_s: float) -> float | None:
        """Let time pass until something is true; return how many seconds that took, or None."""
        start = self.now
        while not true():
            if self.now >= start + within_s:
                return None
            self.run(LOOK_EVERY_S)
        return self.now - start

    def record(self, name: str, text: str) -> None:
        """Add a line to the trace, which is what a failure shows."""
        self.trace.add(self.now, name, text)

    # ------------------------------------------------------------------ devices

    def add(self, *names: str, zone: str = "", weight: float = 1.0) -> None:
        """Admit devices, hand them the registry, switch them on."""
        for name in names:
            host = Host(name, len(self.hosts), self._identities)
            self.hosts[name], self.names[host.id] = host, name
            self.driver.plug_in(host)
            self.issuer.admit(host, weight=weight, zone=zone)
        self._publish_registry(names)
        for name in names:
            self.restart(name)

    def remove(self, name: str) -> None:
        """Let a device no longer belong; the registry that says so is handed to one other."""
        self.record(name, "is removed from the registry")
        self.issuer.remove(self.hosts[name])
        self._publish_registry(())

    def retire(self, name: str) -> None:
        """Take a device out of service for good: it is removed, and never starts again.

        Unless what it has may be nowhere else: then its owner would wait, and so it stays.
        """
        if any(host.disk.is_doubtful for host in self.hosts.values()):
            return
        try:
            self.remove(name)
        except WouldLose:
            return
        host = self.hosts[name]
        host.is_retired = True
        if not host.is_down:
            self.crash(name)

    def restart(self, *names: str) -> None:
        """Start a process on devices on which none runs."""
        for name in names:
            host = self.hosts[name]
            host.starts += 1
            node = self._new_node(host)
            self.record(name, f"starts, life {host.starts}")
            for checker in self.checkers:
                checker.started(self, host, node)
            self.driver.start(host, node)
            others = [other for other in self.hosts.values() if other is not host]
            known = addresses_of(others[: self._known_max])
            self.driver.call(host, partial(_discover, known))

    def crash(self, *names: str, kind: Kind = "process") -> None:
        """End processes at once, as kill -9 does; the disk keeps what was committed.

        ``kind`` "process": the kernel goes on, closes the streams and refuses datagrams. "host":
        the device is gone with it, as when the power fails, and nothing is heard any more.
        """
        for name in names:
            self.record(name, "crashes" if kind == "process" else "vanishes")
            host = self.hosts[name]
            self._node_counts.update(host.node.counts)
            host.end()
            host.has_vanished = kind == "host"
            self.request_log.lose(name)
            self.driver.process_ended(host)

    def vanish(self, *names: str) -> None:
        """Let devices go without a word."""
        self.crash(*names, kind="host")

    def lose_power(self, name: str) -> None:
        """Let the power of a device fail: what was not synced is gone, if others have it."""
        self.vanish(name)
        host, registry = self.hosts[name], self.issuer.newest
        if others_have_all_of(host.id, registry, (each.disk for each in self.hosts.values())):
            lost = host.disk.lose_power(self._power, registry.partitions, self.now)
            self.record(name, f"has lost {lost} batches of its disk")
            self.driver.counts["disks/batches_lost"] += lost

    def lose_all_power(self) -> None:
        """Let the power of all devices fail at once: what was not synced is gone."""
        for name, host in self.hosts.items():
            self.vanish(name)
            lost = host.disk.lose_power(self._power, self.issuer.newest.partitions, self.now)
            self.record(name, f"has lost {lost} batches of its disk")
            self.driver.counts["disks/batches_lost"] += lost

    def crash_writing(self, name: str) -> None:
        """Let a process die in the middle of what it next writes, or just behind it."""
        self.hosts[name].dies_writing = True

    def pause(self, *names: str) -> None:
        """Let processes stand still, as SIGSTOP or a starved machine does."""
        for name in names:
            assert self.hosts[name].is_up, f"{name} is not up"
            self.record(name, "pauses")
            self.hosts[name].state = HostState.PAUSED

    def resume(self, *names: str) -> None:
        """Let paused processes go on."""
        for name in names:
            self.record(name, "goes on")
            self.driver.resume(self.hosts[name])

    def slow(self, name: str, held_s: float) -> None:
        """Hold all that goes into a device or out of it for so long; its timers go on.

        That is the anomaly of the Lifeguard paper. A paused process judges nobody meanwhile.
        """
        self.record(name, f"is slow for {held_s} s")
        self.network.hold(name, self.now + held_s)

    def sleep(self, name: str, duration_s: float) -> None:
        """Let a node announce its sleep; its process goes on, as on a device with its radio off."""
        self.record(name, f"sleeps for {duration_s:.1f} s")
        self.driver.call(self.hosts[name], lambda node, now: node.sleep(duration_s, now))

    def awaken(self, name: str) -> None:
        """Let a node end its sleep."""
        self.record(name, "is woken up")
        self.driver.call(self.hosts[name], lambda node, now: node.awaken(now))

    def leave(self, name: str) -> None:
        """Let a node take its leave; its process ends a moment later."""
        self.record(name, "leaves")
        host = self.hosts[name]
        self.driver.call(host, lambda node, now: node.leave(now))
        self.driver.schedule.after(1.0, self._end_life, host, host.life)

    def skew(self, name: str, error_s: float) -> None:
        """Set how wrong a device's wall clock is."""
        self.record(name, f"has its wall clock {error_s:+.0f} s off")
        self.hosts[name].wall_error_ms = int(error_s * 1000)

    def slow_disk(self, name: str, delay_s: float) -> None:
        """Set how long a device's disk takes for one transaction."""
        self.record(name, f"needs {delay_s} s to write")
        self.hosts[name].disk_delay_s = delay_s

    # ------------------------------------------------------------------ the air

    def partition(self, *sides: Iterable[str]) -> None:
        """Split the hosts; those that no side names form one more side."""
        listed = [list(side) for side in sides]
        self.record("air", "splits into " + " | ".join(" ".join(side) for side in listed))
        self.network.partition(listed)

    def cut(self, source: str, target: str) -> None:
        """Let target no longer hear source, while source still hears target."""
        self.record("air", f"carries nothing from {source} to {target}")
        self.network.cut(source, target)

    def mend(self, source: str, target: str) -> None:
        """Undo ``cut``."""
        self.network.mend(source, target)

    def join_sides(self) -> None:
        """Undo ``partition``; one-way cuts stay."""
        self.record("air", "joins its sides again")
        self.network.join_sides()

    def heal(self) -> None:
        """Undo all cuts and partitions."""
        self.record("air", "heals")
        self.network.heal()

    def weather(self, conditions: Conditions) -> None:
        """Change what all links are like."""
        self.record("air", f"becomes {conditions}")
        self.network.conditions = conditions

    def peace(self, conditions: Conditions) -> None:
        """End all trouble: heal the air, switch everything on, set clocks and disks right."""
        self.weather(conditions)
        self.heal()
        for host in self.hosts.values():
            host.wall_error_ms, host.disk_delay_s = 0, DISK_DELAY_S
            host.dies_writing = False
            if host.is_paused:
                self.resume(host.name)
            elif host.is_down and not host.is_retired:
                self.restart(host.name)
            elif host.is_up and host.node.swim.asleep_until is not None:
                self.awaken(host.name)
        self._publish_registry(())

    # ------------------------------------------------------------------ clients

    def put(
        self,
        name: str,
        key: str,
        value: bytes,
        *,
        after: Operation | None = None,
        w: int | None = None,
        fsync: bool = False,
    ) -> Operation:
        """Ask a node to store a value; ``after`` is the get whose values it replaces."""
        put = Put(key=key, value=value, w=w, context=_context(after), fsync=fsync)
        return self.submit(name, put, after)

    def delete(
        self, name: str, key: str, *, after: Operation | None = None, w: int | None = None
    ) -> Operation:
        """Ask a node to delete what is there, or what the get ``after`` returned."""
        return self.submit(name, Delete(key=key, w=w, context=_context(after)), after)

    def get(self, name: str, key: str, *, r: int | None = None) -> Operation:
        """Ask a node for the values of a key."""
        return self.submit(name, Get(key=key, r=r))

    def list_keys(self, name: str, prefix: str) -> Operation:
        """Ask a node for the keys that begin with a prefix."""
        return self.submit(name, List(prefix=prefix))

    def send_event(self, name: str, event: str) -> None:
        """Let an application on a host tell all others something."""
        self.record(name, f"says {event}")
        self.driver.call(
            self.hosts[name],
            partial(_send_event, event),
        )

    def submit(self, name: str, request: Request, read: Operation | None = None) -> Operation:
        """Send a request to the node on a host that is up."""
        return self.request_log.submit(self.hosts[name], request, read)

    def watch(self, name: str, prefix: str) -> list[WatchEvent]:
        """Watch keys through a node until it ends; return the list to which events are added."""
        return self.request_log.watch(self.hosts[name], prefix)

    # ------------------------------------------------------------------ views

    @property
    def operations(self) -> list[Operation]:
        """All that clients ever asked, in order."""
        return self.request_log.operations

    def up(self) -> list[str]:
        """Return the names of the hosts whose process runs and is not paused."""
        return [name for name, host in self.hosts.items() if host.is_up]

    def members(self, name: str) -> dict[str, MemberState]:
        """Return what a node thinks of whom."""
        members = self.hosts[name].node.swim.members
        return {self.names[member.id]: member.state for member in members}

    def alive(self, name: str) -> set[str]:
        """Return whom a node takes for alive."""
        states = self.members(name)
        return {other for other, state in states.items() if state is MemberState.ALIVE}

    def is_whole(self) -> bool:
        """Whether every running node takes exactly the running nodes for alive."""
        up = set(self.up())
        return all(self.alive(name) == up for name in up)

    def is_settled(self) -> bool:
        """Whether every partition is with its owners, by what each running node knows."""
        nodes = [self.hosts[name].node for name in self.up()]
        return not any(node.state.handoff.unfinished() for node in nodes)

    def owners(self, key: str) -> list[str]:
        """Return who owns a key by the newest registry."""
        return [self.names[owner] for owner in self.issuer.newest.owners_of(key)]

    def stored(self, name: str, key: str) -> frozenset[bytes]:
        """Return the values of a key on a device's own disk."""
        partition = self.issuer.newest.partition_of(key)
        record = self.hosts[name].storage.load(partition, key)
        return frozenset(version.value for version in record.live) if record else frozenset()

    def replicas_agree(self) -> bool:
        """Whether all owners of each key that was ever written hold the same values."""
        keys = {operation.key for operation in self.operations if operation.is_write}
        return all(len({self.stored(name, key) for name in self.owners(key)}) == 1 for key in keys)

    @property
    def counts(self) -> Counter[str]:
        """What all nodes, past and present, and the world around them have counted."""
        total = Counter(self._node_counts)
        for host in self.hosts.values():
            if not host.is_down:
                total.update(host.node.counts)
        for counts in (self.network.counts, self.driver.counts, self.driver.streams.counts):
            total.update({f"world/{label}": count for label, count in counts.items()})
        return total

    # ------------------------------------------------------------------ audience

    def emitted(self, host: Host, event: object) -> None:
        """Show checkers and clients what a node said."""
        if isinstance(event, MemberChanged):
            if event.member.id != host.id:
                self._tell_change(host, event)
            for checker in self.checkers:
                checker.member_changed(self, host, event)
        elif isinstance(event, Completed):
            operation = self.request_log.completed(host, event)
            for checker in self.checkers:
                checker.answered(self, operation)
        elif isinstance(event, EventDelivered):
            host.event_time = max(host.event_time, event.event.time)
            self.delivered.append((host.name, host.life, event))
        elif isinstance(event, WatchEvent):
            self.request_log.watch_event(host, event)
        elif isinstance(event, OwnersReady):
            self._advance(host, event)
        elif isinstance(event, RegistryAdopted):
            self.record(host.name, f"follows epoch {event.registry.epoch}")

    def stepped(self, host: Host) -> None:
        """Let the checkers look at a node behind each step."""
        for checker in self.checkers:
            checker.stepped(self, host)

    def died_writing(self, host: Host, life: int) -> None:
        """End a process that was to die while it writes, unless peace came first."""
        if host.dies_writing:
            self._end_life(host, life)

    # ------------------------------------------------------------------ inside

    def _new_node(self, host: Host) -> Node:
        rng = stream(self.seed, "node", host.name, host.starts)
        settings = NodeConfig(
            me=host.id,
            boot=next_boot(host.starts, rng),
            name=host.name,
            addresses=(host.address,),
            tags={},
            tuning=self.tuning,
            cluster_id=self.issuer.cluster_id,
            actor=rng.getrandbits(64),
            event_time=host.event_time,
        )
        return Node(
            settings,
            suite=self._suite,
            signed_registry=host.disk.registry.signed,
            verify=self.issuer.verify,
            storage=host.storage,
            rng=rng,
            wall_ms=host.wall_ms,
            now=host.local(self.now),
            signing=toy_signing(self.issuer.cluster_id, host.id),
        )

    def _publish_registry(self, newcomers: Iterable[str]) -> None:
        """Hand the newest registry to the newcomers and to one node that runs and belongs.

        As a device that joins, and an issuer, they have it on the disk before they follow it.
        """
        signed = self.issuer.signed()
        belong = set(self.issuer.newest.ids())
        told = [name for name in self.up() if self.hosts[name].id in belong][:1]
        for name in (*newcomers, *told):
            self.hosts[name].disk.registry = RegistryChange(self.issuer.newest.epoch, signed)
        for name in told:
            self.driver.call(self.hosts[name], partial(_adopt, signed))

    def _advance(self, host: Host, ready: OwnersReady) -> None:
        """Sign the next registry, as the runtime of the issuer does."""
        if self.issuer.advance(ready):
            self.record(host.name, f"signs epoch {self.issuer.newest.epoch}")
            self.driver.schedule.at(self.now, self._publish_registry, ())

    def _end_life(self, host: Host, life: int) -> None:
        if host.life == life and not host.is_down:
            self.crash(host.name)

    def _tell_change(self, host: Host, change: MemberChanged) -> None:
        member = change.member
        before = change.before.name.lower() if change.before else "unknown"
        about = self.names.get(member.id, "a stranger")
        what = f"{about} {before} -> {member.state.name.lower()}"
        self.record(host.name, f"{what} (incarnation {member.incarnation}, {change.reason})")


def _cluster_id(seed: int) -> ClusterId:
    return stream(seed, "cluster").randbytes(CLUSTER_ID_BYTES)


def _discover(addresses: list[Address], node: Node, now: Instant) -> None:
    node.discovered(addresses, now)


def _send_event(event: str, node: Node, now: Instant) -> None:
    node.with_events(lambda event_plane: event_plane.send_event(event, b"", now), now)


def _adopt(signed: bytes, node: Node, now: Instant) -> None:
    node.adopt_registry(signed, now, announce=True)


def _context(read: Operation | None) -> bytes | None:
    """Return what a client that has read must send with its next write."""
    return getattr(read.result, "context", None) if read is not None else None
