"""Stores of one Raft group, driven by hand: messages, disks and the clock move when a test says so.

Frames wait in one queue for each pair of stores, batches in one for each disk. ``settle`` lets
everything happen that needs no time; a crash loses what was not written.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable

import msgspec

from gossip.consensus import messages as m
from gossip.consensus.configuration import Configuration, Voter, encode_configuration
from gossip.consensus.raft import Raft
from gossip.consensus.requests import Committed, Snapshot, SnapshotInstalled
from gossip.consensus.storage import HardState, MemoryLog, StoredState, blank
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.machine import Durability, Emit, Persist, SendFrame

TUNING = ConsensusTuning(learner_settle_s=0.0)
"""A learner may vote as soon as it has caught up: tests about waiting say so."""
STEPS_MAX = 10_000


class Store:
    """One store: its disk, its process while it runs, and an application that lists commands."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.voter = Voter(number, 100 + number)
        self.disk = MemoryLog()
        self.raft: Raft | None = None
        self.boots = 0
        self.batches: deque[Persist] = deque()
        self.is_slow = False
        """Its disk writes only when a test says so."""
        self.events: list[object] = []
        self.state: list[str] = []
        self.applied = 0

    @property
    def running(self) -> Raft:
        """The process; there must be one."""
        assert self.raft is not None, f"{self.name} does not run"
        return self.raft


class RaftGroup:
    """Some stores, what is between them, and the time."""

    def __init__(self, tuning: ConsensusTuning = TUNING, seed: int = 1) -> None:
        self.tuning = tuning
        self.seed = seed
        self.now = 0.0
        self.stores: dict[str, Store] = {}
        self.wire: dict[tuple[str, str], deque[bytes]] = defaultdict(deque)
        self.cut: set[tuple[str, str]] = set()
        self.on_send: Callable[[str, str, m.Message], None] = lambda *_: None
        self.on_deliver: Callable[[str, str, m.Message], None] = lambda *_: None
        self.on_event: Callable[[str, object], None] = lambda *_: None
        self.on_persist: Callable[[str, Persist], None] = lambda *_: None

    # The cast.

    def add(self, *names: str) -> list[Voter]:
        """Add stores; return them as they are named in a configuration."""
        for name in names:
            self.stores[name] = Store(name, len(self.stores) + 1)
        return [self.stores[name].voter for name in names]

    def found(self, voters: str, learners: str = "", blanks: str = "") -> "RaftGroup":
        """Start stores that know a configuration, and blank ones that know nothing; a letter each.

        Their logs begin with its entry, as if the first leader had been lost since.
        """
        configuration = Configuration(tuple(self.add(*voters)), (), tuple(self.add(*learners)))
        first = m.Entry(1, 1, m.EntryKind.CONFIGURATION, encode_configuration(configuration))
        for name in voters + learners:
            disk = self.stores[name].disk
            disk.replace(StoredState(HardState(1, 1), (first,), disk))
        self.add(*blanks)
        for name in voters + learners + blanks:
            self.start(name)
        # Who has just started votes for nobody.
        self.now = self.tuning.election_min_s
        return self

    def start(self, name: str) -> None:
        """Start a store's process over its disk."""
        store = self.stores[name]
        store.boots += 1
        store.state, store.applied = [], 0
        stored = store.disk.stored() if store.disk.hard.generation else None
        if stored is None:
            stored = msgspec.structs.replace(blank(), chunks=store.disk)
        rng = random.Random(f"{self.seed} {name} {store.boots}")
        boot = 1000 * store.voter.store + store.boots
        store.raft = Raft(store.voter, boot, stored, self.tuning, rng, self.now)
        self.collect(name)

    def crash(self, name: str) -> None:
        """End a store's process; batches that wait for the disk are lost."""
        store = self.stores[name]
        store.raft = None
        store.batches.clear()
        for pair in self.wire:
            if name in pair:
                self.wire[pair].clear()

    def __getitem__(self, name: str) -> Raft:
        return self.stores[name].running

    def leader(self) -> str:
        """Return who leads in the latest term."""
        leading = [
            (store.raft.term, name)
            for name, store in self.stores.items()
            if store.raft is not None and store.raft.role == "leader"
        ]
        assert leading, "nobody leads"
        return max(leading)[1]

    def name_of(self, node_or_store: int) -> str:
        """Return who has this node or store."""
        for name, store in self.stores.items():
            if node_or_store in (store.voter.store, store.voter.node):
                return name
        raise AssertionError(f"nobody is {node_or_store}")

    # What happens.

    def collect(self, name: str) -> None:
        """Perform the effects of a store."""
        store = self.stores[name]
        for effect in list(store.running.effects()):
            match effect:
                case SendFrame(data, to):
                    self._send(name, data, to)
                case Persist():
                    assert effect.durability is Durability.FSYNC, "a promise outlives a power cut"
                    self.on_persist(name, effect)
                    store.batches.append(effect)
                case Emit(event):
                    store.events.append(event)
                    self.on_event(name, event)
                    self._apply(store, event)
        if not store.is_slow:
            self.write(name)

    def _send(self, name: str, data: bytes, to: int) -> None:
        other = next((n for n, s in self.stores.items() if s.voter.node == to), None)
        if other is None or (name, other) in self.cut:
            return
        message = m.CODEC.decode(data)
        assert message is not None, "own messages are known"
        self.on_send(name, other, message)
        self.wire[name, other].append(data)

    def _apply(self, store: Store, event: object) -> None:
        match event:
            case Committed(entries):
                for entry in entries:
                    if entry.kind is m.EntryKind.COMMAND:
                        store.state.append(entry.data.decode())
                store.applied = entries[-1].index
            case SnapshotInstalled(index, data):
                store.state = data.decode().split()
                store.applied = index
            case _:
                return
        store.running.applied(store.applied)
        self.collect(store.name)

    def write(self, name: str, batches: int | None = None) -> None:
        """Let a disk write what waits, or so many batches of it."""
        store = self.stores[name]
        count = len(store.batches) if batches is None else batches
        for _ in range(count):
            if store.raft is None or not store.batches:
                return
            batch = store.batches.popleft()
            store.disk.apply(batch.changes)
            store.raft.persisted(batch.token, self.now)
            self.collect(name)

    def deliver(self, sender: str, receiver: str, count: int | None = None) -> None:
        """Hand over what waits between two stores, or the first few of it."""
        queue = self.wire[sender, receiver]
        for _ in range(len(queue) if count is None else count):
            self.hand_over(sender, receiver, queue.popleft())

    def hand_over(self, sender: str, receiver: str, data: bytes) -> None:
        """Hand one frame over."""
        store = self.stores[receiver]
        message = m.CODEC.decode(data)
        assert message is not None, "own messages are known"
        if store.raft is None or (sender, receiver) in self.cut:
            return
        self.on_deliver(sender, receiver, message)
        store.raft.receive(data, self.stores[sender].voter.node, self.now)
        self.collect(receiver)

    def settle(self, among: str = "") -> None:
        """Let everything happen that needs no time; among some of the stores, or all."""
        for _ in range(STEPS_MAX):
            waiting = [
                pair
                for pair in sorted(self.wire)
                if self.wire[pair] and set(pair) <= set(among or self.stores)
            ]
            if not waiting:
                return
            for pair in waiting:
                self.deliver(*pair)
        raise AssertionError("the stores talk for ever")

    def lose(self, sender: str, receiver: str, count: int | None = None) -> None:
        """Lose what waits between two stores, or the first few of it."""
        queue = self.wire[sender, receiver]
        for _ in range(len(queue) if count is None else count):
            queue.popleft()

    def split(self, *sides: Iterable[str]) -> None:
        """Let nothing through between these sides."""
        self.cut = {
            (a, b)
            for one in sides
            for other in sides
            if one is not other
            for a in one
            for b in other
        }
        for pair in self.cut:
            self.wire[pair].clear()

    def heal(self) -> None:
        """Let everything through again."""
        self.cut = set()

    def run(self, duration_s: float, *, settle: bool = True) -> None:
        """Let time pass: timers fire, and what they send arrives at once, unless told otherwise."""
        end = self.now + duration_s
        while True:
            dues = [
                (max(due, self.now), name)
                for name, store in self.stores.items()
                if store.raft is not None and (due := store.raft.deadline()) is not None
            ]
            if not dues or min(dues)[0] > end:
                break
            self.now, name = min(dues)
            self[name].wake(self.now)
            self.collect(name)
            if settle:
                self.settle()
        self.now = end

    # Shorthands.

    def do(self, name: str, action: Callable[[Raft], object]) -> object:
        """Do something with a store, and perform what follows from it."""
        try:
            return action(self[name])
        finally:
            self.collect(name)

    def campaign(self, name: str) -> None:
        """Let the time of a store be up."""
        self.do(name, lambda raft: raft.election.ask_first())

    def elect(self, name: str) -> None:
        """Have this store lead, and everybody know it."""
        self.campaign(name)
        self.settle()
        assert self.leader() == name

    def propose(self, name: str, *commands: str) -> None:
        """Propose commands at a store."""
        texts = [command.encode() for command in commands]
        self.do(name, lambda raft: raft.propose(texts, self.now))

    def compact(self, name: str) -> object:
        """Hand a snapshot of a store's state to it."""
        store = self.stores[name]
        snapshot = Snapshot(store.applied, " ".join(store.state).encode())
        return self.do(name, lambda raft: raft.compacted(snapshot, self.now))
