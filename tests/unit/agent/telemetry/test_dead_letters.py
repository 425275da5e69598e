"""Dead letters: back into the outbox under their ids, out of it for good, and all of it counted."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.store.database import Database
from agent.telemetry import dead_letter_sql, dead_letters
from agent.telemetry.dead_letter_sql import LetterBounds, LetterTotals
from agent.telemetry.dead_letters import ALL, Choice, MoveResult
from agent.telemetry.outbox import Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.timekeeping import Timekeeper
from tests.support.readings import checked

NODE, BOOT, NOW_NS = 0xC0FFEE, 1 << 32, 1_700_000_000_000_000_000
PREFIX = "0000000000c0ffee-0000000100000000-"

Scenario = Callable[[Outbox], Awaitable[Any]]


def live(path: Path, scenario: Scenario, *, boot: int = BOOT, **options: Any) -> Any:
    """Run one life of an outbox, and hold its counters against each other at the end."""

    async def main() -> Any:
        database = await Database.open(path / "telemetry.db", OUTBOX_MIGRATIONS)
        try:
            timekeeper = Timekeeper(lambda: NOW_NS)
            outbox = await Outbox.open(database, NODE, boot, timekeeper=timekeeper, **options)
            before = outbox.stats().letters
            result = await scenario(outbox)
            await outbox.close()
            check_counters(outbox, before)
        finally:
            await database.close()
        return result

    return asyncio.run(main())


def check_counters(outbox: Outbox, before: LetterTotals) -> None:
    """Every letter is held or has left in one way; what is counted here is what changed."""
    now = outbox.stats().letters
    here = outbox._database.read(
        lambda c: c.execute("SELECT count(*) FROM dead_letters").fetchone()
    )
    assert here == (now.held,)
    assert now.buried == now.held + now.replayed + now.dropped + now.forgotten + now.damaged
    for kind in ("buried", "replayed", "dropped", "forgotten", "damaged"):
        counted = outbox.counts[f"dead_letters/{kind}"]
        assert counted == getattr(now, kind) - getattr(before, kind), kind


async def fill(outbox: Outbox, *dead: int, count: int = 6, reason: str = "no") -> None:
    """Accept readings 1 to ``count`` of sensors a and b by turns, and give some up."""
    await outbox.accept([checked("ab"[n % 2], n) for n in range(1, count + 1)])
    for position in dead:
        await outbox.dead_letter(position, reason)


def waiting(outbox: Outbox) -> list[tuple[str, Any]]:
    return [(each.id.removeprefix(PREFIX), each.reading.value) for each in outbox.batch(1000)]


async def values(outbox: Outbox, choice: Choice = ALL, limit: int = 1000) -> list[Any]:
    return [letter.reading.value for letter in await outbox.list_letters(choice, limit)]


def test_a_replayed_reading_waits_behind_all_others_under_its_id(tmp_path: Path) -> None:
    async def first(outbox: Outbox) -> None:
        await fill(outbox, 2, 3)
        assert await outbox.replay(ALL) == MoveResult(2, 0, 0)
        assert waiting(outbox) == [("1", 1), ("4", 4), ("5", 5), ("6", 6), ("2", 2), ("3", 3)]
        assert await values(outbox) == []
        receipt = await outbox.accept([checked("a", 7)])
        assert receipt.first == f"{PREFIX}7", "ids have no gap for what was replayed"
        outbox.delivered([1, 4, 5, 6, 7])

    async def second(outbox: Outbox) -> None:
        assert waiting(outbox) == [("3", 3), ("7", 7)]
        assert [each.id.removeprefix(PREFIX) for each in await outbox.recent()][-3:] == [
            "2", "3", "7",
        ]  # fmt: skip
        stats = outbox.stats()
        assert (stats.delivered, stats.dead_letters, stats.waiting, stats.lost) == (5, 2, 2, 0)

    live(tmp_path, first)
    live(tmp_path, second, boot=2 << 32)


def test_what_is_refused_again_dies_again_under_its_id(tmp_path: Path) -> None:
    async def first(outbox: Outbox) -> None:
        await fill(outbox, 2)
        await outbox.replay(ALL)
        await outbox.dead_letter(7, "still no")
        (letter,) = outbox.dead_letters()
        assert (letter.id, letter.reading.value, letter.reason) == (f"{PREFIX}2", 2, "still no")
        await outbox.replay(ALL)

    async def second(outbox: Outbox) -> None:
        assert waiting(outbox)[-1] == ("2", 2)
        assert outbox.stats().letters == LetterTotals(buried=2, replayed=2)

    live(tmp_path, first)
    live(tmp_path, second, boot=2 << 32)


def test_a_replay_keeps_the_time_and_the_doubt_about_it(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await outbox.accept([checked("t", 1, "C", 77, {"room": "attic"}), checked("t", 2)])
        before = outbox.batch(2)
        await outbox.dead_letter(1, "no")
        await outbox.dead_letter(2, "no")
        await outbox.replay(ALL)
        after = outbox.batch(2)
        for old, new in zip(before, after, strict=True):
            assert (old.id, old.reading, old.clock) == (new.id, new.reading, new.clock)

    live(tmp_path, scenario)


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (ALL, [1, 2, 3, 4]),
        (Choice(sensor="a"), [2, 4]),
        (Choice(reason="*large*"), [1, 2]),
        (Choice(sensor="b", reason="*large*"), [1]),
        (Choice(ids=frozenset({f"{PREFIX}1", f"{PREFIX}4", "another"})), [1, 4]),
        (Choice(ids=frozenset({f"{PREFIX}1"}), sensor="a"), []),
        (Choice(sensor="A"), []),
    ],
)
def test_letters_are_chosen_by_id_sensor_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: Choice, meant: list[int]
) -> None:
    monkeypatch.setattr(dead_letters, "AT_ONCE", 2)

    async def scenario(outbox: Outbox) -> None:
        await fill(outbox, 1, 2, reason="too large for it")
        await outbox.dead_letter(3, "no")
        await outbox.dead_letter(4, "no")
        assert await values(outbox, choice) == meant
        assert await values(outbox, choice, limit=1) == meant[-1:]
        others = [value for value in (1, 2, 3, 4) if value not in meant]
        assert await outbox.drop_letters(choice) == MoveResult(len(meant), 0, 0)
        assert await values(outbox) == others
        assert await outbox.replay(choice) == MoveResult(0, 0, 0)
        assert outbox.waiting == 2

    live(tmp_path, scenario)


def test_no_more_are_replayed_than_may_wait(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await fill(outbox, 1, 2, 3)
        await outbox.accept([checked("t", 7), checked("t", 8)])
        assert await outbox.replay(ALL) == MoveResult(1, 0, 2)
        assert [value for _, value in waiting(outbox)] == [4, 5, 6, 7, 8, 1]
        assert await values(outbox) == [2, 3]

    live(tmp_path, scenario, waiting_max=6)


def test_no_more_are_kept_than_may_be(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await fill(outbox, 1, 2, 3, 4, 5)
        assert await values(outbox) == [4, 5]
        assert outbox.stats().letters.forgotten == 3

    live(tmp_path, scenario, letter_bounds=LetterBounds(2))


def test_no_more_bytes_are_kept_than_may_be_and_the_newest_always(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        for n, size in enumerate((400, 400, 400, 900), 1):
            await outbox.accept([checked("t", str(n) * size)])
            await outbox.dead_letter(n, "no")
            held = outbox.stats().letters
            assert held.held == 1 or held.held_bytes <= 1000
            if n == 3:
                assert [value[0] for value in await values(outbox)] == ["2", "3"]
        assert [value[0] for value in await values(outbox)] == ["4"]
        await outbox.accept([checked("t", "5" * 1024)])
        await outbox.dead_letter(5, "no")
        assert [value[0] for value in await values(outbox)] == ["5"]

    live(tmp_path, scenario, letter_bounds=LetterBounds(bytes_max=1000))


def test_what_dies_during_a_replay_is_not_replayed_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "AT_ONCE", 1)
    monkeypatch.setattr("agent.telemetry.outbox.AT_ONCE", 1)

    async def scenario(outbox: Outbox) -> None:
        await fill(outbox, 1, 2)

        def bury(first: int, _: Any) -> None:
            deaths.append(asyncio.create_task(outbox.dead_letter(first, "again")))

        deaths: list[asyncio.Task[None]] = []
        stop = outbox.subscribe(bury)
        async with asyncio.timeout(60):
            assert await outbox.replay(ALL) == MoveResult(2, 0, 0)
        await asyncio.gather(*deaths)
        stop()
        assert await values(outbox) == [1, 2]

    live(tmp_path, scenario)


def test_readings_that_come_during_a_replay_get_ids_without_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.telemetry.outbox.AT_ONCE", 1)

    async def scenario(outbox: Outbox) -> None:
        await fill(outbox, *range(1, 7))
        accepts = [outbox.accept([checked("t", 100 + n)]) for n in range(20)]
        moved, receipts = await asyncio.gather(outbox.replay(ALL), asyncio.gather(*accepts))
        assert moved == MoveResult(6, 0, 0)
        ids = [int(receipt.first.removeprefix(PREFIX)) for receipt in receipts]
        assert sorted(ids) == list(range(7, 27))
        told = dict(waiting(outbox))
        for n, number in enumerate(ids):
            assert told[str(number)] == 100 + n
        assert sorted(value for value in told.values() if value < 100) == [1, 2, 3, 4, 5, 6]

    live(tmp_path, scenario)


def test_a_damaged_letter_is_not_replayed_and_counted(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await fill(outbox, 1, 2)
        await outbox._database.write(
            lambda c: c.execute("UPDATE dead_letters SET sensor = 'x' WHERE number = 1")
        )
        assert await outbox.replay(ALL) == MoveResult(1, 1, 0)
        assert outbox.stats().letters == LetterTotals(buried=2, replayed=1, damaged=1)

    live(tmp_path, scenario)


def test_letters_that_the_disk_lost_between_two_lives_are_counted(tmp_path: Path) -> None:
    async def first(outbox: Outbox) -> None:
        await fill(outbox, 1, 2, 3)
        await outbox.drop_letters(Choice(ids=frozenset({f"{PREFIX}3"})))

    async def damage() -> None:
        database = await Database.open(tmp_path / "telemetry.db", OUTBOX_MIGRATIONS)
        await database.write(lambda c: c.execute("DELETE FROM dead_letters WHERE number = 1"))
        await database.close()

    async def second(outbox: Outbox) -> None:
        letters = outbox.stats().letters
        assert (letters.buried, letters.held, letters.dropped, letters.damaged) == (3, 1, 1, 1)
        (letter,) = outbox.dead_letters()
        told = len(f"{letter.id}{letter.reading.sensor}{letter.reason}")
        assert told < letters.held_bytes < told + 64, "and the body"

    live(tmp_path, first)
    asyncio.run(damage())
    live(tmp_path, second, boot=2 << 32)


def test_a_file_of_before_has_its_letters_counted(tmp_path: Path) -> None:
    """As it was when nobody had sent any letter again: the newest number is how many died."""

    async def first(outbox: Outbox) -> None:
        await fill(outbox, 1, 2, 3)

    async def take_back() -> None:
        database = await Database.open(tmp_path / "telemetry.db", OUTBOX_MIGRATIONS)

        def change(c: Any) -> None:
            c.execute("DELETE FROM dead_letters WHERE number = 1")  # as beyond 10,000 of them
            c.execute("DROP TABLE letter_totals")
            c.execute("DELETE FROM _sqlite_migrations WHERE name = 'replayed_letters'")
            c.execute("ALTER TABLE boots DROP COLUMN first_sequence")

        await database.write(change)
        await database.close()

    async def second(outbox: Outbox) -> None:
        letters = outbox.stats().letters
        assert (letters.buried, letters.held, letters.forgotten, letters.damaged) == (3, 2, 1, 0)
        assert await outbox.replay(ALL) == MoveResult(2, 0, 0)
        assert waiting(outbox) == [("4", 4), ("5", 5), ("6", 6), ("2", 2), ("3", 3)]

    live(tmp_path, first)
    asyncio.run(take_back())
    live(tmp_path, second, boot=2 << 32)


def test_a_replay_that_cannot_be_saved_leaves_the_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(outbox: Outbox) -> None:
        await fill(outbox, 1)
        with monkeypatch.context() as patched:
            patched.setattr(dead_letter_sql, "_without", fail)
            with pytest.raises(RuntimeError, match="in the midst of it"):
                await outbox.replay(ALL)
        assert await values(outbox) == [1]
        assert [value for _, value in waiting(outbox)] == [2, 3, 4, 5, 6]
        assert await outbox.replay(ALL) == MoveResult(1, 0, 0)
        assert waiting(outbox)[-1] == ("1", 1)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("in the midst of it")

    live(tmp_path, scenario)
