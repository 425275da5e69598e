"""The table of ``audit.db``: append new steps, never change an old one."""

from typing import TYPE_CHECKING

from agent.store.checksums import Table
from agent.store.migrations import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database as Schema

ENTRIES = Table(
    "entries",
    (
        *("number", "is_refusal", "at_ms", "who", "source", "action", "outcome", "detail"),
        *("times", "checksum"),
    ),
    rowid="number",
)
AUDIT_MIGRATIONS = Migrations("audit", (ENTRIES,))


@AUDIT_MIGRATIONS
def entries(db: "Schema") -> None:
    """Create the entries; numbers are never used again."""
    db.execute(
        "CREATE TABLE entries (number INTEGER PRIMARY KEY AUTOINCREMENT, is_refusal INTEGER"
        " NOT NULL, at_ms INTEGER NOT NULL, who TEXT NOT NULL, source TEXT NOT NULL, action TEXT"
        " NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL, times INTEGER NOT NULL,"
        " checksum INTEGER NOT NULL)"
    )
    db.execute("CREATE INDEX by_kind ON entries (is_refusal, number)")
