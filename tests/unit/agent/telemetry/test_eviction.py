"""What goes when the outbox is full or old, in which order, and that all of it is counted."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.store.database import Database
from agent.telemetry.evicted import BLOCK, EvictedPositions, as_bytes
from agent.telemetry.eviction_rules import EvictionRules, WaitingBounds
from agent.telemetry.outbox import Outbox, OutboxFullError
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.timekeeping import Timekeeper
from tests.support.readings import checked

NODE, BOOT, NOW_NS, HOUR_NS = 0xC0FFEE, 1 << 32, 1_800_000_000_000_000_000, 3600 * 10**9

Scenario = Callable[[Outbox], Awaitable[Any]]
EVERYTHING = EvictionRules(["bulk/*"], ["alarm/*"], ["bulk", "normal", "alarm"])


class Clock:
    """The clocks of a device; ``kept`` is what the kernel says of the wall clock."""

    def __init__(self) -> None:
        self.wall_ns, self.kept = NOW_NS, True

    def keeper(self) -> Timekeeper:
        return Timekeeper(
            lambda: self.wall_ns, lambda: self.wall_ns - NOW_NS + 10**15, 7, lambda: self.kept
        )


def live(
    path: Path,
    scenario: Scenario,
    *,
    boot: int = BOOT,
    bounds: WaitingBounds | None = None,
    rules: EvictionRules = EVERYTHING,
    clock: Clock | None = None,
) -> Any:
    """Run one life of an outbox."""

    async def main() -> Any:
        database = await Database.open(path / "telemetry.db", OUTBOX_MIGRATIONS)
        try:
            keeper = (clock or Clock()).keeper()
            outbox = await Outbox.open(
                database, NODE, boot, bounds=bounds, rules=rules, timekeeper=keeper
            )
            result = await scenario(outbox)
            await outbox.close()
            check_counters(outbox)
        finally:
            await database.close()
        return result

    return asyncio.run(main())


def check_counters(outbox: Outbox) -> None:
    """What was ever accepted is somewhere, and what waits is on disk with its bytes."""
    stats = outbox.stats()
    gone = stats.delivered + sum(stats.dropped.values()) + stats.dead_letters + stats.lost
    assert outbox._last == stats.waiting + gone
    waiting = outbox.batch(10_000)
    assert len(waiting) == stats.waiting
    positions = [each.position for each in waiting]
    rows = outbox._database.read(
        lambda c: c.execute(
            "SELECT position, length(sensor) + length(body) + 24 FROM readings"
        ).fetchall()
    )
    sizes = dict(rows)
    if outbox._passed == outbox._progress.cursor and not outbox._progress.beyond:
        assert stats.waiting_bytes == sum(sizes[each] for each in positions)


async def put(outbox: Outbox, *readings: str) -> None:
    """Accept readings that are told as class and number: b1 n2 a3."""
    names = {"b": "bulk/x", "n": "other", "a": "alarm/x"}
    for each in readings:
        await outbox.accept([checked(names[each[0]], int(each[1:]))])


def waiting(outbox: Outbox) -> str:
    return " ".join(
        f"{each.reading.sensor[0].replace('o', 'n')}{each.reading.value}"
        for each in outbox.batch(10_000)
    )


def test_bulk_goes_before_normal_before_alarms_and_the_oldest_first(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await put(outbox, "a1", "n2", "b3", "n4", "b5", "a6")
        for reading, left in (
            ("n7", "a1 n2 n4 b5 a6 n7"),
            ("a8", "a1 n2 n4 a6 n7 a8"),
            ("n9", "a1 n4 a6 n7 a8 n9"),
            ("a10", "a1 a6 n7 a8 n9 a10"),
            ("a11", "a1 a6 a8 n9 a10 a11"),
            ("a12", "a1 a6 a8 a10 a11 a12"),
            ("a13", "a6 a8 a10 a11 a12 a13"),
        ):
            await put(outbox, reading)
            assert waiting(outbox) == left, reading
        assert outbox.stats().dropped == {"bulk_full": 2, "normal_full": 4, "alarm_full": 1}
        assert outbox.counts["readings_dropped/normal_full"] == 4

    async def again(outbox: Outbox) -> None:
        assert waiting(outbox) == "a6 a8 a10 a11 a12 a13"
        assert outbox.stats().dropped == {"bulk_full": 2, "normal_full": 4, "alarm_full": 1}
        assert outbox.stats().lost == outbox.stats().delivered == 0
        outbox.delivered([each.position for each in outbox.batch(10)])
        assert outbox.stats().delivered == 6

    live(tmp_path, scenario, bounds=WaitingBounds(6))
    live(tmp_path, again, bounds=WaitingBounds(6), boot=2 << 32)


@pytest.mark.parametrize(
    ("drop", "full_of", "comes", "goes"),
    [
        ([], "b", "a", False),
        (["bulk"], "b", "a", True),
        (["bulk"], "b", "b", True),
        (["bulk"], "n", "a", False),
        (["normal"], "b", "a", False),
        (["bulk", "normal", "alarm"], "n", "b", False),
        (["bulk", "normal", "alarm"], "a", "n", False),
        (["bulk", "normal", "alarm"], "a", "a", True),
    ],
)
def test_nothing_goes_that_is_not_named_or_for_what_is_less(
    tmp_path: Path, drop: list[str], full_of: str, comes: str, goes: bool
) -> None:
    async def scenario(outbox: Outbox) -> None:
        await put(outbox, f"{full_of}1", f"{full_of}2")
        if goes:
            await put(outbox, f"{comes}3")
            assert waiting(outbox) == f"{full_of}2 {comes}3"
            return
        with pytest.raises(OutboxFullError):
            await put(outbox, f"{comes}3")
        assert waiting(outbox) == f"{full_of}1 {full_of}2"
        assert outbox.counts["readings_refused/outbox_full"] == 1

    rules = EvictionRules(["bulk/*"], ["alarm/*"], drop)
    live(tmp_path, scenario, bounds=WaitingBounds(2), rules=rules)


def test_nothing_goes_for_what_has_no_room_even_so(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await put(outbox, "a1", "b2", "n3", "a4", "b5", "a6")
        with pytest.raises(OutboxFullError):
            await outbox.accept([checked("other", n) for n in (7, 8, 9, 10)])
        assert waiting(outbox) == "a1 b2 n3 a4 b5 a6"
        await outbox.accept([checked("other", n) for n in (7, 8, 9)])
        assert waiting(outbox) == "a1 a4 a6 n7 n8 n9"

    live(tmp_path, scenario, bounds=WaitingBounds(6))


def test_a_bound_on_bytes(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        for n in range(1, 31):
            await outbox.accept([checked("bulk/x", str(n).ljust(60))])
            assert outbox.stats().waiting_bytes <= 1000
        left = [int(str(each.reading.value)) for each in outbox.batch(100)]
        assert left == list(range(31 - len(left), 31))
        assert 5 < len(left) < 12
        with pytest.raises(OutboxFullError, match="1000 bytes"):
            await outbox.accept([checked("alarm/x", "x" * 1024)])
        assert len(outbox.batch(100)) == len(left), "nothing went for what never fits"
        outbox.delivered([each.position for each in outbox.batch(100)])
        await outbox._save()
        assert outbox.stats().waiting_bytes == 0

    live(tmp_path, scenario, bounds=WaitingBounds(bytes_max=1000))


def test_what_is_in_flight_stays(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox) -> None:
        await put(outbox, "b1", "b2", "b3", "b4")
        outbox.room.is_held = lambda position: position in (1, 2)
        await put(outbox, "b5", "b6")
        assert waiting(outbox) == "b1 b2 b5 b6"
        outbox.delivered([2])
        outbox.room.is_held = lambda _position: False
        await put(outbox, "b7", "b8")
        assert waiting(outbox) == "b5 b6 b7 b8"
        assert outbox.stats().delivered == 1

    live(tmp_path, scenario, bounds=WaitingBounds(4))


def test_an_eviction_that_cannot_be_saved_drops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(outbox: Outbox) -> None:
        await put(outbox, "b1", "b2")
        with monkeypatch.context() as patched:
            patched.setattr("agent.telemetry.eviction_sql.drops", fail)
            with pytest.raises(RuntimeError, match="in the midst of it"):
                await put(outbox, "b3")
        assert waiting(outbox) == "b1 b2"
        assert outbox.stats().dropped == {}
        await put(outbox, "b3")
        assert waiting(outbox) == "b2 b3"

    def fail(_: Any) -> None:
        raise RuntimeError("in the midst of it")

    live(tmp_path, scenario, bounds=WaitingBounds(2))


def test_what_is_too_old_goes_unless_its_class_stays(tmp_path: Path) -> None:
    clock = Clock()

    async def scenario(outbox: Outbox) -> None:
        await put(outbox, "b1", "n2", "a3")
        await outbox.accept([checked("other", 4, "", NOW_NS - 3 * HOUR_NS)])
        clock.wall_ns += HOUR_NS
        await put(outbox, "b5")
        clock.wall_ns += HOUR_NS + 1
        clock.kept = False
        assert await outbox.room.drop_aged(outbox._last) == 0, "nobody keeps the clock"
        clock.kept = True
        clock.wall_ns += 2 * 10**9  # the kernel is asked again
        await put(outbox, "b6")
        assert await outbox.room.drop_aged(outbox._last) == 3
        assert waiting(outbox) == "a3 b5 b6"
        assert outbox.stats().dropped == {"bulk_age": 1, "normal_age": 2}

    rules = EvictionRules(["bulk/*"], ["alarm/*"], ["bulk", "normal"])
    bounds = WaitingBounds(age_max_s=1.5 * 3600)
    live(tmp_path, scenario, rules=rules, bounds=bounds, clock=clock)


def test_a_clock_that_is_set_costs_no_reading(tmp_path: Path) -> None:
    clock = Clock()
    clock.wall_ns = 1000 * 10**9

    async def scenario(outbox: Outbox) -> None:
        await put(outbox, "b1", "b2")
        assert await outbox.room.drop_aged(outbox._last) == 0
        outbox._timekeeper.wall_ns = lambda: NOW_NS  # set, while the steady clock goes on
        assert await outbox.room.drop_aged(outbox._last) == 0
        assert waiting(outbox) == "b1 b2"

    live(tmp_path, scenario, bounds=WaitingBounds(age_max_s=60), clock=clock)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_each_reading_is_counted_once(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    journal: dict[str, set[int]] = {"accepted": set(), "refused": set(), "delivered": set()}
    number = 0

    async def scenario(outbox: Outbox) -> None:
        nonlocal number
        held: list[Any] = []
        outbox.room.is_held = lambda position: position in {each.position for each in held}
        for _ in range(60):
            number += 1
            try:
                await put(outbox, f"{rng.choice('bbna')}{number}")
                journal["accepted"].add(number)
            except OutboxFullError:
                journal["refused"].add(number)
            if rng.random() < 0.3:
                held = rng.sample(found := outbox.batch(10), min(2, len(found)))
            if held and rng.random() < 0.5:
                outbox.delivered([each.position for each in held])
                journal["delivered"] |= {each.reading.value for each in held}
                held = []

    async def drain(outbox: Outbox) -> tuple[set[Any], int, int]:
        stats = outbox.stats()
        return (
            {each.reading.value for each in outbox.batch(1000)},
            sum(stats.dropped.values()),
            stats.delivered,
        )

    bounds = WaitingBounds(12, bytes_max=450)
    for life in range(1, 4):
        live(tmp_path, scenario, bounds=bounds, boot=life << 32)
    left, dropped, delivered = live(tmp_path, drain, bounds=bounds, boot=9 << 32)
    assert left <= journal["accepted"] - journal["delivered"]
    assert delivered == len(journal["delivered"])
    assert dropped == len(journal["accepted"]) - len(left) - delivered > 0


@pytest.mark.parametrize("seed", range(20))
def test_bits_tell_what_a_set_tells(seed: int) -> None:
    rng = random.Random(seed)
    evicted, known = EvictedPositions(), set[int]()
    for _ in range(rng.randrange(1, 6)):
        start = rng.randrange(3 * BLOCK)
        more = set(range(start, start + rng.choice((1, 3, BLOCK, 2 * BLOCK)), rng.choice((1, 2))))
        evicted.take(evicted.with_more(more))
        known |= more
    again = EvictedPositions({n: as_bytes(bits) for n, bits in evicted._blocks.items()})
    for _ in range(50):
        at = rng.randrange(6 * BLOCK)
        assert (at in evicted) == (at in known) == (at in again)
        assert evicted.count_beyond(at) == sum(each > at for each in known)
        end = at + rng.randrange(3 * BLOCK)
        told = [each for first, last in evicted.others_in((at, end)) for each in (first, last)]
        others = [each for each in range(at, end + 1) if each not in known]
        assert told == sorted(told)
        assert sum(b - a + 1 for a, b in evicted.others_in((at, end))) == len(others)
        if at in known:
            run = evicted.end_of_run(at)
            assert all(each in known for each in range(at, run + 1))
            assert run + 1 not in known
    evicted.forget(2 * BLOCK)
    assert all((each in evicted) == (each in known) for each in range(2 * BLOCK, 6 * BLOCK))
