"""Spaces: rules for the keys that begin alike, up to their first slash.

``lamps/north`` is in the space ``lamps``, and so is ``lamps``. What a space asks is kept in the
control plane and followed by every node (``agent/cluster/kv_spaces.py``); records and merging know
nothing of it. So nodes that hear late of a rule disagree in what they show and accept for that
long, and in nothing that is stored.

    siblings     values that knew nothing of each other all stay, and all are shown; the default
    lww          of these the one with the latest stamp is shown, and the next put replaces all
                 that its owner has: *concurrent writes may be dropped*. The default of ``device``
    counter,     only changes of this type are accepted there, and deletes
    set, map,
    max, min

Causality comes first also under ``lww``: a value that replaces another one does so whatever their
stamps are, so that a clock in 2099 holds a key until the next put, and no longer.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.kv.changes import CounterUpdate, LimitUpdate, MapUpdate, SetUpdate
from gossip.kv.dots import Dot
from gossip.kv.limits import QUOTA_MAX, SPACE_NAME_BYTES_MAX
from gossip.kv.records import Version
from gossip.kv.requests import Put, Request, Update, check_ttl
from gossip.kv.typed_values import COUNTER, MAP, MAX, MIN, REGISTER, SET, type_of

SIBLINGS, LWW = "siblings", "lww"
TYPES = (COUNTER, SET, MAP, MAX, MIN)
POLICIES = (SIBLINGS, LWW, *TYPES)
DEVICE = "device"
DEFAULT_POLICIES = {DEVICE: LWW}


class SpaceSetting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked for the keys of one space; what is None is as everywhere.

    Written as JSON. Names that this version does not know are another version's, and are kept.
    """

    policy: str | None = None
    ttl_default_s: float | None = None
    """After so long a value goes that is put without a time to live of its own."""
    quota_keys: int | None = None
    quota_bytes: int | None = None
    """No more is to be put there (``quotas.py``); of bytes one copy counts."""

    @property
    def has_quota(self) -> bool:
        """Whether what it holds has a bound."""
        return self.quota_keys is not None or self.quota_bytes is not None


NO_SPACE = SpaceSetting()
KNOWN = frozenset(SpaceSetting.__struct_fields__)
_decode = msgspec.json.Decoder(SpaceSetting).decode
_decode_all = msgspec.json.Decoder(dict[str, Any]).decode


def space_of(key: str) -> str:
    """Return the name of the space that a key is in.

    >>> space_of("lamps/hall/north"), space_of("lamps")
    ('lamps', 'lamps')
    """
    return key.partition("/")[0]


def check_space_name(name: str) -> None:
    """Raise InvalidRequest unless a space can be called so."""
    size_bytes = len(name.encode(errors="replace"))
    is_own = name.startswith("\0")  # keys of files: a time to live would end their blocks
    if is_own or "/" in name or not 1 <= size_bytes <= SPACE_NAME_BYTES_MAX:
        raise InvalidRequest(
            f"{name!r:.80} is no space: it is what keys begin with, up to their first slash, and "
            f"has 1 to {SPACE_NAME_BYTES_MAX} bytes, and no U+0000 at its beginning"
        )


def read_space(data: bytes) -> SpaceSetting:
    """Return what is asked for a space; nothing, where it cannot be read or is beyond bounds."""
    try:
        space = _decode(data)
        check_space(space)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidRequest):
        return NO_SPACE
    return space


def check_space(space: SpaceSetting) -> None:
    """Raise InvalidRequest for what no space can be asked for."""
    if space.policy is not None and space.policy not in POLICIES:
        raise InvalidRequest(f"`policy`: {space.policy!r:.40} is none of {', '.join(POLICIES)}")
    if space.ttl_default_s is not None:
        check_ttl(space.ttl_default_s)
        if space.policy in TYPES:
            raise InvalidRequest(f"`ttl_default_s`: a {space.policy} has no time to live")
    for name in ("quota_keys", "quota_bytes"):
        quota: int | None = getattr(space, name)
        if quota is not None and not 1 <= quota <= QUOTA_MAX:
            raise InvalidRequest(f"`{name}`: 1 to {QUOTA_MAX}")


def changed_space(data: bytes, changes: Mapping[str, Any]) -> bytes:
    """Return what a space's setting becomes by these changes; empty if nothing is asked any more.

    None takes back. What this version does not know of the setting stays. Raises InvalidRequest.
    """
    try:
        kept = _decode_all(data) if data else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        kept = {}
    asked = {name: value for name, value in {**kept, **changes}.items() if value is not None}
    try:
        check_space(msgspec.convert(asked, SpaceSetting))
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"this cannot be asked of a space: {error}") from None
    return msgspec.json.encode(dict(sorted(asked.items()))) if asked else b""


class Spaces:
    """Manages what this node knows of the spaces; all of it may be a moment old."""

    def __init__(self) -> None:
        self._table: dict[str, SpaceSetting] = {}
        self.with_quota: tuple[str, ...] = ()
        """The spaces that have a quota, in order."""

    def replace(self, table: Mapping[str, SpaceSetting]) -> None:
        """Follow another state of the settings."""
        self._table = dict(table)
        self.with_quota = tuple(sorted(name for name, one in table.items() if one.has_quota))

    def asked_for(self, key: str) -> SpaceSetting:
        """Return what is asked for the space of a key."""
        return self._table.get(space_of(key), NO_SPACE) if self._table else NO_SPACE

    def policy(self, key: str) -> str:
        """Return the policy of the space of a key."""
        return self.asked_for(key).policy or DEFAULT_POLICIES.get(space_of(key), SIBLINGS)

    def check(self, request: Request) -> None:
        """Raise InvalidRequest for a write that the policy of its key does not accept."""
        if not isinstance(request, Put | Update):
            return
        policy = self.policy(request.key)
        if policy in TYPES and policy != _type_written(request):
            raise InvalidRequest(
                f"keys that begin with {space_of(request.key)!r} are to be of the type {policy}; "
                f"nothing was written, so use `covey kv {policy}`, or see `covey kv space list`"
            )


def replaced_by_latest(
    value: bytes | None, replaced: tuple[Dot, ...], live: Iterable[Version]
) -> tuple[Dot, ...] | None:
    """Return the dots whose place a write takes under ``lww``; None: of all that is there.

    A register takes the place of all. Deleting (``value`` None) takes along what was hidden behind
    what is deleted: else a value would come to light that had lost already. Of typed values only
    what is named goes.
    """
    if value is not None:
        return None if type_of(value) == REGISTER else replaced
    registers = [version for version in live if type_of(version.value) == REGISTER]
    named = set(replaced)
    latest = max(((v.stamp, v.dot) for v in registers if v.dot in named), default=None)
    if latest is None:
        return replaced
    hidden = {v.dot for v in registers if (v.stamp, v.dot) < latest}
    return tuple(sorted(named | hidden))


def _type_written(request: Put | Update) -> str:
    if isinstance(request, Put):
        return REGISTER
    match request.change:
        case SetUpdate():
            return SET
        case MapUpdate():
            return MAP
        case CounterUpdate():
            return COUNTER
        case LimitUpdate(kind=kind):
            return kind
