"""What the databases write is told of, and that it is too much, once it is known."""

import asyncio
import logging
from pathlib import Path

import pytest

from agent.cluster.flash_budget import HOUR_S, SETTLED_SAMPLES, FlashBudget
from agent.doctor import agent_checks
from agent.store.database import Database
from agent.store.migrations import Migrations


class Card:
    """A database that writes what it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = 1_000_000  # a start has written some already

    def written_bytes(self) -> int:
        return self.total


class Hours:
    """A clock that goes by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_are_those_of_the_last_hour() -> None:
    data, telemetry, clock = Card("data"), Card("telemetry"), Hours()
    budget = FlashBudget([data, telemetry], 0, clock)
    assert budget.rates() == {"data": 0.0, "telemetry": 0.0}
    for minute in range(180):
        clock.now += 60.0
        data.total += 6_000 if minute < 120 else 600
        budget.sample()
    assert budget.rates() == {"data": 36_000.0, "telemetry": 0.0}
    assert budget.report() == (36_000, 0, False), "without a budget nothing is too much"


def test_it_is_said_once_that_it_is_too_much_and_once_that_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    data, clock = Card("data"), Hours()
    budget = FlashBudget([data, Card("audit")], 100_000, clock)
    exceeded = []
    for minute in range(200):
        clock.now += 60.0
        data.total += 10_000 if minute < 60 else 0
        budget.sample()
        exceeded.append(budget.exceeded)
    assert exceeded.index(True) == SETTLED_SAMPLES - 1
    assert not exceeded[-1]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "most of it data" in told[0]
    assert "100000" in told[0]
    assert "within" in told[1]


def test_the_doctor_warns() -> None:
    data, clock = Card("data"), Hours()
    budget = FlashBudget([data], 1_000, clock)
    assert agent_checks.flash(budget.report()).status == "ok"
    for _ in range(SETTLED_SAMPLES + 1):
        clock.now += HOUR_S / 60
        data.total += 100
        budget.sample()
    found = agent_checks.flash(budget.report())
    assert found.status == "warn"
    assert "6,000 bytes an hour, of 1,000" in found.message


def test_what_a_database_writes_is_counted_by_the_kernel(tmp_path: Path) -> None:
    async def story() -> tuple[int, int]:
        one = await Database.open(tmp_path / "one.db", Migrations("one"))
        other = await Database.open(tmp_path / "other.db", Migrations("other"))
        await one.write(lambda db: db.execute("CREATE TABLE t (x BLOB)"))
        begun, idle = one.written_bytes(), other.written_bytes()
        await one.write(lambda db: db.execute("INSERT INTO t VALUES (?)", (b"x" * 1_000_000,)))
        grown = one.written_bytes() - begun, other.written_bytes() - idle
        await one.close()
        await other.close()
        return grown

    written, by_other = asyncio.run(story())
    # In a file system that lies in memory, nothing is written to a disk; some kernels do not count.
    assert written == 0 or 1_000_000 <= written < 1_200_000
    assert by_other == 0
