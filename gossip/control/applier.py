"""Applies what is committed to the state, from wherever it comes, and tells who wants to know.

Entries come from Raft or from a voter that is pulled, and may come twice when a node changes sides:
each is applied once. A command that this version does not know halts the copy: whoever passed over
it would differ from the others ever after. So does one that fails, which nobody has foreseen: each
replica would fail at it, at each start, and the log is not all that an agent is for. What such a
command has left half done counts for nothing; the copy goes back to a state that is whole.
"""

import traceback
from collections.abc import Callable

import msgspec

from gossip.consensus.messages import Entry, EntryKind
from gossip.control.commands import UnknownCommand
from gossip.control.history import RevisionChanges
from gossip.control.outbound import ControlOutbound
from gossip.control.requests import CopyHalted
from gossip.control.state_machine import AppliedCommand, ControlState
from gossip.core.machine import Instant

NOT_UNDERSTOOD, FAILED = "not_understood", "failed"


class CommandFault(msgspec.Struct, frozen=True):
    """Why the log is applied no further than before this index."""

    kind: str
    index: int
    reason: str


class LogApplier:
    """Holds the state of this node. The plane says who is told of what."""

    def __init__(self, outbound: ControlOutbound) -> None:
        self._outbound = outbound
        self._now: Instant = 0.0
        self._halted_at = 0
        self.state = ControlState(self._changed)
        self.on_changes: list[Callable[[RevisionChanges, Instant], object]] = []
        self.on_applied: list[Callable[[Entry, AppliedCommand, Instant], object]] = []
        self.on_taken: list[Callable[[tuple[Entry, ...], Instant], object]] = []
        self.on_replaced: list[Callable[[Instant], object]] = []
        self.on_halted: Callable[[Instant], object] = lambda _now: None
        self.earlier: Callable[[int], ControlState] = lambda _index: ControlState()
        """Returns a state that is whole and has nothing from this index on."""

    @property
    def index(self) -> int:
        """Up to where the log is applied."""
        return self.state.index

    @property
    def is_halted(self) -> bool:
        """Whether the log goes on with what this version does not know."""
        return self._halted_at > 0

    def take(self, entries: tuple[Entry, ...], now: Instant) -> None:
        """Apply committed entries, those that are new."""
        self._now = now
        fresh = tuple(each for each in entries if each.index > self.index)
        if self.is_halted or not fresh:
            return
        fault: CommandFault | None = None
        for place, entry in enumerate(fresh):
            fault = self._apply(entry, now)
            if fault is not None:
                fresh = fresh[:place]
                break
        for taken in self.on_taken:
            taken(fresh, now)
        if fault is not None:
            if fault.kind == FAILED:
                self._replace(self.earlier(fault.index), now)
            self.halt(fault.index, fault.reason, now, fault.kind)

    def _apply(self, entry: Entry, now: Instant) -> CommandFault | None:
        """Apply one entry, and tell of it; return why it cannot be."""
        if entry.kind is not EntryKind.COMMAND:
            self.state.advance(entry.index)
            return None
        try:
            applied = self.state.apply(entry.index, entry.term, entry.data)
        except UnknownCommand as error:
            return CommandFault(NOT_UNDERSTOOD, entry.index, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, all replicas fail alike
            return CommandFault(FAILED, entry.index, _told(error))
        for told in self.on_applied:
            told(entry, applied, now)
        return None

    def halt(self, index: int, reason: str, now: Instant, kind: str = NOT_UNDERSTOOD) -> None:
        """Apply nothing any more: the log goes on with what we cannot carry out."""
        self._halted_at = index
        self._outbound.counts[f"control_halts/{kind}"] += 1
        self._outbound.emit(CopyHalted(index, reason))
        self.on_halted(now)

    def install(self, index: int, data: bytes, now: Instant) -> None:
        """Put a snapshot in the place of the state. Raises Malformed."""
        state = ControlState.restore(data, index)
        self._halted_at = 0
        self._replace(state, now)

    def _replace(self, state: ControlState, now: Instant) -> None:
        state.on_changes = self._changed
        self.state = state
        for replaced in self.on_replaced:
            replaced(now)

    def _changed(self, batch: RevisionChanges) -> None:
        for told in self.on_changes:
            told(batch, self._now)


def _told(error: Exception) -> str:
    """Say with what a command fails, and where: all that there is to find the fault by."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
    return f"a command fails ({where}: {type(error).__name__}: {error!s:.200}); update this agent"
