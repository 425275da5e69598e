"""A log of the control plane, applied to two replicas, the second by way of snapshots."""

from typing import Any

from gossip.control.commands import (
    AcquireLock,
    Action,
    CloseSession,
    Command,
    EndDelay,
    ExpireSession,
    OpenSession,
    RegisterClient,
    ReleaseLock,
    Transact,
    encode_command,
)
from gossip.control.history import RevisionChanges
from gossip.control.outcomes import CommandOutcome, SessionResult
from gossip.control.state_machine import AppliedCommand, ControlState
from gossip.control.transactions import (
    Compare,
    CompareField,
    CompareRelation,
    GetKey,
    Operation,
    PutKey,
)

TERM = 3


class ControlLog:
    """Applies what is said to it, one entry after the other."""

    def __init__(self) -> None:
        self.batches: list[RevisionChanges] = []
        self.state = ControlState(self.batches.append)
        self.other = ControlState()
        self.entries: list[tuple[int, int, bytes]] = []

    @property
    def index(self) -> int:
        return self.state.index

    def append(self, action: Action, term: int = TERM, **sender: int) -> AppliedCommand:
        """Apply one command to both replicas, and see that they agree."""
        data = encode_command(Command(action, **sender))
        entry = (self.index + 1, term, data)
        self.entries.append(entry)
        applied = self.state.apply(*entry)
        assert self.other.apply(*entry) == applied
        return applied

    def apply(self, action: Action, term: int = TERM) -> CommandOutcome:
        return self.append(action, term).outcome

    def client(self) -> int:
        return self.append(RegisterClient(1)).index

    def session(self, ttl_ms: int = 10_000, lock_delay_ms: int = 0) -> int:
        outcome = self.apply(OpenSession(7, ttl_ms, lock_delay_ms))
        assert isinstance(outcome, SessionResult)
        return outcome.session

    def put(self, key: str, value: bytes = b"", session: int = 0) -> Any:
        return self.transact(PutKey(key, value, session))

    def get(self, key: str) -> Any:
        return self.transact(GetKey(key)).results[0].entries

    def transact(self, *then: Operation, when: tuple[Compare, ...] = ()) -> Any:
        return self.apply(Transact(when, then))

    def holds(
        self, key: str, field: CompareField, relation: CompareRelation, operand: int | bytes
    ) -> bool:
        return bool(self.transact(when=(Compare(key, field, relation, operand),)).succeeded)

    def acquire(self, name: str, session: int, permits: int = 1, *, wait: bool = True) -> Any:
        return self.apply(AcquireLock(name, session, permits, wait))

    def release(self, name: str, session: int) -> Any:
        return self.apply(ReleaseLock(name, session))

    def close(self, session: int) -> Any:
        return self.apply(CloseSession(session))

    def expire(self, session: int, term: int = TERM) -> Any:
        return self.apply(ExpireSession(session, term))

    def end_delay(self, name: str, since: int) -> Any:
        return self.apply(EndDelay(name, since, TERM))

    def holders(self, name: str) -> list[tuple[int, int]]:
        lock = self.state.locks.get(name)
        return [(each.session, each.token) for each in lock.holders] if lock else []

    def restore_other(self) -> None:
        """Let the second replica go on from a snapshot of the first."""
        self.other = ControlState.restore(self.state.snapshot(), self.index)

    def check(self) -> None:
        """See that both replicas are the same, byte for byte, and count their space truly."""
        image = self.state.snapshot()
        assert image == self.other.snapshot()
        again = ControlState.restore(image, self.index)
        assert again.snapshot() == image
        assert again.space.used_bytes == self.state.space.used_bytes
        assert again.clients.size_bytes == self.state.clients.size_bytes
