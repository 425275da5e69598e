"""Whoever does something to the group's leader: changes voters, hands over, or takes it away.

That is where the worst moments are. The operator asks whoever believes to lead, also one that was
deposed and does not know it. It never asks for voters of which a majority has lost its logs:
nothing could be agreed on any more, and no rule of Raft is about that.
"""

import random
from collections.abc import Iterator

from gossip.consensus.configuration import Configuration, Voter
from gossip.consensus.raft import Raft
from gossip.consensus.requests import NotLeader, Overloaded
from gossip.consensus.roles import Role
from gossip.core.errors import InvalidRequest
from gossip.core.machine import Instant
from gossip.sim.consensus_host import ConsensusHost
from gossip.sim.consensus_world import ConsensusWorld

LEARNERS_WANTED = 2


class Operator:
    """Draws what to ask for from a generator of its own."""

    def __init__(self, world: ConsensusWorld, rng: random.Random) -> None:
        self._world, self._rng = world, rng

    def change(self) -> None:
        """Ask for other voters or learners: any change that may be legal."""
        leader = self._somebody_leading()
        if leader is None:
            return
        targets = list(self._targets(leader.raft.configuration))
        targets = [each for each in targets if self._world.intact(each)]
        if targets:
            target = self._rng.choice(targets)
            self._world.call(leader, lambda raft, now: self._ask(leader, target, raft, now))

    def transfer(self) -> None:
        """Ask a leader to hand over to another voter, be it far behind."""
        leader = self._somebody_leading()
        if leader is None:
            return
        others = [each for each in leader.raft.configuration.voters if each != leader.voter]
        if others:
            other = self._rng.choice(others)
            self._world.call(leader, lambda raft, now: self._hand_over(other, raft, now))

    def isolate(self, length_s: float, stunned_s: float) -> None:
        """Let nobody hear a leader or be heard by it for so long; and let it stand still at first.

        Clients reach it all the time: it may take in what it must not answer. One that stands still
        finds the answers to its last heartbeats and the requests of clients in one heap.
        """
        world, leader = self._world, self._somebody_leading()
        if leader is None or not leader.is_up:
            return
        world.partition([leader.name])
        world.schedule.after(length_s, world.join_sides)
        if stunned_s:
            world.pause(leader.name)
            world.schedule.after(stunned_s, self._wake_up, leader, leader.life)

    def _wake_up(self, host: ConsensusHost, life: int) -> None:
        if host.life == life and host.is_paused:
            self._world.resume(host.name)

    def _somebody_leading(self) -> ConsensusHost | None:
        hosts = self._world.hosts.values()
        leading = [host for host in hosts if not host.is_down and host.raft.role is Role.LEADER]
        return self._rng.choice(leading) if leading else None

    def _targets(self, now: Configuration) -> Iterator[Configuration]:
        voters, learners = now.voters, now.learners
        hosts = self._world.hosts.values()
        nodes = {each.node for each in now.members}
        strangers = [host.voter for host in hosts if host.id not in nodes]
        if strangers and len(learners) < LEARNERS_WANTED:
            yield Configuration(voters, (), (*learners, self._rng.choice(strangers)))
        for learner in learners:
            yield Configuration(voters, (), _without(learners, learner))
            replaced = self._rng.choice(voters)
            rest = _without(voters, replaced)
            yield Configuration((*rest, learner), (), _without(learners, learner))
        if len(learners) >= 2 and len(voters) <= 3:
            yield Configuration((*voters, *learners[:2]), (), learners[2:])
        if len(voters) > 2:
            kept = self._rng.sample(voters, len(voters) - 2)
            yield Configuration(tuple(kept), (), learners)
        lost = [each for each in voters if not self._world.is_intact(each.store)]
        if lost and len(voters) > 3:
            yield Configuration(_without(voters, lost[0]), (), learners)

    def _ask(self, leader: ConsensusHost, target: Configuration, raft: Raft, now: Instant) -> None:
        counts = self._world.counts
        if not self._world.intact(target):
            # A paused process hears of it late: meanwhile a log was lost.
            return
        try:
            raft.change(target, now)
        except InvalidRequest as refusal:
            counts["changes/refused"] += 1
            self._world.record(leader.name, f"refuses a change: {refusal}")
        except (NotLeader, Overloaded):
            counts["changes/not_now"] += 1
        else:
            counts["changes/begun"] += 1

    def _hand_over(self, other: Voter, raft: Raft, now: Instant) -> None:
        try:
            raft.transfer(other.store, now)
        except (InvalidRequest, NotLeader, Overloaded):
            self._world.counts["transfers/refused"] += 1
        else:
            self._world.counts["transfers/begun"] += 1


def _without(voters: tuple[Voter, ...], one: Voter) -> tuple[Voter, ...]:
    return tuple(each for each in voters if each != one)
