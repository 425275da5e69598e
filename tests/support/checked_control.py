"""Control planes under the checkers of Raft groups (``gossip/sim/consensus_checkers.py``).

Each plane is shown to them as a host with one log. They see what it has written, what it sends and
what it applies, whether it votes, learns or copies at the time.
"""

import zlib
from collections.abc import Callable
from typing import Any, Protocol, cast

import msgspec

from gossip.consensus import messages as raft_messages
from gossip.consensus.configuration import StoreId
from gossip.consensus.messages import Entry
from gossip.consensus.raft import Raft
from gossip.consensus.requests import RoleChanged
from gossip.consensus.storage import MemoryLog
from gossip.control.plane import ControlPlane
from gossip.core.ids import NodeId
from gossip.core.machine import Instant, Persist, SendFrame
from gossip.sim.consensus_checkers import ChosenLog, ConsensusChecker, standard_checkers
from gossip.sim.consensus_host import ConsensusHost
from gossip.sim.log_shadow import LogShadow
from tests.support.control_net import ControlNet


class SeenLog(msgspec.Struct):
    """What would be left after a power cut."""

    platter: MemoryLog


class SeenState(msgspec.Struct):
    """How far a copy of the state is, and what it is."""

    index: int
    digest: int


class SeenHost:
    """One node, as checkers look at it."""

    def __init__(self, net: "WitnessedNet", node: NodeId) -> None:
        self._net, self._node = net, node
        self.name = str(node)
        self.life = 0
        self.standing: tuple[Any, ...] = ()
        self.machine_seen: Raft | None = None

    @property
    def store(self) -> StoreId:
        return self._net.stores[self._node]

    @property
    def disk(self) -> SeenLog:
        return SeenLog(self._net.logs[self._node])

    @property
    def raft(self) -> Raft:
        raft = self._net.control(self._node).part.raft
        assert raft is not None, "only who takes part is asked"
        return raft

    @property
    def machine(self) -> SeenState:
        state = self._net.control(self._node).state
        return SeenState(state.index, zlib.crc32(state.snapshot()))


class WitnessedNet(Protocol):
    """What a witness sees of the net whose planes it watches."""

    now: Instant
    logs: dict[NodeId, MemoryLog]
    stores: dict[NodeId, StoreId]

    def control(self, number: NodeId) -> ControlPlane:
        """Return the plane of a node that runs."""


class RaftWitness:
    """Lets the checkers look on: a broken rule fails at the step at which it is broken.

    ``on_chosen`` is told of each entry once, when somebody takes it for agreed for the first time.
    """

    def __init__(
        self, net: WitnessedNet, on_chosen: Callable[[Entry], object] = lambda _entry: None
    ) -> None:
        self._net, self._on_chosen = net, on_chosen
        self._checks = _checks(standard_checkers())
        self.chosen = ChosenLog()
        self.shadows: dict[str, LogShadow] = {}
        self.hosts: dict[NodeId, SeenHost] = {}

    @property
    def now(self) -> Instant:
        return self._net.now

    def _tell_checkers(self, hook: str, node: NodeId, *about: Any) -> None:
        host = cast("ConsensusHost", self.hosts[node])
        for check in self._checks[hook]:
            check(self, host, *about)

    def platter(self, store: StoreId) -> MemoryLog | None:
        """Return what a power cut would leave of a log."""
        net = self._net
        return next((net.logs[n] for n, known in net.stores.items() if known == store), None)

    def started(self, node: NodeId) -> None:
        """A process begins with what is on its disk."""
        stored = self._net.logs[node].stored()
        host = self.hosts.setdefault(node, SeenHost(self._net, node))
        host.life, host.standing, host.machine_seen = host.life + 1, (), None
        self.shadows[host.name] = LogShadow(stored)
        self._tell_checkers("started", node, stored)

    def opened(self, node: NodeId, plane: ControlPlane) -> None:
        """Its plane is there."""
        plane.applier.on_taken.insert(0, lambda entries, _now: self._took(node, plane, entries))

    def _took(self, node: NodeId, plane: ControlPlane, entries: tuple[Entry, ...]) -> None:
        raft = plane.part.raft
        for entry in entries:
            is_news = entry.index not in self.chosen.entries
            self.chosen.add(entry, raft.term if raft is not None else entry.term)
            if is_news:
                self._on_chosen(entry)
            self._tell_checkers("applied", node, entry)

    def performing(self, node: NodeId, effect: object) -> None:
        """A plane wants something done."""
        self._look_at_role(node)
        match effect:
            case Persist(changes=changes):
                for change in changes:
                    self._tell_checkers("writing", node, change)
                    self.shadows[str(node)].apply(change)
            case SendFrame(data=data):
                message = raft_messages.CODEC.decode(data)
                if message is not None:
                    self._tell_checkers("sent", node, message)

    def performed(self, node: NodeId) -> None:
        """A plane has taken in one input."""
        self._look_at_role(node)
        if self._net.control(node).part.raft is not None:
            self._tell_checkers("stepped", node)

    def _look_at_role(self, node: NodeId) -> None:
        raft = self._net.control(node).part.raft
        if raft is None:
            return
        host = self.hosts[node]
        if raft is not host.machine_seen:
            # Who leaves the agreement and takes part again begins anew, as by a restart.
            host.machine_seen, host.life, host.standing = raft, host.life + 1, ()
        standing = raft.role, raft.term, raft.leader
        if standing != host.standing:
            host.standing = standing
            self._tell_checkers("role_changed", node, RoleChanged(*standing))


def _checks(checkers: list[ConsensusChecker]) -> dict[str, list[Callable[..., None]]]:
    """Return the checks of each hook, without those that do nothing: they are asked very often."""
    hooks = [name for name in vars(ConsensusChecker) if not name.startswith("_")]
    return {
        hook: [
            getattr(checker, hook)
            for checker in checkers
            if getattr(type(checker), hook) is not getattr(ConsensusChecker, hook)
        ]
        for hook in hooks
    }


class CheckedNet(ControlNet):
    """A ``ControlNet`` that is watched."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.witness = RaftWitness(self)
        super().__init__(*arguments, **settings)

    def control(self, number: NodeId) -> ControlPlane:
        return self.planes[number]

    def start(self, node: NodeId) -> ControlPlane:
        self.witness.started(node)
        return super().start(node)

    def opened(self, node: NodeId, plane: ControlPlane) -> None:
        self.witness.opened(node, plane)

    def performing(self, node: NodeId, effect: object) -> None:
        self.witness.performing(node, effect)

    def performed(self, node: NodeId) -> None:
        self.witness.performed(node)
