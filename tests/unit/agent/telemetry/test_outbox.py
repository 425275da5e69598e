"""The outbox: what acceptance promises, over restarts, refusals, dead letters and pruning."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.exits import UNHEALTHY
from agent.store import opening, salvage, vacuum
from agent.store.database import Database
from agent.store.errors import StorageError
from agent.telemetry import outbox_sql
from agent.telemetry.outbox import Outbox, OutboxFullError
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.timekeeping import Timekeeper
from edge_apps.reading import BadReading, Checked
from tests.support.readings import checked

NODE = 0xC0FFEE
NOW_NS = 1_700_000_000_000_000_000

Scenario = Callable[[Outbox], Awaitable[Any]]


def live(path: Path, scenario: Scenario, *, boot: int = 1 << 32, **options: Any) -> Any:
    """Run one life of an outbox."""

    async def main() -> Any:
        database = await Database.open(path / "telemetry.db", OUTBOX_MIGRATIONS)
        try:
            outbox = await Outbox.open(
                database, NODE, boot, timekeeper=Timekeeper(lambda: NOW_NS), **options
            )
            result = await scenario(outbox)
            await outbox.close()
        finally:
            await database.close()
        return result

    return asyncio.run(main())


def readings(*values: Any, sensor: str = "t") -> list[Checked]:
    return [checked(sensor, value) for value in values]


def values(outbox: Outbox, limit: int = 1000, after: int = 0) -> list[Any]:
    return [accepted.reading.value for accepted in outbox.batch(limit, after)]


def test_accepted_readings_come_out_as_they_went_in(tmp_path: Path) -> None:
    drafts = [
        checked("a/b", 21.5, "C", 7, {"room": "attic"}),
        checked("n", 3),
        checked("up", value=True),
        checked("s", "text"),
        checked("zero", 0.0),
    ]

    async def scenario(outbox: Outbox) -> None:
        await outbox.accept(drafts)
        out = [accepted.reading for accepted in outbox.batch(10)]
        assert out[0] == drafts[0]
        assert [type(r.value) for r in out] == [float, int, bool, str, float]
        assert [r.time_ns for r in out] == [7, NOW_NS, NOW_NS, NOW_NS, NOW_NS]

    live(tmp_path, scenario)


def test_ids_name_node_boot_and_sequence(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> Any:
        first = await outbox.accept(readings(1, 2))
        second = await outbox.accept(readings(3))
        assert (first.count, second.count) == (2, 1)
        return first.first, first.last, second.first

    prefix = "0000000000c0ffee-0000000100000000-"
    assert live(tmp_path, scenario) == (f"{prefix}1", f"{prefix}2", f"{prefix}3")
    prefix = "0000000000c0ffee-0000000200000009-"
    assert live(tmp_path, scenario, boot=(2 << 32) + 9) == (
        f"{prefix}1",
        f"{prefix}2",
        f"{prefix}3",
    )


def test_earlier_lives_come_first_and_keep_their_ids(tmp_path: Path) -> None:
    async def first(outbox: Outbox) -> Any:
        await outbox.accept(readings(1, 2, 3))
        outbox.delivered([1])
        return [accepted.id for accepted in outbox.batch(10)]

    async def nothing(outbox: Outbox) -> None:
        assert outbox.waiting == 2

    async def third(outbox: Outbox) -> Any:
        await outbox.accept(readings(4))
        assert values(outbox) == [2, 3, 4]
        return [accepted.id for accepted in outbox.batch(10)]

    before = live(tmp_path, first, boot=1 << 32)
    live(tmp_path, nothing, boot=2 << 32)
    after = live(tmp_path, third, boot=3 << 32)
    assert after[:2] == before
    assert after[2].endswith("-0000000300000000-1")


def test_positions_are_not_reused_when_everything_was_delivered_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_sql, "PRUNE_BATCH", 1)

    async def first(outbox: Outbox) -> None:
        await outbox.accept(readings(1, 2, 3))
        outbox.delivered([1, 2, 3])

    async def second(outbox: Outbox) -> None:
        assert await outbox.recent() == []
        await outbox.accept(readings(4))
        assert [accepted.position for accepted in outbox.batch(10)] == [4]
        assert outbox.batch(10)[0].id.endswith("-0000000200000000-1")

    live(tmp_path, first, keep_delivered=0)
    live(tmp_path, second, boot=2 << 32, keep_delivered=0)


def test_concurrent_accepts_share_a_commit_and_keep_call_order(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        receipts = await asyncio.gather(*(outbox.accept(readings(n)) for n in range(50)))
        assert values(outbox) == list(range(50))
        assert [int(r.first.rsplit("-", 1)[1]) for r in receipts] == list(range(1, 51))
        database = outbox._database
        assert database.counts["database_transactions/committed"] <= 10, "not one for each"

    live(tmp_path, scenario)


def test_out_of_order_acknowledgements(tmp_path: Path) -> None:
    async def first(outbox: Outbox) -> None:
        await outbox.accept(readings(1, 2, 3, 4, 5))
        outbox.delivered([2, 4])
        outbox.delivered([4])
        assert values(outbox) == [1, 3, 5]
        assert values(outbox, after=3) == [5]
        assert values(outbox, limit=2) == [1, 3]
        assert outbox.waiting == 3

    async def second(outbox: Outbox) -> None:
        assert values(outbox) == [1, 3, 5]
        outbox.delivered([1])
        assert outbox._progress.cursor == 2
        outbox.delivered([5, 3])
        assert outbox.waiting == 0
        assert outbox.stats().delivered == 5

    live(tmp_path, first)
    live(tmp_path, second, boot=2 << 32)


def test_a_full_outbox_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await outbox.accept(readings(1, 2, 3))
        with pytest.raises(OutboxFullError, match="3 readings wait, 4 may") as caught:
            await outbox.accept(readings(4, 5))
        assert caught.value.status == UNHEALTHY
        assert outbox.counts["readings_refused/outbox_full"] == 2
        with pytest.raises(OutboxFullError, match="more than an outbox of at most 4 readings ever"):
            await outbox.accept(readings(4, 5, 6, 7, 8))
        await outbox.accept(readings(4))
        assert values(outbox) == [1, 2, 3, 4]
        outbox.delivered([1])
        await outbox.accept(readings(5))

    live(tmp_path, scenario, waiting_max=4)


def test_accepts_that_are_under_way_count_against_the_limit(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        outcomes = await asyncio.gather(
            *(outbox.accept(readings(n)) for n in range(5)), return_exceptions=True
        )
        assert sum(isinstance(o, OutboxFullError) for o in outcomes) == 2
        assert outbox.waiting == 3

    live(tmp_path, scenario, waiting_max=3)


def test_nothing_is_nothing_to_accept(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        with pytest.raises(BadReading, match="at least one"):
            await outbox.accept([])
        assert outbox.waiting == 0

    live(tmp_path, scenario)


def test_a_caller_that_gives_up_does_not_lose_the_count(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        task = asyncio.create_task(outbox.accept(readings(1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await outbox.accept(readings(2))
        assert outbox.waiting == 2
        assert outbox.counts["readings/accepted"] == 2

    live(tmp_path, scenario)


def test_what_comes_while_others_are_written_shares_the_next_write(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        counts = outbox._database.counts
        writes = counts["database_writes/done"]
        tasks = [asyncio.ensure_future(outbox.accept(readings(n, -n))) for n in range(50)]
        receipts = await asyncio.gather(*tasks)
        assert counts["database_writes/done"] - writes <= 2
        assert values(outbox) == [value for n in range(50) for value in (n, -n)]
        firsts = [outbox.id_of(2 * n + 1) for n in range(50)]
        assert [receipt.first for receipt in receipts] == firsts

    live(tmp_path, scenario)


def test_who_shares_a_write_that_fails_is_told_and_nothing_stays_counted(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        write = outbox._database.write
        await write(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone())
        texts = readings(*("x" * 1000 for _ in range(100)))
        outcomes = await asyncio.gather(
            *(outbox.accept(texts) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(outcome, StorageError) for outcome in outcomes)
        await write(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
        await outbox.accept(readings(*range(300)))  # there is room for as many as before

    live(tmp_path, scenario, waiting_max=300)


def test_closing_waits_for_what_was_handed_in(tmp_path: Path) -> None:
    async def first(outbox: Outbox) -> None:
        task = asyncio.create_task(outbox.accept(readings(1)))
        await asyncio.sleep(0)
        task.cancel()

    async def second(outbox: Outbox) -> None:
        assert values(outbox) == [1]

    live(tmp_path, first)
    live(tmp_path, second, boot=2 << 32)


def test_a_full_disk_refuses_and_the_outbox_goes_on(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await outbox.accept(readings(1))
        write = outbox._database.write
        await write(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone())
        with pytest.raises(StorageError, match="disk is full"):
            await outbox.accept(readings(*("x" * 1000 for _ in range(100))))
        await write(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
        await outbox.accept(readings(2))
        assert values(outbox) == [1, 2]
        assert outbox.waiting == 2

    live(tmp_path, scenario)


def test_dead_letters_keep_the_reading_the_reason_and_the_id(tmp_path: Path) -> None:
    async def first(outbox: Outbox) -> Any:
        await outbox.accept(readings(1, 2, 3))
        await outbox.dead_letter(2, "too large")
        await outbox.dead_letter(2, "again")
        assert values(outbox) == [1, 3]
        outbox.delivered([1, 3])
        return outbox.id_of(2)

    async def second(outbox: Outbox) -> Any:
        (letter,) = outbox.dead_letters()
        assert (letter.reading.value, letter.reason) == (2, "too large")
        assert letter.buried_at_ns == NOW_NS
        stats = outbox.stats()
        assert (stats.delivered, stats.dead_letters, stats.waiting) == (2, 1, 0)
        return letter.id

    assert live(tmp_path, first) == live(tmp_path, second, boot=2 << 32)


def test_a_burial_that_cannot_be_saved_leaves_the_reading_waiting(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await outbox.accept(readings(1))
        write = outbox._database.write
        await write(lambda c: c.execute("DROP TABLE dead_letters"))
        with pytest.raises(Exception, match="no such table"):
            await outbox.dead_letter(1, "no")
        assert values(outbox) == [1]
        assert outbox.counts["dead_letters/buried"] == 0

    live(tmp_path, scenario)


def test_delivered_readings_are_deleted_in_batches_down_to_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_sql, "PRUNE_BATCH", 10)
    monkeypatch.setattr(outbox_sql, "PRUNE_BATCH_MAX", 20)

    async def scenario(outbox: Outbox) -> None:
        await outbox.accept(readings(*range(100)))
        outbox.delivered(range(1, 91))

    async def later(outbox: Outbox) -> None:
        kept = [accepted.reading.value for accepted in await outbox.recent(limit=1000)]
        assert kept == list(range(80, 100))  # 5, and less than a batch of 10
        assert values(outbox) == list(range(90, 100))

    live(tmp_path, scenario, keep_delivered=5)
    live(tmp_path, later, boot=2 << 32, keep_delivered=5)


def test_a_drained_outbox_gives_its_space_back_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum, "FREE_PAGES_KEPT", 20)
    monkeypatch.setattr(vacuum, "STEP_PAGES", 30)
    monkeypatch.setattr(outbox_sql, "PRUNE_BATCH", 10)
    path = tmp_path / "telemetry.db"

    async def scenario(outbox: Outbox) -> int:
        await outbox.accept(readings(*("x" * 1000 for _ in range(1000))))
        await outbox._database.write(lambda _: None)
        before = outbox._database.read(pages)
        outbox.delivered(range(1, 991))
        return before

    async def later(outbox: Outbox) -> int:
        assert len(values(outbox)) == 10
        return outbox._database.read(pages)

    def pages(connection: Any) -> int:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])

    assert live(tmp_path, scenario, keep_delivered=0) > 250
    assert live(tmp_path, later, boot=2 << 32, keep_delivered=0) < 60
    assert path.stat().st_size < 60 * 4096


def test_a_file_of_an_earlier_version_gives_its_space_back_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "prepare", lambda _connection: None)
    monkeypatch.setattr(opening, "prepare", lambda _connection: None)
    monkeypatch.setattr(outbox_sql, "PRUNE_BATCH", 10)

    async def scenario(outbox: Outbox) -> None:
        await outbox.accept(readings(*("x" * 1000 for _ in range(1000))))
        outbox.delivered(range(1, 991))

    async def later(outbox: Outbox) -> None:
        assert len(values(outbox)) == 10

    live(tmp_path, scenario, keep_delivered=0)
    assert (tmp_path / "telemetry.db").stat().st_size > 250 * 4096
    monkeypatch.setattr(vacuum, "FREE_PAGES_KEPT", 20)
    live(tmp_path, later, boot=2 << 32)
    assert (tmp_path / "telemetry.db").stat().st_size < 60 * 4096


def test_recent_takes_globs_and_returns_oldest_first(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await outbox.accept(readings(1, 2, 3, sensor="a/x") + readings(4, sensor="b/x"))
        outbox.delivered([1, 2])
        assert [a.reading.value for a in await outbox.recent("a/*")] == [1, 2, 3]
        assert [a.reading.value for a in await outbox.recent("*x", 2)] == [3, 4]
        assert [a.reading.value for a in await outbox.recent("[!a]*")] == [4]

    live(tmp_path, scenario)


def test_listeners_hear_of_commits_until_they_stop(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []

    async def scenario(outbox: Outbox) -> None:
        stop = outbox.subscribe(lambda first, accepted: heard.append((first, len(accepted))))
        await outbox.accept(readings(1, 2))
        await outbox.accept(readings(3))
        stop()
        await outbox.accept(readings(4))

    live(tmp_path, scenario)
    assert heard == [(1, 2), (3, 1)]


def test_progress_is_saved_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.telemetry.outbox.SAVE_DELAY_S", 0.01)

    async def scenario(outbox: Outbox) -> None:
        await outbox.accept(readings(1, 2))
        outbox.delivered([1, 2])
        assert outbox._saver is not None
        await outbox._saver
        assert outbox._database.read(outbox_sql.progress).cursor == 2

    live(tmp_path, scenario)


def test_a_failed_save_is_counted_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agent.telemetry.outbox.SAVE_DELAY_S", 0.0)
    monkeypatch.setattr("agent.telemetry.outbox.SAVE_RETRY_S", 0.0)

    async def scenario(outbox: Outbox) -> None:
        await outbox.accept(readings(1))
        whole, calls = outbox._database.write, [0]

        async def fail_thrice(fn: Any) -> Any:
            calls[0] += 1
            if calls[0] <= 3:
                raise StorageError("full")
            return await whole(fn)

        monkeypatch.setattr(outbox._database, "write", fail_thrice)
        outbox.delivered([1])
        assert outbox._saver is not None
        await outbox._saver
        assert outbox.counts["progress_saves/failed"] == 3
        assert caplog.text.count("its progress is not saved") == 1
        assert outbox._database.read(outbox_sql.progress).cursor == 1

    live(tmp_path, scenario)
