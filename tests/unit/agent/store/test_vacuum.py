"""A file that holds little gives back what it took for much."""

import sqlite3
from pathlib import Path

import pytest

from agent.store import vacuum
from agent.store.vacuum import give_back


def test_one_step_cuts_off_as_many_pages_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum, "FREE_PAGES_KEPT", 10)
    monkeypatch.setattr(vacuum, "STEP_PAGES", 30)
    connection = sqlite3.connect(tmp_path / "some.db", isolation_level=None)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, data BLOB)")
    things = ((number, bytes(3000)) for number in range(100))
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO things VALUES (?, ?)", things)
    connection.execute("DELETE FROM things WHERE id > 9")

    def pages() -> int:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])

    before = pages()
    assert give_back(connection)
    assert before - pages() == 30
    while give_back(connection):
        pass
    assert before - pages() == 90, "until no more than half of it is free"
    connection.execute("COMMIT")
    connection.close()
