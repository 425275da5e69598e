"""Going on after a lost majority, or from a saved snapshot: the next generation of the agreement.

An operator names the one copy that goes on. All that it has counts as decided, and the indices that
follow are 2^32 larger at least, so that no fencing token is given twice and none is ever smaller
than one that was given before (``storage.py``: ``index_of_next``). Who recovered stands in the
state under a key of Covey's own, as its *origin*: two recoveries at two places are of one
generation, and this tells them apart. Nothing here decides whether a majority is lost. An operator
does.

All sessions end with the generation that they were opened in, and what they hold is free after its
delay. The copy that goes on may not know that a lock was let go and given to somebody else: to go
on from it would give a smaller token than the last one, and leave two who both believe that they
hold it. So every holder is told that its session is lost, and asks again.
"""

from typing import Literal

import msgspec

from gossip.consensus.configuration import Configuration, StoreId, Voter
from gossip.consensus.messages import GENERATION_MAX, NUMBER_MAX, EntryKind
from gossip.consensus.storage import (
    HardState,
    MemoryLog,
    SnapshotChange,
    StoredState,
    arrival,
    index_of_next,
    mark_of,
    recovered,
)
from gossip.control.commands import UnknownCommand
from gossip.control.fleet_settings import ACCESS_PREFIX, RESERVED_PREFIX
from gossip.control.keys import KeyEntry
from gossip.control.state_machine import ControlState
from gossip.core.errors import InvalidRequest, Malformed
from gossip.core.ids import NodeId
from gossip.registry.registry import Registry, SignedRegistry

RECOVERY_KEY = f"{RESERVED_PREFIX}recovery"
CHUNK_BYTES = 64 * 1024


class RecoveryNote(msgspec.Struct, frozen=True):
    """How a generation began, for people and for ``origin_of``. ``at_s``: an operator's clock."""

    kind: Literal["recovered", "restored"]
    generation: int
    origin: StoreId
    node: int
    after: int
    """The last index of what it goes on from."""
    at_s: float


class SavedState(msgspec.Struct, frozen=True):
    """A state that was saved once, and where its log stood."""

    data: bytes
    generation: int
    index: int


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(RecoveryNote)


def note_of(state: ControlState) -> RecoveryNote | None:
    """Return how the generation of a state began; None for the first."""
    entry = state.keys.get(RECOVERY_KEY)
    try:
        return _DECODER.decode(entry.value) if entry is not None else None
    except (msgspec.DecodeError, RecursionError):
        return None


def origin_of(state: ControlState) -> StoreId:
    """Return the store from which a state's generation was recovered; 0 for the first."""
    note = note_of(state)
    return note.origin if note is not None else 0


def state_at_end(stored: StoredState, before: int = NUMBER_MAX) -> ControlState:
    """Return the state when all is applied that a log has, committed or not.

    ``before``: what it has below this index alone. Raises InvalidRequest, with what to do, for what
    this version does not read or cannot carry out.
    """
    mark = stored.snapshot
    try:
        state = ControlState()
        if mark is not None:
            pieces = (stored.chunks.chunk(mark, number) for number in range(mark.chunks))
            state = ControlState.restore(b"".join(pieces), mark.index)
        for entry in stored.entries:
            if not state.index < entry.index < before:
                continue
            if entry.kind is EntryKind.COMMAND:
                state.apply(entry.index, entry.term, entry.data)
            else:
                state.advance(entry.index)
    except Exception as error:  # whatever a command fails with, nobody goes on behind it
        reason = error if isinstance(error, UnknownCommand | Malformed) else repr(error)
        raise InvalidRequest(
            f"this copy cannot be read to its end: {reason!s:.300}; another version may be able to"
        ) from error
    return state


def as_log(
    state: ControlState, generation: int, term: int, effective: tuple[int, Configuration]
) -> StoredState:
    """Return a copy in memory as a log that has just been saved; ``effective``: ``mark_of``."""
    data = state.snapshot()
    mark = mark_of(data, state.index, term, effective, CHUNK_BYTES)
    log = MemoryLog()
    log.apply([HardState(generation, term), *arrival(mark, data), SnapshotChange(mark)])
    return log.stored()


def recover(survivor: StoredState, me: Voter, at_s: float) -> StoredState:
    """Return the log with which a survivor goes on alone, in the next generation.

    Raises InvalidRequest if it has nothing to go on with, this version cannot read it, or its last
    word is that this node was removed.
    """
    if not survivor.hard.generation:
        raise InvalidRequest("this node has no copy of what was agreed on")
    state = state_at_end(survivor)
    _check_belongs(state, me.node)
    generation = survivor.hard.generation + 1
    assert state.index == survivor.last_index, "all that the log has is applied"
    revision = _revision_after(survivor.hard.generation, survivor.last_index, at_s)
    note = RecoveryNote("recovered", generation, me.store, me.node, state.index, at_s)
    state.end_sessions()
    _write(state, note, revision)
    return recovered(survivor, me, state.snapshot(), CHUNK_BYTES, at_s)


def _check_belongs(state: ControlState, node: NodeId) -> None:
    """Raise InvalidRequest where a state would go on at a node that nobody listens to any more.

    All that its copy has counts as agreed on, so does its own removal that was merely proposed.
    """
    agreed = state.registry.agreed
    if agreed is None:
        return
    try:
        registry = Registry.decode(SignedRegistry.decode(agreed.signed).payload)
    except Malformed:
        return  # of another version: whoever reads it says the rest
    if registry.node(node) is None:
        raise InvalidRequest(
            "by the last that this copy has, this node was removed: nobody would follow it. Go on"
            " from another copy, at a node that belongs, with this one switched off"
        )


def restore(present: StoredState, saved: SavedState, me: Voter, at_s: float) -> StoredState:
    """Return the log that goes on from a saved state, in place of what this node has.

    It is later than both: whatever token either has given is smaller than all that follow. Who
    belongs and who may come in stay as they are, tokens for joining and for the API too: those of a
    file would let in again whom somebody has put out, or whom whoever wrote the file chose. Raises
    InvalidRequest for a state that this version cannot read.
    """
    try:
        state = ControlState.restore(saved.data, saved.index)
    except Malformed as error:
        raise InvalidRequest(str(error)) from None
    now = state_at_end(present)
    state.registry.take_over(now.registry)
    for key in list(state.keys.names(ACCESS_PREFIX)):
        state.keys.delete(key)
    for key in now.keys.names(ACCESS_PREFIX):
        entry = now.keys.get(key)
        assert entry is not None, "it was named"
        if not entry.session:  # all sessions end
            state.keys.put(entry)
    hard = HardState(max(present.hard.generation, saved.generation), max(1, present.hard.term))
    last = max(present.last_index, saved.index)
    after = _go_on("restored", state, hard, last, me, at_s)
    _check_fits(after)
    return after


def recover_set_aside(
    present: StoredState, aside: StoredState, me: Voter, at_s: float
) -> StoredState:
    """Return the log that goes on from one that this node has set aside, in place of what it has.

    It is later than both, in its generation and in its tokens; nothing else of what is here counts.
    Raises InvalidRequest for a log that this version cannot read, or that ends with our removal.
    """
    if not aside.hard.generation:
        raise InvalidRequest("the log that was set aside has nothing of what was agreed on")
    hard = HardState(
        max(present.hard.generation, aside.hard.generation),
        max(present.hard.term, aside.hard.term),
    )
    last = max(present.last_index, aside.last_index)
    state = state_at_end(aside)
    _check_belongs(state, me.node)
    return _go_on("recovered", state, hard, last, me, at_s)


def _go_on(
    kind: Literal["recovered", "restored"],
    state: ControlState,
    before: HardState,
    last: int,
    me: Voter,
    at_s: float,
) -> StoredState:
    """Return the log of the next generation, which begins with this state.

    ``before`` and ``last`` are the latest generation, term and index that are known of.
    """
    revision = _revision_after(before.generation, last, at_s)
    note = RecoveryNote(kind, before.generation + 1, me.store, me.node, state.index, at_s)
    state.end_sessions()
    _write(state, note, revision)
    state.index = last
    nobody = (0, Configuration())
    log = as_log(state, before.generation, before.term, nobody)
    after = recovered(log, me, state.snapshot(), CHUNK_BYTES, at_s)
    assert after.last_index > last, "tokens only grow"
    assert after.hard.generation > before.generation, "whoever is of a former one is told"
    return after


def _revision_after(generation: int, last: int, at_s: float) -> int:
    """Return where the next generation begins. Raises InvalidRequest where there is none left."""
    revision = index_of_next(last, at_s)
    if generation >= GENERATION_MAX or revision > NUMBER_MAX // 2:
        raise InvalidRequest(
            f"generation {generation}, revision {last} is so late that nothing can follow: somebody"
            " made it up. If this node's own copy has it: stop the agent, delete consensus.db,"
            " start it, and go on from another copy"
        )
    return revision


def _check_fits(log: StoredState) -> None:
    """Raise InvalidRequest unless a log is one that can be read again: two were put together."""
    try:
        state_at_end(log)
    except InvalidRequest as error:
        raise InvalidRequest(f"what was saved does not fit what is here: {error}") from None


def _write(state: ControlState, note: RecoveryNote, revision: int) -> None:
    """Note how the next generation begins, at its first index."""
    assert revision > state.index, "all revisions of before are smaller"
    assert note.origin, "two recoveries are told apart by it"
    state.keys.put(KeyEntry(RECOVERY_KEY, _ENCODER.encode(note), revision, revision, 1))
