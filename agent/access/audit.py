"""What was changed by way of this agent's API: who, from where, what, and what came of it.

Each agent writes down what came in at its own sockets, refused attempts too, in ``audit.db``. Both
are bounded, and apart: who is refused ten thousand times pushes no change out. Nothing waits for
the disk: an entry is written at once, or with those that came within a tenth of a second of it, and
is on the disk within a second or so; a power cut may cost the last. What cannot be written is
counted.

No entry has a body, a value or a token. Texts of others are bounded here and escaped where they are
shown.
"""

import asyncio
import logging
import math
import sqlite3
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from agent.access.audit_retention import AuditRetention
from agent.access.audit_schema import AUDIT_MIGRATIONS, ENTRIES
from agent.access.repeated_refusals import RepeatedRefusals
from agent.exits import AgentError
from agent.loop import watched
from agent.store.database import Database
from agent.store.inserting import insert_all

WAITING_MAX = 1_000
GATHER_S = 0.1
"""From one transaction to the next: where there are many changes a second, each would cost more
than what it tells of. Sooner when somebody wants to read, or so many wait:"""
GATHERED_MAX = WAITING_MAX // 2
TEXT_CHARACTERS_MAX = 300
DETAIL_CHARACTERS_MAX = 16_000
"""Room for the names of the largest transaction: none of them hides behind the others."""
PAGE_MAX = 1_000

log = logging.getLogger(__name__)


class AuditEntry(NamedTuple):
    """One change, or attempts that were refused, ``times`` of them."""

    at_ms: int
    who: str
    source: str
    action: str
    outcome: str
    detail: str = ""
    times: int = 1
    is_refusal: bool = False
    number: int = 0
    """In the order of writing, from 1 on, also across restarts; 0: not written yet."""


class AuditLog:
    """The audit log of one agent. What is recorded before ``open`` waits for it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.attempts = RepeatedRefusals(self.refusal)
        """What was refused comes by here."""
        self._waiting: deque[AuditEntry] = deque()
        self._retention = AuditRetention()
        self._database: Database | None = None
        self._writing: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._is_wanted = asyncio.Event()
        self._written_at = -math.inf
        self._recorded = self._under_way = 0
        self._round = asyncio.Event()
        """Set when a transaction is over."""

    async def open(self, path: Path) -> Database:
        """Open the file. Raises StorageError."""
        self._database = await Database.open(path, AUDIT_MIGRATIONS)
        self._write_soon()
        return self._database

    async def close(self) -> None:
        """Write what waits, and close the file."""
        if self._database is None:
            return
        self.attempts.flush()
        self._write_soon()
        await self._written()
        await self._database.close()
        self._database = None

    def change(self, who: str, source: str, action: str, outcome: str, detail: str = "") -> None:
        """Record what was changed, or was to be."""
        self._record(AuditEntry(_now_ms(), who, source, action, outcome, detail))

    def refusal(self, who: str, source: str, action: str, reason: str, times: int) -> None:
        """Record attempts that were refused."""
        self._record(
            AuditEntry(_now_ms(), who, source, action, reason, times=times, is_refusal=True)
        )

    async def entries(
        self, since_ms: int = 0, after: int = 0, limit: int = 100
    ) -> list[AuditEntry]:
        """Return the last entries since then and behind that number, in their order."""
        if self._database is None:
            return []
        self.attempts.flush()
        await self._written()
        return self._read(since_ms, after, limit, newest=True)

    async def follow(self, after: int) -> AsyncGenerator[AuditEntry, None]:
        """Yield the entries behind a number as they are written. It does not end."""
        while True:
            news = self._news
            for entry in self._read(0, after, PAGE_MAX, newest=False):
                after = entry.number
                yield entry
            await news.wait()

    @property
    def last_number(self) -> int:
        """The number of the last entry that was written."""
        found = self._read(0, 0, 1, newest=True)
        return found[0].number if found else 0

    def _record(self, entry: AuditEntry) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self.counts["audit_entries/lost"] += 1
        self._waiting.append(_bounded(entry))
        self._recorded += 1
        self._write_soon()

        if len(self._waiting) >= GATHERED_MAX:
            self._is_wanted.set()

    async def _written(self) -> None:
        """Return when all that was recorded up to now is written, or lost and counted."""
        until = self._recorded
        while self._recorded - len(self._waiting) - self._under_way < until:
            self._write_soon()
            self._is_wanted.set()
            await self._round.wait()

    def _write_soon(self) -> None:
        is_idle = self._writing is None or self._writing.done()
        if self._waiting and self._database is not None and is_idle:
            self._writing = watched.start("audit", self._write)

    async def _write(self) -> None:
        assert self._database is not None, "it was there when this began"
        while self._waiting:
            await self._gathered()
            group = list(self._waiting)
            self._waiting.clear()
            self._under_way = len(group)
            try:
                await self._database.write(partial(_insert, group, self._retention))
            except AgentError as error:
                self.counts["audit_entries/lost"] += len(group)
                log.warning("%d entries of the audit log were not written: %s", len(group), error)
            else:
                self.counts["audit_entries/written"] += len(group)
                self._news.set()
                self._news = asyncio.Event()
            finally:
                self._end_round()

    def _end_round(self) -> None:
        self._under_way = 0
        self._written_at = asyncio.get_running_loop().time()
        self._round.set()
        self._round = asyncio.Event()

    async def _gathered(self) -> None:
        """Return when it is time for the next transaction."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._written_at + GATHER_S):
                await self._is_wanted.wait()
        self._is_wanted.clear()

    def _read(self, since_ms: int, after: int, limit: int, *, newest: bool) -> list[AuditEntry]:
        if self._database is None:
            return []
        return self._database.read(partial(_select, since_ms, after, limit, newest=newest))


def _insert(group: list[AuditEntry], retention: AuditRetention, writer: sqlite3.Connection) -> None:
    query = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'entries'), 0)"
    (last,) = writer.execute(query).fetchone()
    numbered = enumerate(group, last + 1)
    insert_all(
        writer,
        ENTRIES,
        [ENTRIES.sealed(n, int(entry.is_refusal), *entry[:-2]) for n, entry in numbered],
    )
    retention.inserted(last, (entry.detail for entry in group), writer)


def _select(
    since_ms: int, after: int, limit: int, reader: sqlite3.Connection, *, newest: bool
) -> list[AuditEntry]:
    order = "DESC" if newest else "ASC"
    query = (
        f"SELECT {ENTRIES.names} FROM entries WHERE number > ? AND at_ms >= ?"  # noqa: S608
        f" ORDER BY number {order} LIMIT ?"
    )
    rows = [r for r in reader.execute(query, (after, since_ms, limit)) if ENTRIES.verifies(r)]
    found = [AuditEntry._make((*row[2:9], bool(row[1]), row[0])) for row in rows]
    return found[::-1] if newest else found


def _bounded(entry: AuditEntry) -> AuditEntry:
    if all(len(text) <= TEXT_CHARACTERS_MAX and text.isascii() for text in entry[1:6]):
        return entry
    texts: dict[str, Any] = {
        name: _cut(getattr(entry, name), TEXT_CHARACTERS_MAX)
        for name in ("who", "source", "action", "outcome")
    }
    texts["detail"] = _cut(entry.detail, DETAIL_CHARACTERS_MAX)
    return entry._replace(**texts)


def _cut(text: str, characters_max: int) -> str:
    cut = text[:characters_max]
    return cut if cut.isascii() else cut.encode(errors="replace").decode()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
