"""The tokens of an issuer in ``control.db``: made, used, ended, and what of them is remembered.

A token ends once, and for good: used up, expired or revoked. That it has expired is written down
when it is noticed, for a clock may be set back, and a token must not come back with it.
"""

import enum
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from agent import exits
from agent.exits import AgentError
from agent.store.checksums import Table

TOKENS_REMEMBERED_S = 30 * 86400.0
"""How long a token that ended is still told apart from one that never was."""

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


class TokenRecord(msgspec.Struct, frozen=True):
    """A token as the issuer keeps it. Times are Unix seconds."""

    id: bytes
    public_key: bytes
    expires_at: float
    uses_left: int
    note: TokenNote
    admitted: tuple[str, ...] = ()
    """The ids of the nodes that were let in with it, first come first."""

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

    def row(self) -> tuple[Any, ...]:
        """Return it as it is stored."""
        note = msgspec.msgpack.encode(self.note)
        return TOKENS.sealed(self.id, self.public_key, self.expires_at, self.uses_left, note)


def insert(rows: sqlite3.Connection, token: TokenRecord) -> None:
    """Add a token; forget those that are over for long."""
    long_ago = token.note.made_at - TOKENS_REMEMBERED_S
    rows.execute("DELETE FROM tokens WHERE expires_at < ?", (long_ago,))
    rows.execute("DELETE FROM admissions WHERE token_id NOT IN (SELECT id FROM tokens)")
    _replace(rows, token)


def find(rows: sqlite3.Connection, token_id: bytes) -> TokenRecord | None:
    """Return a token; None if it is not known, or not any more."""
    query = f"SELECT {TOKENS.names} FROM tokens WHERE id = ?"  # noqa: S608 - our names
    found = rows.execute(query, (token_id,)).fetchone()
    return _record(rows, found) if found else None


def find_all(rows: sqlite3.Connection) -> list[TokenRecord]:
    """Return all tokens that are remembered, the newest last."""
    query = f"SELECT {TOKENS.names} FROM tokens ORDER BY expires_at"  # noqa: S608 - our names
    tokens = [_record(rows, row) for row in rows.execute(query).fetchall()]
    return sorted(tokens, key=lambda token: token.note.made_at)


def use(
    rows: sqlite3.Connection,
    token_id: bytes,
    shown: Callable[[TokenRecord], bool],
    key: bytes,
    now_s: float,
) -> tuple[TokenRecord, bool]:
    """Return the token that somebody with this public key has ``shown``, to be used once more.

    True: this very key was let in with it before, which counts no second time and needs no token
    that is still good. Raises TokenRefusedError.
    """
    token = find(rows, token_id)
    if token is None or not shown(token):
        raise TokenRefusedError(TokenState.UNKNOWN)
    query = "SELECT 1 FROM admissions WHERE token_id = ? AND key = ?"
    again = rows.execute(query, (token_id, key)).fetchone() is not None
    state = token.state(now_s)
    if state is not TokenState.VALID and not again:
        raise TokenRefusedError(state)
    return token, again


def note_use(
    rows: sqlite3.Connection, token: TokenRecord, key: bytes, node_id: str, now_s: float
) -> None:
    """Take one use from a token, for the node with this key and id."""
    _replace(rows, msgspec.structs.replace(token, uses_left=token.uses_left - 1))
    admission = ADMISSIONS.sealed(token.id, key, node_id, float(now_s))
    rows.execute("INSERT INTO admissions VALUES (?, ?, ?, ?, ?)", admission)


def end(rows: sqlite3.Connection, token_id: bytes, now_s: float) -> TokenState:
    """Revoke a token; return what it was worth before."""
    token = find(rows, token_id)
    if token is None:
        return TokenState.UNKNOWN
    state = token.state(now_s)
    if state is TokenState.VALID:
        _end_as(rows, token, TokenState.REVOKED)
    return state


def end_all(rows: sqlite3.Connection) -> int:
    """Revoke all tokens that let somebody in, or will by a clock that is put right; say how many.

    Who was let in stays noted.
    """
    good = [each for each in find_all(rows) if not each.note.ended and each.uses_left > 0]
    for token in good:
        _end_as(rows, token, TokenState.REVOKED)
    return len(good)


def end_expired(rows: sqlite3.Connection, over: Callable[[TokenRecord], bool]) -> int:
    """Write down of all tokens that are ``over`` that they have expired; return how many."""
    expired = [each for each in find_all(rows) if not each.note.ended and over(each)]
    for token in expired:
        _end_as(rows, token, TokenState.EXPIRED)
    return len(expired)


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


def _end_as(rows: sqlite3.Connection, token: TokenRecord, state: TokenState) -> None:
    note = msgspec.structs.replace(token.note, ended=state.value)
    _replace(rows, msgspec.structs.replace(token, note=note))


def _replace(rows: sqlite3.Connection, token: TokenRecord) -> None:
    query = f"INSERT OR REPLACE INTO tokens ({TOKENS.names}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608
    rows.execute(query, token.row())


def _record(rows: sqlite3.Connection, row: tuple[Any, ...]) -> TokenRecord:
    token_id, public_key, expires_at, uses_left, _, note = row
    query = "SELECT node_id FROM admissions WHERE token_id = ? ORDER BY admitted_at"
    admitted = tuple(node for (node,) in rows.execute(query, (token_id,)))
    return TokenRecord(token_id, public_key, expires_at, uses_left, _note(note), admitted)
