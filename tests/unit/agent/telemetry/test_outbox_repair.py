"""What an outbox does about readings that the disk has changed or lost."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.store.database import Database
from agent.store.ranges import joined, without
from agent.telemetry import outbox_repair
from agent.telemetry.outbox import Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from tests.support.readings import checked

Scenario = Callable[[Outbox], Awaitable[Any]]
COUNT = 10


def live(path: Path, scenario: Scenario, *, boot: int = 1 << 32) -> Any:
    """Run one life of an outbox."""

    async def main() -> Any:
        database = await Database.open(path / "telemetry.db", OUTBOX_MIGRATIONS)
        try:
            outbox = await Outbox.open(database, 0xC0FFEE, boot)
            result = await scenario(outbox)
            await outbox.close()
        finally:
            await database.close()
        return result

    return asyncio.run(main())


async def fill(outbox: Outbox) -> None:
    await outbox.accept([checked("t", n) for n in range(1, COUNT + 1)])


async def run_sql(outbox: Outbox, *statements: str) -> None:
    """Change what is on disk behind the outbox's back."""

    def change(connection: Any) -> None:
        for statement in statements:
            connection.execute(statement)

    await outbox._database.write(change)


def change_unnoted(outbox: Outbox, statement: str) -> None:
    """Change what is on disk as the disk does: no commit, no note of it."""
    thread, writer = outbox._database._thread, outbox._database._writer
    thread.submit(lambda: writer.execute(statement)).result()


async def drain(outbox: Outbox) -> list[Any]:
    found: list[Any] = []
    while outbox.waiting:
        batch = outbox.batch(3)
        found += [each.reading.value for each in batch]
        outbox.delivered([each.position for each in batch])
        await asyncio.sleep(0.001)
    return found


def test_a_changed_reading_is_lost_alone_and_said_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(outbox: Outbox) -> None:
        await fill(outbox)
        await run_sql(
            outbox,
            "UPDATE readings SET body = x'93cb4035800000000000a043c0' WHERE position = 4",
            "UPDATE readings SET sensor = CAST(x'74ff' AS TEXT) WHERE position = 5",
            "UPDATE readings SET time_ns = time_ns + 1 WHERE position = 8",
        )
        assert await drain(outbox) == [1, 2, 3, 6, 7, 9, 10]
        assert outbox.losses() == [(4, 5), (8, 8)]
        stats = outbox.stats()
        assert (stats.delivered, stats.lost, stats.waiting) == (7, 3, 0)
        assert outbox.counts["readings_lost/damaged"] == 3
        assert outbox._database.losses == [], "the file itself is whole"

    async def later(outbox: Outbox) -> None:
        stats = outbox.stats()
        assert (stats.delivered, stats.lost, stats.waiting) == (7, 3, 0)
        assert outbox.losses() == [(4, 5), (8, 8)]

    live(tmp_path, scenario)
    assert "0000000000c0ffee-0000000100000000-4" in caplog.text
    live(tmp_path, later, boot=2 << 32)


def test_missing_readings_are_looked_for_in_the_file_and_then_lost(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await fill(outbox)
        outbox.delivered([1, 6])
        await run_sql(outbox, "DELETE FROM readings WHERE position IN (3, 4, 10)")
        change_unnoted(outbox, "PRAGMA wal_checkpoint(TRUNCATE)")  # no older image is left
        assert await drain(outbox) == [2, 5, 7, 8, 9]
        assert outbox.losses() == [(3, 4), (10, 10)]
        told = outbox._database.losses[0]
        assert "positions 3 to 4 (2)" in told, "the end was deleted by a commit like any other"
        await outbox.accept([checked("t", 11)])
        assert [each.position for each in outbox.batch(5)] == [11], "no position is given twice"

    live(tmp_path, scenario)


def test_what_is_missing_in_the_tables_is_found_in_older_pages(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await fill(outbox)
        await run_sql(outbox, "DELETE FROM readings WHERE position IN (3, 4, 10)")
        assert await drain(outbox) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
        assert outbox.losses() == []

    live(tmp_path, scenario)


def test_a_position_that_the_disk_made_up_is_not_believed(tmp_path: Path) -> None:
    async def first(outbox: Outbox) -> None:
        await fill(outbox)
        change_unnoted(outbox, f"UPDATE readings SET position = {1 << 40} WHERE position = 10")

    async def second(outbox: Outbox) -> None:
        assert outbox.waiting == COUNT - 1
        assert outbox.losses() == [(10, 10)]
        await outbox.accept([checked("t", 11)])
        assert await drain(outbox) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]

    live(tmp_path, first)
    live(tmp_path, second, boot=2 << 32)


@pytest.mark.parametrize("cursor", [0, 3, 1 << 40])
def test_a_cursor_that_the_disk_made_up_loses_nothing(tmp_path: Path, cursor: int) -> None:
    async def first(outbox: Outbox) -> None:
        await fill(outbox)
        outbox.delivered([1, 2, 3, 4])
        await outbox._save()
        change_unnoted(outbox, f"UPDATE progress SET cursor = {cursor}, beyond = x'90'")

    async def second(outbox: Outbox) -> None:
        assert await drain(outbox) == [5, 6, 7, 8, 9, 10]
        assert outbox.losses() == []

    live(tmp_path, first)
    live(tmp_path, second, boot=2 << 32)


def test_readings_from_before_there_were_checksums_are_believed(tmp_path: Path) -> None:
    async def first(outbox: Outbox) -> None:
        await fill(outbox)
        await run_sql(
            outbox,
            "UPDATE readings SET checksum = NULL",
            "UPDATE readings SET body = x'93' WHERE position = 2",
        )

    async def second(outbox: Outbox) -> None:
        assert await drain(outbox) == [1, 3, 4, 5, 6, 7, 8, 9, 10]
        assert outbox.stats().lost == 1

    live(tmp_path, first)
    live(tmp_path, second, boot=2 << 32)


def test_a_damaged_dead_letter_is_left_out(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await fill(outbox)
        await outbox.dead_letter(1, "no")
        await outbox.dead_letter(2, "never")
        await run_sql(outbox, "UPDATE dead_letters SET body = x'ff' WHERE number = 1")
        assert [letter.reason for letter in outbox.dead_letters()] == ["never"]

    live(tmp_path, scenario)


def test_the_list_of_losses_stays_short_and_its_sum_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_repair, "LOSSES_MAX", 2)

    async def scenario(outbox: Outbox) -> None:
        await fill(outbox)
        for position in (2, 4, 6, 8):
            await run_sql(outbox, f"UPDATE readings SET time_ns = 7 WHERE position = {position}")
        assert await drain(outbox) == [1, 3, 5, 7, 9, 10]
        await outbox._save()
        await outbox._save()

    async def later(outbox: Outbox) -> None:
        assert outbox.stats().lost == 4
        assert outbox._database.read(lambda c: c.execute("SELECT * FROM losses").fetchall())[0][
            1:4
        ] == (2, 6, 3)

    live(tmp_path, scenario)
    live(tmp_path, later, boot=2 << 32)


def test_ranges() -> None:
    assert joined([]) == []
    assert joined([(1, 9), (2, 3), (10, 10), (20, 21)]) == [(1, 10), (20, 21)]
    assert without((5, 4), []) == []
    assert without((1, 3), [(0, 9)]) == []
    assert without((1, 9), [(-5, 2), (4, 4), (12, 13)]) == [(3, 3), (5, 9)]
