"""Values with a type: counter, set, map, max and min, which merge without conflict.

A key's type is in its values. A value that begins with ``MARK`` (no text in UTF-8 does, and nothing
in msgpack) is one of the structs below; every other one is a **register**, as it always was. So a
type travels, is stored and is repaired as bytes, also by agents of a version before. Bytes of an
application that begin with the mark are put into ``PlainValue``.

What a key holds is the **fold** over its live versions, by type:

    counter   each version has the shares of all nodes that its coordinator knew; of a node's
              shares the latest counts, and the value is the sum of these
    set       each version is one member
    map       each version is one field; of those of one field, the newest value is shown
    max, min  each version is a number; the extreme counts

Each fold is a join: it does not depend on order, and a version twice is the same as once. What may
replace which versions is in ``counting.py`` and ``typed_writes.py``; ADR 47 has the argument.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import Annotated, Any

import msgspec

from gossip.core.ids import NodeId
from gossip.kv.records import Version, newest_first

MARK = b"\xc1covey"
INT64_MAX = 2**63 - 1

Total = Annotated[int, msgspec.Meta(ge=-INT64_MAX, le=INT64_MAX)]
Life = tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]]
"""Numbers the actors of one node in the order of their lives: its boot, and a turn within it."""
Number = Total | float

REGISTER, COUNTER, SET, MAP, MAX, MIN = "register", "counter", "set", "map", "max", "min"


class Share(msgspec.Struct, frozen=True, array_like=True, order=True):
    """What one node has counted: of two of a node, the one of the later life, then higher n."""

    node: NodeId
    life: Life
    n: int
    total: Total


class PlainValue(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """A register whose bytes begin with the mark, or that expires; 0: it does not.

    When it expires is with the value, as types are: an agent of a version before stores, repairs
    and hands on what it does not know, and shows the data.
    """

    data: bytes
    expires_ms: Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)] = 0


class CounterValue(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The shares of a counter, sorted by node, each once."""

    shares: tuple[Share, ...]


class SetMember(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """One member of a set."""

    text: str


class MapField(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """One field of a map, with a value."""

    name: str
    text: str


class MaxValue(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A candidate for the largest number."""

    number: Number


class MinValue(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A candidate for the smallest number."""

    number: Number


TypedValue = PlainValue | CounterValue | SetMember | MapField | MaxValue | MinValue

TYPES: dict[type, str] = {
    PlainValue: REGISTER,
    CounterValue: COUNTER,
    SetMember: SET,
    MapField: MAP,
    MaxValue: MAX,
    MinValue: MIN,
}
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TypedValue).decode


def is_typed(value: bytes) -> bool:
    """Tell whether a value is more than its bytes."""
    return value.startswith(MARK)


def pack(typed: TypedValue) -> bytes:
    """Return a typed value as it is written."""
    return MARK + _encode(typed)


def pack_register(data: bytes, expires_ms: int = 0) -> bytes:
    """Return what is written for the bytes of an application: they themselves, nearly always."""
    return pack(PlainValue(data, expires_ms)) if expires_ms or is_typed(data) else data


def expires_ms_of(value: bytes) -> int:
    """Return the Unix milliseconds at which a value expires; 0 if it does not."""
    if not is_typed(value):
        return 0
    typed = typed_of(value)
    return typed.expires_ms if isinstance(typed, PlainValue) else 0


def earliest_expiry_ms(live: Iterable[Version]) -> int:
    """Return when the first of these versions expires; 0 if none does."""
    found = [expires_ms_of(version.value) for version in live if is_typed(version.value)]
    return min((expires_ms for expires_ms in found if expires_ms), default=0)


def typed_of(value: bytes) -> TypedValue:
    """Return what a value is; bytes that are none of ours are a register."""
    if not is_typed(value):
        return PlainValue(value)
    try:
        typed = _decode(value[len(MARK) :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return PlainValue(value)
    if isinstance(typed, MaxValue | MinValue) and not isfinite(typed.number):
        return PlainValue(value)
    return typed


def type_of(value: bytes) -> str:
    """Return the type of a value."""
    return TYPES[type(typed_of(value))]


def join_shares(counters: Iterable[CounterValue]) -> dict[NodeId, Share]:
    """Return of each node its latest share."""
    latest: dict[NodeId, Share] = {}
    for counter in counters:
        for share in counter.shares:
            latest[share.node] = max(share, latest.get(share.node, share))
    return latest


class Fold(msgspec.Struct, frozen=True):
    """What versions of one type come to: as data, and the newest of them."""

    type: str
    data: bytes
    newest: Version


def fold(live: Iterable[Version]) -> tuple[Fold, ...]:
    """Return what live versions come to, newest first: each register, and one of each other type.

    There is more than one only where somebody wrote another type, or registers, at the same time.
    """
    registers: list[Fold] = []
    others: defaultdict[str, list[tuple[Version, Any]]] = defaultdict(list)
    for version in newest_first(live):
        typed = typed_of(version.value)
        if isinstance(typed, PlainValue):
            registers.append(Fold(REGISTER, typed.data, version))
        else:
            others[TYPES[type(typed)]].append((version, typed))
    folded = [
        Fold(kind, FOLDS[kind]([typed for _, typed in found]), found[0][0])
        for kind, found in others.items()
    ]
    both = (*registers, *folded)
    return tuple(sorted(both, key=lambda one: (one.newest.stamp, one.newest.dot), reverse=True))


def count_folded(live: Sequence[Version]) -> int:
    """Return how many ``fold`` would give."""
    if not any(is_typed(version.value) for version in live):
        return len(live)
    types = [type_of(version.value) for version in live]
    return types.count(REGISTER) + len(set(types) - {REGISTER})


def _fold_counter(found: Sequence[CounterValue]) -> bytes:
    return _json(sum(share.total for share in join_shares(found).values()))


def _fold_set(found: Sequence[SetMember]) -> bytes:
    return _json(sorted({member.text for member in found}))


def _fold_map(found: Sequence[MapField]) -> bytes:
    """Newest first: the first of a field counts."""
    fields: dict[str, str] = {}
    for field in found:
        fields.setdefault(field.name, field.text)
    return _json(dict(sorted(fields.items())))


def _fold_highest(found: Sequence[MaxValue]) -> bytes:
    return _json(max(one.number for one in found))


def _fold_lowest(found: Sequence[MinValue]) -> bytes:
    return _json(min(one.number for one in found))


def _json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode(errors="replace")


FOLDS: dict[str, Callable[[Sequence[Any]], bytes]] = {
    COUNTER: _fold_counter,
    SET: _fold_set,
    MAP: _fold_map,
    MAX: _fold_highest,
    MIN: _fold_lowest,
}
