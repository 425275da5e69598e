"""Checkers of the membership: what must hold at every step, whatever the network does.

A checker sees every transition of every node while it happens, not the state at the end: a
member that came back from the dead for a second and died again would leave no trace there. Each
states one rule; ``tests/sim/test_mutations.py`` breaks that rule in the protocol's code and
demands that the checker notices, because a checker that cannot fail proves nothing.
"""

from bisect import bisect_left
from typing import Protocol

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Instant
from gossip.membership.model.members import FORGOTTEN, Member, MemberChanged, MemberState
from gossip.node import Node
from gossip.sim.host import Host
from gossip.sim.operations import Operation

BootIncarnation = tuple[Boot, int]
"""A life and an incarnation of it; a later claim is a larger pair."""


class Violation(AssertionError):
    """A rule was broken; the message says which, by whom and when."""


class WorldView(Protocol):
    """What a checker sees of the world (``world.py``); it changes nothing there."""

    hosts: dict[str, Host]
    names: dict[NodeId, str]

    @property
    def now(self) -> Instant:
        """Seconds since the world began."""

    @property
    def operations(self) -> list[Operation]:
        """All that clients ever asked, in order."""

    def up(self) -> list[str]:
        """Return the names of the hosts whose process runs and is not paused."""

    def owners(self, key: str) -> list[str]:
        """Return who owns a key by the newest registry."""

    def stored(self, name: str, key: str) -> frozenset[bytes]:
        """Return the values of a key on a device's own disk."""


class Checker:
    """One rule. Each hook does nothing unless a checker needs it."""

    def started(self, world: WorldView, host: Host, node: Node) -> None:
        """Look at a process that begins."""

    def member_changed(self, world: WorldView, host: Host, change: MemberChanged) -> None:
        """Look at what a node now thinks of a member."""

    def stepped(self, world: WorldView, host: Host) -> None:
        """Look at a node that took in one input. Called very often."""

    def answered(self, world: WorldView, operation: Operation) -> None:
        """Look at the answer to an operation."""

    def settled(self, world: WorldView) -> None:
        """Look at a world that was healed and had the time to converge."""

    def violated(self, world: WorldView, name: str, what: str) -> Violation:
        """Return the exception to raise."""
        return Violation(f"{type(self).__name__}: at {world.now:.6f} s {name} {what}")


class NoResurrection(Checker):
    """Who was declared dead or gone comes back only as a later incarnation or a later life.

    Judged per observer and process: what a node has said once, it does not take back.
    """

    def __init__(self) -> None:
        self._ended: dict[tuple[str, int], dict[NodeId, BootIncarnation]] = {}

    def member_changed(self, world: WorldView, host: Host, change: MemberChanged) -> None:
        """Compare a member that is thought to be around with what was said of it before."""
        member = change.member
        claim = member.boot, member.incarnation
        ended = self._ended.setdefault((host.name, host.life), {})
        if member.state in (MemberState.DEAD, MemberState.LEFT):
            ended[member.id] = max(claim, ended.get(member.id, claim))
        elif member.id in ended and claim <= ended[member.id]:
            who = world.names.get(member.id, "a stranger")
            raise self.violated(
                world, host.name, f"took {who} for {member.state.name} again, as {claim}"
            )


class IncarnationGrows(Checker):
    """A node's own incarnation never goes back within a life, and each life has a later boot."""

    def __init__(self) -> None:
        self._latest: dict[str, BootIncarnation] = {}

    def stepped(self, world: WorldView, host: Host) -> None:
        """Compare with the step before."""
        swim = host.node.swim
        claim = swim.boot, swim.incarnation
        before = self._latest.get(host.name, claim)
        if claim < before:
            raise self.violated(world, host.name, f"went back from {before} to {claim}")
        self._latest[host.name] = claim


class NothingInvented(Checker):
    """Nobody attributes an incarnation to a member that the member has not reached itself."""

    def member_changed(self, world: WorldView, host: Host, change: MemberChanged) -> None:
        """Compare with the member itself, which a simulation can ask."""
        member = change.member
        name = world.names.get(member.id)
        if name is None:
            raise self.violated(world, host.name, f"knows a member {member.id:016x} of no host")
        subject = world.hosts[name]
        if subject.is_down:
            return
        swim = subject.node.swim
        if (member.boot, member.incarnation) > (swim.boot, swim.incarnation):
            raise self.violated(
                world,
                host.name,
                f"attributes incarnation {member.incarnation} to {name}, which "
                f"is at {swim.incarnation}",
            )


class SelfAlive(Checker):
    """A node takes itself for alive until it takes its leave, whatever others say."""

    def stepped(self, world: WorldView, host: Host) -> None:
        """Look the node up in its own list."""
        swim = host.node.swim
        itself = swim.members.get(host.id)
        if itself is None:
            raise self.violated(world, host.name, "is missing from its own list")
        if itself.state is not MemberState.ALIVE and not swim.absence.is_away:
            raise self.violated(world, host.name, f"takes itself for {itself.state.name}")


class WordsAreTheirOwn(Checker):
    """What anybody believes that a member says of itself, that member has said.

    Addresses and tags, that it left, that it sleeps, and that it lives this life at all. Of who
    answers to ``but`` anything may be said: a test speaks for it.
    """

    def __init__(self, but: str = "") -> None:
        self._but = but
        self._lives: set[tuple[NodeId, Boot]] = set()
        self._words: dict[tuple[NodeId, Boot], list[tuple[int, tuple[object, ...]]]] = {}
        """By life: how it described itself from which number on."""
        self._absences: set[tuple[NodeId, Boot, int, MemberState]] = set()

    def started(self, _world: WorldView, host: Host, node: Node) -> None:
        """Note a life, and how it describes itself."""
        self._note(node.swim.members[host.id])

    def stepped(self, _world: WorldView, host: Host) -> None:
        """Note what a member says of itself by now."""
        if (itself := host.node.swim.members.get(host.id)) is not None:
            self._note(itself)

    def _note(self, member: Member) -> None:
        life = member.id, member.boot
        self._lives.add(life)
        noted = self._words.setdefault(life, [])
        now = member.described, (member.addresses, member.tags)
        if now not in noted[-1:]:
            noted.append(now)
        if member.state in (MemberState.LEFT, MemberState.ASLEEP):
            self._absences.add((*life, member.incarnation, member.state))

    def member_changed(self, world: WorldView, host: Host, change: MemberChanged) -> None:
        """Compare with what the member has said."""
        member, name = change.member, world.names.get(change.member.id, self._but)
        if member.id == host.id or name == self._but or change.reason == FORGOTTEN:
            return
        life = member.id, member.boot
        away = (*life, member.incarnation, member.state)
        if life not in self._lives:
            raise self.violated(world, host.name, f"believes in a life that {name} never began")
        if member.described and not self._has_said(life, member):
            raise self.violated(world, host.name, f"describes {name} as it never did itself")
        if member.state in (MemberState.LEFT, MemberState.ASLEEP) and away not in self._absences:
            raise self.violated(world, host.name, f"takes {name} for {member.state.name}")

    def _has_said(self, life: tuple[NodeId, Boot], member: Member) -> bool:
        """Tell whether a member has described itself so, under this number.

        One step may describe it anew twice, of which only the second is noted: what went out in
        between has the words of before, or of after.
        """
        noted = self._words[life]
        at = bisect_left(noted, member.described, key=lambda each: each[0])
        exact = [words for number, words in noted[at:] if number == member.described]
        said = exact or [words for _, words in noted[max(0, at - 1) : at + 1]]
        return at < len(noted) and (member.addresses, member.tags) in said


class RegistryIsKept(Checker):
    """Nobody follows a registry that its disk does not have: a start would follow an older one."""

    def stepped(self, world: WorldView, host: Host) -> None:
        """Compare what is followed with what is on the disk."""
        followed, kept = host.node.state.registry.epoch, host.disk.registry.epoch
        if followed > kept:
            raise self.violated(
                world, host.name, f"follows epoch {followed}, and its disk has epoch {kept}"
            )


class SleepersAreSpared(Checker):
    """Nobody declares a member dead before the time is over that it announced to sleep.

    What counts is that it was believed to sleep: a death that came first is another matter.
    """

    def __init__(self) -> None:
        self._until: dict[tuple[str, int, NodeId], tuple[BootIncarnation, float]] = {}

    def member_changed(self, world: WorldView, host: Host, change: MemberChanged) -> None:
        """Remember how long a sleep lasts, and compare a death of the same incarnation."""
        member = change.member
        claim, key = (member.boot, member.incarnation), (host.name, host.life, member.id)
        if member.state is MemberState.ASLEEP and member.asleep_until is not None:
            self._until[key] = claim, host.world_time(member.asleep_until)
        elif member.state is MemberState.DEAD and key in self._until:
            asleep, until = self._until[key]
            if claim == asleep and world.now < until:
                who = world.names.get(member.id, "a stranger")
                raise self.violated(world, host.name, f"declared {who} dead in its sleep")


class NoFalseDeath(Checker):
    """Nobody declares a member dead that runs and can be reached. Only for worlds without cuts."""

    def __init__(self) -> None:
        self.suspicions = 0

    def member_changed(self, world: WorldView, host: Host, change: MemberChanged) -> None:
        """Compare a death with the host it is about."""
        state, name = change.member.state, world.names[change.member.id]
        self.suspicions += state is MemberState.SUSPECT
        subject = world.hosts[name]
        if (
            state is MemberState.DEAD
            and subject.is_up
            and change.member.boot == subject.node.swim.boot
        ):
            raise self.violated(world, host.name, f"declared {name} dead, which is up")
