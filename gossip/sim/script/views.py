"""What can be asked about a world in a transcript, and how it is answered in a line or two.

A witness is a checker that forbids nothing: it sees every change of every view while it happens,
and tells it briefly. Answers leave out what is incidental. Who was probed first, and how long a
packet took, is nobody's business in a scenario about a goodbye.
"""

from collections import defaultdict
from typing import NamedTuple

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.membership.model.members import MemberChanged, MemberState
from gossip.sim.host import Host
from gossip.sim.invariants import Checker, WorldView
from gossip.sim.world import World

RECENT_S = 10.0
"""Each of a few members is probed within this time, and every way that works is used."""


class ViewChange(NamedTuple):
    """One change of one node's view."""

    at: Instant
    by: str
    about: NodeId
    state: MemberState
    incarnation: int
    reason: str


class ViewRecorder(Checker):
    """Records each change of each node's view of the members, and is asked afterwards."""

    def __init__(self) -> None:
        self.seen: list[ViewChange] = []
        self._asked: dict[NodeId, int] = {}
        self._skipped = 0
        self._counted: dict[tuple[str, int, str], int] = {}
        self._delivered = 0

    def member_changed(self, world: WorldView, host: Host, change: MemberChanged) -> None:
        """Note the change."""
        member = change.member
        if member.id != host.id:
            told = member.state, member.incarnation, change.reason
            self.seen.append(ViewChange(world.now, host.name, member.id, *told))

    def skip(self) -> None:
        """Count all that has happened as told."""
        self._skipped = len(self.seen)
        self._asked.clear()

    def history(self, about: NodeId) -> str:
        """Tell what became of a member in the eyes of each node, since this was last asked."""
        by_node: dict[str, list[str]] = defaultdict(list)
        for seen in self.seen[self._asked.get(about, self._skipped) :]:
            if seen.about == about:
                what = f"{seen.state} {seen.incarnation} ({seen.reason})"
                by_node[seen.by].append(what)
        assert self._asked.get(about, 0) <= len(self.seen), "what was seen stays seen"
        self._asked[about] = len(self.seen)
        same: dict[str, list[str]] = defaultdict(list)
        for name in sorted(by_node):
            same[", ".join(by_node[name])].append(name)
        return "\n".join(f"{' '.join(names)}: {what}" for what, names in same.items()) or "nothing"

    def deaths(self, world: World) -> str:
        """Tell who was declared dead since the last skip, and by how many."""
        dead: dict[str, set[str]] = defaultdict(set)
        for seen in self.seen[self._skipped :]:
            if seen.state is MemberState.DEAD:
                dead[world.names[seen.about]].add(seen.by)
        return "\n".join(f"{name}: by {len(dead[name])}" for name in sorted(dead)) or "nobody"

    def when(self, by: str, about: NodeId, state: MemberState, since: Instant) -> Instant | None:
        """Return when a node first believed this of a member; None if it did not."""
        wanted = by, about, state
        times = (
            seen.at
            for seen in self.seen
            if (seen.by, seen.about, seen.state) == wanted and seen.at >= since
        )
        return next(times, None)

    def counted(self, host: Host, family: str) -> dict[str, int]:
        """Return what a node counted in a family since this was last asked, by label."""
        found: dict[str, int] = {}
        for label, count in sorted(host.node.counts.items()):
            if label.startswith(family):
                key = host.name, host.life, label
                found[label] = count - self._counted.get(key, 0)
                assert found[label] >= 0, "counters of one life only grow"
                self._counted[key] = count
        return {label: count for label, count in found.items() if count}

    def delivered(self, world: World, names: tuple[str, ...]) -> str:
        """Tell which events the nodes delivered since this was last asked, in their order."""
        fresh, self._delivered = world.delivered[self._delivered :], len(world.delivered)
        lines: list[str] = []
        for name in names:
            told = [
                f"{one.event.name} of {world.names[one.event.sender]} at {one.event.time}"
                + (" (late)" if one.is_late else "")
                for host, _, one in fresh
                if host == name
            ]
            lines.append(f"{name}: {', '.join(told) or 'nothing'}")
        return "\n".join(lines)


def members(world: World, name: str) -> str:
    """Tell what a node thinks of whom."""
    table = world.hosts[name].node.swim.members
    known = sorted((world.names.get(each.id, "a stranger"), each.state) for each in table)
    return ", ".join(f"{other} {state.value}" for other, state in known)


def listing(world: World, name: str, about: NodeId) -> str:
    """Tell how a node lists a member: its name, state, incarnation, and where it is reached."""
    swim = world.hosts[name].node.swim
    member = swim.members.get(about)
    if member is None:
        return "not listed"
    where = " ".join(address.host for address in swim.addresses_of(about))
    return f"{member.name!r}, {member.state} {member.incarnation}, at {where}"


def paths(world: World, name: str, about: NodeId) -> str:
    """Tell by which ways a node reaches a member."""
    host = world.hosts[name]
    found = host.node.swim.paths_of(about, host.local(world.now))
    ways = {"datagrams in": found.udp_in_s, "datagrams out": found.udp_out_s}
    if found.udp_blocked:
        ways["streams"] = found.stream_s  # They are asked only when datagrams fail.
    told = [f"{way} {_recently(age_s)}" for way, age_s in ways.items()]
    return f"in {RECENT_S:.0f} s: {', '.join(told)}" + ("; UDP blocked" * found.udp_blocked)


def _recently(age_s: float | None) -> str:
    return "yes" if age_s is not None and age_s <= RECENT_S else "no"
