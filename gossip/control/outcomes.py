"""What became of a command: the same on every replica, and the same again when it is repeated."""

from typing import ClassVar

import msgspec

from gossip.control.transactions import OperationResult

FULL = "full"
TOO_LARGE = "too_large"
NO_SESSION = "no_session"
NOT_HELD = "not_held"
OTHER_PERMITS = "other_permits"
UNDER_WAY = "under_way"
OTHER_COUNT = "other_count"
STALE = "stale"
INVALID = "invalid"
UNKNOWN_CLIENT = "unknown_client"
SETTLED = "settled"
UNSETTLED = "unsettled"
TOO_MANY = "too_many"
CONFLICT = "conflict"
"""Why a command was declined, for programs: these words are part of the API."""


class Declined(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The command was in the log and changed nothing; ``reason`` says to people what to do."""

    code: str
    reason: str

    NEVER_RUN: ClassVar[frozenset[str]] = frozenset({UNKNOWN_CLIENT, SETTLED})
    """Of these alone nobody knows whether an earlier copy of the command was carried out.

    And of UNSETTLED, which is not kept either, whether a later one will be.
    """

    @classmethod
    def no_session(cls, session: int) -> "Declined":
        """Say that a session is not there (any more)."""
        return cls(NO_SESSION, f"session {session:x} has ended or never was; open another one")


class ClientResult(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A client is known from now on, under this number."""

    client: int


class TransactionResult(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """``succeeded``: all comparisons held, and the results are those of ``then``."""

    succeeded: bool
    results: tuple[OperationResult, ...]


class SessionResult(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A session was opened."""

    session: int
    ttl_ms: int


class EndedResult(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A session or a lock delay was ended; False: it had ended before."""

    ended: bool


class LockResult(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """How a session stands at a lock now.

    ``token`` above 0: it holds the lock, and this is its fencing token. Otherwise ``position`` is
    its place in the queue (1: it is next), or 0 if it does not wait.
    """

    token: int
    position: int = 0


class ReleasedResult(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """``held``: the session held the lock until now; otherwise it was waiting at most."""

    held: bool


class BarrierResult(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """How many are inside a barrier, and whether it has opened."""

    inside: int
    is_open: bool


class ChangedResult(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """The registry or tokens were changed; ``revision`` is that of all that was written."""

    revision: int


CommandOutcome = (
    Declined
    | ClientResult
    | TransactionResult
    | SessionResult
    | EndedResult
    | LockResult
    | ReleasedResult
    | BarrierResult
    | ChangedResult
)
