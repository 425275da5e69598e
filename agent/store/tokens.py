"""The tokens of an issuer as records, and those that an earlier version kept in ``control.db``.

A token ends once, and for good: used up, expired or revoked. That it has expired is written down
when it is noticed, for a clock may be set back, and a token must not come back with it.

Tokens stand in the control plane's log by now (``agent/admission/registry_issuer.py``). What is in
the tables here is carried over there by the first start that finds it, and forgotten.
"""

import enum
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from agent import exits
from agent.exits import AgentError
from agent.store.checksums import Table
from gossip.core.ids import NodeId, parse_node_id

CLOCKS_APART_MAX_S = 300.0
"""So far the clocks of two devices may differ when one is let in, or a token was made by one."""

TOKENS = Table(
    "tokens",
    ("id", "public_key", "expires_at", "uses_left", "checksum", "note"),
    floats=frozenset({"expires_at"}),
)
HASHED_TOKENS = TOKENS._replace(
    columns=("id", "secret_hash", "expires_at", "uses_left", "checksum", "note")
)
"""As it was before the step ``token_keys``: the hash in it proves as much as the token does."""
ADMISSIONS = Table(
    "admissions",
    ("token_id", "key", "node_id", "admitted_at", "checksum"),
    floats=frozenset({"admitted_at"}),
    key_columns=2,
)


class TokenState(enum.Enum):
    """What an issuer finds when somebody shows a token."""

    VALID = "valid"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    USED_UP = "used up"
    REVOKED = "revoked"
    OUTDATED = "outdated"
    """Made by a version that kept a hash of it, which proved as much as the token itself."""


TOKEN_REFUSALS = {
    TokenState.UNKNOWN: ("the covey does not know this token.", exits.TOKEN_UNKNOWN),
    TokenState.EXPIRED: ("this token has expired.", exits.TOKEN_EXPIRED),
    TokenState.USED_UP: ("this token was used as often as it allowed.", exits.TOKEN_USED_UP),
    TokenState.REVOKED: ("this token was revoked.", exits.TOKEN_UNKNOWN),
    TokenState.OUTDATED: (
        "this token ended when Covey was updated where it was made.",
        exits.TOKEN_EXPIRED,
    ),
}


class TokenRefusedError(AgentError):
    """The token lets nobody in; nothing was changed."""

    def __init__(self, state: TokenState) -> None:
        message, status = TOKEN_REFUSALS[state]
        hint = "Make a new one with `covey token create` where this one was made."
        super().__init__(message, hint, status)


class TokenNote(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a token beside what each use changes."""

    made_at: float = 0.0
    made_by: str = ""
    uses: int = 1
    node_name: str = ""
    zone: str = ""
    weight: float = 0.0
    ended: str = ""
    """The value of the ``TokenState`` in which it ended before its uses did."""


class TokenRecord(msgspec.Struct, frozen=True, array_like=True):
    """A token as the issuers keep it. Times are Unix seconds; the order of the fields is its form.

    New fields go to the end and have a default: it is read by every later version.
    """

    id: bytes
    public_key: bytes
    expires_at: float
    uses_left: int
    note: TokenNote
    admitted: tuple[NodeId, ...] = ()
    """The nodes that were let in with it, first come first."""

    def encode(self) -> bytes:
        """Return it as it stands in the log."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "TokenRecord":
        """Read what ``encode`` wrote. Raises msgspec.DecodeError."""
        return _DECODER.decode(data)

    def state(self, now_s: float) -> TokenState:
        """Tell what it is worth now."""
        if self.note.ended:
            return TokenState(self.note.ended)
        if self.uses_left < 1:
            return TokenState.USED_UP
        # One that is yet to be made was made by a clock that stood ahead, and so was its end.
        is_from_ahead = self.note.made_at > now_s + CLOCKS_APART_MAX_S
        is_good = now_s < self.expires_at and not is_from_ahead
        return TokenState.VALID if is_good else TokenState.EXPIRED

    @property
    def is_outdated(self) -> bool:
        """Whether it was made by a version that kept its hash, which was not carried over."""
        return not self.public_key

    @property
    def is_over(self) -> bool:
        """Whether it ended for good, by whatever clock."""
        return bool(self.note.ended) or self.uses_left < 1

    def used(self, node: NodeId) -> "TokenRecord":
        """Return it with one use less, for this node."""
        admitted = (*self.admitted, node)
        return msgspec.structs.replace(self, uses_left=self.uses_left - 1, admitted=admitted)

    def ended_as(self, state: TokenState) -> "TokenRecord":
        """Return it as one that has ended so."""
        return msgspec.structs.replace(
            self, note=msgspec.structs.replace(self.note, ended=state.value)
        )

    def row(self) -> tuple[Any, ...]:
        """Return it as an earlier version stored it."""
        note = msgspec.msgpack.encode(self.note)
        return TOKENS.sealed(self.id, self.public_key, self.expires_at, self.uses_left, note)


_DECODER = msgspec.msgpack.Decoder(TokenRecord)


def find_all(rows: sqlite3.Connection) -> list[TokenRecord]:
    """Return all tokens that are kept here, the newest last."""
    query = f"SELECT {TOKENS.names} FROM tokens ORDER BY expires_at"  # noqa: S608 - our names
    tokens = [_record(rows, row) for row in rows.execute(query).fetchall()]
    return sorted(tokens, key=lambda token: token.note.made_at)


def forget_all(rows: sqlite3.Connection) -> None:
    """Keep none here any more."""
    rows.execute("DELETE FROM tokens")
    rows.execute("DELETE FROM admissions")


def end_hashed(rows: sqlite3.Connection) -> None:
    """End what was made while a hash was kept of each token, and keep none: for a migration."""
    for token in find_all(rows):
        note = token.note
        if not note.ended and token.uses_left > 0:
            note = msgspec.structs.replace(note, ended=TokenState.OUTDATED.value)
        _replace(rows, msgspec.structs.replace(token, public_key=b"", note=note))


def is_further(copied: Sequence[Any], ours: Sequence[Any]) -> bool:
    """Tell whether a copied row of a token was written after ours: uses go, and it ends once."""
    return bool(copied[3] < ours[3] or (_note(copied[5]).ended and not _note(ours[5]).ended))


def _note(packed: bytes | None) -> TokenNote:
    return msgspec.msgpack.decode(packed, type=TokenNote) if packed else TokenNote()


def _replace(rows: sqlite3.Connection, token: TokenRecord) -> None:
    query = f"INSERT OR REPLACE INTO tokens ({TOKENS.names}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608
    rows.execute(query, token.row())


def _record(rows: sqlite3.Connection, row: tuple[Any, ...]) -> TokenRecord:
    token_id, public_key, expires_at, uses_left, _, note = row
    query = "SELECT node_id FROM admissions WHERE token_id = ? ORDER BY admitted_at"
    admitted = tuple(parse_node_id(node) for (node,) in rows.execute(query, (token_id,)))
    return TokenRecord(token_id, public_key, expires_at, uses_left, _note(note), admitted)
