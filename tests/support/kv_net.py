"""State planes joined by streams that a test can cut, over disks that a test can slow.

Frames and saves are events in one queue of virtual time; every run with the same seed is the same.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from gossip.core.ids import NodeId
from gossip.core.machine import Durability, Effect, Emit, Persist, SendFrame
from gossip.kv.parts import MembershipView
from gossip.kv.plane import KvPlane
from gossip.kv.requests import Completed, OwnersReady, Request, Result, WatchEvent
from gossip.kv.storage import MemoryStorage, RegistryChange
from gossip.registry.node import ISSUER, RegisteredNode
from gossip.registry.ownership import Ownership
from gossip.registry.registry import Registry, SignedRegistry, admit, advance, found, house

Timer = tuple[NodeId, str]
"""A node, and which of its planes is to be woken."""

CLUSTER = bytes(range(16))
SIGNATURE = b"signed by the issuer"
FIRST = 1
STATE = "state"
"""Names the state plane of a node, where there is another one."""
IDLE_STEPS_MAX = 10_000
WALL_MS = 1_800_000_000_000
"""What all clocks say at the beginning of time."""
NO_TIMER: tuple[float, Timer] = (float("inf"), (0, ""))


def verify(payload: bytes, signature: bytes) -> bool:
    return bool(payload) and signature == SIGNATURE


def sign(registry: Registry) -> bytes:
    return SignedRegistry(registry.encode(), SIGNATURE).encode()


def node(
    number: int, zone: str = "", weight: float = 1.0, *, absent: bool = False
) -> RegisteredNode:
    roles = (ISSUER,) if number == FIRST else ()
    return RegisteredNode(
        number, f"node-{number}", weight=weight, zone=zone, roles=roles, absent=absent
    )


def registry_of(numbers: Iterable[int], partitions: int = 8, replicas: int = 3) -> Registry:
    """A registry in which all were there from the beginning."""
    first, *others = numbers
    registry = found(CLUSTER, node(first), partitions, replicas)
    for number in others:
        registry = admit(registry, node(number))
    table = tuple(Ownership(each.target, 1) for each in registry.table)
    return Registry(CLUSTER, 1, partitions, replicas, registry.nodes, table)


def housed_registry_of(numbers: Iterable[int], partitions: int = 8, replicas: int = 3) -> Registry:
    """The same, and each of them has a home."""
    return house(registry_of(numbers, partitions, replicas))


class Net:
    def __init__(self, registry: Registry, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.now = 100.0
        self.registry = registry
        self.planes: dict[NodeId, KvPlane] = {}
        self.storages: dict[NodeId, MemoryStorage] = defaultdict(MemoryStorage)
        self.results: dict[tuple[NodeId, int], Result] = {}
        self.watched: list[WatchEvent] = []
        self.ahead_s: dict[NodeId, float] = defaultdict(float)
        """How far a node's wall clock is ahead of the others'."""
        self.gone: set[NodeId] = set()
        """Whom all believe to be dead."""
        self.cut: set[frozenset[NodeId]] = set()
        self.delay_s: Callable[[NodeId, NodeId], float] = lambda _a, _b: 0.001
        self.save_s: Callable[[NodeId], float] = lambda _node: 0.002
        self.lives: dict[NodeId, int] = defaultdict(int)
        self.kept: dict[NodeId, Registry] = {}
        """The registry that each node has on its disk."""
        self.frames = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._arrival: dict[tuple[NodeId, NodeId], float] = {}
        self._due: dict[Timer, float] = {}
        self._timers: list[tuple[float, Timer]] = []
        """A heap of those, and of some that are not due any more."""
        self._saved_at: dict[NodeId, float] = {}
        self._idle_steps = 0
        self.actors = random.Random(seed + 1)
        for member in registry.nodes:
            self.start(member.id)

    def start(self, number: NodeId, registry: Registry | None = None) -> KvPlane:
        self.lives[number] += 1
        actor = self.actors.getrandbits(64)
        self.kept[number] = registry or self.registry
        plane = KvPlane(
            number,
            actor,
            sign(self.kept[number]),
            verify,
            self.storages[number],
            random.Random(self.rng.random()),
            lambda now: WALL_MS + int((now + self.ahead_s[number]) * 1000),
            MembershipView(lambda nodes: sorted(nodes), self.gone.__contains__),
            self.now,
            boot=self.lives[number],
        )
        self.planes[number] = plane
        self.settle(number)
        return plane

    def crash(self, number: NodeId) -> None:
        """What was not saved is gone; frames under way may still arrive."""
        del self.planes[number]
        self._due = {timer: due for timer, due in self._due.items() if timer[0] != number}
        self.lives[number] += 1

    def at(self, when: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, action))

    def settle(self, number: NodeId) -> None:
        """Do what a plane wants done, behind each call of one of its methods."""
        for effect in list(self.planes[number].effects()):
            self.perform(number, effect)
        self.set_timer((number, STATE), self.planes[number].deadline())

    def moved(self, timer: Timer) -> None:
        """Something came to a plane by itself."""
        self.settle(timer[0])

    def end_turn(self) -> bool:
        """Nothing more happens at this moment. Tell whether something follows from it."""
        return False

    def perform(self, number: NodeId, effect: Effect) -> None:
        """Do one thing that a node wants done."""
        match effect:
            case SendFrame(data, to):
                self.send(number, to, data)
            case Persist():
                self.save(number, effect)
            case Emit(OwnersReady() as ready):
                self.advance(number, ready)
            case Emit(event):
                self.completed(number, event)

    def set_timer(self, timer: Timer, due: float | None) -> None:
        """Have a plane woken when it is time."""
        if due is None:
            self._due.pop(timer, None)
        elif self._due.get(timer) != due:
            self._due[timer] = due
            heapq.heappush(self._timers, (due, timer))

    def completed(self, number: NodeId, event: object) -> None:
        """Take down what a plane tells its application."""
        match event:
            case Completed(request, result):
                assert (number, request) not in self.results, "completed twice"
                self.results[number, request] = result
            case WatchEvent():
                self.watched.append(event)

    def advance(self, number: NodeId, ready: OwnersReady) -> None:
        """Sign the next registry, as the runtime of the issuer does, and have it told."""
        heard = ready.here, ready.away, ready.missing, ready.found
        self.registry = advance(self.registry, ready.done, ready.epoch, *heard)
        self.kept[number] = self.registry
        self.planes[number].adopt(sign(self.registry), self.now, announce=True)
        self.settle(number)

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        self.frames += 1
        life = self.lives[sender]
        arrival = max(self.now + self.delay_s(sender, to), self._arrival.get((sender, to), 0.0))
        self._arrival[sender, to] = arrival

        def arrive() -> None:
            if not self.reaches(sender, to) or to not in self.planes:
                if sender in self.planes and self.lives[sender] == life:
                    self.unreachable(sender, to)
                return
            self.receive(to, data, sender)

        self.at(arrival, arrive)

    def reaches(self, sender: NodeId, to: NodeId) -> bool:
        """Whether frames get from one to the other."""
        return frozenset((sender, to)) not in self.cut

    def receive(self, to: NodeId, data: bytes, sender: NodeId) -> None:
        """Hand a frame to a node that runs."""
        self.planes[to].receive_frame(data, sender, self.now)
        self.moved((to, STATE))

    def unreachable(self, number: NodeId, peer: NodeId) -> None:
        """Tell a node that frames to a peer may be lost."""
        self.planes[number].peer_unreachable(peer, self.now)
        self.moved((number, STATE))

    def wake(self, timer: Timer) -> None:
        """Let the due timers of a plane act."""
        self.planes[timer[0]].wake(self.now)
        self.moved(timer)

    def save(self, number: NodeId, batch: Persist) -> None:
        life = self.lives[number]
        done = max(self.now + self.save_s(number), self._saved_at.get(number, 0.0))
        self._saved_at[number] = done

        def saved() -> None:
            if self.lives[number] == life and number in self.planes:
                self.commit(number, batch)
                self.persisted(number, batch)

        self.at(done, saved)

    def persisted(self, number: NodeId, batch: Persist) -> None:
        """Tell a node that a batch is on its disk."""
        self.planes[number].persisted(batch.token, self.now)
        self.moved((number, STATE))

    def commit(self, number: NodeId, batch: Persist) -> None:
        """Put a batch onto a node's disk."""
        if batch.durability is Durability.FLUSH:
            self.storages[number].apply(batch.changes)
        else:
            self.keep(number, batch)

    def keep(self, number: NodeId, batch: Persist) -> None:
        """Keep the newest registry."""
        for change in batch.changes:
            assert isinstance(change, RegistryChange)
            if change.epoch > self.kept[number].epoch:
                self.kept[number] = Registry.decode(SignedRegistry.decode(change.signed).payload)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while True:
            if not (self._queue and self._queue[0][0] <= self.now) and self.end_turn():
                continue
            due, timer = self._next_timer()
            event = self._queue[0][0] if self._queue else until + 1
            if due > until and event > until:
                self.now = until
                return
            self._idle_steps = self._idle_steps + 1 if min(due, event) <= self.now else 0
            assert self._idle_steps < IDLE_STEPS_MAX, "something is due again and again"
            if event <= max(due, self.now):
                self.now, _, action = heapq.heappop(self._queue)
                action()
            else:
                self.now = max(self.now, due)
                self.wake(timer)

    def _next_timer(self) -> tuple[float, Timer]:
        timers, dues = self._timers, self._due
        while timers and dues.get(timers[0][1]) != timers[0][0]:
            heapq.heappop(timers)
        return timers[0] if timers else NO_TIMER

    def submit(self, number: NodeId, request: Request) -> int:
        request_id = self.planes[number].submit(request, self.now)
        self.settle(number)
        return request_id

    def ask(self, number: NodeId, request: Request, seconds: float = 6.0) -> Any:
        """Submit, let time pass until it completes, and return the result of the request's kind."""
        name = (number, self.submit(number, request))
        until = self.now + seconds
        while name not in self.results and self.now < until:
            self.run(0.01)
        return self.results[name]

    def isolate(self, number: NodeId) -> None:
        self.cut |= {frozenset((number, other)) for other in self.storages if other != number}

    def heal(self) -> None:
        self.cut.clear()

    def adopt(self, registry: Registry, *numbers: NodeId) -> None:
        self.registry = registry
        for number in numbers or tuple(self.planes):
            if number not in self.planes:
                continue
            self.kept[number] = max(self.kept[number], registry, key=lambda each: each.epoch)
            self.planes[number].adopt(sign(registry), self.now)
            self.settle(number)

    def values(self, result: Result) -> list[bytes]:
        return [value.data for value in result.values]  # type: ignore[union-attr]
