"""What the asyncio driver does for a Raft machine, done for all hosts in virtual time.

The rules are those of ``driver.py``: after any input, perform all effects in order, then re-arm the
one timer; report what was written after it was written; let a crash fall between any two of these.

Frames travel in one of two ways, and a seed says which. On *streams*, as with real agents, they
arrive in order or not at all. As *datagrams* each is lost, late, doubled and overtaken on its own,
which is worse than any stream: Raft is to be right on such a network too, and finds itself there
whenever one stream breaks and the next one begins while the first's frames are still read.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol

from gossip.consensus.raft import Raft
from gossip.core.ids import NodeId
from gossip.core.machine import Effect, Emit, Instant, Persist, SendFrame
from gossip.sim.consensus_host import ConsensusHost
from gossip.sim.host import HostState
from gossip.sim.network import Network
from gossip.sim.rng import stream
from gossip.sim.schedule import TICKS_PER_S, Schedule
from gossip.sim.streams import Streams


class ConsensusListener(Protocol):
    """Who wants to hear what happens on the hosts."""

    def emitted(self, host: ConsensusHost, event: object) -> None:
        """A machine told its application something."""

    def sent(self, host: ConsensusHost, data: bytes) -> None:
        """A machine let others hear something: it cannot be taken back."""

    def persisting(self, host: ConsensusHost, batch: Persist) -> None:
        """A machine wants something written."""

    def died_writing(self, host: ConsensusHost, life: int) -> None:
        """The moment has come for a host that was to die while it writes."""

    def stepped(self, host: ConsensusHost) -> None:
        """A machine took in one input and all its effects were performed."""


class ConsensusDriver:
    """Moves frames, changes and timers between hosts."""

    def __init__(
        self, seed: int, network: Network, audience: ConsensusListener, *, ordered: bool
    ) -> None:
        """``ordered``: frames travel on streams, and not each on its own."""
        self.schedule = Schedule()
        self.network = network
        self.counts: Counter[str] = Counter()
        self.streams = Streams[ConsensusHost](self.schedule, network, stream(seed, "streams"), self)
        self._ordered = ordered
        self._audience = audience
        self._disk: random.Random = stream(seed, "disks")
        self._copies: random.Random = stream(seed, "copies")
        self._by_id: dict[NodeId, list[ConsensusHost]] = {}
        """More than one under an id are copies of one card."""

    def plug_in(self, host: ConsensusHost) -> None:
        """Let a host be reached under its id, or now and then, when another has the same."""
        self._by_id.setdefault(host.id, []).append(host)

    def start(self, host: ConsensusHost, raft: Raft) -> None:
        """Let a machine run on a host."""
        host.boot_up(raft, self.schedule.now)
        self._settle(host)

    def resume(self, host: ConsensusHost) -> None:
        """Let a paused process go on: first it reads what has arrived, then its timer fires."""
        assert host.is_paused, f"{host.name} is not paused"
        host.state = HostState.UP
        while host.inbox and host.is_up:
            host.inbox.popleft()()
        host.wake_at = None
        self._arm(host)

    def call(self, host: ConsensusHost, action: Callable[[Raft, Instant], None]) -> None:
        """Let a running machine take in something, then perform its effects.

        A paused process takes it in when it goes on; what ends meanwhile never does.
        """
        if host.is_up:
            action(host.raft, host.clock.local(self.schedule.now))
            self._settle(host)
        elif host.is_paused:
            host.inbox.append(lambda: self.call(host, action))

    def rearm(self, host: ConsensusHost) -> None:
        """Look at the timer again: the clock that it is on has changed."""
        host.wake_at = None
        if host.is_up:
            self._arm(host)

    # ------------------------------------------------------------------ effects

    def _settle(self, host: ConsensusHost) -> None:
        for effect in host.raft.effects():
            self._perform(host, effect)
        self._audience.stepped(host)
        self._arm(host)

    def _perform(self, host: ConsensusHost, effect: Effect) -> None:
        match effect:
            case SendFrame():
                self._send(host, effect)
            case Persist():
                self._audience.persisting(host, effect)
                host.unwritten.append(effect)
                if not host.is_writing:
                    self._write(host)
            case Emit(event):
                self._audience.emitted(host, event)
            case _:
                raise AssertionError(f"a Raft machine has no such effect: {effect}")

    def _arm(self, host: ConsensusHost) -> None:
        """Re-arm the timer. One that is set too early stays: it finds nothing due and re-arms."""
        deadline = host.raft.deadline()
        if deadline is None:
            return
        due = max(host.clock.world_time(deadline), self.schedule.now)
        if host.wake_at is None or due < host.wake_at:
            host.wake_at = due
            self.schedule.at(due, self._wake, host, host.life, due)

    def _wake(self, host: ConsensusHost, life: int, due: Instant) -> None:
        if host.life != life or host.wake_at != due or not host.is_up:
            return
        host.wake_at = None
        deadline, now = host.raft.deadline(), host.clock.local(self.schedule.now)
        if deadline is not None and now < deadline <= now + 2 / TICKS_PER_S:
            # A clock that is fast or slow is read with an error of half a bit.
            now = deadline
        if deadline is not None and deadline <= now:
            host.raft.wake(now)
            self._settle(host)
        else:
            self._arm(host)

    # ------------------------------------------------------------------ frames

    def _send(self, host: ConsensusHost, frame: SendFrame) -> None:
        self.counts["frames/sent"] += 1
        self._audience.sent(host, frame.data)
        targets = self._by_id[frame.to]
        target = targets[0] if len(targets) == 1 else self._copies.choice(targets)
        if self._ordered:
            self.streams.send(host, target, frame.data)
            return
        now = self.schedule.now
        for delay_s in self.network.datagram_delays(host.name, target.name, now):
            self.schedule.after(delay_s, self._datagram_arrives, target, frame.data, host)

    def _datagram_arrives(
        self, receiver: ConsensusHost, data: bytes, sender: ConsensusHost
    ) -> None:
        if not self.network.hears(sender.name, receiver.name):
            self.counts["frames/cut_under_way"] += 1
        elif receiver.is_down or (receiver.is_paused and receiver.is_full):
            self.counts["frames/nobody_there"] += 1
        else:
            self.frame_arrived(receiver, data, sender)

    def frame_arrived(self, receiver: ConsensusHost, data: bytes, sender: ConsensusHost) -> None:
        """Hand a frame to the machine on receiver."""
        self.call(receiver, lambda raft, now: raft.receive(data, sender.id, now))

    def stream_broke(self, sender: ConsensusHost, receiver: ConsensusHost) -> None:
        """Tell the machine on sender that frames to receiver were lost."""
        self.call(sender, lambda raft, now: raft.peer_unreachable(receiver.id, now))

    # ------------------------------------------------------------------ disks

    def _write(self, host: ConsensusHost) -> None:
        """Begin a transaction with all that waits: one sync to the disk serves many batches."""
        host.writing, host.unwritten = host.unwritten, []
        host.is_writing = bool(host.writing)
        if host.is_writing:
            takes_s = host.disk_delay_s * self._disk.uniform(0.5, 1.5)
            self.schedule.after(takes_s, self._commit, host, host.life)
            dies_after_s = takes_s * self._disk.uniform(0.0, 1.5)
            if host.dies_writing is not None:
                self.schedule.after(dies_after_s, self._audience.died_writing, host, host.life)

    def _commit(self, host: ConsensusHost, life: int) -> None:
        if host.life != life:
            return
        for batch in host.writing:
            host.disk.commit(batch, self.schedule.now)
        self.counts["disks/syncs"] += 1
        written, host.writing = host.writing, []
        lag_s = host.disk_delay_s * self._disk.uniform(0.0, 0.5)
        self.schedule.after(lag_s, self._report, host, life, written)

    def _report(self, host: ConsensusHost, life: int, written: list[Persist]) -> None:
        if host.life != life:
            self.counts["disks/reports_lost"] += 1
            return
        for batch in written:
            self.call(host, partial(_persisted, batch.token))
        self._write(host)


def _persisted(token: int, raft: Raft, now: Instant) -> None:
    raft.persisted(token, now)
