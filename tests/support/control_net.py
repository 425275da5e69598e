"""Control planes joined by streams that a test can cut, over disks that keep only what was saved.

Frames and saves are events in one queue of virtual time; every run with the same seed is the same.
A crash loses what was not saved. Node N has store 1000 + N until a test says otherwise.
"""

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from gossip.consensus.configuration import Configuration, StoreId, Voter
from gossip.consensus.roles import Role
from gossip.consensus.storage import MemoryLog, founded
from gossip.consensus.tuning import ConsensusTuning
from gossip.control.commands import Action, OpenSession, Transact
from gossip.control.log_copy import PATIENCE_S, WAIT_S
from gossip.control.lookups import ReadKeys
from gossip.control.outcomes import SessionResult
from gossip.control.plane import ControlPlane, StoredLog
from gossip.control.recovery import recover
from gossip.control.requests import (
    ControlCompleted,
    ControlRead,
    ControlRequest,
    ControlWrite,
    GenerationSuperseded,
)
from gossip.control.transactions import GetKey, GetRange, PutKey
from gossip.control.voters import VoterTuning
from gossip.core.ids import NodeId
from gossip.core.machine import Emit, Instant, Persist, SendFrame
from gossip.registry.node import ISSUER, RegisteredNode

TUNING = ConsensusTuning(learner_settle_s=1.0)
BY_HAND = VoterTuning(uptime_min_s=math.inf, silent_s=math.inf, standby_lost_s=math.inf)
"""Nobody is stable enough to vote: who does is the test's to say."""

IDLE_STEPS_MAX = 10_000
BEGAN_S = 1_800_000_000.0
"""Unix time by an operator's clock."""


def voter(node: NodeId) -> Voter:
    return Voter(1000 + node, node)


class ControlNet:
    """``founder`` is the first voter; all others copy until they are made to take part."""

    def __init__(
        self,
        nodes: int = 3,
        seed: int = 0,
        tuning: ConsensusTuning = TUNING,
        voter_tuning: VoterTuning = BY_HAND,
    ) -> None:
        self.now: Instant = 100.0
        self.tuning, self.voter_tuning = tuning, voter_tuning
        self.rng = random.Random(seed)
        self.logs: dict[NodeId, MemoryLog] = defaultdict(MemoryLog)
        self.planes: dict[NodeId, ControlPlane] = {}
        self.results: dict[tuple[NodeId, int], ControlCompleted] = {}
        self.told: dict[NodeId, list[Any]] = defaultdict(list)
        self.cut: set[frozenset[NodeId]] = set()
        self.loss = 0.0
        self.save_s: Callable[[NodeId], float] = lambda _node: 0.002
        self.gather_s = 0.0
        """For how long a node gathers inputs before it performs what follows from them."""
        self._gathering: set[NodeId] = set()
        self.frames = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._idle_steps = 0
        self._lives: dict[NodeId, int] = defaultdict(int)
        self._due: dict[NodeId, float] = {}
        self._arrival: dict[tuple[NodeId, NodeId], float] = {}
        self._saved_at: dict[NodeId, float] = {}
        self.ids = tuple(range(1, nodes + 1))
        self.stores: dict[NodeId, StoreId] = {node: 1000 + node for node in self.ids}
        self.zones: dict[NodeId, str] = dict.fromkeys(self.ids, "")
        self.draining: set[NodeId] = set()
        self.entries: dict[NodeId, RegisteredNode] = {}
        """What the registry has of those with a role."""
        self.logs[1].replace(founded(voter(1)))
        for node in self.ids:
            self.start(node)

    # Nodes.

    def start(self, node: NodeId) -> ControlPlane:
        self._lives[node] += 1
        log = StoredLog(self.stores[node], self.rng.getrandbits(63), self.logs[node].stored())
        rng = random.Random(self.rng.getrandbits(64))
        plane = ControlPlane(
            node, log, self._contacts, lambda: self.zones, rng, self.now, self.tuning,
            voter_tuning=self.voter_tuning, draining=lambda: self.draining,
            entry_of=lambda node: self.entries.get(node),
        )  # fmt: skip
        self.planes[node] = plane
        self.opened(node, plane)
        if plane.part.raft is None:
            plane.part.copy.want(self.now)
        self._perform(node)
        return plane

    def _contacts(self) -> tuple[NodeId, ...]:
        return self.ids

    def crash(self, node: NodeId) -> None:
        """End a process; what was not saved is lost."""
        self._lives[node] += 1
        del self.planes[node]
        self._due.pop(node, None)

    def lose_log(self, node: NodeId) -> None:
        """Let a node that does not run find an empty log, which is another store."""
        assert node not in self.planes, "it uses its log"
        self.stores[node] += 1000
        self.logs[node] = MemoryLog()

    def recover(self, node: NodeId, at_s: float = BEGAN_S) -> None:
        """Let a node go on alone from its copy, as an operator orders it there at this time."""
        survivor = self.planes[node].part.survivor()
        alone = recover(survivor, Voter(self.stores[node], node), at_s)
        self.crash(node)
        self.logs[node].replace(alone)
        self.start(node)

    def grant(self, *nodes: NodeId, role: str = ISSUER) -> None:
        """Let these have a role by the registry, which everybody follows at once, and no others."""
        self.entries = {n: RegisteredNode(n, f"node-{n}", roles=(role,)) for n in nodes}

    def meet(self, node: NodeId) -> None:
        """Let all know that a node is there, as the membership does."""
        for other, plane in self.planes.items():
            if other != node:
                plane.peer_alive(node, self.now)
                self._perform(other)

    def trust(self) -> None:
        """Say everywhere that who is doubted tells the truth, as an operator does who knows."""
        for node, plane in self.planes.items():
            for peer in tuple(plane.standings.doubted):
                plane.trust(peer, self.now)
                self._perform(node)

    def give_way(self) -> list[NodeId]:
        """Begin anew, as another store, where a later generation was heard of; return where."""
        told = {node for node in self.planes for event in self.told[node]
                if isinstance(event, GenerationSuperseded)}  # fmt: skip
        for node in told:
            self.told[node].clear()
            self.crash(node)
            self.lose_log(node)
            self.start(node)
        return sorted(told)

    def separate(self, *nodes: NodeId) -> None:
        """Cut nodes off from all others."""
        rest = [other for other in self.ids if other not in nodes]
        self.cut |= {frozenset((a, b)) for a in nodes for b in rest}

    def heal(self) -> None:
        self.cut.clear()

    def vote(self, *nodes: NodeId) -> None:
        """Make these the voters, as learners first, and wait until they are."""
        wanted = tuple(voter(node) for node in nodes)
        self.leader()
        self.run(1.0)
        leader = self.leader()
        assert leader.part.raft is not None
        voters = leader.part.raft.configuration.voters
        learners = tuple(each for each in wanted if each not in voters)
        if learners:
            leader.part.raft.change(Configuration(voters, (), learners), self.now)
            self._perform(leader.me.node)
            self.run(3.0)
        leader = self.leader()
        assert leader.part.raft is not None
        leader.part.raft.change(Configuration(wanted), self.now)
        self._perform(leader.me.node)
        self.until(lambda: {each.node for each in self.configuration().voters} == set(nodes))
        self.grant(*nodes)  # who votes holds the authority's key before long

    def configuration(self) -> Configuration:
        return self.leader().part.configuration

    def leader(self) -> ControlPlane:
        """Return who leads, waiting for an election if need be."""
        self.until(lambda: bool(self._leading()))
        return self._leading()[-1]

    def _leading(self) -> list[ControlPlane]:
        """Return who leads, in the order of their terms, of those whom a majority can follow."""
        leading = [
            plane
            for plane in self.planes.values()
            if plane.part.raft is not None and plane.part.raft.role is Role.LEADER
        ]
        return sorted(leading, key=lambda plane: plane.part.raft.term if plane.part.raft else 0)

    # Time.

    def run(self, duration_s: float) -> None:
        """Let so much time pass."""
        end = self.now + duration_s
        while self._next() <= end:
            self._step()
        self.now = end

    def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        """Let time pass until something is so."""
        end = self.now + within_s
        while not condition():
            assert self._next() <= end, f"not within {within_s} s"
            self._step()

    def _next(self) -> float:
        events = [self._queue[0][0]] if self._queue else []
        return min([*events, *self._due.values()], default=float("inf"))

    def _step(self) -> None:
        self._idle_steps = self._idle_steps + 1 if self._next() <= self.now else 0
        assert self._idle_steps < IDLE_STEPS_MAX, "somebody is due again and again"
        due = [(at, node) for node, at in self._due.items()]
        if self._queue and (not due or self._queue[0][0] <= min(due)[0]):
            self.now, _, action = heapq.heappop(self._queue)
            action()
            return
        at, node = min(due)
        self.now = max(self.now, at)
        del self._due[node]
        self.planes[node].wake(self.now)
        self._perform(node)

    def _at(self, when: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, action))

    # Effects.

    def _perform_soon(self, node: NodeId) -> None:
        if not self.gather_s:
            self._perform(node)
        elif node not in self._gathering:
            self._gathering.add(node)
            self._at(self.now + self.gather_s, lambda: self._perform(node))

    def _perform(self, node: NodeId) -> None:
        plane = self.planes.get(node)
        self._gathering.discard(node)
        self._due.pop(node, None)
        if plane is None:
            return
        for effect in plane.effects():
            self.performing(node, effect)
            match effect:
                case SendFrame(data=data, to=to):
                    self._send(node, to, data)
                case Persist():
                    self._save(node, effect)
                case Emit(event=event):
                    self._tell(node, event)
        self.performed(node)
        deadline = plane.deadline()
        if deadline is not None:
            self._due[node] = max(deadline, self.now)

    def opened(self, node: NodeId, plane: ControlPlane) -> None:
        """A plane has begun; for who looks on."""

    def performing(self, node: NodeId, effect: object) -> None:
        """A plane wants something done; for who looks on."""

    def performed(self, node: NodeId) -> None:
        """A plane has taken in one input; for who looks on."""

    def _tell(self, node: NodeId, event: Any) -> None:
        if isinstance(event, ControlCompleted):
            assert (node, event.request) not in self.results, "a request completes once"
            self.results[node, event.request] = event
        else:
            self.told[node].append(event)

    def _send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        self.frames += 1
        arrival = max(
            self.now + 0.001 + self.rng.random() * 0.002, self._arrival.get((sender, to), 0)
        )
        self._arrival[sender, to] = arrival
        life = self._lives[sender]
        self._at(arrival, lambda: self._deliver(sender, life, to, data))

    def _deliver(self, sender: NodeId, life: int, to: NodeId, data: bytes) -> None:
        lost = self.rng.random() < self.loss or frozenset((sender, to)) in self.cut
        if lost or to not in self.planes:
            if sender in self.planes and self._lives[sender] == life:
                self.planes[sender].peer_unreachable(to, self.now)
                self._perform(sender)
            return
        self.planes[to].receive_frame(data, sender, self.now)
        self._perform_soon(to)

    def _save(self, node: NodeId, persist: Persist) -> None:
        done = max(self.now + self.save_s(node), self._saved_at.get(node, 0.0))
        self._saved_at[node] = done
        life = self._lives[node]

        def saved() -> None:
            if self._lives[node] != life:
                return
            self.logs[node].apply(persist.changes)
            self.planes[node].persisted(persist.token, self.now)
            self._perform_soon(node)

        self._at(done, saved)

    # Requests.

    def submit(self, node: NodeId, request: ControlRequest) -> int:
        number = self.planes[node].submit(request, self.now)
        self._perform_soon(node)
        return number

    def ask(
        self, node: NodeId, request: ControlRequest, within_s: float = 60.0
    ) -> ControlCompleted:
        """Submit a request and wait for its end."""
        number = self.submit(node, request)
        self.until(lambda: (node, number) in self.results, within_s)
        return self.results[node, number]

    def do(self, node: NodeId, action: Action, timeout_s: float = 30.0) -> Any:
        return self.ask(node, ControlWrite(action, timeout_s)).result

    def put(self, node: NodeId, key: str, value: bytes = b"", session: int = 0) -> Any:
        return self.do(node, Transact((), (PutKey(key, value, session),)))

    def get(self, node: NodeId, key: str, *, stale: bool = False) -> bytes | None:
        result: Any = self.ask(node, ControlRead(ReadKeys((GetKey(key),)), stale, 30.0)).result
        entries = result.results[0].entries
        return entries[0].value if entries else None

    def keys(self, node: NodeId, *, stale: bool = False) -> list[str]:
        result: Any = self.ask(node, ControlRead(ReadKeys((GetRange(""),)), stale, 30.0)).result
        return [entry.key for entry in result.results[0].entries]

    def session(self, node: NodeId, ttl_s: float = 30.0, lock_delay_ms: int = 0) -> int:
        """Open a session, and renew it from that node."""
        sent_at = self.now
        result = self.do(node, OpenSession(node, int(ttl_s * 1000), lock_delay_ms))
        assert isinstance(result, SessionResult)
        self.planes[node].keep_session(result.session, ttl_s, sent_at)
        self._perform(node)
        return result.session

    def agree(self) -> None:
        """Wait until all copies are at one index, and see that they are the same.

        A copy whose question was lost asks again when its patience is over, and then elsewhere.
        """
        patience_s = 2 * (WAIT_S + PATIENCE_S)
        planes = self.planes.values()
        self.until(lambda: len({each.state.index for each in planes}) == 1, patience_s)
        images = {plane.state.snapshot() for plane in self.planes.values()}
        assert len(images) == 1
