"""``control.db``: what a node must never lose, and never get half of.

The count of starts (a boot must grow, or the others take this life for the last one), the newest
signed registry, the tokens and admissions of an issuer, and the book of all peers ever known, so
that a device that reboots alone finds the others again. Every commit is synced: these are
few and each of them matters.

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
from typing import TYPE_CHECKING, Any, TypeVar

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
from agent.store.tokens import ADMISSIONS, HASHED_TOKENS, TOKENS, TokenRecord, TokenState
from agent.text.units import counted
from gossip.core.ids import ClusterId, NodeId, format_cluster_id, format_node_id, parse_node_id
from gossip.core.machine import Address

if TYPE_CHECKING:
    from sqlite_utils import Database as Schema

T = TypeVar("T")

log = logging.getLogger(__name__)

PEERS_MAX = 4096
STARTS_LEAP = 1000
"""How many starts may have been counted since the newest count that is left of a damaged file."""

RIVAL = "rival registry"
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
        To an issuer others show no newer one than its own, unless its disk was set back to an
        earlier state. Its tokens are of then, too: ended and used ones let in again. So all end.
        """
        kept = self.registry()
        if kept is not None and kept[0] >= epoch:
            return False

        def save(rows: sqlite3.Connection) -> tuple[bool, int, int]:
            of_then = _registry(rows)
            is_news = _save_registry(rows, epoch, signed)
            ended = token_rows.end_all(rows) if of_then is not None and is_news else 0
            return is_news, of_then[0] if of_then else 0, ended

        is_news, former, ended = await self._write(save)
        if ended:
            log.warning(
                "the members have a newer registry (epoch %d) than this disk (epoch %d), which was "
                "set back: %s ended here, which may have been revoked or used since; make new ones",
                epoch, former, counted(ended, "token"),
            )  # fmt: skip
        return is_news

    def rival(self) -> bytes | None:
        """Return the registry that showed last that ours had forked; it may have ended since."""
        query = "SELECT value FROM facts WHERE name = ?"
        found = self.database.read(lambda rows: rows.execute(query, (RIVAL,)).fetchone())
        return bytes(found[0]) if found else None

    async def save_rival(self, signed: bytes) -> None:
        """Keep the registry that shows a fork: who starts anew serves as little as the others."""
        await self._write(lambda rows: _set_fact(rows, RIVAL, signed))

    def peers(self) -> list[Peer]:
        """Return the peer book, last seen first."""
        query = "SELECT id, name, addresses, seen_at FROM peers ORDER BY seen_at DESC"
        return [_peer(*row) for row in self.database.read(lambda r: r.execute(query).fetchall())]

    async def save_peers(self, peers: Iterable[Peer]) -> None:
        """Add or update entries of the peer book, which keeps the 4,096 seen last."""
        entries = tuple(peers)
        await self.database.write(lambda rows: _save_peers(rows, entries))

    async def add_token(self, token: TokenRecord) -> None:
        """Let a token in; forget those that were over long ago."""
        await self._write(lambda rows: token_rows.insert(rows, token))

    def token(self, token_id: bytes) -> TokenRecord | None:
        """Return a token; None if it is not known, or not any more."""
        return self.database.read(lambda rows: token_rows.find(rows, token_id))

    def tokens(self) -> list[TokenRecord]:
        """Return all tokens that are remembered, the newest last."""
        return self.database.read(token_rows.find_all)

    async def revoke_token(self, token_id: bytes, now_s: float) -> TokenState:
        """End a token; return what it was worth before."""
        return await self._write(lambda rows: token_rows.end(rows, token_id, now_s))

    async def end_tokens(self, over: Callable[[TokenRecord], bool]) -> int:
        """Write down of all tokens that are ``over`` that they have expired; return how many."""
        return await self._write(lambda rows: token_rows.end_expired(rows, over))

    async def redeem(
        self,
        token_id: bytes,
        shown: Callable[[TokenRecord], bool],
        key: bytes,
        now_s: float,
        admit: "Admit",
    ) -> "NewRegistry":
        """Use a token once for the node with this public key, in one transaction.

        ``shown`` tells whether the node has its secret. ``admit`` gets the newest signed registry,
        the token, and whether this very key was admitted with it before; it returns the registry
        that has the node. When it raises, the token is as good as before. A node that asks again,
        because the answer was lost, is not counted again, even if the token has expired or run
        out meanwhile. Raises TokenRefusedError.
        """

        def use(rows: sqlite3.Connection) -> NewRegistry:
            token, again = token_rows.use(rows, token_id, shown, key, now_s)
            kept = _registry(rows)
            fresh = admit(kept[1] if kept else None, token, again)
            if not again:
                token_rows.note_use(rows, token, key, format_node_id(fresh.node_id), now_s)
            _save_registry(rows, fresh.epoch, fresh.signed)
            return fresh

        return await self._write(use)

    async def change_registry(
        self, change: Callable[[bytes | None], "NewRegistry"]
    ) -> "NewRegistry":
        """Keep the registry that ``change`` makes of the newest one, in one transaction."""

        def replace(rows: sqlite3.Connection) -> NewRegistry:
            kept = _registry(rows)
            fresh = change(kept[1] if kept else None)
            _save_registry(rows, fresh.epoch, fresh.signed)
            return fresh

        return await self._write(replace)

    async def hand_over(self, change: Callable[[bytes | None], "NewRegistry"]) -> "NewRegistry":
        """Keep a registry after which no token of before counts, in one transaction."""

        def replace(rows: sqlite3.Connection) -> NewRegistry:
            kept = _registry(rows)
            fresh = change(kept[1] if kept else None)
            if _save_registry(rows, fresh.epoch, fresh.signed):
                token_rows.end_all(rows)
            return fresh

        return await self._write(replace)


class NewRegistry(msgspec.Struct, frozen=True):
    """A registry that an issuer has just signed, and the node on whose account."""

    epoch: int
    signed: bytes
    node_id: NodeId
    is_news: bool = True
    """False where somebody asked again for what it was given before."""


Admit = Callable[[bytes | None, TokenRecord, bool], NewRegistry]


def _fact_or(rows: sqlite3.Connection, name: str, default: bytes) -> bytes:
    """Return a fact; when there is none, make the default the fact."""
    rows.execute("INSERT OR IGNORE INTO facts VALUES (?, ?, ?)", FACTS.sealed(name, default))
    found = rows.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return bytes(found[0])


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
