"""How things stand at one store, for people."""

from collections.abc import Sequence

import msgspec

from gossip.consensus.configuration import Configuration, Voter
from gossip.consensus.progress import Progress
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.replication import Replication
from gossip.consensus.roles import Role


class MemberProgress(msgspec.Struct, frozen=True):
    """What the leader knows of one who takes part, for people."""

    member: Voter
    is_voter: bool
    match_index: int
    phase: str
    heard_s_ago: float
    has_settled: bool
    """Whether it has kept up for long enough to get a vote."""
    is_fenced: bool


class ConsensusStatus(msgspec.Struct, frozen=True):
    """How things stand at one store, for people; ``members`` only at the leader."""

    me: Voter
    generation: int
    role: Role
    term: int
    leader: Voter | None
    commit_index: int
    applied_index: int
    last_index: int
    first_index: int
    snapshot_index: int
    configuration: Configuration
    members: Sequence[MemberProgress]


def status_of(state: ReplicaState, replication: Replication) -> ConsensusStatus:
    """Describe a store, and what it knows of the others if it leads."""
    log = state.log
    return ConsensusStatus(
        me=state.me,
        generation=state.generation,
        role=state.role,
        term=state.term,
        leader=state.leader,
        commit_index=log.commit,
        applied_index=log.applied,
        last_index=log.last_index,
        first_index=log.first_index,
        snapshot_index=log.snapshot.index if log.snapshot else 0,
        configuration=state.configuration,
        members=[_described(each, state, replication) for each in replication.followers.values()],
    )


def _described(progress: Progress, state: ReplicaState, replication: Replication) -> MemberProgress:
    return MemberProgress(
        member=progress.member,
        is_voter=state.configuration.is_voter(progress.member.store),
        match_index=progress.match,
        phase=progress.phase.value,
        heard_s_ago=state.now - progress.heard,
        has_settled=progress.has_settled(state.now),
        is_fenced=progress.member.store in replication.fenced,
    )
