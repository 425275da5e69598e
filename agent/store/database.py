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
what happened, what was kept and what to do; ``problem`` says so until a write succeeds again, and
one is tried every few seconds. When a sync fails, nobody knows which pages the
kernel dropped (https://wiki.postgresql.org/wiki/Fsync_Errors), so the database refuses further
writes until it is opened again.

A file that is found to be damaged is replaced by one with all that can be read, when it is opened
(``opening.py``) or, where rows never change, while it is open: writes wait for it, reads are
refused meanwhile. ``losses`` says what became of it.
"""

import asyncio
import errno
import logging
import os
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from agent.config.logs import OUR_INTERVAL_S, RateLimitedLog
from agent.exits import UNHEALTHY
from agent.loop import watched
from agent.store.commit_note import CommitNote, CommitTail
from agent.store.errors import (
    StorageError,
    closed,
    has_room,
    is_damage,
    is_failed_sync,
    is_shortage,
    rebuilding,
    translate,
)
from agent.store.migrations import Migrations
from agent.store.opening import Connections, Opened, Synchronous, numbers, open_file, reopen
from agent.system import descriptors

GROUP_WRITES_MAX = 1000
SYNC_DELAY_S = 1.0
PROBE_DELAY_S = 5.0
# A card on which new files are damaged at once is not worth another one.
REBUILDS_MAX = 5

Write = Callable[[sqlite3.Connection], Any]
T = TypeVar("T")

log = logging.getLogger(__name__)


class Database:
    """A SQLite file with one writer thread; make it with ``await Database.open(...)``."""

    def __init__(
        self,
        path: Path,
        migrations: Migrations,
        synchronous: Synchronous,
        thread: ThreadPoolExecutor,
    ) -> None:
        self.path = path
        self.synchronous: Synchronous = synchronous
        self.counts: Counter[str] = Counter()
        self.losses: list[str] = []
        self._quiet = RateLimitedLog(log, OUR_INTERVAL_S)
        self.on_rebuilt: Callable[[], None] = lambda: None
        self.on_unsynced: Callable[[], None] = lambda: None  # runs in a thread
        self._migrations = migrations
        self._thread = thread
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection | None = None
        self._tail: CommitTail
        self._queue: deque[tuple[Write, asyncio.Future[Any]]] = deque()
        self._commits: asyncio.Task[None] | None = None
        self._sync_timer: asyncio.TimerHandle | None = None
        self._syncs: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None
        self._refusal: StorageError | None = None
        self._unreadable: StorageError | None = None
        self._is_held_back = False
        self._probe: asyncio.TimerHandle | None = None
        self._damage = ""
        self._rebuilds = 0
        self._closed = False
        self._thread_id = 0

    @classmethod
    async def open(
        cls, path: Path, migrations: Migrations, *, synchronous: Synchronous = "NORMAL"
    ) -> "Database":
        """Open or create the file and bring its schema up to date.

        A damaged one is mended, and ``losses`` says what is gone.
        Raises NewerSchemaError when a later version of Covey wrote it, StorageError when it cannot
        be opened, or the directory does not let us write.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"writer-{path.stem}")
        database = cls(path, migrations, synchronous, thread)
        loop = asyncio.get_running_loop()
        try:
            opened = await loop.run_in_executor(thread, open_file, path, migrations, synchronous)
        except (OSError, sqlite3.Error) as error:
            thread.shutdown(wait=False)
            raise translate(error, path) from error
        except BaseException:
            thread.shutdown(wait=False)
            raise
        database._use(opened)
        database._thread_id = await loop.run_in_executor(thread, threading.get_native_id)
        return database

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``fn`` in the writer thread, inside a transaction; return its result once committed.

        ``fn`` must not commit, and must not touch what belongs to the event loop. What it raises
        undoes its own changes and comes out here; errors of the disk come out as StorageError.
        """
        self._check_usable()
        if self._is_held_back and self._refusal is not None:
            self.counts["database_writes/held back"] += 1
            raise self._refusal.with_traceback(None)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((fn, future))
        self._begin_commits()
        return await future

    def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``fn`` now, on this thread, in one snapshot of the committed state."""
        if self._closed:
            raise closed(self.path)
        reader = self._reader
        if self._damage or reader is None:
            raise StorageError(self.problem, status=UNHEALTHY)
        try:
            reader.execute("BEGIN")
            try:
                result = fn(reader)
            finally:
                reader.execute("ROLLBACK")
        except sqlite3.Error as error:
            if is_damage(error):
                self.suspect(error)
            failure = translate(error, self.path)
            if isinstance(failure, StorageError):
                self._unreadable = failure
            raise failure from error
        self._unreadable = None
        return result

    @property
    def problem(self) -> str:
        """Why reads or writes fail now; empty while all is well."""
        if self._failure is not None:
            return str(self._for_good())
        if self._damage:
            return str(rebuilding(self.path))
        return str(self._refusal or self._unreadable or "")

    @property
    def name(self) -> str:
        """What the file is called, without its ending."""
        return self.path.stem

    def written_bytes(self) -> int:
        """Return what the writer thread has had written since the start, as the kernel counts it.

        Pages that it has made dirty: the log, checkpoints, and the note of commits. 0 where the
        kernel does not count, or does not tell.
        """
        try:
            counters = Path(f"/proc/self/task/{self._thread_id}/io").read_text(encoding="ascii")
            return int(dict(line.split(": ") for line in counters.splitlines())["write_bytes"])
        except (OSError, ValueError, KeyError):
            return 0

    @property
    def is_rebuilding(self) -> bool:
        """Whether a damaged file is being replaced: reads are refused until that is over."""
        return bool(self._damage)

    @property
    def noted(self) -> CommitNote | None:
        """What was noted after the last commit before this database was opened."""
        return self._tail.found

    def suspect(self, reason: object) -> bool:
        """Have the file replaced by one with all that can be read of it; tell whether it will be.

        Only where rows never change: of others somebody may hold a form that is then gone, and
        the file is mended by the next start, which looks through it.
        """
        if self._closed or self._failure or self._migrations.is_rewritten:
            return False
        self._damage = self._damage or str(reason)
        self._begin_commits()
        return True

    def hold_back(self, refusal: StorageError) -> None:
        """Refuse all writes until there is room: what little is left, somebody else needs more."""
        self._is_held_back, self._refusal = True, refusal
        self._refused(refusal)

    async def sync(self) -> None:
        """Return when every commit so far is on the disk. Raises StorageError."""
        if self._sync_timer is not None:
            self._sync_timer.cancel()
        self._sync_timer = None
        self._check_usable()
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._sync_log)
        except OSError as error:
            if is_shortage(error):
                self.counts["database_syncs/put off"] += 1
                self._sync_soon()
                raise translate(error, self.path) from error
            self._failure = error
            self.counts["database_syncs/failed"] += 1
            await asyncio.to_thread(self.on_unsynced)
            raise self._for_good() from error
        self.counts["database_syncs/done"] += 1

    async def close(self) -> None:
        """Commit what is queued, sync it, and close the file. Harmless when called twice."""
        if self._closed:
            return
        while self._commits is not None:
            await asyncio.shield(self._commits)
        if self._probe is not None:
            self._probe.cancel()
        if self._sync_timer is not None:
            self._sync_timer.cancel()
        await asyncio.gather(*self._syncs)
        self._closed = True
        self._close_reader()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._close_writer)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error
        finally:
            self._thread.shutdown(wait=False)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _check_usable(self) -> None:
        if self._closed:
            raise closed(self.path)
        if self._failure is not None:
            raise self._for_good() from self._failure

    def _for_good(self) -> Exception:
        """Return why nothing is written until this database is opened again."""
        assert self._failure is not None, "nothing has failed"
        failure = translate(self._failure, self.path)
        if isinstance(failure, StorageError):
            failure.may_pass = False
        return failure

    def _use(self, opened: Opened) -> None:
        self._reader, self._writer = opened.connections
        self._tail = opened.tail
        self._record_loss(opened.loss)

    def _record_loss(self, loss: str) -> None:
        if loss:
            self.losses.append(loss)
            self.counts["database_rebuilds/done"] += 1

    def _begin_commits(self) -> None:
        if self._commits is None:
            self._commits = watched.start("database-commit", self._commit_queue, self.path.stem)

    async def _commit_queue(self) -> None:
        """Hand group after group to the writer thread until the queue is empty."""
        try:
            while self._queue or self._damage:
                if self._damage:
                    await self._rebuild()
                size = min(len(self._queue), GROUP_WRITES_MAX)
                group = [self._queue.popleft() for _ in range(size)]
                if group:
                    await self._commit_group(group)
        finally:
            self._commits = None

    async def _commit_group(self, group: list[tuple[Write, asyncio.Future[Any]]]) -> None:
        loop = asyncio.get_running_loop()
        writes = [fn for fn, _ in group]
        outcomes = await loop.run_in_executor(self._thread, self._commit, writes)
        again: list[tuple[Write, asyncio.Future[Any]]] = []
        for (fn, future), outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Raised) and outcome.is_damage and self.suspect(outcome.error):
                again.append((fn, future))
            else:
                _settle(future, outcome)
        self._queue.extendleft(reversed(again))  # on the new file
        if len(again) < len(group):
            self._record_commit(outcomes)

    def _record_commit(self, outcomes: list["Outcome"]) -> None:
        failed = [o.error for o in outcomes if isinstance(o, Raised)]
        self.counts["database_transactions/committed"] += 1
        self.counts["database_writes/done"] += len(outcomes) - len(failed)
        self.counts["database_writes/failed"] += len(failed)
        refusals = [error for error in failed if isinstance(error, StorageError)]
        if refusals:
            self._refused(refusals[-1])
        elif len(failed) < len(outcomes):
            self._accepted()
        if self.synchronous == "NORMAL":
            self._sync_soon()

    def _sync_soon(self) -> None:
        if self._sync_timer is None:
            loop = asyncio.get_running_loop()
            self._sync_timer = loop.call_later(SYNC_DELAY_S, self._start_sync)

    def _refused(self, refusal: StorageError) -> None:
        """Remember, and say once, that the disk takes nothing; try again in a while."""
        if self._refusal is None:
            log.error("%s Until that is over, it is not said again.", refusal)
        self._refusal = refusal
        if self._probe is None:
            self._probe = asyncio.get_running_loop().call_later(PROBE_DELAY_S, self._try_again)

    def _accepted(self) -> None:
        if self._refusal is not None:
            log.info("%s is written again.", self.path)
        self._refusal = None

    def _try_again(self) -> None:
        """Write something: nobody else may want to for hours, and the user waits for the word.

        A page may find a place in the log where nothing else does, so room is looked for first.
        """
        self._probe = None
        if self._refusal is None or self._closed or self._failure is not None:
            return
        if not has_room(self.path):
            self._refused(self._refusal)
            return
        self._is_held_back = False
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(asyncio.Future.exception)
        self._queue.append((_write_nothing, future))
        self._begin_commits()

    async def _rebuild(self) -> None:
        """Replace the damaged file; what waits in the queue then goes to the new one."""
        while not descriptors.are_left():  # noqa: ASYNC110 - what is closed could not be opened
            await asyncio.sleep(PROBE_DELAY_S)
        if self._sync_timer is not None:
            self._sync_timer.cancel()
        self._sync_timer = None
        await asyncio.gather(*self._syncs)
        reader, self._reader = self._reader, None
        assert reader is not None, "it is open as long as the file is"
        loop = asyncio.get_running_loop()
        try:
            connections, loss = await loop.run_in_executor(
                self._thread, self._replace, reader, self._damage
            )
            self._reader = connections.reader
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
            self._fail_for_good(error)
            return
        finally:
            self._damage = ""
        self._record_loss(loss)
        self._unreadable = None
        self.on_rebuilt()

    def _fail_for_good(self, error: Exception) -> None:
        """Take no more writes, and answer those that wait."""
        self._failure = error
        failure = self._for_good()
        log.error("%s", failure)
        while self._queue:
            _settle(self._queue.popleft()[1], Raised(failure))

    def _start_sync(self) -> None:
        task = watched.start("database-sync", self._sync_and_log, self.path.stem)
        self._syncs.add(task)
        task.add_done_callback(self._syncs.discard)

    async def _sync_and_log(self) -> None:
        try:
            await self.sync()
        except StorageError as error:
            # Once a second while it lasts, and each line makes a full disk fuller.
            self._quiet.warning("sync", "%s", error)

    # ---- in the writer thread -------------------------------------------------------------------

    def _replace(self, reader: sqlite3.Connection, reason: str) -> tuple[Connections, str]:
        """Close the damaged file and open the new one; return what is gone, too."""
        self._rebuilds += 1
        note = self._tail.latest()
        Connections(reader, self._writer).close()
        if self._rebuilds > REBUILDS_MAX:
            raise OSError(errno.EIO, f"it was damaged {REBUILDS_MAX} times since the start")
        connections, loss = reopen(
            self.path, self._migrations, self.synchronous, self._tail, note, reason
        )
        self._writer = connections.writer
        return connections, loss

    def _commit(self, writes: list[Write]) -> list["Outcome"]:
        """Run all writes in one transaction; an error of the disk fails all of them."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            outcomes = self._run_all(writes)
            noted = numbers(self._writer, self._migrations)
            self._writer.execute("COMMIT")
            if self.synchronous == "FULL":
                self._tail.synced(self._tail.log(), noted)
            else:
                self._tail.record(noted)
        except Exception as error:  # noqa: BLE001 - it is handed to the callers of write()
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raised = self._raised(error)
            if is_failed_sync(error):
                self._failure = error
                self.on_unsynced()
            return [raised for _ in writes]
        return outcomes

    def _run_all(self, writes: list[Write]) -> list["Outcome"]:
        """Run all writes, each in a savepoint of its own where one could undo another."""
        if len(writes) == 1:
            return [writes[0](self._writer)]
        return [self._run(fn) for fn in writes]

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
            return self._raised(error)
        self._writer.execute("RELEASE one")
        return result

    def _raised(self, error: Exception) -> "Raised":
        return Raised(translate(error, self.path), is_damage=is_damage(error))

    def _close_writer(self) -> None:
        try:
            if self._failure is None:
                # All is in the file, and noted to be, before the log is cut off.
                self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._tail.record()
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._writer.close()
            self._tail.close()

    # ---- in any thread --------------------------------------------------------------------------

    def _sync_log(self) -> None:
        """Sync the write-ahead log, and with it every commit that is not yet in the file.

        Not in the writer thread: a card that takes 50 ms to sync would hold up the next commit.
        SQLite keeps its locks on the other two files, so closing this one drops none.
        """
        synced = self._tail.log()
        handle = os.open(f"{self.path}-wal", os.O_RDONLY)
        try:
            os.fdatasync(handle)
        finally:
            os.close(handle)
        self._tail.synced(synced)


class Raised:
    """A write's outcome: it raised this."""

    def __init__(self, error: Exception, *, is_damage: bool = False) -> None:
        self.error = error
        self.is_damage = is_damage


Outcome = Raised | Any


def _settle(future: asyncio.Future[Any], outcome: Outcome) -> None:
    if future.done():  # whoever waited was cancelled; the write itself stands
        return
    if isinstance(outcome, Raised):
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome)


def _write_nothing(writer: sqlite3.Connection) -> None:
    """Write a page with what it has: the least that shows whether the disk takes anything."""
    writer.execute("PRAGMA user_version = 0")
