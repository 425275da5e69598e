"""One SQLite file and the one thread that writes it.

A device's storage is slow in one particular way: not the bytes cost time, but the moments at
which the card has to confirm them. So everything here is about confirming rarely.

* **One writer.** ``write(fn)`` queues ``fn`` and returns when its changes are committed. All
  functions that were queued while the thread was busy share one transaction, each inside a
  savepoint of its own: one that raises is undone alone, the others commit. A busy agent thus
  pays one commit for hundreds of writes, an idle one writes at once.
* **One hop per transaction.** The event loop hands the whole group to the thread and hears of
  it once.
* **Reads on the loop.** ``read(fn)`` runs at once on a read-only connection, in a snapshot of
  what was committed last. WAL mode lets it go on while the thread writes. Keep it short.

What a commit means depends on ``synchronous`` (https://sqlite.org/pragma.html#pragma_synchronous):

``FULL``
    A write that returned survives a power cut.
``NORMAL``
    A write that returned survives the end of the process, ``kill -9`` included: its bytes are
    with the kernel. A power cut may cost the writes of the last second or so: a timer
    syncs the write-ahead log one second after the first commit that is not yet on the disk, so
    a steady trickle of writes costs one sync a second. What a cut leaves is always a prefix of
    the commits, never half of one. ``sync()`` does not wait for the timer.

The disk can be full, read-only or broken. All of that arrives as ``StorageError``, which says
what happened, what was kept and what to do. When a sync fails, nobody knows which pages the
kernel dropped (https://wiki.postgresql.org/wiki/Fsync_Errors), so the database refuses further
writes until it is opened again.
"""

import asyncio
import logging
import os
import sqlite3
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from agent.store.failures import NewerSchemaError, StorageError, closed, translate
from agent.store.migrations import Migrations

GROUP_WRITES_MAX = 1000
SYNC_DELAY_S = 1.0
BUSY_TIMEOUT_MS = 5000
# The log is folded into the file at 1,000 pages (4 MiB) and cut back to this after a burst.
WAL_BYTES_KEPT = 8 * 1024 * 1024
CACHE_KIB = 2048

Synchronous = Literal["NORMAL", "FULL"]
Write = Callable[[sqlite3.Connection], Any]
T = TypeVar("T")

log = logging.getLogger(__name__)


class Database:
    """A SQLite file with one writer thread; make it with ``await Database.open(...)``."""

    def __init__(self, path: Path, synchronous: Synchronous, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self.synchronous: Synchronous = synchronous
        self.counts: Counter[str] = Counter()
        self._thread = thread
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection
        self._queue: deque[tuple[Write, asyncio.Future[Any]]] = deque()
        self._commits: asyncio.Task[None] | None = None
        self._sync_timer: asyncio.TimerHandle | None = None
        self._syncs: set[asyncio.Task[None]] = set()
        self._failure: OSError | None = None
        self._closed = False

    @classmethod
    async def open(
        cls, path: Path, migrations: Migrations, *, synchronous: Synchronous = "NORMAL"
    ) -> "Database":
        """Open or create the file and bring its schema up to date.

        Raises NewerSchemaError when a later version of Covey wrote it, StorageError when it cannot
        be opened, is damaged, or the directory does not let us write.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"writer-{path.stem}")
        database = cls(path, synchronous, thread)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(thread, database._open_writer, migrations)
            database._reader = _open_reader(path)
        except (OSError, sqlite3.Error) as error:
            thread.shutdown(wait=False)
            raise translate(error, path) from error
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return database

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``fn`` in the writer thread, inside a transaction; return its result once committed.

        ``fn`` must not commit, and must not touch what belongs to the event loop. What it raises
        undoes its own changes and comes out here; errors of the disk come out as StorageError.
        """
        self._check_usable()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((fn, future))
        if self._commits is None:
            self._commits = asyncio.create_task(self._commit_queue())
        return await future

    def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``fn`` now, on this thread, in one snapshot of the committed state."""
        if self._closed:
            raise closed(self.path)
        try:
            self._reader.execute("BEGIN")
            try:
                return fn(self._reader)
            finally:
                self._reader.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    @property
    def problem(self) -> str:
        """Why nothing can be written any more; empty while all is well."""
        return str(translate(self._failure, self.path)) if self._failure else ""

    async def sync(self) -> None:
        """Return when every commit so far is on the disk. Raises StorageError."""
        if self._sync_timer is not None:
            self._sync_timer.cancel()
        self._sync_timer = None
        self._check_usable()
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._sync_log)
        except OSError as error:
            self._failure = error
            self.counts["database_syncs/failed"] += 1
            raise translate(error, self.path) from error
        self.counts["database_syncs/done"] += 1

    async def close(self) -> None:
        """Commit what is queued, sync it, and close the file. Harmless when called twice."""
        if self._closed:
            return
        while self._commits is not None:
            await asyncio.shield(self._commits)
        if self._sync_timer is not None:
            self._sync_timer.cancel()
        await asyncio.gather(*self._syncs)
        self._closed = True
        self._reader.close()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._close_writer)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error
        finally:
            self._thread.shutdown(wait=False)

    def _check_usable(self) -> None:
        if self._closed:
            raise closed(self.path)
        if self._failure is not None:
            raise translate(self._failure, self.path) from self._failure

    async def _commit_queue(self) -> None:
        """Hand group after group to the writer thread until the queue is empty."""
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                size = min(len(self._queue), GROUP_WRITES_MAX)
                group = [self._queue.popleft() for _ in range(size)]
                writes = [fn for fn, _ in group]
                outcomes = await loop.run_in_executor(self._thread, self._commit, writes)
                for (_, future), outcome in zip(group, outcomes, strict=True):
                    _settle(future, outcome)
                self._note_commit(outcomes)
        finally:
            self._commits = None

    def _note_commit(self, outcomes: list["Outcome"]) -> None:
        self.counts["database_transactions/committed"] += 1
        self.counts["database_writes/done"] += sum(not isinstance(o, Raised) for o in outcomes)
        self.counts["database_writes/failed"] += sum(isinstance(o, Raised) for o in outcomes)
        if self.synchronous == "NORMAL" and self._sync_timer is None:
            loop = asyncio.get_running_loop()
            self._sync_timer = loop.call_later(SYNC_DELAY_S, self._start_sync)

    def _start_sync(self) -> None:
        task = asyncio.create_task(self._sync_and_log())
        self._syncs.add(task)
        task.add_done_callback(self._syncs.discard)

    async def _sync_and_log(self) -> None:
        try:
            await self.sync()
        except StorageError as error:
            log.error("%s", error)  # noqa: TRY400 - the user needs the sentence, not the trace

    # ---- in the writer thread -------------------------------------------------------------------

    def _open_writer(self, migrations: Migrations) -> None:
        try:
            self.path.touch(mode=0o600, exist_ok=True)
        except OSError as error:
            raise translate(error, self.path) from error
        _migrate(self.path, migrations)
        self._writer = sqlite3.connect(self.path, isolation_level=None)
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            f"synchronous = {self.synchronous}",
            f"journal_size_limit = {WAL_BYTES_KEPT}",
            f"cache_size = -{CACHE_KIB}",
            "foreign_keys = ON",
        ):
            self._writer.execute(f"PRAGMA {pragma}")
        # The log file exists from the first read on; its name must survive a power cut too.
        self._writer.execute("SELECT count(*) FROM sqlite_master").fetchone()
        _sync_directory(self.path.parent)

    def _commit(self, writes: list[Write]) -> list["Outcome"]:
        """Run all writes in one transaction; an error of the disk fails all of them."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            outcomes = [self._run(fn) for fn in writes]
            self._writer.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - it is handed to the callers of write()
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            return [Raised(translate(error, self.path)) for _ in writes]
        return outcomes

    def _run(self, fn: Write) -> "Outcome":
        """Run one write in its savepoint. Raises when the error took the whole group along."""
        self._writer.execute("SAVEPOINT one")
        try:
            result = fn(self._writer)
        except Exception as error:
            if not self._writer.in_transaction:
                raise  # a full disk makes SQLite roll back the transaction itself
            self._writer.execute("ROLLBACK TO one")
            self._writer.execute("RELEASE one")
            return Raised(translate(error, self.path))
        self._writer.execute("RELEASE one")
        return result

    def _close_writer(self) -> None:
        if self._failure is None:
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writer.close()

    # ---- in any thread --------------------------------------------------------------------------

    def _sync_log(self) -> None:
        """Sync the write-ahead log, and with it every commit that is not yet in the file.

        Not in the writer thread: a card that takes 50 ms to sync would hold up the next commit.
        SQLite keeps its locks on the other two files, so closing this one drops none.
        """
        handle = os.open(f"{self.path}-wal", os.O_RDONLY)
        try:
            os.fdatasync(handle)
        finally:
            os.close(handle)


class Raised:
    """A write's outcome: it raised this."""

    def __init__(self, error: Exception) -> None:
        self.error = error


Outcome = Raised | Any


def _settle(future: asyncio.Future[Any], outcome: Outcome) -> None:
    if future.done():  # whoever waited was cancelled; the write itself stands
        return
    if isinstance(outcome, Raised):
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome)


def _migrate(path: Path, migrations: Migrations) -> None:
    """Apply the pending migrations, on a connection of their own. Raises NewerSchemaError."""
    connection = sqlite3.connect(path)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        if unknown := migrations.unknown(connection):
            raise NewerSchemaError(path, unknown)
        migrations.apply(connection)
    finally:
        connection.close()


def _open_reader(path: Path) -> sqlite3.Connection:
    reader = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    reader.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    reader.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return reader


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
