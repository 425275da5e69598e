"""The replicated state: applies the log, command by command, and does nothing else.

The same log gives the same state, byte for byte, on every replica: no clock, no randomness, no look
at who is alive. What needs a clock (a session's time to live, a lock's delay) is measured by the
leader and comes back as a command. A revision is the index of the log at which something changed.
"""

from collections.abc import Callable

import msgspec

from gossip.control.barriers import BarrierTable
from gossip.control.bounds import Space
from gossip.control.clients import ClientTable, ControlClient, SettledOutcome
from gossip.control.commands import (
    AcquireLock,
    Action,
    ChangeRegistry,
    CloseSession,
    Command,
    EndDelay,
    EnterBarrier,
    ExpireSession,
    LeaveBarrier,
    OpenSession,
    ProclaimValue,
    RegisterClient,
    ReleaseLock,
    Transact,
    check_command,
    decode_command,
)
from gossip.control.drafts import Draft, transact
from gossip.control.history import ControlChange, History, RevisionChanges
from gossip.control.keys import KeyTable
from gossip.control.locks import LockTable
from gossip.control.outcomes import (
    INVALID,
    STALE,
    ClientResult,
    CommandOutcome,
    Declined,
    EndedResult,
    SessionResult,
)
from gossip.control.registry_table import RegistryTable
from gossip.control.sessions import ControlSession, SessionTable
from gossip.control.state_image import (
    FIRST_IMAGE_VERSION,
    IMAGE_VERSION,
    ClientImage,
    StateImage,
    decode_image,
    encode_image,
)
from gossip.core.errors import InvalidRequest


class AppliedCommand(msgspec.Struct, frozen=True):
    """What a command came to. ``index``: the revision; of a repeated command, its first copy's."""

    client: int
    sequence: int
    index: int
    outcome: CommandOutcome
    action: Action


class ControlState:
    """The state machine. ``index``: up to where the log is applied."""

    def __init__(self, on_changes: Callable[[RevisionChanges], None] | None = None) -> None:
        self.index = 0
        self.space = Space()
        self._changes: list[ControlChange] = []
        self.on_changes = on_changes
        """Told of each revision, when it is there."""
        self.keys = KeyTable(self.space, self._changes.append)
        self.sessions = SessionTable(self.space)
        self.locks = LockTable(self.space, self._changes.append)
        self.barriers = BarrierTable(self.space, self._changes.append)
        self.registry = RegistryTable(self.space)
        self.clients = ClientTable()
        self.history = History(0)

    def advance(self, index: int) -> None:
        """Pass over an entry that is none of ours: the log's own."""
        assert index == self.index + 1, "the log is applied in order, and each entry once"
        self.index = index

    def apply(self, index: int, term: int, data: bytes) -> AppliedCommand:
        """Apply the entry at this index, of this term. Raises UnknownCommand; then stop."""
        assert index == self.index + 1, "the log is applied in order, and each entry once"
        command = decode_command(data)
        self.index = index
        known = self._known(command)
        if isinstance(known, SettledOutcome):
            outcome, at = known.outcome, known.index
        else:
            outcome, at = known or self._carry_out(command.action, index, term), index
            if command.client and known is None:
                self.clients.remember(command.client, command.sequence, index, outcome)
        self._record(index)
        return AppliedCommand(command.client, command.sequence, at, outcome, command.action)

    def _known(self, command: Command) -> SettledOutcome | Declined | None:
        if not command.client:
            return None
        return self.clients.before(command.client, command.sequence, command.settled)

    def _record(self, index: int) -> None:
        if self._changes:
            batch = self.history.record(index, tuple(self._changes))
            self._changes.clear()
            if self.on_changes is not None:
                self.on_changes(batch)

    def _carry_out(self, action: Action, index: int, term: int) -> CommandOutcome:
        try:
            check_command(action)
        except InvalidRequest as error:
            return Declined(INVALID, str(error))
        match action:
            case Transact(compares, then, otherwise):
                draft = Draft(self.keys, self.space, self.sessions.__contains__, index)
                return transact(compares, then, otherwise, draft, self.keys, self.locks.has_token)
            case RegisterClient():
                self.clients.register(index)
                return ClientResult(index)
            case OpenSession():
                return self._open(action, index)
            case CloseSession():
                return self._close(action, index)
            case ExpireSession() | EndDelay():
                return self._measured(action, index, term)
            case ChangeRegistry():
                return self.registry.change(action, index)
            case _:
                return self._coordinate(action, index)

    def _open(self, action: OpenSession, index: int) -> SessionResult | Declined:
        return self.sessions.open(
            ControlSession(index, action.node, action.ttl_ms, action.lock_delay_ms, action.label)
        )

    def _close(self, action: CloseSession, index: int) -> EndedResult | Declined:
        if action.session not in self.sessions:
            return Declined.no_session(action.session)
        self._end(action.session, index, delayed=False)
        return EndedResult(ended=True)

    def _measured(
        self, action: ExpireSession | EndDelay, index: int, term: int
    ) -> EndedResult | Declined:
        """Carry out what a leader has found by its clock, if it was the leader of this entry."""
        if action.term != term:
            return Declined(STALE, f"found in term {action.term}, and it is {term}")
        if isinstance(action, EndDelay):
            return EndedResult(self.locks.end_delay(action.name, action.since, index))
        is_there = action.session in self.sessions
        if is_there:
            self._end(action.session, index, delayed=True)
        return EndedResult(is_there)

    def _end(self, number: int, index: int, *, delayed: bool) -> None:
        """End a session with all that it holds."""
        session = self.sessions.end(number)
        assert session is not None, "the caller has looked"
        for key in self.keys.of_session(number):
            self.keys.delete(key)
        self.locks.end_session(number, index, session.lock_delay_ms if delayed else 0)
        self.barriers.end_session(number)

    def end_sessions(self) -> None:
        """End all sessions, each at an index of its own, where no log does: in a recovery.

        The indices behind this state's are free then (``storage.py``: ``index_of_next``).
        """
        for number in [each.number for each in self.sessions]:
            self.index += 1
            self._end(number, self.index, delayed=True)
        self._changes.clear()

    def _coordinate(
        self,
        action: AcquireLock | ReleaseLock | ProclaimValue | EnterBarrier | LeaveBarrier,
        index: int,
    ) -> CommandOutcome:
        """Carry out what only an open session may ask for."""
        session = action.session
        if session not in self.sessions:
            return Declined.no_session(session)
        match action:
            case AcquireLock(name=name, permits=permits, value=value, wait=wait):
                return self.locks.acquire(name, session, permits, value, index, wait=wait)
            case ReleaseLock(name=name):
                return self.locks.release(name, session, index)
            case ProclaimValue(name=name, value=value):
                return self.locks.proclaim(name, session, value)
            case EnterBarrier(name=name, count=count):
                return self.barriers.enter(name, session, count)
            case LeaveBarrier(name=name):
                return self.barriers.leave(name, session)

    # Snapshots

    def snapshot(self) -> bytes:
        """Return the whole state as bytes: two replicas at one index return the same."""
        registry = self.registry.image()
        image = StateImage(
            IMAGE_VERSION if registry is not None else FIRST_IMAGE_VERSION,
            tuple(self.keys),
            tuple(self.sessions),
            tuple(self.locks),
            tuple(self.barriers),
            tuple(
                ClientImage(
                    each.number,
                    each.settled,
                    tuple(each.outcomes[sequence] for sequence in sorted(each.outcomes)),
                )
                for each in self.clients
            ),
            registry,
        )
        return encode_image(image)

    @classmethod
    def restore(cls, data: bytes, index: int) -> "ControlState":
        """Return the state that a snapshot of this index holds. Raises Malformed."""
        image = decode_image(data, index)
        state = cls()
        state._fill(image)
        state.index = index
        state.history = History(index)
        return state

    def _fill(self, image: StateImage) -> None:
        if image.registry is not None:
            self.registry.restore(image.registry)
        for entry in image.keys:
            self.keys.put(entry)
        for session in image.sessions:
            self.sessions.restore(session)
        for lock in image.locks:
            self.locks.restore(lock)
        for barrier in image.barriers:
            self.barriers.restore(barrier)
        for each in image.clients:
            outcomes = {known.sequence: known for known in each.outcomes}
            size = sum(known.size_bytes for known in each.outcomes)
            self.clients.restore(ControlClient(each.number, each.settled, outcomes, size))
        self._changes.clear()
