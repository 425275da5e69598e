"""What clients asked of the covey, and what they were told.

Each request becomes an ``Operation``: when it was sent, through which host, when the answer came
and what it said. The list of all of them is the history that the checkers of the data plane
judge. A request whose host went down before it answered stays open for ever: it may or may not
have had its effect, at any time after it was sent.
"""

import enum

from gossip.core.machine import Instant
from gossip.kv.requests import Delete, Get, GetResult, List, Put, Rejected, Request, Result, Watch


class Outcome(enum.Enum):
    """What became of an operation, as its client can know it."""

    PENDING = "pending"
    ANSWERED = "answered"
    LOST = "lost"


class Operation:
    """One request of one client."""

    def __init__(self, number: int, host: str, request: Request, invoked_at: Instant) -> None:
        self.number = number
        self.host = host
        self.request = request
        self.invoked_at = invoked_at
        self.completed_at: Instant | None = None
        self.result: Result | None = None
        self.fate = Outcome.PENDING
        self.read: Operation | None = None

    def __repr__(self) -> str:
        what = type(self.request).__name__.lower()
        return f"#{self.number} {what} {self.key!r} by {self.host}: {self.outcome}"

    @property
    def key(self) -> str:
        """The key, or the prefix of a list."""
        request = self.request
        assert not isinstance(request, Watch), "watches are not operations: they never end"
        return request.prefix if isinstance(request, List) else request.key

    @property
    def outcome(self) -> str:
        """What the client was told, in a word."""
        if self.result is None:
            return self.fate.value
        return "rejected" if isinstance(self.result, Rejected) else self.result.outcome

    @property
    def is_done(self) -> bool:
        """Whether no answer is to be waited for any more."""
        return self.fate is not Outcome.PENDING

    @property
    def is_write(self) -> bool:
        """Whether it may change the key."""
        return isinstance(self.request, Put | Delete)

    @property
    def acknowledged(self) -> bool:
        """Whether the covey promised that this write will not be lost."""
        return self.is_write and self.outcome == "ok"

    @property
    def values(self) -> list[bytes]:
        """The values that a get returned, newest first."""
        assert isinstance(self.request, Get), "only a get returns values"
        if not isinstance(self.result, GetResult):
            return []
        return [value.data for value in self.result.values]

    def answer(self, result: Result, now: Instant) -> None:
        """Note what the client was told."""
        assert self.fate is Outcome.PENDING, f"{self} was answered twice"
        self.result, self.completed_at, self.fate = result, now, Outcome.ANSWERED

    def lose(self) -> None:
        """Note that the client's host went down before it answered."""
        if self.fate is Outcome.PENDING:
            self.fate = Outcome.LOST
