"""The audit log: what is in it, in which order, how much, and what becomes of it."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from agent.access import audit, audit_retention
from agent.access.audit import AuditEntry, AuditLog
from agent.store.errors import StorageError
from tests.support.patience import GIVE_UP_S


def told(entries: list[AuditEntry]) -> list[str]:
    return [entry.action for entry in entries]


def test_entries_outlive_the_agent_and_their_numbers_go_on(tmp_path: Path) -> None:
    async def life(action: str) -> list[AuditEntry]:
        log = AuditLog()
        log.change("uid 0", "here", f"{action} before", "ok")  # before there is a file
        await log.open(tmp_path / "audit.db")
        log.change("uid 0", "here", action, "ok", "detail")
        found = await log.entries()
        await log.close()
        return found

    assert told(asyncio.run(life("one"))) == ["one before", "one"]
    found = asyncio.run(life("two"))
    assert told(found) == ["one before", "one", "two before", "two"]
    assert [entry.number for entry in found] == [1, 2, 3, 4]
    assert found[1][1:7] == ("uid 0", "here", "one", "ok", "detail", 1)


def test_both_kinds_are_bounded_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is refused without end pushes no change out."""
    monkeypatch.setattr(audit_retention, "CHANGES_MAX", 5)
    monkeypatch.setattr(audit_retention, "REFUSALS_MAX", 3)
    attempts = audit_retention.TRIM_EVERY * 2

    async def life() -> list[AuditEntry]:
        log = AuditLog()
        await log.open(tmp_path / "audit.db")
        for number in range(7):
            log.change("uid 0", "here", f"change {number}", "ok")
        for number in range(attempts):
            log.refusal("nobody", "10.0.0.1", f"attempt {number}", "no_token", 1)
            if number % 8 == 0:
                await log.entries()  # in several transactions
        found = await log.entries(limit=1000)
        await log.close()
        return found

    found = asyncio.run(life())
    changes = [entry for entry in found if not entry.is_refusal]
    assert told(changes) == [f"change {number}" for number in range(2, 7)]
    assert len(found) - len(changes) <= 3 + audit_retention.TRIM_EVERY
    assert told(found)[-1] == f"attempt {attempts - 1}"


def test_long_details_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_retention, "DETAILS_CHARACTERS_MAX", 1_000)

    async def life() -> list[AuditEntry]:
        log = AuditLog()
        await log.open(tmp_path / "audit.db")
        for number in range(audit_retention.TRIM_EVERY):
            log.change("uid 0", "here", f"change {number}", "ok", "x" * 300)
        found = await log.entries(limit=1000)
        await log.close()
        return found

    last = audit_retention.TRIM_EVERY
    assert told(asyncio.run(life())) == [f"change {number}" for number in range(last - 3, last)]


def test_what_cannot_be_written_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "WAITING_MAX", 3)

    async def refuse(_write: object) -> None:
        raise StorageError("the disk is full")

    async def life() -> None:
        log = AuditLog()
        for number in range(5):
            log.change("uid 0", "here", f"early {number}", "ok")
        assert log.counts["audit_entries/lost"] == 2
        database = await log.open(tmp_path / "audit.db")
        assert told(await log.entries()) == ["early 2", "early 3", "early 4"]
        assert log.counts["audit_entries/written"] == 3
        monkeypatch.setattr(database, "write", refuse)
        log.change("uid 0", "here", "late", "ok")
        assert len(await log.entries()) == 3
        assert log.counts["audit_entries/lost"] == 3
        await log.close()

    asyncio.run(life())


def test_changes_that_come_in_a_row_share_a_transaction_and_a_reader_waits_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "GATHER_S", GIVE_UP_S)

    async def life() -> tuple[int, list[AuditEntry]]:
        log = AuditLog()
        database = await log.open(tmp_path / "audit.db")
        for number in range(20):
            log.change("uid 0", "here", f"change {number}", "ok")
            if number == 0:
                await anext(log.follow(0))
            await asyncio.sleep(0)
        before = database.counts["database_transactions/committed"]
        async with asyncio.timeout(GIVE_UP_S / 2):
            found = await log.entries()
        after = database.counts["database_transactions/committed"]
        await log.close()
        return after - before, found

    transactions, found = asyncio.run(life())
    assert told(found) == [f"change {number}" for number in range(20)]
    assert transactions == 1


def test_who_follows_gets_each_entry_once_in_order(tmp_path: Path) -> None:
    async def life() -> None:
        log = AuditLog()
        await log.open(tmp_path / "audit.db")
        log.change("uid 0", "here", "before", "ok")
        await log.entries()
        stream = log.follow(log.last_number)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        for number in range(3):
            log.change("uid 0", "here", f"change {number}", "ok")
        async with asyncio.timeout(GIVE_UP_S):
            found = [await first, await anext(stream), await anext(stream)]
        assert told(found) == ["change 0", "change 1", "change 2"]
        await stream.aclose()
        await log.close()

    asyncio.run(life())


def test_texts_of_others_are_bounded_and_can_be_stored(tmp_path: Path) -> None:
    async def life() -> AuditEntry:
        log = AuditLog()
        await log.open(tmp_path / "audit.db")
        log.change("who", "here", "GET /\ud800" + "x" * 10_000, "ok")
        (entry,) = await log.entries()
        await log.close()
        return entry

    entry = asyncio.run(life())
    assert entry.action.startswith("GET /?x")
    assert len(entry.action) == audit.TEXT_CHARACTERS_MAX


def test_an_entry_that_the_disk_has_changed_is_not_shown(tmp_path: Path) -> None:
    async def life(*actions: str) -> list[AuditEntry]:
        log = AuditLog()
        await log.open(tmp_path / "audit.db")
        for action in actions:
            log.change("uid 0", "here", action, "ok")
        found = await log.entries()
        await log.close()
        return found

    asyncio.run(life("one", "two", "three"))
    with sqlite3.connect(tmp_path / "audit.db") as connection:
        connection.execute("UPDATE entries SET who = 'uid 1000' WHERE number = 2")
    assert told(asyncio.run(life())) == ["one", "three"]
