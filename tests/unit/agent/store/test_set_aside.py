"""A log that was set aside can be gone on with, if it is as it was written, and only then."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.consensus_store import ConsensusStore
from agent.store.control import ControlStore
from agent.store.errors import StorageError
from agent.store.set_aside import read_set_aside, set_aside_logs
from gossip.consensus.configuration import Voter
from gossip.consensus.messages import GENERATION_MAX, Entry, EntryKind
from gossip.consensus.storage import HardState, MemoryLog, StoredState, blank
from gossip.control.commands import Command, Transact, encode_command
from gossip.control.recovery import as_log, note_of, recover_set_aside, state_at_end
from gossip.control.state_machine import ControlState
from gossip.control.transactions import PutKey
from gossip.core.errors import InvalidRequest
from tests.support.control_net import ControlNet

COVEY, NODE = bytes(range(16)), 7
ME = Voter(5, NODE)


def put(key: str) -> bytes:
    return encode_command(Command(Transact((), (PutKey(key, b"v"),))))


def saved_log() -> StoredState:
    """A snapshot, and two entries behind it."""
    net = ControlNet(1)
    net.put(1, "kept", b"1")
    plane = net.planes[1]
    log = as_log(plane.state, 3, 4, (1, plane.part.configuration))
    more = [Entry(log.last_index + n, 4, EntryKind.COMMAND, put(f"more{n}")) for n in (1, 2)]
    return StoredState(log.hard, tuple(more), log.chunks, log.snapshot)


def set_aside(folder: Path, state: StoredState) -> None:
    """Save a log, and start again after a later generation was heard of."""

    async def live() -> None:
        mark = CleanShutdownMark(folder / "running")
        control = await ControlStore.open(folder / "control.db", COVEY, NODE)
        log = await ConsensusStore.open(folder / "consensus.db", mark, control)
        await log.replace(state)
        await log.close()
        await control.give_up_log()
        again = await ConsensusStore.open(folder / "consensus.db", mark, control)
        assert again.take().hard == HardState()
        await again.close()
        await control.close()

    asyncio.run(live())


def test_what_was_set_aside_is_read_and_gone_on_with(tmp_path: Path) -> None:
    state = saved_log()
    set_aside(tmp_path, state)
    (found,) = set_aside_logs(tmp_path / "consensus.db")
    assert found == ("consensus.db.damaged-1", 3, 4, state.last_index)
    aside = read_set_aside(tmp_path / found.file)
    assert state_at_end(aside).snapshot() == state_at_end(state).snapshot()
    # Meanwhile this node follows a generation that somebody made up.
    lie = StoredState(HardState(9, 40), (Entry(10**6, 40, EntryKind.NOTHING),), MemoryLog())
    after = recover_set_aside(lie, aside, ME, 0.0)
    assert after.hard.generation == 10, "whoever follows the lie is told"
    assert after.last_index > 10**6
    again = state_at_end(after)
    assert {each.key for each in again.keys} == {"kept", "more1", "more2", "covey/recovery"}
    note = note_of(again)
    assert note is not None
    assert (note.kind, note.generation, note.origin) == ("recovered", 10, ME.store)
    assert again.snapshot() == ControlState.restore(again.snapshot(), again.index).snapshot()


def test_nothing_can_follow_the_last_generation() -> None:
    lie = StoredState(HardState(GENERATION_MAX, 1), (), MemoryLog())
    with pytest.raises(InvalidRequest, match=r"delete consensus\.db"):
        recover_set_aside(lie, saved_log(), ME, 0.0)
    with pytest.raises(InvalidRequest, match="nothing"):
        recover_set_aside(lie, blank(), ME, 0.0)


@pytest.mark.parametrize("table", ["hard", "log", "chunks", "marks"])
def test_a_log_that_is_not_as_it_was_written_is_not_gone_on_with(
    tmp_path: Path, table: str
) -> None:
    set_aside(tmp_path, saved_log())
    path = tmp_path / "consensus.db.damaged-1"
    with closing(sqlite3.connect(path)) as rows:
        rows.execute(f"UPDATE {table} SET checksum = checksum + 1")
        rows.commit()
    with pytest.raises(StorageError):
        read_set_aside(path)


def test_what_cannot_be_read_is_not_shown(tmp_path: Path) -> None:
    assert set_aside_logs(tmp_path / "consensus.db") == []
    (tmp_path / "consensus.db.damaged-1").write_bytes(b"no database at all, but long enough")
    (tmp_path / "data.db.damaged-1").write_bytes(b"another one")
    assert set_aside_logs(tmp_path / "consensus.db") == []
