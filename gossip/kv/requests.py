"""What an application asks of the state plane, and what it gets back.

N is the number of a key's owners: three, or all nodes if there are fewer. ``w`` owners must have
a write on disk before it is acknowledged, ``r`` must answer before a read is; without one given
it is a majority, N // 2 + 1, so that a read meets every acknowledged write. With w = 1 or
r = 1 that no longer holds, and says so here. ``ALL`` stands for as many owners as there are.

With ``fsync`` an owner counts when it has synced the write, so that it survives when all owners
lose their power at once; without, when it survives the end of their processes. A write that finds
nothing to do, such as the delete of a key that is not there, is acknowledged as it is: nothing is
written, and nothing is synced.

A write that missed ``w`` is never called failed: some owner may have it, and will spread it. It
is ``indeterminate``. A client that must know reads the key again with a quorum.
"""

from typing import Annotated

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.core.hlc import Stamp
from gossip.core.ids import NodeId
from gossip.kv.changes import Change, check_change
from gossip.kv.dots import Dot
from gossip.kv.limits import (
    KEY_BYTES_MAX,
    LIST_ENTRIES_MAX,
    REQUEST_TIMEOUT_S,
    REQUEST_TIMEOUT_S_MAX,
    TTL_S_MAX,
    TTL_S_MIN,
    VALUE_BYTES_MAX,
)
from gossip.kv.records import Version, decode_context, newest_first
from gossip.kv.restored_key import RestoreKey, check_versions
from gossip.kv.typed_values import (
    REGISTER,
    Fold,
    expires_ms_of,
    fold,
    is_typed,
    pack_register,
)
from gossip.kv.watch_token import decode_token, watched_mark
from gossip.registry.registry import Registry

ALL = -1
"""As ``w`` or ``r``: each owner, however many there are by then."""

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_BYTES_MAX)]


class Put(msgspec.Struct, frozen=True):
    """Write a value.

    ``context`` is what an earlier get or put returned: those versions are replaced, others stay
    beside the new one. Without it, all that the coordinating owner has is replaced.

    ``if_unchanged``: write only if a quorum read finds exactly the versions in ``context``, or
    none if there is no context. Looking and writing are two steps: of two that look at once both
    may write, and then both values live, as siblings. Where one must win, the control plane's
    transactions decide.

    ``ttl_s``: after so long it is shown no more, and deleted; None: as its space says, 0: never.
    """

    key: str
    value: bytes
    w: int | None = None
    context: bytes | None = None
    timeout_s: float = REQUEST_TIMEOUT_S
    if_unchanged: bool = False
    fsync: bool = False
    ttl_s: float | None = None


class Delete(msgspec.Struct, frozen=True):
    """Delete the versions in ``context``; without it, all that a quorum read finds."""

    key: str
    w: int | None = None
    context: bytes | None = None
    timeout_s: float = REQUEST_TIMEOUT_S
    fsync: bool = False


class Get(msgspec.Struct, frozen=True):
    """Read a key from ``r`` owners, repairing those that differ before the answer."""

    key: str
    r: int | None = None
    timeout_s: float = REQUEST_TIMEOUT_S


class List(msgspec.Struct, frozen=True):
    """Read up to ``limit`` keys that begin with ``prefix`` and come after ``after``."""

    prefix: str = ""
    after: str = ""
    limit: int = 100
    r: int | None = None
    timeout_s: float = REQUEST_TIMEOUT_S


class Watch(msgspec.Struct, frozen=True):
    """Tell of changes of one key, or of all keys with a prefix, until cancelled.

    Each acknowledged change is told at least once, or a later state of its key instead; the last
    state that is told of a key is the one that stays. ``since``: a token of an earlier watch of the
    same keys, which this one goes on from; without it, from now on.
    """

    prefix: str | None = None
    key: str | None = None
    since: bytes | None = None


class Update(msgspec.Struct, frozen=True):
    """Change a typed value. Of all changes, an increment alone must not be repeated blindly."""

    key: str
    change: Change
    w: int | None = None
    timeout_s: float = REQUEST_TIMEOUT_S
    fsync: bool = False


Request = Put | Delete | Get | List | Watch | Update | RestoreKey


class Value(msgspec.Struct, frozen=True):
    """One value of a key: its bytes, when it was written, and the name of the write.

    A register is one version. What is of another ``type`` is folded from all versions of it, its
    data is JSON, and stamp and dot are the newest.
    """

    data: bytes
    stamp: Stamp
    dot: Dot
    type: str = REGISTER
    expires_ms: int = 0
    """Unix milliseconds; 0: it does not expire."""


class PutResult(msgspec.Struct, frozen=True):
    """``outcome`` is "ok" or "indeterminate"; ``acks`` owners are known to have it on disk.

    Of a ``RestoreKey`` it may be "unchanged".

    ``versions`` are under the key now, as far as the coordinator knows: this one, and those that
    the write's context had not seen.
    """

    outcome: str
    acks: int
    needed: int
    context: bytes
    versions: int = 1


class GetResult(msgspec.Struct, frozen=True):
    """Values, newest first; none for a key that does not exist. "ok" or "unavailable".

    ``live`` are the versions that they come of.
    """

    values: tuple[Value, ...]
    context: bytes
    answered: int
    needed: int
    outcome: str
    live: tuple[Version, ...] = ()


class ListEntry(msgspec.Struct, frozen=True):
    """A key with its values, newest first, and the versions that they come of."""

    key: str
    values: tuple[Value, ...]
    live: tuple[Version, ...] = ()


class ListResult(msgspec.Struct, frozen=True):
    """One page of keys. ``next`` is what to pass as ``after`` for more, empty at the end.

    ``outcome`` is "ok", or "partial" when some partition had fewer than ``r`` answers, so that
    keys may be missing.
    """

    entries: tuple[ListEntry, ...]
    next: str
    outcome: str


class Rejected(msgspec.Struct, frozen=True):
    """The request was refused before it changed anything; the reason says what to do.

    ``unreachable``: not because of what it asks, but because no owner of the key answered.
    ``mismatch``: what it was to find is not what is there.
    """

    reason: str
    unreachable: bool = False
    outcome: str = "rejected"
    mismatch: bool = False


Result = PutResult | GetResult | ListResult | Rejected


class Completed(msgspec.Struct, frozen=True):
    """A request is over. Every request but a watch completes exactly once, unless cancelled."""

    request: int
    result: Result


class WatchEvent(msgspec.Struct, frozen=True):
    """A watched key changed: ``kind`` is "put", with the versions that it has now, or "delete".

    A "mark" carries a ``token``: all that it covers has been told. A "gap" says that something was
    missed which nobody can tell any more, and why: what there is now has to be read.
    """

    request: int
    key: str
    kind: str
    values: tuple[Value, ...] = ()
    token: bytes = b""
    reason: str = ""


class OwnersReady(msgspec.Struct, frozen=True):
    """At an issuer: partitions that can go on, with who has done what their stage asks.

    ``epoch`` is the registry's under which they have. The runtime signs the next one; see
    ``registry.advance``.
    """

    epoch: int
    done: dict[int, frozenset[NodeId]]
    here: frozenset[NodeId] = frozenset()
    """Absent ones that were heard: they get their share."""
    away: frozenset[NodeId] = frozenset()
    """Those who own nothing, and were not heard for a time."""
    missing: frozenset[NodeId] = frozenset()
    """Owners that were not heard for so long that others are to have their share."""
    found: frozenset[NodeId] = frozenset()
    """Those of before that were heard again for long enough."""


class RegistryAdopted(msgspec.Struct, frozen=True):
    """This node now follows a newer registry. The runtime keeps ``signed`` on disk."""

    signed: bytes
    registry: Registry


class RegistryForked(msgspec.Struct, frozen=True):
    """Two registries with different pasts are signed: ours, and this ``rival``."""

    signed: bytes
    rival: Registry


TOO_FEW = (
    "too few owners of this key are there; nothing was written, so try again when they are back"
)
CLOCK_DOUBTED = (
    "this node's clock was not compared with those of others yet, or differs from most of them by "
    "more than a minute, so that it cannot say when the value is to expire, and nothing was "
    "written; try again in some seconds, set the clock, or ask another node"
)
DISKS_FULL = (
    "the disks of the owners of this key are full, or nearly; nothing was written, so delete keys, "
    "which goes on, free some space there, or give them more of it (`[storage] disk_percent_max`)"
)
OVER_QUOTA = (
    "the space of this key is as full as its quota lets it be, and nothing was written; delete "
    "keys there, which goes on, or raise the quota (`covey kv space list` shows both)"
)
ALL_GONE = "all owners of this key are gone; nothing was written, so try again when one is back"
SILENT = "no owner of this key could be reached; nothing was written, so try again later"
FORKED = "the registry has forked, so that nobody can tell who owns a key: no state is served"
FORK_REASON = (
    f"{FORKED}; the node that signs it was restored from a backup and has signed another one: run "
    "`covey registry mend` there"
)


def values_of(live: tuple[Version, ...]) -> tuple[Value, ...]:
    """Return versions as values, newest first."""
    live = tuple(live)
    if not any(is_typed(version.value) for version in live):
        return tuple(Value(v.value, v.stamp, v.dot) for v in newest_first(live))
    return tuple(map(_value, fold(live)))


def _value(one: Fold) -> Value:
    newest = one.newest
    return Value(one.data, newest.stamp, newest.dot, one.type, expires_ms_of(newest.value))


def check_key(key: str) -> None:
    """Raise InvalidRequest unless this can be a key."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("a key is text in UTF-8; this one has a lone surrogate") from None
    if not 1 <= size <= KEY_BYTES_MAX:
        raise InvalidRequest(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {size}")


def check_request(request: Request) -> None:
    """Raise InvalidRequest for what no state of the system could satisfy."""
    match request:
        case Watch():
            _check_watch(request)
            return
        case List():
            _check_prefix(request.prefix)
            _check_prefix(request.after)
            if not 1 <= request.limit <= LIST_ENTRIES_MAX:
                raise InvalidRequest(f"`limit={request.limit}`: 1 to {LIST_ENTRIES_MAX}")
        case Update():
            check_key(request.key)
            check_change(request.change)
        case RestoreKey():
            check_key(request.key)
            check_versions(request.versions)
        case Put() | Delete() | Get():
            check_key(request.key)
    if not 0 < request.timeout_s <= REQUEST_TIMEOUT_S_MAX:
        raise InvalidRequest(f"`timeout`: up to {REQUEST_TIMEOUT_S_MAX:.0f} s")
    if isinstance(request, Put):
        if len(pack_register(request.value)) > VALUE_BYTES_MAX:
            raise InvalidRequest(f"a value has at most {VALUE_BYTES_MAX} bytes; split it")
        if request.ttl_s:
            check_ttl(request.ttl_s)
    if isinstance(request, Put | Delete) and request.context is not None:
        decode_context(request.key, request.context)


def check_ttl(ttl_s: float) -> None:
    """Raise InvalidRequest for a time to live that is too short or too long."""
    if not TTL_S_MIN <= ttl_s <= TTL_S_MAX:
        raise InvalidRequest(f"`ttl`: {TTL_S_MIN:g} s to {TTL_S_MAX / 86400:g} days, or 0")


def _check_watch(request: Watch) -> None:
    if (request.key is None) == (request.prefix is None):
        raise InvalidRequest("watch either a key or a prefix")
    if request.key is not None:
        check_key(request.key)
    if request.prefix is not None:
        _check_prefix(request.prefix)
    if request.since is not None:
        text, is_prefix = request.key or request.prefix or "", request.key is None
        decode_token(request.since, watched_mark(text, is_prefix=is_prefix))


def _check_prefix(text: str) -> None:
    if text:
        check_key(text)


def quorum(wanted: int | None, owners: int, name: str) -> int:
    """Return how many of the owners must answer. Raises InvalidRequest when too many."""
    if wanted is None:
        return owners // 2 + 1
    if wanted == ALL:
        return owners
    if not 1 <= wanted <= owners:
        raise InvalidRequest(f"`{name}={wanted}`: this key has {owners} owners; use 1 to {owners}")
    return wanted
