"""Opens a database file, whatever state the last life of this device left it in.

Damage shows in one of five ways: the header is not one of ours, or the file is empty and was
not before; SQLite calls it malformed; a step of the schema fails; noted commits are missing
from the log; a look through the file finds a row whose checksum is wrong. Each has one answer: a
new file with all that can be read (``salvage.py``), and a sentence about it for the user. A disk
that is full, read-only or failing is no damage, and is left alone.
"""

import logging
import os
import sqlite3
from pathlib import Path
from typing import Literal, NamedTuple

from agent.files.private_files import sync_directory
from agent.store.checksums import lenient_text
from agent.store.commit_note import CommitNote, CommitTail
from agent.store.errors import NewerSchemaError, is_of_the_disk
from agent.store.migrations import Migrations
from agent.store.salvage import finish, prepare, rebuild
from agent.store.vacuum import make_able_to_shrink

BUSY_TIMEOUT_MS = 5000
# The log is folded into the file at 1,000 pages (4 MiB) and cut back to this after a burst.
WAL_BYTES_KEPT = 8 * 1024 * 1024
CACHE_KIB = 2048
FILE_MODE = 0o600
MAGIC = b"SQLite format 3\0"
# What all our files have in their header (sqlite.org/fileformat2.html, section 1.3): the page
# size, either journal mode, no reserved bytes, three constants; the schema's format; UTF-8.
FIXED = {16: (b"\x10\x00",), 18: (b"\1", b"\2"), 19: (b"\1", b"\2"), 20: (b"\0\x40\x20\x20",)}
FORMAT_AT, FORMATS = 44, (b"\0\0\0\0", b"\0\0\0\1", b"\0\0\0\4")
ENCODING_AT, ENCODINGS = 56, (b"\0\0\0\0", b"\0\0\0\1")
FIXED_PARTS = {**FIXED, FORMAT_AT: FORMATS, ENCODING_AT: ENCODINGS}
HEADER_BYTES = 100

Synchronous = Literal["NORMAL", "FULL"]

log = logging.getLogger(__name__)


class Connections(NamedTuple):
    """The two connections of one file.

    The reader is opened first and closed last where the file may be damaged: the last connection
    that closes folds the log into the file and deletes it, unless it cannot write.
    """

    reader: sqlite3.Connection
    writer: sqlite3.Connection

    def close(self) -> None:
        """Close both, and leave the files as they are."""
        self.writer.close()
        self.reader.close()


class Opened(NamedTuple):
    """The connections, the notes of commits, and what was lost; empty if nothing."""

    connections: Connections
    tail: CommitTail
    loss: str


def open_file(path: Path, migrations: Migrations, synchronous: Synchronous) -> Opened:
    """Open or create the file, mend it where it is damaged, bring its schema up to date.

    Raises NewerSchemaError, OSError and sqlite3.Error.
    """
    finish(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
    tail = CommitTail(path)
    loss = ""
    try:
        connections, damage = _open_or_damage(path, migrations, synchronous, tail)
        if connections is None:
            connections, loss = reopen(path, migrations, synchronous, tail, tail.found, damage)
        tail.record()
        sync_directory(path.parent)
    except BaseException:
        tail.close()
        raise
    return Opened(connections, tail, loss)


def reopen(
    path: Path,
    migrations: Migrations,
    synchronous: Synchronous,
    tail: CommitTail,
    note: CommitNote | None,
    damage: str,
) -> tuple[Connections, str]:
    """Replace a damaged file, which nobody has open, and open the new one.

    ``note`` was made after its last commit. Returns the connections and what became of the old
    file. Raises OSError and sqlite3.Error.
    """
    goes_on = "carrying over what can be read of it, for minutes if it is large"
    if not migrations.is_carried_over:
        goes_on = "nothing of it is used any more"
    log.warning("%s is damaged (%s); %s", path, damage, goes_on)
    tail.release()
    loss = rebuild(path, migrations, damage, note)
    log.error("%s", loss)
    connections = _connect(path)
    _set_up(connections.writer, path, migrations, synchronous)
    tail.watch()
    return connections, loss


def _reader(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write, for any one thread."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    reader = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    reader.text_factory = lenient_text
    reader.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    reader.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    reader.execute("PRAGMA mmap_size = 0")
    return reader


def numbers(writer: sqlite3.Connection, migrations: Migrations) -> tuple[int, int]:
    """Return the two numbers that are noted with each commit."""
    first, second = writer.execute(migrations.numbers).fetchone()
    return int(first), int(second)


def _open_or_damage(
    path: Path, migrations: Migrations, synchronous: Synchronous, tail: CommitTail
) -> tuple[Connections | None, str]:
    """Return the connections, or None and what is wrong with the file."""
    if wrong := _wrong_header(path, was_used=tail.found is not None):
        return None, wrong
    wrong = "it could not be opened"
    connections: Connections | None = None
    try:
        connections = _connect(path)
        tail.watch()
        if tail.misses():
            wrong = "commits are missing from its log"
        else:
            _set_up(connections.writer, path, migrations, synchronous)
            wrong = _wrong_rows(connections.writer, migrations)
        if not wrong:
            return connections, ""
    except sqlite3.Error as error:
        if is_of_the_disk(error):
            raise
        wrong = str(error)
    finally:
        if connections is not None and wrong:
            connections.close()
    return None, wrong


def _wrong_header(path: Path, *, was_used: bool) -> str:
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if not head:
        return "it is empty" if was_used else ""
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        return "it does not begin as a database does"
    for at, allowed in FIXED_PARTS.items():
        if head[at : at + len(allowed[0])] not in allowed:
            return f"byte {at} of its header is wrong"
    return ""


def _connect(path: Path) -> Connections:
    """Open the file and have SQLite read its log."""
    is_new = not path.stat().st_size
    connections = Connections(_reader(path), sqlite3.connect(path))
    reader, writer = connections
    try:
        _open_log(reader)
        writer.text_factory = lenient_text
        writer.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if is_new:
            prepare(writer)
        writer.execute("PRAGMA journal_mode = WAL")
        # The log file exists from the first read on; its name must survive a power cut too.
        _open_log(writer)
        _open_log(reader)
    except BaseException:
        connections.close()
        raise
    return connections


def _open_log(connection: sqlite3.Connection) -> None:
    """Read something: only then does SQLite open the log."""
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def _set_up(
    writer: sqlite3.Connection, path: Path, migrations: Migrations, synchronous: Synchronous
) -> None:
    """Bring the schema up to date, and say how to write."""
    if unknown := migrations.unknown(writer):
        raise NewerSchemaError(path, unknown)
    migrations.apply(writer)
    writer.isolation_level = None
    leaves_no_trace = migrations.is_rewritten and migrations.is_carried_over
    for pragma in (
        f"synchronous = {synchronous}",
        f"journal_size_limit = {WAL_BYTES_KEPT}",
        f"cache_size = -{CACHE_KIB}",
        "foreign_keys = ON",
        "mmap_size = 0",
        # Of rows that change, no old form may be left for a salvage to find. Of the others one
        # may, and where nothing is salvaged, too; then the card is spared the zeros.
        f"secure_delete = {'ON' if leaves_no_trace else 'OFF'}",
    ):
        writer.execute(f"PRAGMA {pragma}")
    make_able_to_shrink(writer)


def _wrong_rows(writer: sqlite3.Connection, migrations: Migrations) -> str:
    """Return what is wrong with the tables; all rows are looked at where rows change."""
    for table in migrations.tables:
        writer.execute(f"SELECT {table.names} FROM {table.name} LIMIT 1").fetchone()  # noqa: S608
    if not migrations.is_rewritten:
        return ""
    (verdict,) = writer.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        return " ".join(str(verdict).split())
    for table in migrations.tables:
        rows = writer.execute(f"SELECT {table.names} FROM {table.name}")  # noqa: S608
        if bad := sum(not table.verifies(row) for row in rows):
            return f"{bad} rows of {table.name} are not as they were written"
    return ""
