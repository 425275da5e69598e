"""What an update of a typed value writes, by what a quorum read has found.

A member, a field, a number: each is a version of its own, which takes the place of what was found
of the same member or field, or of all numbers. A removal is a delete of exactly these versions. So
whoever adds at the same time as somebody removes wins: the removal had not seen it. All of these
may be repeated without harm. Increments do not come by here (``counting.py``).

A wrong type is refused by what was found. Of two that begin a key with different types at the same
time both are kept, and a read shows both, until somebody deletes or puts.
"""

from collections.abc import Callable, Sequence

from gossip.kv.changes import LimitUpdate, MapUpdate, SetUpdate
from gossip.kv.dots import Dot
from gossip.kv.limits import ENTRIES_MAX, VALUE_BYTES_MAX
from gossip.kv.records import Version
from gossip.kv.requests import GetResult, PutResult, Rejected
from gossip.kv.typed_values import (
    MAP,
    MAX,
    SET,
    MapField,
    MaxValue,
    MinValue,
    SetMember,
    TypedValue,
    count_folded,
    pack,
    type_of,
    typed_of,
)
from gossip.kv.writes import AskedWrite

Observed = SetUpdate | MapUpdate | LimitUpdate
"""Updates that are decided by what was read."""

Decided = AskedWrite | PutResult | Rejected


def decide_change(change: Observed) -> Callable[[AskedWrite, GetResult], Decided]:
    """Return what says, once a key was read, how it is to be changed."""

    def decide(asked: AskedWrite, found: GetResult) -> Decided:
        kind = _kind_of(change)
        if any(type_of(version.value) != kind for version in found.live):
            return Rejected(
                f"this key has a value that is no {kind}; nothing was changed, so take another key "
                "or delete it",
                mismatch=True,
            )
        replaced, typed = _replacement(change, found.live)
        if typed is None and not replaced:
            return PutResult("ok", found.answered, found.needed, b"", count_folded(found.live))
        value = pack(typed) if typed is not None else None
        if value is not None and (reason := _too_much(found.live, replaced, value)):
            return Rejected(reason)
        return asked._replace(value=value, replaced=replaced)

    return decide


def _kind_of(change: Observed) -> str:
    match change:
        case SetUpdate():
            return SET
        case MapUpdate():
            return MAP
        case LimitUpdate(kind=kind):
            return kind


def _replacement(
    change: Observed, live: Sequence[Version]
) -> tuple[tuple[Dot, ...], TypedValue | None]:
    """Return the dots that go, and what takes their place."""
    there = [(version.dot, typed_of(version.value)) for version in live]
    match change:
        case SetUpdate(member, removes):
            gone = tuple(dot for dot, one in there if one == SetMember(member))
            return gone, None if removes else SetMember(member)
        case MapUpdate(name, value):
            gone = tuple(d for d, one in there if isinstance(one, MapField) and one.name == name)
            return gone, None if value is None else MapField(name, value)
        case LimitUpdate(number, kind):
            numbers = [one.number for _, one in there if isinstance(one, MaxValue | MinValue)]
            dots = tuple(dot for dot, _ in there)
            if kind == MAX:
                return dots, MaxValue(max([number, *numbers]))
            return dots, MinValue(min([number, *numbers]))


def _too_much(live: Sequence[Version], replaced: Sequence[Dot], value: bytes) -> str:
    kept = [version for version in live if version.dot not in set(replaced)]
    if len(kept) >= ENTRIES_MAX:
        return f"this key has {len(kept)} entries, and may have {ENTRIES_MAX}; take several keys"
    size = sum(len(version.value) for version in kept) + len(value)
    if size > VALUE_BYTES_MAX:
        return f"the entries of this key would exceed {VALUE_BYTES_MAX} bytes; take several keys"
    return ""
