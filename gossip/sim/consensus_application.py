"""What runs over the Raft machines: it applies what is committed, and answers clients.

Each process has a state of its own (``ConsensusHost.machine``) and knows whom it owes an answer.
What is owed by a process that ends is never answered.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from gossip.consensus.messages import Entry
from gossip.consensus.raft import Raft
from gossip.consensus.requests import ReadReady, Snapshot
from gossip.consensus.roles import Role
from gossip.consensus.storage import base_index
from gossip.core.machine import Instant
from gossip.sim.consensus_checkers import ConsensusChecker, ConsensusView
from gossip.sim.consensus_clients import Client, ClientOperation
from gossip.sim.consensus_host import ConsensusHost
from gossip.sim.consensus_store import Answer
from gossip.sim.schedule import Schedule

Life = tuple[str, int]
"""A host and the number of its process."""


class ApplicationWorld(ConsensusView, Protocol):
    """What an application needs of the world."""

    checkers: list[ConsensusChecker]
    clients: list[Client]
    counts: Counter[str]

    @property
    def schedule(self) -> Schedule:
        """Virtual time."""

    def call(self, host: ConsensusHost, action: Callable[[Raft, Instant], None]) -> None:
        """Let the machine on a host take something in."""


class ConsensusApplication:
    """The applications of all hosts."""

    def __init__(
        self,
        world: ApplicationWorld,
        rng: random.Random,
        *,
        apply_lag_s: float,
        compact_every: int | None,
    ) -> None:
        self._world, self._rng = world, rng
        self._apply_lag_s, self._compact_every = apply_lag_s, compact_every
        self._writes: dict[Life, dict[tuple[str, int], ClientOperation]] = {}
        self._reads: dict[Life, dict[int, ClientOperation]] = {}

    def expect(self, host: ConsensusHost, operation: ClientOperation, read: int | None) -> None:
        """Owe a client the answer; ``read`` is the id of a read."""
        life = host.name, host.life
        if operation.command is not None:
            asked = operation.command.client, operation.command.number
            self._writes.setdefault(life, {})[asked] = operation
        elif read is not None:
            for checker in self._world.checkers:
                checker.read_begun(self._world, host, read)
            self._reads.setdefault(life, {})[read] = operation

    def ended(self, host: ConsensusHost) -> None:
        """Owe nothing any more: the process is about to end."""
        self._writes.pop((host.name, host.life), None)
        self._reads.pop((host.name, host.life), None)

    def committed(self, host: ConsensusHost, entries: Iterable[Entry]) -> None:
        """Apply entries, and answer who asked for them here."""
        world = self._world
        owed = self._writes.get((host.name, host.life), {})
        if not host.machine.index:
            host.machine.begin(base_index(world.shadows[host.name].hard.generation))
        for entry in entries:
            outcome = host.machine.apply(entry)
            world.counts["applied"] += 1
            world.chosen.add(entry, host.raft.term)
            for checker in world.checkers:
                checker.applied(world, host, entry)
            if outcome is None:
                continue
            command, answer = outcome
            operation = owed.pop((command.client, command.number), None)
            if operation is not None:
                self._answer(operation, answer)
        self._report_later(host)

    def installed(self, host: ConsensusHost, index: int, data: bytes) -> None:
        """Put a snapshot in the place of the state."""
        host.machine.restore(data, index)
        for checker in self._world.checkers:
            checker.restored(self._world, host)
        self._report_later(host)

    def read_ready(self, host: ConsensusHost, ready: ReadReady) -> None:
        """Answer a read from the state, as it is now."""
        world = self._world
        for checker in world.checkers:
            checker.read_ready(world, host, ready)
        operation = self._reads.get((host.name, host.life), {}).pop(ready.id, None)
        if operation is not None:
            world.counts["reads/served"] += 1
            world.counts["reads/by_followers"] += host.raft.role is not Role.LEADER
            self._answer(operation, host.machine.read(operation.key))

    def _answer(self, operation: ClientOperation, answer: Answer) -> None:
        if operation.number < len(self._world.clients):
            self._world.clients[operation.number].answered(operation, answer)

    def _report_later(self, host: ConsensusHost) -> None:
        lag_s = self._rng.random() * self._apply_lag_s
        self._world.schedule.after(lag_s, self._report, host, host.life)

    def _report(self, host: ConsensusHost, life: int) -> None:
        if host.life == life:
            self._world.call(host, lambda raft, now: self._applied(host, raft, now))

    def _applied(self, host: ConsensusHost, raft: Raft, now: Instant) -> None:
        """Tell a machine what was applied, and hand over a snapshot if it is time for one."""
        machine, every = host.machine, self._compact_every
        raft.applied(machine.index)
        if every is not None and machine.index >= host.compacted_index + every:
            taken = raft.compacted(Snapshot(machine.index, machine.snapshot()), now)
            if taken:
                host.compacted_index = machine.index
            self._world.counts["snapshots_taken" if taken else "snapshots_put_off"] += 1
