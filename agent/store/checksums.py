"""Checksums of rows: SQLite has none, and flash returns wrong bytes without a word.

Each table has a column ``checksum``: CRC-32 over the table's name and all other values of the row.
It finds every change of up to 32 neighbouring bits and all but one in four billion of the others,
and takes half a microsecond. Because the name and the key are covered as well, a row is known by
its checksum wherever its bytes are found: in the wrong place, in the wrong table, or in a page
that no other page points to any more. That is what ``salvage.py`` lives on.

A column that comes later is appended by a migration and added to ``Table.columns`` at the end. Rows
written before it read as NULL there, and NULLs at the end add nothing to the checksum: no row has
to be written anew.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

CHECKSUM = "checksum"

_encode = msgspec.msgpack.Encoder().encode

Value = int | float | str | bytes | None


class Table(NamedTuple):
    """What is to be known of a table to tell its rows from noise.

    ``columns`` in the order of the schema, ``checksum`` among them; the first ``key_columns`` of
    them name a row. ``rowid`` is the column that SQLite keeps as the row's number (INTEGER PRIMARY
    KEY), ``floats`` those of type REAL, which it stores as integers where that is shorter.
    ``unsummed`` are the types of the columns of rows that were written before there were
    checksums, where such rows may still be about.
    """

    name: str
    columns: tuple[str, ...]
    rowid: str = ""
    floats: frozenset[str] = frozenset()
    unsummed: tuple[type, ...] = ()
    key_columns: int = 1

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row."""
        return self.columns[: self.key_columns]

    @property
    def names(self) -> str:
        """The columns as SQL lists them."""
        return ", ".join(self.columns)

    def sealed(self, *values: Value) -> tuple[Value, ...]:
        """Return a row as it is stored: all other values in their order, and their checksum."""
        at = self.columns.index(CHECKSUM)
        return (*values[:at], checksum(self.name, values), *values[at:])

    def verifies(self, row: Sequence[Value]) -> bool:
        """Tell whether a row, with all columns in their order, is as it was written."""
        at = self.columns.index(CHECKSUM)
        return row[at] == checksum(self.name, (*row[:at], *row[at + 1 :]))

    def recognise(self, rowid: int, values: Sequence[Value]) -> tuple[Value, ...] | None:
        """Return the row that the values of a cell are, with all columns; None if it is not ours.

        A row without a checksum is believed when the types of its values fit.
        """
        if len(values) > len(self.columns):
            return None
        row = [*values, *(None for _ in range(len(self.columns) - len(values)))]
        if self.rowid:
            row[self.columns.index(self.rowid)] = rowid
        for column in self.floats:
            at = self.columns.index(column)
            value = row[at]
            row[at] = float(value) if isinstance(value, int) else value
        return tuple(row) if self.verifies(row) or self._fits(row) else None

    def _fits(self, row: Sequence[Value]) -> bool:
        told = [value for name, value in zip(self.columns, row, strict=True) if name != CHECKSUM]
        return (
            bool(self.unsummed)
            and row[self.columns.index(CHECKSUM)] is None
            and tuple(map(type, told)) == self.unsummed
        )


def seal_all(
    table: Table, first: int, rows: Sequence[tuple[Value, ...]]
) -> list[tuple[Value, ...]]:
    """Return rows as they are stored, numbered from ``first`` on, their checksum at the end.

    ``sealed`` for a hundred thousand rows a second; no value at the end may be None.
    """
    name, crc32, encode = table.name, zlib.crc32, _encode
    return [
        (number, *row, crc32(encode((name, number, *row))))
        for number, row in enumerate(rows, first)
    ]


def is_sealed(table: Table, row: Sequence[Value]) -> bool:
    """``verifies`` for the rows of ``seal_all``."""
    try:
        return zlib.crc32(_encode((table.name, *row[:-1]))) == row[-1]
    except UnicodeEncodeError:
        return False


def checksum(table: str, values: Iterable[Value]) -> int:
    """Return the checksum of a row, all but its checksum given in the order of the schema.

    A text that is not UTF-8, as a damaged one may be, has the checksum -1, which no row has.
    """
    told = (table, *values)
    while told[-1] is None:
        told = told[:-1]
    try:
        return zlib.crc32(_encode(told))
    except UnicodeEncodeError:
        return -1


def add_checksums(connection: sqlite3.Connection, table: Table) -> None:
    """Give every row of a table its checksum: for a migration that has appended the column."""
    at = table.columns.index(CHECKSUM)
    query = f"SELECT {table.names} FROM {table.name}"  # noqa: S608 - our names
    rows = connection.execute(query).fetchall()
    connection.execute(f"DELETE FROM {table.name}")  # noqa: S608
    marks = ", ".join("?" * len(table.columns))
    connection.executemany(
        f"INSERT INTO {table.name} ({table.names}) VALUES ({marks})",  # noqa: S608
        [table.sealed(*row[:at], *row[at + 1 :]) for row in rows],
    )


lenient_text = partial(str, encoding="utf-8", errors="surrogateescape")
"""Reads a text of a row whatever its bytes are: a ``text_factory`` that never raises.

Bytes that are not UTF-8 become lone surrogates, which no checksum accepts.
"""
