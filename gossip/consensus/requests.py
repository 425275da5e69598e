"""What an application asks of a Raft group, and what it is told."""

import msgspec

from gossip.consensus.configuration import Configuration, StoreId, Voter
from gossip.consensus.messages import Entry
from gossip.consensus.roles import Role
from gossip.core.errors import LocalError
from gossip.core.ids import Boot


class NotLeader(LocalError):
    """Only the leader can do this; ``leader`` is who that is, where it is known."""

    def __init__(self, leader: Voter | None) -> None:
        known = f"the leader is store {leader.store:x}" if leader else "no leader is known"
        super().__init__(f"this store does not lead; {known}. Nothing was begun")
        self.leader = leader


class Overloaded(LocalError):
    """The leader takes nothing in for now; nothing was begun, so try again in a moment."""


class Snapshot(msgspec.Struct, frozen=True):
    """The application's state as bytes, when the entry ``index`` had been applied."""

    index: int
    data: bytes


class Committed(msgspec.Struct, frozen=True):
    """Apply these entries, which follow on each other; of any kind, most are commands.

    After a start they begin behind the snapshot, so an application that keeps its state on disk
    sees again what it has applied.
    """

    entries: tuple[Entry, ...]


class RoleChanged(msgspec.Struct, frozen=True):
    """This store has another role, is in another term, or follows another leader."""

    role: Role
    term: int
    leader: Voter | None


class ReadReady(msgspec.Struct, frozen=True):
    """A read may be answered from the application's state: ``index`` is applied, by its word."""

    id: int
    index: int


class ReadFailed(msgspec.Struct, frozen=True):
    """Nobody could say in time what a read has to see. Ask again."""

    id: int


class SnapshotInstalled(msgspec.Struct, frozen=True):
    """Replace the application's state by this one; what was applied before is in it.

    It comes when a leader has sent it, and at a start that finds one on disk.
    """

    index: int
    data: bytes


class ConfigurationChanged(msgspec.Struct, frozen=True):
    """This is who takes part, from the committed entry ``index`` on."""

    index: int
    configuration: Configuration


class CloneSeen(msgspec.Struct, frozen=True):
    """Two processes answer as one store: a card was copied. The leader hears neither of them."""

    store: StoreId
    boots: tuple[Boot, Boot]


ConsensusEvent = (
    Committed
    | RoleChanged
    | ReadReady
    | ReadFailed
    | SnapshotInstalled
    | ConfigurationChanged
    | CloneSeen
)
