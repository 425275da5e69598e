"""Reads of the control plane's state, which need no entry of the log."""

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, TypeVar

import msgspec

from gossip.control.barriers import Barrier
from gossip.control.bounds import (
    KEY_BYTES_MAX,
    NAME_BYTES_MAX,
    OPERATIONS_MAX,
    RANGE_ENTRIES_MAX,
    RESULT_BYTES_MAX,
    check_number,
    check_text,
)
from gossip.control.drafts import read_page
from gossip.control.locks import Lock
from gossip.control.registry_table import TokenEntry
from gossip.control.sessions import ControlSession
from gossip.control.state_machine import ControlState
from gossip.control.transactions import EntriesResult, GetKey, GetRange, Uint64, check_operation
from gossip.core.errors import InvalidRequest

Limit = Annotated[int, msgspec.Meta(ge=1, le=RANGE_ENTRIES_MAX)]
T = TypeVar("T", Lock, Barrier, ControlSession)


class ReadKeys(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Read keys and ranges, all at one revision."""

    operations: Annotated[tuple[GetKey | GetRange, ...], msgspec.Meta(max_length=OPERATIONS_MAX)]


class ReadLocks(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Read the locks whose names begin with ``prefix`` and come after ``after``."""

    prefix: str = ""
    after: str = ""
    limit: Limit = RANGE_ENTRIES_MAX


class ReadSessions(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Read the sessions with larger numbers than ``after``."""

    after: Uint64 = 0
    limit: Limit = RANGE_ENTRIES_MAX


class ReadBarriers(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Read the barriers whose names begin with ``prefix`` and come after ``after``."""

    prefix: str = ""
    after: str = ""
    limit: Limit = RANGE_ENTRIES_MAX


class ReadRegistry(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Read the agreed registry and all tokens, at one revision."""


Lookup = ReadKeys | ReadLocks | ReadSessions | ReadBarriers | ReadRegistry


class KeysResult(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What each of the operations has read."""

    results: tuple[EntriesResult, ...]


class LocksResult(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Locks, in the order of their names. ``more``: there are further ones after the last."""

    locks: tuple[Lock, ...]
    more: bool


class SessionsResult(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Sessions, oldest first."""

    sessions: tuple[ControlSession, ...]
    more: bool


class BarriersResult(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Barriers, in the order of their names."""

    barriers: tuple[Barrier, ...]
    more: bool


class RegistryResult(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The signed registry, its mark, and when it came; empty and 0 while there is none.

    With the tokens, in the order of their ids.
    """

    registry: bytes
    mark: bytes
    revision: int
    tokens: tuple[TokenEntry, ...]


LookupResult = KeysResult | LocksResult | SessionsResult | BarriersResult | RegistryResult


def check_lookup(lookup: Lookup) -> None:
    """Raise InvalidRequest for what no state could answer."""
    if isinstance(lookup, ReadKeys):
        if len(lookup.operations) > OPERATIONS_MAX:
            raise InvalidRequest(f"at most {OPERATIONS_MAX} reads at once")
        for operation in lookup.operations:
            check_operation(operation)
    elif not isinstance(lookup, ReadRegistry):
        _check_page(lookup)


def _check_page(lookup: ReadLocks | ReadSessions | ReadBarriers) -> None:
    check_number(lookup.limit, "`limit`", 1, RANGE_ENTRIES_MAX)
    if not isinstance(lookup, ReadSessions):
        check_text(lookup.prefix, "a prefix", NAME_BYTES_MAX, 0)
        check_text(lookup.after, "`after`", KEY_BYTES_MAX, 0)


def look_up(state: ControlState, lookup: Lookup) -> LookupResult:
    """Read from the state as it is. What does not fit RESULT_BYTES_MAX is left for another page."""
    match lookup:
        case ReadKeys(operations=operations):
            return KeysResult(_read_keys(state, operations))
        case ReadSessions(after=after, limit=limit):
            newer = (each for each in state.sessions if each.number > after)
            return SessionsResult(*_page(newer, limit))
        case ReadLocks(prefix=prefix, after=after, limit=limit):
            named = (e for e in state.locks if e.name.startswith(prefix) and e.name > after)
            return LocksResult(*_page(named, limit))
        case ReadBarriers(prefix=prefix, after=after, limit=limit):
            found = (e for e in state.barriers if e.name.startswith(prefix) and e.name > after)
            return BarriersResult(*_page(found, limit))
        case ReadRegistry():
            agreed, tokens = state.registry.agreed, tuple(state.registry)
            if agreed is None:
                return RegistryResult(b"", b"", 0, tokens)
            return RegistryResult(agreed.signed, agreed.mark, agreed.revision, tokens)


def _read_keys(
    state: ControlState, operations: tuple[GetKey | GetRange, ...]
) -> tuple[EntriesResult, ...]:
    results: list[EntriesResult] = []
    left_bytes = RESULT_BYTES_MAX
    for operation in operations:
        if isinstance(operation, GetKey):
            names = iter((operation.key,) if state.keys.get(operation.key) else ())
            operation = GetRange(operation.key, limit=1)
        else:
            names = state.keys.names(operation.prefix, operation.after)
        entries, more, size = read_page(map(state.keys.get, names), operation, left_bytes)
        left_bytes -= size
        results.append(EntriesResult(entries, more))
    return tuple(results)


def _page(found: Iterable[T], limit: int) -> tuple[tuple[T, ...], bool]:
    """Return as many as fit, at least one, and whether there are more."""
    told: list[T] = []
    size = 0
    for each in islice(found, limit + 1):
        size += each.size_bytes
        if len(told) == limit or (told and size > RESULT_BYTES_MAX):
            return tuple(told), True
        told.append(each)
    return tuple(told), False
