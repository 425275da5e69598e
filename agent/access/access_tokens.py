"""What an access token is, and what the covey keeps of it.

The token is ``covey_`` and 256 random bits. What is kept, in the control plane under
``covey/access/NAME``, has the SHA-256 of it and what it is good for. A plain hash is enough: slow
ones are for secrets that people choose, and nobody guesses one of 2^256, whatever a guess costs.
So a copy of a voter's disk opens no API.

A record with a field that this version does not know may hold a restriction that it does not know
either: such a token opens nothing here.
"""

import hashlib
import secrets
from typing import Annotated, Literal

import msgspec

from agent.access.rights import SCOPED_ROLES, Role
from agent.text.units import format_duration
from gossip.control.fleet_settings import ACCESS_PREFIX
from gossip.control.keys import KeyEntry
from gossip.core.errors import InvalidRequest
from gossip.core.names import NAME_RULE, is_name

TOKEN_PREFIX = "covey_"  # noqa: S105 - by which scanners of repositories know one
SECRET_BYTES = 32
TTL_S_DEFAULT, TTL_S_MIN, TTL_S_MAX = 90 * 86400.0, 60.0, 366 * 86400.0
TOKENS_MAX = 256
PREFIXES_MAX, PREFIX_BYTES_MAX = 8, 256
ID_DIGITS = 8
CLOCKS_DIFFER_S = 86400.0
"""A device whose clock is further than that before the making of a token cannot tell its end."""


class AccessToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token without its secret. Times are Unix seconds; ``node`` is an id, "" for all nodes."""

    version: Literal[1]
    role: Role
    digest: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    prefixes: tuple[str, ...]
    node: str
    made_at: float
    expires_at: float
    made_by: str

    @property
    def id(self) -> str:
        """By which two tokens are told apart that had one name, one after the other."""
        return self.digest[:ID_DIGITS]


class AccessTerms(msgspec.Struct, frozen=True):
    """What a token is asked for. ``node`` is an id; only a node's own token has one."""

    name: str
    role: Role
    prefixes: tuple[str, ...] = ()
    node: str = ""
    ttl_s: float = TTL_S_DEFAULT

    def check(self) -> None:
        """Raise InvalidRequest for what no token can be."""
        if not is_name(self.name):
            raise InvalidRequest(f"`name`: {self.name[:80]!r} is no name: use {NAME_RULE}")
        if not TTL_S_MIN <= self.ttl_s <= TTL_S_MAX:
            least, most = format_duration(TTL_S_MIN), format_duration(TTL_S_MAX)
            raise InvalidRequest(f"`ttl_s`: a token is good for {least} to {most}")
        if bool(self.node) != (self.role is Role.NODE):
            raise InvalidRequest("`node` goes together with the role node, and with no other")
        if self.prefixes and self.role not in SCOPED_ROLES:
            roles = " and ".join(sorted(each.value for each in SCOPED_ROLES))
            raise InvalidRequest(
                f"`prefixes` go with the roles {roles}, not with {self.role.value}"
            )
        check_prefixes(self.prefixes)


def check_prefixes(prefixes: tuple[str, ...]) -> None:
    """Raise InvalidRequest unless these can be the beginnings of names."""
    if len(prefixes) > PREFIXES_MAX:
        raise InvalidRequest(f"`prefixes`: at most {PREFIXES_MAX}")
    for prefix in prefixes:
        if not 0 < len(prefix.encode(errors="replace")) <= PREFIX_BYTES_MAX:
            raise InvalidRequest(f"`prefixes`: each has 1 to {PREFIX_BYTES_MAX} bytes")


def new_secret() -> str:
    """Draw a token."""
    return TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest_of(token: bytes) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token).hexdigest()


def make_record(secret: str, terms: AccessTerms, made_by: str, now_s: float) -> AccessToken:
    """Return what is kept of a new token."""
    return AccessToken(
        version=1,
        role=terms.role,
        digest=digest_of(secret.encode()),
        prefixes=terms.prefixes,
        node=terms.node,
        made_at=now_s,
        expires_at=now_s + terms.ttl_s,
        made_by=made_by,
    )


def encode_record(token: AccessToken) -> bytes:
    """Return a record as its key holds it."""
    return msgspec.json.encode(token)


def read_records(entries: list[KeyEntry]) -> tuple[dict[str, AccessToken], int]:
    """Return the tokens among these keys, by name, and how many records nobody here understands."""
    found: dict[str, AccessToken] = {}
    strange = 0
    for entry in entries:
        name = entry.key.removeprefix(ACCESS_PREFIX)
        try:
            token = msgspec.json.decode(entry.value, type=AccessToken)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            strange += 1
            continue
        if is_name(name):
            found[name] = token
        else:
            strange += 1
    return found, strange
