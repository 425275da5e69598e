"""A Raft group in a box: real machines, virtual time, and a hand that breaks things.

    world = ConsensusWorld(seed=7)
    world.add("a", "b", "c", "d")
    world.found("a", "b", "c")
    world.run(20)
    world.partition(["a"], ["b", "c", "d"])
    world.run(30)
    world.peace(CALM)
    world.run_until(world.is_settled, within_s=60)

A world is decided by its seed and the calls made on it. There is no list of members in it: a
Raft machine has no input through which it could learn who seems to be there. It takes two hints of
a failure detector, which cost a round at most when they are wrong, and here they mostly are.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable

from gossip.consensus.configuration import Configuration, StoreId, encode_configuration
from gossip.consensus.messages import CODEC, Entry, EntryKind
from gossip.consensus.raft import Raft
from gossip.consensus.requests import (
    CloneSeen,
    Committed,
    ConfigurationChanged,
    ReadFailed,
    ReadReady,
    RoleChanged,
    SnapshotInstalled,
)
from gossip.consensus.roles import Role
from gossip.consensus.storage import (
    HardState,
    MemoryLog,
    StoredState,
    TruncateChange,
    recovered,
)
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.ids import next_boot
from gossip.core.machine import Instant, Persist
from gossip.sim.consensus_application import ConsensusApplication
from gossip.sim.consensus_checkers import ChosenLog, ConsensusChecker
from gossip.sim.consensus_clients import Client, ClientOperation
from gossip.sim.consensus_driver import ConsensusDriver
from gossip.sim.consensus_host import ConsensusHost
from gossip.sim.consensus_store import ConsensusStore
from gossip.sim.host import DISK_DELAY_S, HostState
from gossip.sim.invariants import Violation
from gossip.sim.log_disk import LogDisk
from gossip.sim.log_shadow import LogShadow
from gossip.sim.network import CALM, Conditions, Network
from gossip.sim.rng import stream
from gossip.sim.schedule import Schedule
from gossip.sim.trace import Trace
from gossip.sim.world import LOOK_EVERY_S

LEADER_IS_KNOWN = 0.5
"""Chance that a client begins with somebody who leads, or believes to."""


class ConsensusWorld:
    """Hosts with a log each, the air between them, and time. All names are names of hosts."""

    def __init__(
        self,
        seed: int,
        *,
        conditions: Conditions = CALM,
        tuning: ConsensusTuning | None = None,
        ordered: bool = True,
        apply_lag_s: float = 0.0,
        compact_every: int | None = None,
        disk_delay_s: float = DISK_DELAY_S,
        checkers: Iterable[ConsensusChecker] = (),
        trace: Trace | None = None,
    ) -> None:
        """``compact_every``: an application hands over a snapshot after so many entries.

        ``apply_lag_s``: it needs up to so long until it says what it has applied.
        """
        self.seed = seed
        self.tuning = tuning or ConsensusTuning()
        self.network = Network(stream(seed, "network"), conditions)
        self.driver = ConsensusDriver(seed, self.network, self, ordered=ordered)
        self.counts: Counter[str] = Counter()
        self.checkers = list(checkers)
        self.trace = trace or Trace()
        self.hosts: dict[str, ConsensusHost] = {}
        self.shadows: dict[str, LogShadow] = {}
        self.chosen = ChosenLog()
        self.clients: list[Client] = []
        self._by_store: dict[StoreId, ConsensusHost] = {}
        self._lost: dict[StoreId, LogDisk] = {}
        """Logs that no process has any more, as they were when they were lost."""
        self._disk_delay_s = disk_delay_s
        self._identities = stream(seed, "identities")
        self._power = stream(seed, "power")
        self._application = ConsensusApplication(
            self,
            stream(seed, "application"),
            apply_lag_s=apply_lag_s,
            compact_every=compact_every,
        )
        self._events = 0

    # ------------------------------------------------------------------ time

    @property
    def schedule(self) -> Schedule:
        """Virtual time."""
        return self.driver.schedule

    @property
    def now(self) -> Instant:
        """Seconds since the world began."""
        return self.driver.schedule.now

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

    def event_number(self) -> int:
        """Return the number of what happens now; it grows with each call."""
        self._events += 1
        return self._events

    def record(self, name: str, text: str) -> None:
        """Add a line to the trace, which is what a failure shows."""
        self.trace.add(self.now, name, text)

    # ------------------------------------------------------------------ devices

    def add(self, *names: str) -> None:
        """Put devices there, each with an empty log; nothing runs yet."""
        for name in names:
            host = ConsensusHost(name, self._identities)
            host.disk_delay_s = self._disk_delay_s
            self.hosts[name] = self._by_store[host.store] = host
            self.driver.plug_in(host)

    def found(self, *names: str) -> None:
        """Let these be the voters of a new group, and switch all devices on.

        They begin with the same first entry, as if one had founded the group and let the others in.
        """
        voters = tuple(sorted(self.hosts[name].voter for name in names))
        data = encode_configuration(Configuration(voters))
        first = Entry(1, 1, EntryKind.CONFIGURATION, data)
        for name in names:
            stored = StoredState(HardState(generation=1, term=1), (first,), MemoryLog())
            self.hosts[name].disk.platter.replace(stored)
        self.restart(*self.hosts)

    def restart(self, *names: str) -> None:
        """Start a process on devices on which none runs."""
        for name in names:
            host = self.hosts[name]
            self.record(name, f"starts as store {host.store:x}")
            stored = self._open(host)
            self.shadows[host.name] = LogShadow(stored)
            for checker in self.checkers:
                checker.started(self, host, stored)
            self.driver.start(host, self._new_machine(host, stored))

    def _open(self, host: ConsensusHost) -> StoredState:
        """Read a log; nothing that a machine had written may be one that none can have."""
        try:
            return host.disk.open()
        except ValueError as error:
            raise Violation(f"WholeLogs: at {self.now:.6f} s {host.name} finds: {error}") from error

    def _new_machine(self, host: ConsensusHost, stored: StoredState) -> Raft:
        boot = next_boot(host.life + 1, self._identities)
        now = host.clock.local(self.now)
        rng = stream(self.seed, "raft", host.name, host.life)
        return Raft(host.voter, boot, stored, self.tuning, rng, now)

    def crash(self, name: str) -> None:
        """End a process at once, as kill -9 does; the disk keeps what was committed."""
        host = self.hosts[name]
        self._end(host, host.disk.end_process(host.writing, self._power), "crashes")

    def lose_power(self, name: str) -> None:
        """Let the power of a device fail: what was not synced may be gone, from some batch on."""
        host = self.hosts[name]
        lost = host.disk.lose_power(host.writing, self._power, self.now)
        self._end(host, lost, "loses its power")

    def die_writing(self, name: str, how: str) -> None:
        """Let a process die in the middle of what it next writes: ``crash`` or ``lose_power``."""
        self.hosts[name].dies_writing = how

    def died_writing(self, host: ConsensusHost, life: int) -> None:
        """End a process that was to die while it writes."""
        if host.life == life and host.dies_writing is not None:
            getattr(self, host.dies_writing)(host.name)

    def _end(self, host: ConsensusHost, lost: int, how: str) -> None:
        lost += len(host.unwritten)
        self.counts["crashes"] += 1
        self.counts["crashes/with_loss"] += lost > 0
        self.record(host.name, f"{how}, and {lost} batches with it")
        self._application.ended(host)
        host.end()

    def lose_log(self, name: str) -> None:
        """Let a disk be damaged, if the group can do without; its device has another log then."""
        host = self.hosts[name]
        if not self._can_do_without(host.store):
            return
        if not host.is_down:
            self.lose_power(name)
        self.counts["logs_lost"] += 1
        self._lost[host.store] = host.disk
        host.begin_log(self._identities)
        self._by_store[host.store] = host
        self.record(name, f"has lost its log; it is store {host.store:x} now")

    def clone(self, name: str, copy: str) -> None:
        """Let another device run with a copy of this one's card."""
        self.record(copy, f"runs with a copy of the card of {name}")
        twin = ConsensusHost(copy, self._identities)
        twin.copy_card(self.hosts[name])
        self.hosts[copy] = twin
        self.driver.plug_in(twin)
        self.restart(copy)

    def recover(self, name: str) -> None:
        """Let one device go on alone, as its operator decides when the majority is lost.

        Its application applies everything that its log has, committed or not.
        """
        host = self.hosts[name]
        stored, machine = host.disk.open(), ConsensusStore()
        if stored.snapshot is not None:
            mark, chunks = stored.snapshot, range(stored.snapshot.chunks)
            machine.restore(
                b"".join(stored.chunks.chunk(mark, each) for each in chunks), mark.index
            )
        for entry in stored.entries:
            if entry.index > machine.index:
                machine.apply(entry)
        alone = recovered(stored, host.voter, machine.snapshot(), self.tuning.chunk_bytes)
        self.record(name, f"goes on alone in generation {alone.hard.generation}")
        host.disk = LogDisk()
        host.disk.platter.replace(alone)
        self.restart(name)

    def _can_do_without(self, store: StoreId) -> bool:
        """Tell whether each configuration that may be in effect keeps a majority without it."""
        intact = set(self._by_store) - set(self._lost) - {store}
        newest = [shadow.configurations[-2:] for shadow in self.shadows.values()]
        return all(
            configuration.is_quorum(intact)
            for configurations in newest
            for _, configuration in configurations
            if configuration.is_voter(store)
        )

    def pause(self, name: str) -> None:
        """Let a process stand still, as SIGSTOP or a suspended device does; its clock goes on."""
        self.record(name, "pauses")
        self.hosts[name].state = HostState.PAUSED

    def resume(self, name: str) -> None:
        """Let a paused process go on."""
        self.record(name, "goes on")
        self.driver.resume(self.hosts[name])

    def slow_disk(self, name: str, delay_s: float) -> None:
        """Set how long a device's disk takes for one transaction."""
        self.record(name, f"needs {delay_s} s to write")
        self.hosts[name].disk_delay_s = delay_s

    def leap(self, name: str, ahead_s: float) -> None:
        """Let a device's clock jump ahead, as behind a suspension of which nobody noticed more."""
        self.record(name, f"has its clock {ahead_s} s ahead")
        self.hosts[name].clock.jump(ahead_s, self.now)
        self.driver.rearm(self.hosts[name])

    def drift(self, name: str, rate: float) -> None:
        """Let a device's clock be fast or slow from now on."""
        self.record(name, f"has a clock of {rate} seconds a second")
        self.hosts[name].clock.set_rate(rate, self.now)
        self.driver.rearm(self.hosts[name])

    def lie(self, name: str, about: str) -> None:
        """Let a failure detector tell a machine that its leader, or somebody, is gone.

        These two hints are all that a machine takes from one, and it must not matter what they say.
        """
        host, peer = self.hosts[name], self.hosts[about]
        self.driver.call(host, lambda raft, now: raft.forget_leader(now))
        self.driver.call(host, lambda raft, now: raft.peer_unreachable(peer.id, now))

    # ------------------------------------------------------------------ the air

    def partition(self, *sides: Iterable[str]) -> None:
        """Split the hosts; those that no side names form one more side."""
        listed = [list(side) for side in sides]
        self.record("air", "splits into " + " | ".join(" ".join(side) for side in listed))
        self.network.partition(listed)

    def join_sides(self) -> None:
        """Undo ``partition``."""
        self.record("air", "is whole")
        self.network.join_sides()

    def cut(self, source: str, target: str) -> None:
        """Let target no longer hear source, while source still hears target."""
        self.record("air", f"carries nothing from {source} to {target}")
        self.network.cut(source, target)

    def mend(self, source: str, target: str) -> None:
        """Undo ``cut``."""
        self.network.mend(source, target)

    def weather(self, conditions: Conditions) -> None:
        """Change what the links are like."""
        self.network.conditions = conditions

    def peace(self, conditions: Conditions) -> None:
        """Heal everything: the air, the disks, the clocks; and all processes run."""
        self.record("air", "peace")
        self.network.heal()
        self.weather(conditions)
        for name, host in self.hosts.items():
            host.dies_writing = None
            self.slow_disk(name, DISK_DELAY_S)
            self.drift(name, 1.0)
            if host.is_paused:
                self.resume(name)
            if host.is_down:
                self.restart(name)

    # ------------------------------------------------------------------ the group

    def leader(self) -> ConsensusHost | None:
        """Return who leads in the latest term; a leader of before may not know of it yet."""
        leading = [
            host
            for host in self.hosts.values()
            if not host.is_down and host.raft.role is Role.LEADER
        ]
        return max(leading, key=lambda host: host.raft.term, default=None)

    def is_settled(self) -> bool:
        """Tell whether there is one leader whom all who take part follow, at the same index."""
        leader = self.leader()
        if leader is None or leader.raft.configuration.is_joint:
            return False
        raft = leader.raft
        members = [
            self._by_store[each.store]
            for each in raft.configuration.members
            if self.is_intact(each.store)
        ]
        return raft.commit_index == raft.last_index and all(
            host.is_up and host.raft.term == raft.term and host.machine.index == raft.commit_index
            for host in members
        )

    def is_quiet(self) -> bool:
        """Tell whether no client waits for anything."""
        return all(client.is_idle for client in self.clients)

    def platter(self, store: StoreId) -> MemoryLog | None:
        """Return what a power cut would leave of a log, be it in use or not; None: nothing."""
        if store in self._lost:
            return self._lost[store].platter
        host = self._by_store.get(store)
        return host.disk.platter if host else None

    def is_intact(self, store: StoreId) -> bool:
        """Tell whether a log is still there."""
        return store in self._by_store and store not in self._lost

    def intact(self, configuration: Configuration) -> bool:
        """Tell whether a majority of each side has its log."""
        return configuration.is_quorum(set(self._by_store) - set(self._lost))

    # ------------------------------------------------------------------ clients

    def add_client(self) -> None:
        """Let one more client ask for something, again and again."""
        number = len(self.clients)
        client = Client(number, stream(self.seed, "client", number), self)
        self.clients.append(client)
        client.begin()

    def stop_clients(self) -> None:
        """Let nobody begin anything more; what was begun is asked for until it is answered."""
        for client in self.clients:
            client.is_stopped = True

    def history(self) -> list[ClientOperation]:
        """Return all that clients ever asked."""
        return [operation for client in self.clients for operation in client.operations]

    def somebody(self, rng: random.Random) -> ConsensusHost | None:
        """Return a host whose process runs or is paused; None: there is none.

        Clients mostly know who leads, or led a moment ago and does not know better.
        """
        hosts = [host for host in self.hosts.values() if not host.is_down]
        leading = [host for host in hosts if host.raft.role is Role.LEADER]
        if leading and rng.random() < LEADER_IS_KNOWN:
            return rng.choice(leading)
        return rng.choice(hosts) if hosts else None

    def host_of(self, store: StoreId) -> ConsensusHost | None:
        """Return the host that has this store."""
        return self._by_store.get(store)

    def call(self, host: ConsensusHost, action: Callable[[Raft, Instant], None]) -> None:
        """Let the machine on a host take something in."""
        self.driver.call(host, action)

    def expect(self, host: ConsensusHost, operation: ClientOperation, read: int | None) -> None:
        """Let the host tell the client when it knows the answer; ``read`` is the read's id."""
        self._application.expect(host, operation, read)

    # ------------------------------------------------------------------ what the driver tells

    def sent(self, host: ConsensusHost, data: bytes) -> None:
        """Show a message to the checkers."""
        message = CODEC.decode(data)
        assert message is not None, "a machine sends what it can read itself"
        for checker in self.checkers:
            checker.sent(self, host, message)

    def persisting(self, host: ConsensusHost, batch: Persist) -> None:
        """Show each change to the checkers, and let the shadow follow it."""
        shadow = self.shadows[host.name]
        self.counts["batches"] += 1
        for change in batch.changes:
            for checker in self.checkers:
                checker.writing(self, host, change)
            if isinstance(change, TruncateChange):
                removed = list(shadow.removed_by(change))
                self.counts["conflicts_truncated"] += bool(removed)
            shadow.apply(change)

    def stepped(self, host: ConsensusHost) -> None:
        """Show a machine that took in one input to the checkers."""
        for checker in self.checkers:
            checker.stepped(self, host)

    def emitted(self, host: ConsensusHost, event: object) -> None:
        """Hand on what a machine tells its application."""
        match event:
            case Committed(entries):
                self._application.committed(host, entries)
            case SnapshotInstalled(index, data):
                self.counts["snapshots_installed"] += host.started_at < self.now
                self.record(host.name, f"has a snapshot up to {index}")
                self._application.installed(host, index, data)
            case RoleChanged():
                self._role_changed(host, event)
            case ReadReady():
                self._application.read_ready(host, event)
            case ReadFailed():
                self.counts["reads/failed"] += 1
            case ConfigurationChanged():
                self._configuration_changed(host, event)
            case CloneSeen():
                self.counts["clones_seen"] += 1
                self.record(host.name, f"sees two of store {event.store:x}")
            case _:
                raise AssertionError(f"no such event: {event}")

    def _role_changed(self, host: ConsensusHost, change: RoleChanged) -> None:
        self.counts[f"roles/{change.role}"] += 1
        self.record(host.name, f"is {change.role} in term {change.term}")
        for checker in self.checkers:
            checker.role_changed(self, host, change)

    def _configuration_changed(self, host: ConsensusHost, event: ConfigurationChanged) -> None:
        who = event.configuration
        names = [self._name_of(each.store) for each in who.voters]
        out = [self._name_of(each.store) for each in who.outgoing]
        learning = [self._name_of(each.store) for each in who.learners]
        self.record(host.name, f"has voters {names}, outgoing {out}, learners {learning}")
        if host.raft.role is Role.LEADER:
            self.counts["configurations"] += 1
            self.counts["configurations/joint"] += who.is_joint

    def _name_of(self, store: StoreId) -> str:
        host = self._by_store.get(store)
        return host.name if host else "?"
