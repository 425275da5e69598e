"""``control.db``: what a node must never lose, and never get half of.

The count of starts (a boot must grow, or the others take this life for the last one), the newest
signed registry and the one that forked from it, the facts that the owner set, the time of the last
event, and all peers ever known, so that a device that reboots alone finds the others again. Every
commit is synced: these are few and each of them matters. An issuer of an earlier version kept its
tokens here, too; they are carried over into the control plane's log.

The database carries the ids of the covey and the node that it was made for. A data directory in
which somebody put another identity is refused: its registry and its starts belong to a node that
no longer exists.

The whole file is looked through when it is opened. If anything in it is wrong, the sound rows go
into a new file, those that are missing come from its copy (``control_copy.py``), and the count
of starts leaps ahead, so that no start can have been counted that is now forgotten.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from agent import exits
from agent.exits import AgentError
from agent.identity.identity import Peer
from agent.store import tokens as token_rows
from agent.store.checksums import CHECKSUM, Table, add_checksums
from agent.store.commit_note import CommitNote
from agent.store.control_copy import ControlCopy, copy_of, restore
from agent.store.database import Database
from agent.store.migrations import Migrations
from agent.store.tokens import ADMISSIONS, HASHED_TOKENS, TOKENS, TokenRecord
from gossip.core.ids import ClusterId, NodeId, format_cluster_id, format_node_id, parse_node_id
from gossip.core.machine import Address
from gossip.kv.storage import RegistryChange

if TYPE_CHECKING:
    from sqlite_utils import Database as Schema

T = TypeVar("T")

log = logging.getLogger(__name__)

PEERS_MAX = 4096
STARTS_LEAP = 1000
"""How many starts may have been counted since the newest count that is left of a damaged file."""

RIVAL = "rival registry"
LOG_MARK = "log"
FACTS = Table("facts", ("name", "value", "checksum"))
PEERS = Table(
    "peers", ("id", "name", "addresses", "seen_at", "checksum"), floats=frozenset({"seen_at"})
)
TABLES = (FACTS, PEERS, TOKENS, ADMISSIONS)


def mend(rows: sqlite3.Connection, path: Path, note: CommitNote | None) -> list[str]:
    """Take from the copy what is missing, and count starts from where none can have been."""
    del note
    taken = restore(rows, copy_of(path), TABLES, _copy_is_newer)
    counted = int(_fact_or(rows, "starts", b"0"))
    _set_fact(rows, "starts", str(counted + STARTS_LEAP).encode())
    if taken:
        log.info("%d rows came from the copy of %s", taken, path)
    return [] if _registry(rows) else ["the registry, for which members are asked"]


def _copy_is_newer(table: Table, copied: Sequence[Any], ours: Sequence[Any]) -> bool:
    """Tell which of two rows with one key was written later: what is in them only grows."""
    if table is PEERS:
        return bool(copied[3] > ours[3])
    if table is TOKENS:
        return token_rows.is_further(copied, ours)
    name, theirs, value = copied[0], copied[1], ours[1]
    if name == "registry":
        return bool(msgspec.msgpack.decode(theirs)[0] > msgspec.msgpack.decode(value)[0])
    if name in ("starts", "event time"):
        return int(theirs) > int(value)
    return True  # what the owner set is copied at once


CONTROL_MIGRATIONS = Migrations("control", TABLES, mend=mend, is_rewritten=True)


@CONTROL_MIGRATIONS
def create(schema: "Schema") -> None:
    """Make the tables of the first version."""
    facts = {"name": str, "value": bytes}
    schema.table("facts").create(facts, pk="name", not_null={"value"})
    peers = {"id": str, "name": str, "addresses": bytes, "seen_at": float}
    schema.table("peers").create(peers, pk="id", not_null={"name", "addresses", "seen_at"})
    each = {"id": bytes, "secret_hash": bytes, "expires_at": float, "uses_left": int}
    schema.table("tokens").create(
        each, pk="id", not_null={"secret_hash", "expires_at", "uses_left"}
    )
    admissions = {"token_id": bytes, "key": bytes, "node_id": str, "admitted_at": float}
    schema.table("admissions").create(admissions, pk=("token_id", "key"), not_null={"node_id"})


@CONTROL_MIGRATIONS
def checksums(schema: "Schema") -> None:
    """Add the checksums."""
    for table in (FACTS, PEERS, HASHED_TOKENS, ADMISSIONS):
        # Columns that later steps append are not there yet.
        known = table._replace(columns=table.columns[: table.columns.index(CHECKSUM) + 1])
        schema.execute(f"ALTER TABLE {table.name} ADD COLUMN checksum INTEGER")
        add_checksums(schema.conn, known)


@CONTROL_MIGRATIONS
def token_notes(schema: "Schema") -> None:
    """Add who made a token, and what it fixes."""
    schema.execute("ALTER TABLE tokens ADD COLUMN note BLOB")


@CONTROL_MIGRATIONS
def token_keys(schema: "Schema") -> None:
    """Keep the public key of a token in place of a hash that was as good as the token."""
    schema.execute("ALTER TABLE tokens RENAME COLUMN secret_hash TO public_key")
    token_rows.end_hashed(schema.conn)


class LogMark(NamedTuple):
    """Whose log is in ``consensus.db``, and which run wrote there last; they only grow.

    A ``store`` of 0 says that the log was given up, and is to be set aside.
    """

    store: int
    run: int


class ControlStore:
    """The tables of ``control.db``. Times are Unix seconds."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._copy = ControlCopy(database, TABLES)

    @classmethod
    async def open(cls, path: Path, cluster_id: ClusterId, node_id: NodeId) -> "ControlStore":
        """Open or create the file. Raises AgentError when it belongs to another identity."""
        database = await Database.open(path, CONTROL_MIGRATIONS, synchronous="FULL")
        owner = f"{format_cluster_id(cluster_id)}/{format_node_id(node_id)}".encode()
        found = await database.write(lambda rows: _fact_or(rows, "owner", owner))
        if found != owner:
            await database.close()
            raise AgentError(
                f"{path} belongs to another identity ({found.decode()}); nothing was changed.",
                hint="Put the identity back that this data directory was made with, or move the "
                "whole data directory away before joining again.",
                status=exits.BAD_CONFIG,
            )
        return cls(database)

    async def close(self) -> None:
        """Commit and close the file, and bring its copy up to date."""
        await self._copy.finish()
        await self.database.close()

    async def _write(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """Commit something that nobody could tell us again, and have it copied if it is news.

        Strangers can have an issuer ask its disk the same again and again.
        """

        def noting(rows: sqlite3.Connection) -> tuple[T, bool]:
            before = rows.total_changes
            return write(rows), rows.total_changes != before

        result, is_news = await self.database.write(noting)
        if is_news:
            self._copy.soon()
        return result

    async def count_start(self) -> int:
        """Count this start and return its number, 1 for the first."""
        return await self._write(_count_start)

    async def raise_starts(self, starts: int) -> None:
        """Let the next start have a number above this one, whatever was counted so far."""
        await self._write(lambda rows: _raise_starts(rows, starts))

    def log_mark(self) -> LogMark | None:
        """Return which log was opened last beside this file; None before the first."""
        found = self.database.read(lambda rows: _fact(rows, LOG_MARK))
        return LogMark(*msgspec.msgpack.decode(found, type=tuple[int, int])) if found else None

    async def save_log_mark(self, opened: LogMark) -> None:
        """Keep which log was opened: another, or one of an earlier run, is not that one."""
        kept = msgspec.msgpack.encode(tuple(opened))
        await self._write(lambda rows: _set_fact(rows, LOG_MARK, kept))

    async def give_up_log(self) -> None:
        """Have the next start set the log aside, and begin as another store."""
        known = self.log_mark()
        await self.save_log_mark(LogMark(0, known.run if known else 0))

    def event_time(self) -> int:
        """Return the Lamport time of the last event that was delivered here; 0 before any."""
        return self.database.read(_event_time)

    async def save_event_time(self, time: int) -> None:
        """Keep that time, unless a later one is kept."""
        await self.database.write(lambda rows: _save_event_time(rows, time))

    def facts(self) -> dict[str, str]:
        """Return the facts about this node that its owner set (``cluster/fact_publisher.py``)."""
        return self.database.read(_owners_facts)

    async def save_facts(self, facts: Mapping[str, str]) -> None:
        """Keep these facts in place of the former ones."""
        kept = msgspec.msgpack.encode(dict(facts))
        await self._write(lambda rows: _set_fact(rows, "owner's facts", kept))

    def registry(self) -> tuple[int, bytes] | None:
        """Return epoch and bytes of the newest signed registry; None before the first."""
        return self.database.read(_registry)

    async def save_registry(self, epoch: int, signed: bytes) -> bool:
        """Keep a signed registry unless a newer one is there; tell whether it was kept.

        Strangers can make an issuer call this: where there is nothing to keep, nothing is written.
        """
        kept = self.registry()
        if kept is not None and kept[0] >= epoch:
            return False
        return await self._write(lambda rows: _save_registry(rows, epoch, signed))

    async def save(self, changes: Sequence[object]) -> None:
        """Sync what a node wants synced (``Durability.FSYNC``). Raises StorageError."""
        for change in changes:
            assert isinstance(change, RegistryChange), "nothing else is kept here"
            await self.save_registry(change.epoch, change.signed)

    def rival(self) -> bytes | None:
        """Return the registry that showed last that ours had forked; it may have ended since."""
        return self.database.read(lambda rows: _fact(rows, RIVAL))

    async def save_rival(self, signed: bytes) -> None:
        """Keep the registry that shows a fork: who starts anew serves as little as the others."""
        await self._write(lambda rows: _set_fact(rows, RIVAL, signed))

    def peers(self) -> list[Peer]:
        """Return the known peers, last seen first."""
        query = "SELECT id, name, addresses, seen_at FROM peers ORDER BY seen_at DESC"
        return [_peer(*row) for row in self.database.read(lambda r: r.execute(query).fetchall())]

    async def save_peers(self, peers: Iterable[Peer]) -> None:
        """Add or update entries of the known peers, which keep the 4,096 seen last."""
        entries = tuple(peers)
        await self.database.write(lambda rows: _save_peers(rows, entries))

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens that an earlier version kept here, the newest last."""
        return self.database.read(token_rows.find_all)

    async def forget_tokens(self) -> None:
        """Keep no tokens here any more: they are kept elsewhere."""
        await self._write(token_rows.forget_all)


def _fact_or(rows: sqlite3.Connection, name: str, default: bytes) -> bytes:
    """Return a fact; when there is none, make the default the fact."""
    rows.execute("INSERT OR IGNORE INTO facts VALUES (?, ?, ?)", FACTS.sealed(name, default))
    found = rows.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return bytes(found[0])


def _fact(rows: sqlite3.Connection, name: str) -> bytes | None:
    found = rows.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return bytes(found[0]) if found else None


def _set_fact(rows: sqlite3.Connection, name: str, value: bytes) -> None:
    rows.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", FACTS.sealed(name, value))


def _count_start(rows: sqlite3.Connection) -> int:
    starts = int(_fact_or(rows, "starts", b"0")) + 1
    _set_fact(rows, "starts", str(starts).encode())
    return starts


def _raise_starts(rows: sqlite3.Connection, starts: int) -> None:
    counted = int(_fact_or(rows, "starts", b"0"))
    _set_fact(rows, "starts", str(max(counted, starts)).encode())


def _event_time(rows: sqlite3.Connection) -> int:
    found = rows.execute("SELECT value FROM facts WHERE name = 'event time'").fetchone()
    return int(found[0]) if found else 0


def _save_event_time(rows: sqlite3.Connection, time: int) -> None:
    _set_fact(rows, "event time", str(max(time, _event_time(rows))).encode())


def _owners_facts(rows: sqlite3.Connection) -> dict[str, str]:
    found = rows.execute("SELECT value FROM facts WHERE name = ?", ("owner's facts",)).fetchone()
    return msgspec.msgpack.decode(found[0], type=dict[str, str]) if found else {}


def _registry(rows: sqlite3.Connection) -> tuple[int, bytes] | None:
    found = rows.execute("SELECT value FROM facts WHERE name = 'registry'").fetchone()
    return msgspec.msgpack.decode(found[0], type=tuple[int, bytes]) if found else None


def _save_registry(rows: sqlite3.Connection, epoch: int, signed: bytes) -> bool:
    kept = _registry(rows)
    if kept is not None and kept[0] >= epoch:
        return False
    _set_fact(rows, "registry", msgspec.msgpack.encode((epoch, signed)))
    return True


def _peer(node_id: str, name: str, addresses: bytes, seen_at: float) -> Peer:
    where = msgspec.msgpack.decode(addresses, type=tuple[Address, ...])
    return Peer(parse_node_id(node_id), name, where, seen_at)


def _save_peers(rows: sqlite3.Connection, peers: tuple[Peer, ...]) -> None:
    rows.executemany(
        "INSERT OR REPLACE INTO peers VALUES (?, ?, ?, ?, ?)",
        [
            PEERS.sealed(
                format_node_id(peer.id),
                peer.name,
                msgspec.msgpack.encode(peer.addresses),
                float(peer.seen_at),
            )
            for peer in peers
        ],
    )
    rows.execute(
        "DELETE FROM peers WHERE id NOT IN (SELECT id FROM peers ORDER BY seen_at DESC LIMIT ?)",
        (PEERS_MAX,),
    )
