"""What an application asks of the control plane, and what it is told."""

import msgspec

from gossip.consensus.configuration import StoreId
from gossip.control.commands import Action
from gossip.control.lookups import Lookup, LookupResult
from gossip.control.messages import CopyStanding, OverviewAnswer
from gossip.control.outcomes import CommandOutcome
from gossip.control.watchers import ControlEvent, ControlWatch, WatchEnded
from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

TIMEOUT_S = 20.0
"""Longer than two elections: a request outlives the loss of a leader, and a ballot that failed."""
TIMEOUT_S_MAX = 300.0


def sooner(one: Instant | None, other: Instant) -> Instant:
    """Return the earlier of two times, the first of which may be none."""
    return other if one is None else min(one, other)


def check_timeout(timeout_s: float) -> None:
    """Raise InvalidRequest for a time that nobody waits."""
    if not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise InvalidRequest(f"`timeout`: up to {TIMEOUT_S_MAX:.0f} s")


class ControlWrite(msgspec.Struct, frozen=True):
    """Have a command agreed on. It is carried out once, however often it had to be sent."""

    action: Action
    timeout_s: float = TIMEOUT_S


class ControlRead(msgspec.Struct, frozen=True):
    """Read; linearizable, unless ``stale``: then from this node's own copy, as far as it has come.

    A stale read costs nothing, works without a majority, and never goes back while the node runs,
    unless a command failed here (``CopyHalted``) and the node has no vote.
    What this very node was just told to be done may not be in it yet: the indices tell.
    """

    lookup: Lookup
    stale: bool = False
    timeout_s: float = TIMEOUT_S


class ControlOrder(msgspec.Struct, frozen=True):
    """Have the node ``new`` vote in the place of ``old``, as an operator wants it."""

    old: NodeId
    new: NodeId
    timeout_s: float = TIMEOUT_S


class ControlOverview(msgspec.Struct, frozen=True):
    """Ask the leader how those are who take part."""

    timeout_s: float = TIMEOUT_S


class ControlSurvey(msgspec.Struct, frozen=True):
    """Ask these nodes how their copies of the log stand, and wait at most so long for them."""

    nodes: tuple[NodeId, ...]
    timeout_s: float = 3.0


ControlRequest = (
    ControlWrite | ControlRead | ControlOrder | ControlOverview | ControlSurvey | ControlWatch
)


class UnavailableResult(msgspec.Struct, frozen=True):
    """Nothing was done; ``reason`` says what still works, and what to do."""

    reason: str


class IndeterminateResult(msgspec.Struct, frozen=True):
    """The command was sent, and nobody answered in time: it may be carried out yet, or not."""

    reason: str


class ReplacementResult(msgspec.Struct, frozen=True):
    """The leader has begun to replace a voter, or refuses to.

    ``refusal`` says which rule forbids it; "": it has begun. It is done when the status shows it:
    the new one learns first. A leader that is followed by another forgets of it.
    """

    refusal: str


class SurveyResult(msgspec.Struct, frozen=True):
    """How this node's copy stands, and those of the others that have answered."""

    own: CopyStanding
    others: tuple[tuple[NodeId, CopyStanding], ...]


ControlResult = (
    CommandOutcome
    | LookupResult
    | ReplacementResult
    | OverviewAnswer
    | SurveyResult
    | UnavailableResult
    | IndeterminateResult
)


class ControlCompleted(msgspec.Struct, frozen=True):
    """A request is over. ``index`` is the revision of what was done or read; 0: of nothing."""

    request: int
    index: int
    result: ControlResult


class SessionLost(msgspec.Struct, frozen=True):
    """A session that this node renews has ended, or may have: whoever relies on it must stop.

    ``is_certain``: it has ended. Otherwise no leader confirmed it in time, and it may live on.
    """

    session: int
    is_certain: bool


class SessionConfirmed(msgspec.Struct, frozen=True):
    """A session that its holder renews was renewed: it is there until ``sure_until``, for sure."""

    session: int
    sure_until: Instant


class RegistryCommitted(msgspec.Struct, frozen=True):
    """This node's copy of the log has come to another registry: it is to be followed."""

    signed: bytes


class CopyHalted(msgspec.Struct, frozen=True):
    """The log has what this version does not know, or fails at: this node's copy stands still."""

    index: int
    reason: str


class VoterOrdered(msgspec.Struct, frozen=True):
    """The leader, which this node is, was told by ``by`` to have one node vote for another.

    ``refusal`` says why it does not; "": it has begun.
    """

    by: NodeId
    old: NodeId
    new: NodeId
    refusal: str


class GenerationSuperseded(msgspec.Struct, frozen=True):
    """This node takes part in a generation of the agreement that a later one has followed.

    Its log counts no more: it has to begin as another store. ``by`` has told of the later one.
    """

    generation: int
    later: int
    origin: StoreId
    by: NodeId


class GenerationDoubted(msgspec.Struct, frozen=True):
    """``by`` says that a later generation has begun, and nobody says so who would be believed."""

    generation: int
    later: int
    by: NodeId


class GenerationForked(msgspec.Struct, frozen=True):
    """``by`` follows another recovery of our generation, that of the store ``origin``."""

    generation: int
    origin: StoreId
    by: NodeId


ControlNotice = (
    ControlCompleted | ControlEvent | WatchEnded | SessionLost | SessionConfirmed | CopyHalted
)


class ControlStatus(msgspec.Struct, frozen=True):
    """How things stand at one node, for people."""

    role: str
    """"leader", "follower", "candidate"...; "copy" for who takes no part in the agreement."""
    generation: int
    applied_index: int
    leader: NodeId | None
    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...]
    has_majority: bool
    """Whether a leader that a majority follows was heard of lately."""
    sessions: int
    keys: int
    used_bytes: int
    watches: int
    is_halted: bool
    heard_s_ago: float | None = None
    """Since a voter last answered; 0 at a voter that follows a leader; None: nobody knows."""
    origin: StoreId = 0
    """The store from which this generation was recovered; 0 for the first one."""
    forks: tuple[tuple[StoreId, NodeId], ...] = ()
    """Other recoveries of this generation, and who was heard to follow each."""
    takes_writes: bool = True
    """Whether this node could write and understand what is agreed on, when it last looked."""
    save_hangs_s: float = 0.0
    """For how long the disk has owed the end of a save, if that is too long; else 0."""
    stood_still_s_ago: float | None = None
    """Since it gave all sessions their full time again, as a leader that had stood still."""
    doubted: tuple[tuple[NodeId, int], ...] = ()
    """Who says that a later generation has begun, which one, and is not believed."""
