"""Reads one of an agent's database files with SQL of a person's, and can do nothing else to it.

Four fences, each of which would do by itself: the file is opened for reading, the connection takes
queries alone (``query_only``), an authorizer lets nothing pass but reading of this one file, and
what is asked runs for so long and brings so many rows. The agent may run meanwhile: in WAL mode a
reader stands in no writer's way. It only keeps the log from being cut back until it is done, which
is why there is a limit on its time.

Nothing is put beside the file: where no agent has left a log there, it is read as it lies
(``immutable``), for otherwise SQLite would make one.

``unpacked`` is a function of ours: what is stored packed (msgpack), as JSON.
"""

import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agent.exits import NOT_FOUND, NOT_PERMITTED, TIMED_OUT, UNHEALTHY, USAGE, AgentError
from agent.store.checksums import lenient_text

BUSY_TIMEOUT_MS = 1000
STEPS_PER_LOOK = 10_000
"""Of SQLite's machine between two looks at the clock: a millisecond or so."""
CELL_BYTES_MAX = 16 * 1024 * 1024
ROWS_BYTES_MAX = 32 * 1024 * 1024
"""All of it is in memory until it is written; a small device has little."""
MAGIC = b"SQLite format 3\0"

READS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_FUNCTION}
)
PRAGMAS = frozenset(
    {
        "table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo",
        "function_list", "page_count", "page_size", "freelist_count",
    }
)  # fmt: skip
"""Those that tell of the file; some others change how it is written, or do so themselves."""
FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile"})

Cell = int | float | str | bytes | None


class SelectedRows(NamedTuple):
    """What a query brought; ``is_cut`` when there was more."""

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    is_cut: bool


def select(path: Path, sql: str, *, rows_max: int, timeout_s: float) -> SelectedRows:
    """Return what a query finds in a file. Raises AgentError."""
    _check_readable(path)
    until = time.monotonic() + timeout_s
    had_log = _log_of(path).exists()
    try:
        with closing(_open(path, is_alone=not had_log)) as connection:
            _fence(connection, until)
            found = _fetch(connection, sql, rows_max)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _told(error, path, timeout_s) from None
    if not had_log and _log_of(path).exists():
        raise AgentError(
            "an agent began to write this file meanwhile, so what was read may be no moment of it",
            "ask again",
            UNHEALTHY,
        )
    return found


def _check_readable(path: Path) -> None:
    """Raise AgentError unless there is a database at this path that this user may read."""
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except FileNotFoundError:
        hint = "it is made when the agent runs for the first time; is it that agent's directory?"
        raise AgentError(f"there is no {path}", hint, NOT_FOUND) from None
    except PermissionError:
        hint = "ask as root, or as the user that the agent runs as"
        raise AgentError(f"this user may not read {path}", hint, NOT_PERMITTED) from None
    except OSError as error:
        raise AgentError(f"{path} cannot be read: {error.strerror}", "", UNHEALTHY) from None
    if head != MAGIC:
        hint = "the next start of the agent mends it"
        raise AgentError(f"{path} is no database, or a damaged one", hint, UNHEALTHY)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _open(path: Path, *, is_alone: bool) -> sqlite3.Connection:
    how = "mode=ro&immutable=1" if is_alone else "mode=ro"
    uri = f"{path.absolute().as_uri()}?{how}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    connection.text_factory = lenient_text
    return connection


def _fence(connection: sqlite3.Connection, until: float) -> None:
    """Let nothing pass but reading, and that for so long; see the module's text."""
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA mmap_size = 0")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, CELL_BYTES_MAX)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.create_function("unpacked", 1, unpacked, deterministic=True)
    connection.set_progress_handler(lambda: time.monotonic() > until, STEPS_PER_LOOK)
    connection.set_authorizer(_authorize)


def _authorize(action: int, one: str | None, other: str | None, *_: str | None) -> int:
    """Tell SQLite whether a statement may do this, while it is prepared."""
    if action == sqlite3.SQLITE_PRAGMA:
        is_read = one in PRAGMAS
    elif action == sqlite3.SQLITE_FUNCTION:
        is_read = other not in FORBIDDEN_FUNCTIONS
    else:
        is_read = action in READS
    return sqlite3.SQLITE_OK if is_read else sqlite3.SQLITE_DENY


def _fetch(connection: sqlite3.Connection, sql: str, rows_max: int) -> SelectedRows:
    from sqlite_utils import Database as Library  # late: it takes longer than most queries

    library = Library(connection, recursive_triggers=False, execute_plugins=False)
    cursor = library.execute(sql)
    columns = tuple(column[0] for column in cursor.description or ())
    rows: list[tuple[Cell, ...]] = []
    size_bytes = 0
    for row in cursor:
        size_bytes += sum(len(cell) for cell in row if isinstance(cell, str | bytes))
        if len(rows) == rows_max or (rows and size_bytes > ROWS_BYTES_MAX):
            return SelectedRows(columns, rows, is_cut=True)
        rows.append(row)
    return SelectedRows(columns, rows, is_cut=False)


def unpacked(data: Any) -> str | None:
    """Return what is packed, as JSON, bytes in base64; None for what is not.

    >>> unpacked(msgspec.msgpack.encode([1, "a", b"b"])), unpacked("text")
    ('[1,"a","Yg=="]', None)
    """
    if not isinstance(data, bytes):
        return None
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError):
        return msgspec.json.encode(msgspec.msgpack.decode(data)).decode()
    return None


def _told(error: Exception, path: Path, timeout_s: float) -> AgentError:
    """Return in words for people why a query brought nothing."""
    text = str(error)
    if any(words in text for words in _REFUSALS):
        return AgentError(
            f"this is not only a query of {path.name}; nothing was done",
            "`covey db query` reads: SELECT, WITH, VALUES, EXPLAIN",
            NOT_PERMITTED,
        )
    if "interrupted" in text:
        hint = "ask for less, or give it longer: --timeout"
        return AgentError(f"it took longer than {timeout_s:g} s", hint, TIMED_OUT)
    for words, told in _OF_THE_FILE.items():
        if words in text:
            return AgentError(f"{path.name}: {told} ({text})", "ask again later", UNHEALTHY)
    return AgentError(f"SQLite does not take it: {text}", _TABLES, USAGE)


_REFUSALS = "not authorized", "authorization denied", "prohibited", "readonly"
_OF_THE_FILE = {
    "locked": "somebody else has it",
    "malformed": "it is damaged; the next start of the agent mends it",
    "unable to open": "it cannot be opened",
    "disk I/O": "the disk reports an error",
}
_TABLES = "`SELECT sql FROM sqlite_schema` shows the tables"
