"""By which a start knows that the last run may have lost what it had acknowledged."""

import asyncio
from pathlib import Path

import pytest

from agent.keeping import Keeper
from agent.store.control import ControlStore
from agent.store.records import RecordStore, doubt_if_gone
from agent.store.run_mark import RunMark
from gossip.ids import BOOT_RANDOM_BITS
from gossip.membership.beliefs import IdentityOutrun
from gossip.state.limits import PARTITIONS
from gossip.state.storage import DAMAGED, ClockChange, HoldingChange

HELD = [HoldingChange(partition, 7) for partition in range(3)]
CLOCK = ClockChange(1, 99, ((1, 5),))


@pytest.fixture
def mark(tmp_path: Path) -> RunMark:
    return RunMark(tmp_path / "running")


def another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.store.run_mark.running_kernel", lambda: b"another boot")


def started(folder: Path, mark: RunMark, *changes: object) -> dict[int, int]:
    """Run a store from its start to its orderly end; return what it held at the start."""

    async def life() -> dict[int, int]:
        store = await RecordStore.open(folder / "data.db")
        await store.believe(mark)
        held = store.holdings()
        assert store.clock(1) in ((), ((99, ((1, 5),)),)), "the clocks stay"
        await store.save(changes)
        await store.close()
        return held

    return asyncio.run(life())


def test_a_process_that_was_killed_has_lost_nothing(mark: RunMark) -> None:
    assert not mark.is_bad
    mark.begin()
    assert not mark.is_bad, "the kernel is the same"


def test_a_power_cut_is_noticed_and_an_orderly_end_is_none(
    mark: RunMark, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark.begin()
    mark.end()
    another_kernel(monkeypatch)
    assert not mark.is_bad
    mark.begin()
    monkeypatch.undo()
    assert mark.is_bad
    mark.end()
    assert mark.is_bad, "nothing was compared since"


def test_doubt_outlives_an_orderly_end(mark: RunMark) -> None:
    mark.begin()
    mark.doubt()
    mark.end()
    assert mark.is_bad


def test_a_mark_that_cannot_be_read_is_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "running").mkdir()
    assert RunMark(tmp_path / "running").is_bad


def test_copies_are_doubted_after_a_power_cut_and_their_clocks_kept(
    tmp_path: Path, mark: RunMark, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started(tmp_path, mark, *HELD, CLOCK) == {}
    assert started(tmp_path, mark) == {0: 7, 1: 7, 2: 7}
    another_kernel(monkeypatch)
    assert set(started(tmp_path, mark).values()) == {DAMAGED}
    assert set(started(tmp_path, mark).values()) == {DAMAGED}, "until they were compared"


def test_who_was_outrun_doubts_what_it_has(tmp_path: Path, mark: RunMark) -> None:
    async def story() -> None:
        store = await ControlStore.open(tmp_path / "control.db", bytes(16), 7)
        keeper = Keeper(store, mark, lambda: False)
        mark.begin()
        keeper.note(IdentityOutrun(41 << BOOT_RANDOM_BITS))
        await keeper.finish()
        assert mark.is_bad
        assert await store.count_start() == 42
        await store.close()

    asyncio.run(story())


def test_a_file_that_was_taken_away_is_not_taken_for_one_that_never_had_anything(
    tmp_path: Path, mark: RunMark
) -> None:
    def start(starts: int) -> dict[int, int]:
        asyncio.run(doubt_if_gone(tmp_path / "data.db", mark, starts))
        return started(tmp_path, mark, *HELD)

    assert start(1) == {}, "the first start has lost nothing"
    mark.end()
    for path in tmp_path.glob("data.db*"):
        path.unlink()
    asyncio.run(doubt_if_gone(tmp_path / "data.db", mark, 2))
    (tmp_path / "data.db").touch()
    mark.end()
    assert mark.is_bad, "also when that start was cut off behind the making of the file"
    assert set(start(3).values()) == {DAMAGED}
    mark.end()
    assert start(4) == dict.fromkeys(range(3), 7) | dict.fromkeys(range(3, PARTITIONS), DAMAGED)
