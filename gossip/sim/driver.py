"""What the asyncio driver does for one node on real sockets, done for all hosts in virtual time.

The rules are the same: after any input, perform all effects in order, then re-arm the one timer;
deliver what has arrived before firing timers; commit the changes of each durability in the order
of their emission and report afterwards. The simulated disk is nastier than most: commit and report
are two moments, so a crash can fall before the commit (the changes are gone), or between the two
(they are there and nobody ever said so).
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol

from gossip.core.ids import NodeId
from gossip.core.machine import (
    Address,
    Durability,
    Effect,
    Emit,
    Instant,
    Persist,
    SendDatagram,
    SendFrame,
    SyncDisk,
)
from gossip.membership.detection.observers import SubjectsChanged
from gossip.sim.host import Host, Hosted, HostState
from gossip.sim.kernel import Kernel
from gossip.sim.network import Network
from gossip.sim.rng import stream
from gossip.sim.schedule import Schedule
from gossip.sim.streams import Streams

# A dial that finds nobody at any address fails after about this long.
DIAL_FAILS_S = 0.05


class DriverListener(Protocol):
    """Who wants to hear what happens on the hosts."""

    def emitted(self, host: Host, event: object) -> None:
        """A node told its application something."""

    def stepped(self, host: Host) -> None:
        """A node took in one input and all its effects were performed."""

    def died_writing(self, host: Host, life: int) -> None:
        """The moment has come for a host that was to die while it writes."""


class SimulatedDriver:
    """Moves datagrams, frames, changes and timers between hosts."""

    def __init__(self, seed: int, network: Network, listener: DriverListener) -> None:
        self.schedule = Schedule()
        self.network = network
        self.streams = Streams(self.schedule, network, stream(seed, "streams"), self)
        self.counts: Counter[str] = Counter()
        self._listener = listener
        self._disk: random.Random = stream(seed, "disks")
        self._by_address: dict[Address, Host] = {}
        self._by_id: dict[NodeId, Host] = {}
        rng = stream(seed, "kernels")
        self.kernels = Kernel(self.schedule, network, rng, self.counts, self)
        self._perform: dict[type[Effect], Callable[[Host, Effect], None]] = {
            SendDatagram: self._send_datagram,
            SendFrame: self._send_frame,
            Persist: self._persist,
            SyncDisk: self._sync_disk,
            Emit: self._emit,
        }

    def plug_in(self, host: Host) -> None:
        """Let a host be reached under its id and its present address."""
        self._by_id[host.id] = host
        self._by_address[host.address] = host

    def unplug(self, address: Address) -> None:
        """Let nobody be reached under this address any more."""
        del self._by_address[address]

    def start(self, host: Host, node: Hosted) -> None:
        """Let a node run on a host."""
        host.boot_up(node)
        self._settle(host)

    def resume(self, host: Host) -> None:
        """Let a paused process go on: first it reads what has arrived, then its timer fires."""
        assert host.state is HostState.PAUSED, f"{host.name} is not paused"
        host.state = HostState.UP
        while host.inbox:
            host.inbox.popleft()()
            self._settle(host)
        host.wake_at = None
        self._arm(host)

    def call(self, host: Host, action: Callable[[Hosted, Instant], None]) -> None:
        """Let a running node take in something, then perform its effects.

        A paused process takes it in when it goes on, as it reads its sockets then.
        """
        if host.state is HostState.UP:
            action(host.hosted, host.local(self.schedule.now))
            self._settle(host)
        elif host.state is HostState.PAUSED:
            host.inbox.append(lambda: action(host.hosted, host.local(self.schedule.now)))

    # ------------------------------------------------------------------ effects

    def _settle(self, host: Host) -> None:
        life = host.life
        for effect in host.hosted.effects():
            self._perform[type(effect)](host, effect)
        if host.life == life and host.is_up:
            self._arm(host)
            self._listener.stepped(host)

    def _arm(self, host: Host) -> None:
        """Re-arm the timer. One that is set too early stays: it finds nothing due and re-arms."""
        deadline = host.hosted.deadline()
        if deadline is None:
            return
        due = max(host.world_time(deadline), self.schedule.now)
        if host.wake_at is None or due < host.wake_at:
            host.wake_at = due
            self.schedule.at(due, self._wake, host, host.life, due)

    def _wake(self, host: Host, life: int, due: Instant) -> None:
        if host.life != life or host.wake_at != due or not host.is_up:
            return
        host.wake_at = None
        now = host.local(self.schedule.now)
        deadline = host.hosted.deadline()
        if deadline is not None and deadline <= now:
            host.hosted.wake(now)
            self._settle(host)
        else:
            self._arm(host)

    def _send_datagram(self, host: Host, effect: Effect) -> None:
        assert isinstance(effect, SendDatagram), "the table of effects says so"
        if self._is_held(host, self._send_datagram, effect):
            return
        self.counts["sent/datagrams"] += 1
        self.counts["sent/bytes"] += len(effect.data)
        target = self._by_address.get(effect.to)
        if target is None:
            self.counts["datagrams/nobody_there"] += 1
            return
        if not self.network.fits(host.name, target.name, len(effect.data)):
            self.counts["datagrams/too_large"] += 1
            return
        for delay_s in self.network.datagram_delays(host.name, target.name, self.schedule.now):
            self.schedule.after(
                delay_s, self._datagram_arrives, effect.to, effect.data, host.address, host.name
            )

    def _datagram_arrives(self, to: Address, data: bytes, source: Address, sender: str) -> None:
        receiver = self._by_address.get(to)
        if receiver is None or receiver.is_down:
            self.counts["datagrams/nobody_there"] += 1
            if receiver is not None and self.network.hears(sender, receiver.name):
                self.kernels.refuse(receiver, to, self._by_address.get(source))
        elif not self.network.hears(sender, receiver.name):
            self.counts["datagrams/cut_under_way"] += 1
        elif self.network.rejects(receiver.name):
            self.kernels.refuse(receiver, to, self._by_address.get(source))
        elif receiver.is_paused and receiver.is_full:
            self.counts["datagrams/buffer_full"] += 1
        else:
            self._take_in(receiver, lambda node, now: node.receive(data, source, now))

    # ------------------------------------------------------------------ slow hosts

    def _take_in(self, host: Host, action: Callable[[Hosted, Instant], None]) -> None:
        """Let a node take in what the air brought, when its host lets it through."""
        if not self._is_held(host, self._take_in, action):
            self.call(host, action)

    def _is_held(self, host: Host, move: Callable[..., None], what: object) -> bool:
        """Say whether a slow host keeps this to itself for now; it is moved on later, in order."""
        release_at = self.network.release_at(host.name, self.schedule.now)
        if release_at is None:
            return False
        self.counts["messages/held"] += 1
        self.schedule.at(release_at, self._release, host, host.life, move, what)
        return True

    def _release(self, host: Host, life: int, move: Callable[..., None], what: object) -> None:
        if host.life == life:
            move(host, what)

    # ------------------------------------------------------------------ what kernels do

    def process_ended(self, ended: Host) -> None:
        """Let the kernel of a process that is no more do its part."""
        self.kernels.process_ended(ended, self._by_id.values())

    def stream_closed(self, device: Host, ended: Host) -> None:
        """Tell the node on a host that its stream to another has ended."""
        self.call(device, lambda node, now: node.stream_closed(ended.id, now))

    def port_refused(self, device: Host, address: Address) -> None:
        """Tell the node on a host that nobody receives datagrams at this address."""
        self.call(device, lambda node, now: node.port_unreachable(address, now))

    # ------------------------------------------------------------------ frames

    def _send_frame(self, host: Host, effect: Effect) -> None:
        assert isinstance(effect, SendFrame), "the table of effects says so"
        if self._is_held(host, self._send_frame, effect):
            return
        self.counts["sent/bytes"] += len(effect.data)
        target = self._by_id.get(effect.to)
        known = host.hosted.addresses_of(effect.to)
        if target is not None and target.address in known:
            self.streams.send(host, target, effect.data)
            return
        self.counts["frames/nobody_there"] += 1
        self.schedule.after(DIAL_FAILS_S, self._unreachable, host, host.life, effect.to)

    def frame_arrived(self, receiver: Host, data: bytes, sender: Host) -> None:
        """Hand a frame to the node on receiver."""
        self._take_in(receiver, lambda node, now: node.receive_frame(data, sender.id, now))

    def stream_broke(self, sender: Host, receiver: Host) -> None:
        """Tell the node on sender that frames to receiver were lost."""
        self._unreachable(sender, sender.life, receiver.id)

    def _unreachable(self, host: Host, life: int, peer: NodeId) -> None:
        if host.life == life:
            self.call(host, lambda node, now: node.peer_unreachable(peer, now))

    # ------------------------------------------------------------------ disks

    def _persist(self, host: Host, effect: Effect) -> None:
        assert isinstance(effect, Persist), "the table of effects says so"
        host.unwritten[effect.durability].append(effect)
        if effect.durability not in host.writing:
            self._write(host, effect.durability)

    def _write(self, host: Host, kind: Durability) -> None:
        """Begin a transaction with all that waits: one sync to the disk serves many batches."""
        batches, host.unwritten[kind] = host.unwritten[kind], []
        host.writing.discard(kind)
        if batches:
            host.writing.add(kind)
            takes_s = host.disk_delay_s * self._disk.uniform(0.5, 1.5)
            self.schedule.after(takes_s, self._commit, host, host.life, batches)
            dies_after_s = takes_s * self._disk.uniform(0.0, 1.5)
            if host.dies_writing:
                self.schedule.after(dies_after_s, self._listener.died_writing, host, host.life)

    def _commit(self, host: Host, life: int, batches: list[Persist]) -> None:
        if host.life != life:
            self.counts["disks/writes_lost"] += 1
            return
        for batch in batches:
            host.disk.commit(batch, self.schedule.now)
        self.counts["disks/writes"] += 1
        lag_s = host.disk_delay_s * self._disk.uniform(0.0, 0.5)
        self.schedule.after(lag_s, self._report, host, life, batches)

    def _report(self, host: Host, life: int, batches: list[Persist]) -> None:
        if host.life != life:
            self.counts["disks/reports_lost"] += 1
            return
        for batch in batches:
            self.call(host, partial(_persisted, batch.token))
            if batch.durability is Durability.FLUSH:
                host.told = batch.token
        if host.life != life:
            return
        self._write(host, batches[0].durability)
        if host.to_sync and batches[0].durability is Durability.FLUSH:
            self._begin_sync(host)

    def _sync_disk(self, host: Host, effect: Effect) -> None:
        assert isinstance(effect, SyncDisk), "the table of effects says so"
        host.to_sync.add(effect.token)
        self._begin_sync(host)

    def _begin_sync(self, host: Host) -> None:
        """Sync what is written, if somebody waits for it and no sync is under way."""
        told = host.told
        if not host.is_syncing and any(token <= told for token in host.to_sync):
            host.is_syncing = True
            takes_s = host.disk_delay_s * self._disk.uniform(1.0, 3.0)
            written = host.disk.committed
            self.schedule.after(takes_s, self._synced, host, host.life, told, written)

    def _synced(self, host: Host, life: int, token: int, written: int) -> None:
        if host.life != life:
            self.counts["disks/syncs_lost"] += 1
            return
        host.disk.sync(written)
        self.counts["disks/syncs"] += 1
        host.is_syncing = False
        host.to_sync = {each for each in host.to_sync if each > token}
        self.call(host, partial(_synced, token))
        if host.life == life:
            self._begin_sync(host)

    # ------------------------------------------------------------------ events

    def _emit(self, host: Host, effect: Effect) -> None:
        assert isinstance(effect, Emit), "the table of effects says so"
        if isinstance(effect.event, SubjectsChanged):
            self.kernels.watched[host.name] = effect.event.watched
        self._listener.emitted(host, effect.event)


def _synced(token: int, node: Hosted, now: Instant) -> None:
    node.synced(token, now)


def _persisted(token: int, node: Hosted, now: Instant) -> None:
    node.persisted(token, now)
