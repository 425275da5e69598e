"""Schemas as steps, told apart from what a file already has without loading the library for them.

sqlite-utils carries the steps out and records them in the file
(docs/adr/0006-one-writer-thread.md).
It brings a date parser and a plug-in system along, costs memory and time at every start, and is
needed once in the life of a file and once for each new version of its schema. So it is imported
when a step is pending, and otherwise its record is read with plain SQL.
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.store.checksums import Table
from agent.store.commit_note import CommitNote

if TYPE_CHECKING:
    from sqlite_utils import Database as Schema

Step = Callable[["Schema"], None]
Mend = Callable[[sqlite3.Connection, Path, CommitNote | None], list[str]]
"""Makes sense of what was carried over from a damaged file; returns what is gone, in words.

It gets the new file, the path of the old one, and what was noted after that one's last commit.
"""


class Migrations:
    """The steps of one file's schema; decorate them with ``@migrations``, in their order.

    A step is recorded under the name of its function: append new ones, never change an old one.

    ``tables`` are those whose rows are checked and carried over when the file is damaged, and
    ``mend`` then sees to what is missing. ``numbers`` is a query for the two numbers that are
    noted after each commit (``commit_note.py``). Where rows change (``is_rewritten``), a stale one
    is as bad as a wrong one: such a file is looked through whenever it is opened. Where a part is
    worse than nothing (``is_carried_over`` is false), a new file begins empty.
    """

    def __init__(
        self,
        name: str,
        tables: Sequence[Table] = (),
        *,
        mend: Mend = lambda _connection, _path, _note: [],
        numbers: str = "SELECT 0, 0",
        is_rewritten: bool = False,
        is_carried_over: bool = True,
    ) -> None:
        self.name = name
        self.tables = tuple(tables)
        self.mend = mend
        self.numbers = numbers
        self.is_rewritten = is_rewritten
        self.is_carried_over = is_carried_over
        self._steps: dict[str, Step] = {}

    def __call__(self, step: Step) -> Step:
        """Append a step."""
        assert step.__name__ not in self._steps, "two steps share a name"
        self._steps[step.__name__] = step
        return step

    def unknown(self, connection: sqlite3.Connection) -> list[str]:
        """Return the steps that a file has taken beyond all of ours: it is newer.

        A file that lacks one of ours and has one that we do not know is no newer one: its record
        is damaged, and the step that it lacks will fail.
        """
        taken = self._taken(connection)
        if not self._steps.keys() <= set(taken):
            return []
        return [name for name in taken if name not in self._steps]

    def apply(self, connection: sqlite3.Connection) -> None:
        """Take the steps that a file lacks, each in a transaction of its own."""
        if self._steps.keys() <= set(self._taken(connection)):
            return
        from sqlite_utils import Database as Schema  # late, see the module's text
        from sqlite_utils.migrations import Migrations as Library

        library = Library(self.name)
        for step in self._steps.values():
            library()(step)
        library.apply(Schema(connection, execute_plugins=False))

    def _taken(self, connection: sqlite3.Connection) -> list[str]:
        """Return the names that sqlite-utils recorded in a file, in the order of the steps."""
        tables = "SELECT count(*) FROM sqlite_master WHERE name = '_sqlite_migrations'"
        if not connection.execute(tables).fetchone()[0]:
            return []
        steps = "SELECT name FROM _sqlite_migrations WHERE migration_set = ? ORDER BY rowid"
        return [name for (name,) in connection.execute(steps, (self.name,))]
