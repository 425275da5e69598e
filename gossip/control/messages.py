"""Every frame of the control plane beside Raft's own: questions to voters, and their answers.

Raft speaks in tags 112 to 124 (``gossip/consensus/messages.py``); these have 125 and 126, and what
is asked stands inside, under tags of its own. ``number`` ties an answer to its question; it is
chosen by the asker and unlike any that an earlier life of the asker used.

The bytes of each message are pinned in ``tests/vectors/control-v1.json``.
"""

import enum
from typing import Annotated

import msgspec

from gossip.consensus.configuration import LEARNERS_MAX, VOTERS_MAX, StoreNumber
from gossip.consensus.messages import NUMBER_MAX, Entry, Generation, SnapshotMark
from gossip.control.bounds import COMMAND_BYTES_MAX
from gossip.control.lookups import Lookup, LookupResult
from gossip.control.outcomes import CommandOutcome
from gossip.control.stability import StabilityReport
from gossip.core.wire import Codec

SESSIONS_ASKED_MAX = 1_000
ENTRIES_PULLED_MAX = 1_024
ENTRIES_PULLED_BYTES = 256 * 1024
CHUNK_BYTES = 256 * 1024
WAIT_MS_MAX = 60_000
VOTERS_TOLD_MAX = 2 * VOTERS_MAX
MEMBERS_TOLD_MAX = 2 * VOTERS_MAX + LEARNERS_MAX
WAITS_TOLD_MAX = 64

Natural = Annotated[int, msgspec.Meta(ge=0)]
LogNumber = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
"""An index or a term; 0 is before the first."""
Sessions = Annotated[tuple[Natural, ...], msgspec.Meta(max_length=SESSIONS_ASKED_MAX)]


class Hearsay(msgspec.Struct, frozen=True, array_like=True):
    """Who leads (0: nobody that we know) in which term; who votes since which index."""

    leader: Natural
    term: LogNumber
    voters: Annotated[tuple[Natural, ...], msgspec.Meta(max_length=VOTERS_TOLD_MAX)]
    since: LogNumber


class CopyStanding(msgspec.Struct, frozen=True, array_like=True):
    """How one node's copy of the log stands, in its own words.

    ``origin`` is the store from which this generation was recovered; 0 for the first one. ``term``
    and ``last_index`` are those of the last entry that the node has, committed or not.
    """

    generation: Generation
    origin: StoreNumber
    store: StoreNumber
    term: LogNumber
    last_index: LogNumber
    applied: LogNumber
    takes_part: bool
    has_majority: bool
    """Whether it follows a leader, or leads, as far as it knows."""
    hearsay: Hearsay

    @property
    def newness(self) -> tuple[int, int, int]:
        """What is larger for whoever has more: as votes are given, and the generation before."""
        return self.generation, self.term, self.last_index


class ProposeAsk(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Put this command into the log; answer when it was applied."""

    command: Annotated[bytes, msgspec.Meta(max_length=COMMAND_BYTES_MAX)]


class LookupAsk(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Read this from a state that has all that was answered before you got this."""

    lookup: Lookup


class RenewAsk(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """These sessions are alive."""

    sessions: Sessions


class PullAsk(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Send committed entries behind ``after``, when there are some; or none after ``wait_ms``."""

    generation: Generation
    after: LogNumber
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=WAIT_MS_MAX)]


class ChunkAsk(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Send this chunk of the snapshot of this index."""

    index: LogNumber
    chunk: Natural


class LeaderAsk(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Who leads? The answer is a ``RedirectAnswer``, whatever it is."""


class StabilityAsk(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """How well the sender would vote."""

    report: StabilityReport


class ReplaceAsk(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """An operator wants the node ``new`` to vote in the place of ``old``."""

    old: Natural
    new: Natural


class StandingAsk(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Say how your copy of the log stands; so stands mine."""

    standing: CopyStanding


class OverviewAsk(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Say how those are who take part, as their leader knows, and who is to vote next."""


class RedirectReason(enum.IntEnum):
    """Why somebody else must be asked, or the same one later; nothing was begun."""

    NOT_LEADER = 0
    BUSY = 1
    NO_MAJORITY = 2
    NO_VOTER = 3
    GONE = 4
    """The snapshot that was asked for is not there any more."""
    INVALID = 5
    NO_VOTE = 6
    """Only who votes may propose this, by what is committed."""
    WOULD_STALL = 7
    """So few voters would be left that are there that they could agree on nothing more."""


class RedirectAnswer(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Not I, or not now; but perhaps one of these."""

    reason: RedirectReason
    hearsay: Hearsay


class OutcomeAnswer(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The command was applied at this index, and this is what it came to."""

    index: LogNumber
    outcome: CommandOutcome


class LookupAnswer(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What was read, from the state of this index."""

    index: LogNumber
    result: LookupResult


class RenewAnswer(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Of the sessions asked about, these are renewed; the others have ended, or are ending."""

    renewed: Sessions


class PullAnswer(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Committed entries, which follow on what was asked."""

    generation: Generation
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=ENTRIES_PULLED_MAX)]
    hearsay: Hearsay
    origin: StoreNumber = 0


class MarkAnswer(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """What you lack is not kept as entries: take this snapshot, chunk by chunk."""

    generation: Generation
    mark: SnapshotMark
    origin: StoreNumber = 0


class ChunkAnswer(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """One chunk of the snapshot of this index."""

    index: LogNumber
    chunk: Natural
    data: Annotated[bytes, msgspec.Meta(max_length=CHUNK_BYTES)]


class ReplaceAnswer(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """The replacement has begun, or is refused for a reason that people read; "": it has begun."""

    refusal: str


class HeardAnswer(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """The report of a node's stability is with the leader, which this is."""

    hearsay: Hearsay


class StandingAnswer(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """So stands the copy of whoever answers."""

    standing: CopyStanding


class MemberOverview(msgspec.Struct, frozen=True, array_like=True):
    """One who takes part, as the leader knows it; the last four are its own report, if it came."""

    node: Natural
    store: StoreNumber
    votes: bool
    match: LogNumber
    silent_ms: Natural
    has_settled: bool
    is_fenced: bool
    uptime_s: Natural | None
    fsync_p99_ms: Natural | None
    is_on_mains: bool | None
    takes_writes: bool | None


class NoVoteReason(msgspec.Struct, frozen=True, array_like=True):
    """Why a node that could vote does not yet."""

    node: Natural
    reason: Annotated[str, msgspec.Meta(max_length=100)]


class OverviewAnswer(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """What the leader knows. ``wanted``: how many would vote, of as many nodes as are stable."""

    term: LogNumber
    commit: LogNumber
    last_index: LogNumber
    members: Annotated[tuple[MemberOverview, ...], msgspec.Meta(max_length=MEMBERS_TOLD_MAX)]
    wanted: Natural
    is_changing: bool
    waits: Annotated[tuple[NoVoteReason, ...], msgspec.Meta(max_length=WAITS_TOLD_MAX)]


AskBody = (
    ProposeAsk
    | LookupAsk
    | RenewAsk
    | PullAsk
    | ChunkAsk
    | LeaderAsk
    | StabilityAsk
    | ReplaceAsk
    | StandingAsk
    | OverviewAsk
)
AnswerBody = (
    RedirectAnswer
    | OutcomeAnswer
    | LookupAnswer
    | RenewAnswer
    | PullAnswer
    | MarkAnswer
    | ChunkAnswer
    | ReplaceAnswer
    | HeardAnswer
    | StandingAnswer
    | OverviewAnswer
)


class ControlAsk(msgspec.Struct, frozen=True, array_like=True, tag=125):
    """A question to who takes part in the agreement."""

    number: Natural
    body: AskBody


class ControlAnswer(msgspec.Struct, frozen=True, array_like=True, tag=126):
    """The answer to the question of this number."""

    number: Natural
    body: AnswerBody


ControlMessage = ControlAsk | ControlAnswer

CODEC: Codec[ControlMessage] = Codec(ControlMessage)
