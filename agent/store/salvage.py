"""A new file in place of a damaged one: every row whose checksum is right is carried over.

What SQLite's own tool would do (``sqlite3 FILE .recover``) is not within reach of Python, and it
believes whatever it finds. ``pages.py`` reads all cells there are, ``checksums.py`` knows those
that are rows of ours, and the store's own ``mend`` sees to what does not fit together any more.

The new file is complete and synced before anything is touched. Then the damaged one is renamed,
and kept for whoever wants to look at it; the two newest of each name are. A crash in between is
taken up by the next start: ``NAME.rebuilt`` exists only when it is complete.
"""

import os
import re
import sqlite3
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from agent.store.checksums import Table, Value
from agent.store.commit_note import CommitNote
from agent.store.migrations import Migrations

if TYPE_CHECKING:
    from agent.store.pages import Pages

DAMAGED_KEPT = 2
BATCH_ROWS = 1000


def rebuild(path: Path, migrations: Migrations, reason: str, note: CommitNote | None) -> str:
    """Put a new file with all sound rows in place of a damaged one; return what became of it.

    No connection may be open. Raises OSError or sqlite3.Error when the new file cannot be written:
    then nothing was changed.
    """
    fresh = _beside(path, ".rebuilding")
    for name in (fresh, _beside(fresh, "-journal")):
        name.unlink(missing_ok=True)
    carried, gone = carry_over(path, fresh, migrations, note)
    _sync(fresh)
    fresh.replace(_beside(path, ".rebuilt"))
    _sync(path.parent)
    kept = finish(path)
    found = carried if migrations.is_carried_over else {}
    told = ", ".join(f"{count} {table}" for table, count in found.items()) or "nothing"
    lost = f" Gone: {'; '.join(gone)}." if gone else " Nothing is known to be gone."
    where = f" The damaged file is kept as {kept.name}." if kept else ""
    return f"{path.name} was damaged ({reason}); carried over: {told}.{lost}{where}"


def finish(path: Path) -> Path | None:
    """Put a complete rebuilt file in place, if there is one; return how the damaged one is named.

    Its log goes first: it must never be applied to the new file.
    """
    fresh = _beside(path, ".rebuilt")
    if not fresh.exists():
        return None
    kept = _beside(path, f".damaged-{max(_numbers(path), default=0) + 1}")
    for suffix in ("-wal", ""):
        if _beside(path, suffix).exists():
            _beside(path, suffix).replace(_beside(kept, suffix))
    _beside(path, "-shm").unlink(missing_ok=True)
    _sync(path.parent)
    fresh.replace(path)
    for number in sorted(_numbers(path))[:-DAMAGED_KEPT]:
        for suffix in ("-wal", ""):
            _beside(path, f".damaged-{number}{suffix}").unlink(missing_ok=True)
    _sync(path.parent)
    return kept if kept.exists() else None


def damaged_files(directory: Path) -> list[str]:
    """Return the names of damaged databases that are kept in a directory."""
    names = (path.name for path in directory.glob("*.damaged-*"))
    return sorted(name for name in names if not name.endswith("-wal"))


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _numbers(path: Path) -> list[int]:
    pattern = re.compile(re.escape(path.name) + r"\.damaged-([0-9]+)")
    found = (pattern.fullmatch(each.name) for each in path.parent.iterdir())
    return [int(match[1]) for match in found if match]


def carry_over(
    path: Path, fresh: Path, migrations: Migrations, note: CommitNote | None
) -> tuple[Counter[str], list[str]]:
    """Make the new file; return how many rows of each table it has, and what is gone.

    Raises OSError and sqlite3.Error.
    """
    from agent.store.pages import Pages  # only for who has damage

    connection = sqlite3.connect(fresh, isolation_level=None)
    pages = Pages(path, _beside(path, "-wal"), note.log.salts if note else b"")
    try:
        prepare(connection)
        migrations.apply(connection)
        # Nobody reads this file before it is synced as a whole.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        if migrations.is_carried_over:
            _copy_rows(pages, connection, migrations)
        carried = Counter({t.name: _count(connection, t) for t in migrations.tables})
        gone = migrations.mend(connection, path, note)
        connection.execute("COMMIT")
    finally:
        pages.close()
        connection.close()
    return carried, gone


def prepare(connection: sqlite3.Connection) -> None:
    """Make a file that has no table yet one that can shrink a few pages at a time."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")


def _copy_rows(pages: "Pages", connection: sqlite3.Connection, migrations: Migrations) -> None:
    waiting: dict[str, list[tuple[Value, ...]]] = {t.name: [] for t in migrations.tables}
    # What a migration put there stands for a row that may be found.
    for table in migrations.tables:
        connection.execute(f"DELETE FROM {table.name}")  # noqa: S608 - our names
    for rowid, values in pages.cells(older=not migrations.is_rewritten):
        for table in migrations.tables:
            row = table.recognise(rowid, values)
            if row is not None:
                rows = waiting[table.name]
                rows.append(row)
                if len(rows) >= BATCH_ROWS:
                    _insert(connection, table, rows)
                break
    for table in migrations.tables:
        _insert(connection, table, waiting[table.name])


def _insert(connection: sqlite3.Connection, table: Table, rows: list[tuple[Value, ...]]) -> None:
    """Insert rows and forget them; of two with one key, the one that was found first stays."""
    marks = ", ".join("?" * len(table.columns))
    query = f"INSERT OR IGNORE INTO {table.name} ({table.names}) VALUES ({marks})"  # noqa: S608
    connection.executemany(query, rows)
    rows.clear()


def _count(connection: sqlite3.Connection, table: Table) -> int:
    (count,) = connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()  # noqa: S608
    return int(count)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
