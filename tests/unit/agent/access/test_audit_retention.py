"""The bounds of the audit log: what is looked up to hold them, and how often."""

import sqlite3

import pytest

from agent.access import audit_retention
from agent.access.audit_retention import AuditRetention

DETAILS = "sum(length(detail))"


class Written:
    """A table of the audit log, and which looks at all details were made on it."""

    def __init__(self) -> None:
        self.rows = sqlite3.connect(":memory:")
        self.rows.execute(
            "CREATE TABLE entries (number INTEGER PRIMARY KEY, is_refusal INTEGER, detail TEXT)"
        )
        self.retention = AuditRetention()
        self.looks = 0
        self.rows.set_trace_callback(self._note)

    def _note(self, statement: str) -> None:
        self.looks += DETAILS in statement and statement.startswith("SELECT")

    def add(self, count: int, detail: str) -> None:
        (last,) = self.rows.execute("SELECT coalesce(max(number), 0) FROM entries").fetchone()
        self.rows.executemany("INSERT INTO entries VALUES (NULL, 0, ?)", [(detail,)] * count)
        self.retention.inserted(last, [detail] * count, self.rows)

    def characters(self) -> int:
        (found,) = self.rows.execute(f"SELECT {DETAILS} FROM entries").fetchone()
        return int(found)


def test_all_details_are_looked_at_once_while_they_are_few() -> None:
    written = Written()
    for _ in range(10):
        written.add(audit_retention.TRIM_EVERY, "a key")
    assert written.looks == 1


def test_details_are_bounded_again_each_time_they_have_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit_retention, "DETAILS_CHARACTERS_MAX", 1_000)
    written = Written()
    for _ in range(5):
        written.add(audit_retention.TRIM_EVERY, "x" * 300)
        assert written.characters() == 900
