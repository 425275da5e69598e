"""What can be asked of a typed value (``typed_values.py``), and what of it no key could take in."""

from math import isfinite

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.kv.limits import ENTRY_BYTES_MAX, VALUE_BYTES_MAX
from gossip.kv.typed_values import INT64_MAX, MAX, MIN, Number


class SetUpdate(msgspec.Struct, frozen=True):
    """Add a member to a set, or remove it."""

    member: str
    removes: bool = False


class MapUpdate(msgspec.Struct, frozen=True):
    """Give a field of a map a value; None removes it."""

    field: str
    value: str | None


class LimitUpdate(msgspec.Struct, frozen=True):
    """Raise a maximum to this number, or lower a minimum; what is beyond it already stays."""

    number: int | float
    kind: str


class CounterUpdate(msgspec.Struct, frozen=True):
    """Count by so many, up or down."""

    by: int


Change = SetUpdate | MapUpdate | LimitUpdate | CounterUpdate


def check_change(change: Change) -> None:
    """Raise InvalidRequest for what no key could take in."""
    match change:
        case SetUpdate(member):
            _check_text("a member", member, least_bytes=1)
        case MapUpdate(name, value):
            _check_text("a field", name, least_bytes=1)
            if value is not None and len(value.encode()) > VALUE_BYTES_MAX // 2:
                raise InvalidRequest(f"a field's value has at most {VALUE_BYTES_MAX // 2} bytes")
        case LimitUpdate(number, kind):
            assert kind in (MAX, MIN), "there are two limits"
            _check_number(number)
        case CounterUpdate(by):
            _check_number(by)


def _check_number(number: Number) -> None:
    # Whole ones first: the largest have no fraction that they could be compared as.
    if abs(number) > INT64_MAX if isinstance(number, int) else not isfinite(number):
        raise InvalidRequest("a number is finite, and a whole one has at most 64 bits")


def _check_text(what: str, text: str, least_bytes: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} is text in UTF-8") from None
    if not least_bytes <= size <= ENTRY_BYTES_MAX:
        raise InvalidRequest(f"{what} has {least_bytes} to {ENTRY_BYTES_MAX} bytes, not {size}")
