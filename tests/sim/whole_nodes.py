"""Whole nodes, with both planes, and what of their registries must hold at every step.

They are wired as in ``gossip/node.py`` but for the membership. Raft's checkers watch the log
(``tests/support/checked_control.py``). From what is agreed on first, a state machine of the net's
own follows; by that is judged what anybody follows and shows.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from gossip.consensus.configuration import (
    Configuration,
    StoreId,
    Voter,
    decode_configuration,
    encode_configuration,
)
from gossip.consensus.messages import Entry, EntryKind
from gossip.consensus.roles import Role
from gossip.consensus.storage import HardState, MemoryLog, StoredState
from gossip.consensus.tuning import ConsensusTuning
from gossip.control.commands import ChangeRegistry, Command, encode_command
from gossip.control.participation import TOKENS_FROM
from gossip.control.plane import FRAME_TAGS, ControlPlane, StoredLog
from gossip.control.requests import (
    ControlCompleted,
    RegistryCommitted,
)
from gossip.control.state_machine import ControlState
from gossip.control.voters import VoterTuning
from gossip.core.ids import NodeId
from gossip.core.machine import Effect, Emit, Persist, SendFrame
from gossip.core.wire import tag_of
from gossip.kv.messages import CODEC, RegistryOffer
from gossip.kv.requests import OwnersReady, RegistryAdopted, RegistryForked
from gossip.node import REGISTRY_FRAMES
from gossip.registry.lineage import mark_of
from gossip.registry.node import ISSUER
from gossip.registry.ownership import Ownership, majority
from gossip.registry.placement import Owners
from gossip.registry.registry import (
    Registry,
    SignedRegistry,
)
from gossip.sim.disk import Disk
from tests.sim.owners import Trouble, Violation
from tests.support.checked_control import RaftWitness
from tests.support.kv_net import FIRST, STATE, Timer, registry_of, sign

TUNING = ConsensusTuning(
    heartbeat_s=1.0, election_min_s=2.0, election_max_s=4.0, learner_settle_s=1.0
)
VOTERS = VoterTuning(
    uptime_min_s=5.0, report_every_s=10.0, look_every_s=3.0, contact_s=5.0, silent_s=20.0,
    replace_every_s=10.0, standby_lost_s=15.0,
)  # fmt: skip
PARTITIONS = 2
CONTROL = "control"
"""Names the timer of a control plane."""


class WholeNodes(Trouble):
    """``registry`` is the newest that was agreed on, by the log itself."""

    def __init__(self, seed: int) -> None:
        self.controls: dict[NodeId, ControlPlane] = {}
        self._moved: set[Timer] = set()
        self.logs: dict[NodeId, MemoryLog] = defaultdict(MemoryLog)
        self.stores: dict[NodeId, StoreId] = {}
        self.logs_begun = 1
        self.witness = RaftWitness(self, self.chosen)
        self.agreed = ControlState()
        self.configuration = Configuration()
        """The newest that was agreed on."""
        self.marks: dict[bytes, int] = {}
        """Of all that was agreed on, with the epoch."""
        self.shown: dict[int, bytes] = {}
        self.accepted: set[tuple[NodeId, int]] = set()
        """Which loss somebody has accepted: with whom, and of which partition."""
        self.admissions = 0
        self.ways: set[tuple[NodeId, NodeId]] = set()
        self.moves_over = seed % 4 == 3
        self.known: dict[bytes, tuple[int, bytes]] = {}
        super().__init__(seed)

    # Beginning

    def first_registry(self, count: int) -> Registry:
        """Make the first one, with an issuer or three, and the logs of those that vote."""
        voting = range(1, 4) if count >= 3 else range(1, 2)
        registry = registry_of(range(1, count + 1), PARTITIONS, self.replicas)
        issuing = [FIRST] if self.moves_over else voting
        nodes = tuple(
            msgspec.structs.replace(each, roles=(ISSUER,) if each.id in issuing else ())
            for each in registry.nodes
        )
        registry = msgspec.structs.replace(registry, nodes=nodes)
        configuration = Configuration(tuple(Voter(1000 + number, number) for number in voting))
        entries = [Entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(configuration))]
        if not self.moves_over:
            change = encode_command(Command(ChangeRegistry(b"", sign(registry))))
            entries.append(Entry(2, 1, EntryKind.COMMAND, change))
        for number in voting:
            stored = StoredState(HardState(generation=1, term=1), tuple(entries), MemoryLog())
            self.logs[number].replace(stored)
        self.marks[registry.mark] = registry.epoch
        return registry

    def start(self, number: NodeId, registry: Any = None) -> Any:
        self.stores.setdefault(number, 1000 + number)
        plane = super().start(number, registry)
        log = StoredLog(self.stores[number], self.rng.getrandbits(63), self.logs[number].stored())
        self.witness.started(number)
        control = ControlPlane(
            number, log, lambda: self._any_order(plane.registry.ids()),
            lambda: {each.id: each.zone for each in plane.registry.nodes},
            type(self.rng)(self.rng.getrandbits(64)), self.now, TUNING,
            voter_tuning=VOTERS, members_of=plane.registry_sync.members_of,
            entry_of=lambda node: plane.registry.node(node),
            draining=lambda: {each.id for each in plane.registry.draining},
        )  # fmt: skip
        self.controls[number] = control
        plane.progress.voting = control.voting
        self.witness.opened(number, control)
        if control.part.raft is None and self.trouble_rng.random() < 0.7:
            control.part.copy.want(self.now)
        self.settle_control(number)
        return plane

    def control(self, number: NodeId) -> ControlPlane:
        return self.controls[number]

    def _any_order(self, nodes: Iterable[NodeId]) -> list[NodeId]:
        ordered = sorted(nodes)
        self.trouble_rng.shuffle(ordered)
        return ordered

    def crash(self, number: NodeId) -> None:
        if number in self.controls:
            self.counts += self.controls[number].counts
            del self.controls[number]
        super().crash(number)

    # What a node does with two planes

    def moved(self, timer: Timer) -> None:
        self._moved.add(timer)

    def end_turn(self) -> bool:
        """Do what all want done to whom something came, as an agent does once a turn of its loop.

        Each plane is asked only when something came to it: most that happens is for one of them.
        """
        moved, self._moved = self._moved, set()
        for number, plane in sorted(moved):
            if number not in self.planes:
                continue
            if plane == CONTROL:
                self.settle_control(number)
            else:
                self.settle(number)
        return bool(moved)

    def settle_control(self, number: NodeId) -> None:
        """Do what a node's control plane wants done, as ``settle`` does for its state plane."""
        control = self.controls[number]
        effects = list(control.effects())
        for effect in effects:
            self.witness.performing(number, effect)
            self.perform(number, effect)
        if effects:
            self.witness.performed(number)
        self.set_timer((number, CONTROL), control.deadline())

    def perform(self, number: NodeId, effect: Effect) -> None:
        match effect:
            case SendFrame(data, to):
                self._see_offer(number, data)
                self.send(number, to, data)
            case Persist():
                self.save(number, effect)
            case Emit(event):
                self.hear(number, event)

    def hear(self, number: NodeId, event: object) -> None:
        match event:
            case RegistryCommitted(signed):
                leads = self.controls[number].leadership.leads
                self.planes[number].on_committed(signed, self.now, announce=leads)
                self.settle(number)
            case RegistryAdopted(signed):
                self._see(number, "follows", signed)
            case RegistryForked():
                raise Violation(f"{number} finds that the registry has forked")
            case OwnersReady():
                self.at(self.now, lambda: self.advance(number, event))
            case ControlCompleted():
                self.at(self.now, lambda: self.heard_back(number, event))
            case _:
                self.completed(number, event)

    def commit(self, number: NodeId, batch: Persist) -> None:
        if batch.token > TOKENS_FROM:
            self.logs[number].apply(batch.changes)
        else:
            super().commit(number, batch)

    def persisted(self, number: NodeId, batch: Persist) -> None:
        if batch.token > TOKENS_FROM:
            self.controls[number].persisted(batch.token, self.now)
            self.moved((number, CONTROL))
        else:
            super().persisted(number, batch)

    def receive(self, to: NodeId, data: bytes, sender: NodeId) -> None:
        """Take in a frame; of strangers, as a node does, which registry they follow alone."""
        tag, plane = tag_of(data), self.planes[to]
        if sender not in plane.registry_sync.members and tag not in REGISTRY_FRAMES:
            self.counts["frames_dropped/stranger"] += 1
            plane.show_registry(sender)
            self.moved((to, STATE))
        elif tag in FRAME_TAGS:
            self.controls[to].receive_frame(data, sender, self.now)
            self.moved((to, CONTROL))
        else:
            super().receive(to, data, sender)

    def unreachable(self, number: NodeId, peer: NodeId) -> None:
        super().unreachable(number, peer)
        if number in self.controls:
            self.controls[number].peer_unreachable(peer, self.now)
            self.moved((number, CONTROL))

    def wake(self, timer: Timer) -> None:
        number, plane = timer
        if plane == CONTROL:
            self.controls[number].wake(self.now)
            self.moved(timer)
        else:
            super().wake(timer)

    def reaches(self, sender: NodeId, to: NodeId) -> bool:
        return (sender, to) not in self.ways and super().reaches(sender, to)

    def heal(self) -> None:
        super().heal()
        self.ways.clear()
        self.gone.clear()

    # What is agreed on, and what is shown

    def chosen(self, entry: Entry) -> None:
        """Something is agreed on, for the first time that anybody says so."""
        before = self.agreed.registry.agreed
        if entry.index != self.agreed.index + 1:
            raise Violation(f"{entry.index} is decided beside what goes on at {self.agreed.index}")
        if entry.kind is not EntryKind.COMMAND:
            self.agreed.advance(entry.index)
            if entry.kind is EntryKind.CONFIGURATION:
                self.configuration = decode_configuration(entry.data)
            return
        self.agreed.apply(entry.index, entry.term, entry.data)
        after = self.agreed.registry.agreed
        if after is None or after is before:
            return
        registry = decoded(after.signed)
        if before is not None and after.mark in self.marks:
            self.counts["schedule/registry brought up"] += 1
            self.admissions = 0
            return
        self.marks[after.mark] = registry.epoch
        if before is None:
            self.counts["schedule/moved over"] += self.moves_over
            return
        self._follow_on(decoded(before.signed), registry)

    def _follow_on(self, before: Registry, after: Registry) -> None:
        members = frozenset(after.ids())
        self._judge_quorums(before, after)
        self.registry = after
        for number in members.difference(before.ids()):
            self.admissions += 1
            self.counts["schedule/joined within a hand-off"] += not before.is_settled
            self.at(self.now, lambda number=number: self.welcome(number, after))  # type: ignore[misc]
        for number in frozenset(before.ids()) - members:
            self.counts["schedule/removed within a hand-off"] += not before.is_settled
            self.counts["schedule/founder removed"] += number == FIRST
            self.counts["schedule/leader removed"] += number in self.leading()
            self.at(self.now, lambda number=number: self.part_with(number))  # type: ignore[misc]

    def _judge_quorums(self, before: Registry, after: Registry) -> None:
        """Compare who wrote with who reads; where they are apart, somebody has accepted that.

        What is given up by that is asked for no more.
        """
        members = frozenset(after.ids())
        gone = frozenset(before.ids()) - members
        steps = enumerate(zip(before.table, after.table, strict=True))
        apart = [p for p, (was, now) in steps if is_apart(was, now, members)]
        for partition in apart:
            if self.accepted.isdisjoint((each, partition) for each in gone):
                was, now = before.table[partition], after.table[partition]
                raise Violation(f"{was} is followed by {now}, and they have nobody in common")
        if apart:
            self.forgive(apart, after.epoch)

    def _see_offer(self, number: NodeId, data: bytes) -> None:
        if tag_of(data) == RegistryOffer.__struct_config__.tag:
            message = CODEC.decode(data)
            assert isinstance(message, RegistryOffer)
            self._see(number, "shows", message.signed)

    def _see(self, number: NodeId, verb: str, signed: bytes) -> None:
        """Whatever is followed or shown was agreed on, and there is one of each epoch."""
        if signed not in self.known:
            payload = SignedRegistry.decode(signed).payload
            self.known[signed] = Registry.decode(payload).epoch, mark_of(payload)
        epoch, mark = self.known[signed]
        if mark not in self.marks:
            raise Violation(f"{number} {verb} a registry of epoch {epoch} that is not agreed on")
        if self.kept[number].epoch < epoch:
            raise Violation(f"{number} {verb} epoch {epoch}, and its disk has an older one")
        if self.shown.setdefault(epoch, mark) != mark:
            raise Violation(f"{number} {verb} a second registry of epoch {epoch}")

    def leading(self) -> list[NodeId]:
        return [
            number for number, control in sorted(self.controls.items())
            if (raft := control.part.raft) is not None and raft.role is Role.LEADER
        ]  # fmt: skip

    def heard_back(self, who: NodeId, done: ControlCompleted) -> None:
        """The control plane has answered a request of this node."""

    # Which log is whose

    def begin_another_log(self, who: NodeId) -> None:
        self.logs_begun += 1
        self.stores[who] = 1000 * self.logs_begun + who
        self.logs[who] = MemoryLog()

    def voters(self) -> tuple[Voter, ...]:
        """Return who votes by the newest configuration that was agreed on."""
        return self.configuration.voters

    def voting_anywhere(self) -> set[NodeId]:
        """Return who votes, or is to, by what was agreed on or is in the log of anybody."""
        shadows = [shadow.configuration[1] for shadow in self.witness.shadows.values()]
        return {
            each.node
            for configuration in (self.configuration, *shadows)
            for each in (*configuration.voters, *configuration.outgoing, *configuration.learners)
        }

    # Who follows what

    def tell_each_other(self) -> None:
        """Packets name the registries that their senders follow."""
        for one, plane in sorted(self.planes.items()):
            for other, told in sorted(self.planes.items()):
                if self.reaches(other, one):
                    epoch, mark = told.registry.epoch, told.registry_sync.short_mark
                    plane.on_registry_named(other, epoch, mark, self.now)
                    if other not in plane.registry_sync.members:
                        plane.show_registry(other)
            self.moved((one, STATE))

    # Who comes and goes

    def welcome(self, number: NodeId, registry: Registry) -> None:
        """A device was let in: it runs, or does not yet."""
        if number in self.storages or number not in self.registry.ids():
            return
        self.kept[number] = registry
        if self.trouble_rng.random() < 0.85:
            self.start(number, registry)
        else:
            self.disks[number] = Disk()
            self.storages[number] = self.disks[number].storage
            self.down.add(number)

    def part_with(self, number: NodeId) -> None:
        """A device was removed: it is gone, or goes on as if nothing had happened."""
        if number in self.planes and self.trouble_rng.random() < 0.5:
            self.counts["schedule/removed, and runs on"] += 1
            return
        self.scrap(number)

    def scrap(self, number: NodeId) -> None:
        if number in self.planes:
            self.crash(number)
        self.down.discard(number)
        self.storages.pop(number, None)
        self.disks.pop(number, None)


def decoded(signed: bytes) -> Registry:
    return Registry.decode(SignedRegistry.decode(signed).payload)


def is_apart(was: Ownership, now: Ownership, members: frozenset[NodeId]) -> bool:
    """Tell whether a write by the one registry may be missed by a read by the other."""
    return not (
        _meet(was.writers, now.read_sets, members) and _meet(now.writers, was.read_sets, members)
    )


def _meet(
    writers: tuple[Owners, ...], readers: tuple[Owners, ...], members: frozenset[NodeId]
) -> bool:
    """Tell whether each majority of some set of writers has one of each majority of readers.

    Of those that read counts who belongs; of those that wrote, anybody may be gone by now.
    """
    for wrote in writers:
        for read in readers:
            there = members.intersection(read)
            kept = majority(wrote) - len(set(wrote) - there)
            if len(there) < majority(read) or kept > len(there) - majority(read):
                return True
    return False
