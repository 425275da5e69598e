"""What a transaction says: compare, then, otherwise; and what it answers.

The shape is etcd's. All comparisons are made on the state as it is; if all hold, ``then`` is
carried out, else ``otherwise``. Operations are carried out in their order, and each sees what those
before it have done; what others see, and what a watch tells, is the state after the last of them.
A plain put, get or delete is a transaction with nothing to compare.
"""

from enum import IntEnum
from typing import Annotated

import msgspec

from gossip.control.bounds import (
    KEY_BYTES_MAX,
    NAME_BYTES_MAX,
    OPERATIONS_MAX,
    RANGE_ENTRIES_MAX,
    UINT64_MAX,
    VALUE_BYTES_MAX,
    check_number,
    check_text,
)
from gossip.control.keys import KeyEntry
from gossip.core.errors import InvalidRequest

Uint64 = Annotated[int, msgspec.Meta(ge=0)]
"""msgpack has no larger numbers."""


class CompareField(IntEnum):
    """Which part of the state is compared."""

    VALUE = 0
    VERSION = 1
    CREATED = 2
    MODIFIED = 3
    SESSION = 4
    TOKEN = 5
    """Of the lock with this name: whether somebody holds it with this fencing token."""
    COUNT = 6
    """How many keys begin with this text."""


class CompareRelation(IntEnum):
    """How it is compared: what is there, then the relation, then the operand."""

    EQUAL = 0
    NOT_EQUAL = 1
    LESS = 2
    GREATER = 3


class Compare(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One comparison of what is there with an operand.

    A key that is not there has zeros for its numbers, and no value at all: of its value, NOT_EQUAL
    holds and nothing else. A lock's token is compared by EQUAL (somebody holds the lock with it) or
    NOT_EQUAL (nobody does).
    """

    key: str
    field: CompareField
    relation: CompareRelation
    operand: Uint64 | bytes


class PutKey(
    msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True
):
    """Write a value. With a ``session`` the key goes when that session ends; 0: it stays."""

    key: str
    value: bytes
    session: Uint64 = 0


class DeleteKey(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Delete one key, if it is there."""

    key: str


class DeletePrefix(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """Delete all keys that begin with a text, which is not empty."""

    prefix: str


class GetKey(msgspec.Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """Read one key."""

    key: str


class GetRange(msgspec.Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """Read up to ``limit`` keys that begin with ``prefix`` and come after ``after``, in order."""

    prefix: str
    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=RANGE_ENTRIES_MAX)] = RANGE_ENTRIES_MAX
    keys_only: bool = False


Operation = PutKey | DeleteKey | DeletePrefix | GetKey | GetRange


class WrittenResult(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """A put: which write of its key it is, counted from the key's creation."""

    version: int


class DeletedResult(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """How many keys were deleted."""

    count: int


class EntriesResult(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """What was read. ``more``: there are further keys after the last of these."""

    entries: tuple[KeyEntry, ...]
    more: bool = False


OperationResult = WrittenResult | DeletedResult | EntriesResult

Compares = Annotated[tuple[Compare, ...], msgspec.Meta(max_length=OPERATIONS_MAX)]
Operations = Annotated[tuple[Operation, ...], msgspec.Meta(max_length=OPERATIONS_MAX)]


def check_transaction(
    compares: tuple[Compare, ...], then: tuple[Operation, ...], otherwise: tuple[Operation, ...]
) -> None:
    """Raise InvalidRequest for what no state could carry out."""
    if max(len(compares), len(then), len(otherwise)) > OPERATIONS_MAX:
        lists = (("compares", compares), ("then", then), ("else", otherwise))
        what, size = next((w, len(listed)) for w, listed in lists if len(listed) > OPERATIONS_MAX)
        raise InvalidRequest(f"`{what}`: at most {OPERATIONS_MAX} in a transaction, not {size}")
    for compare in compares:
        _check_compare(compare)
    for operation in then:
        check_operation(operation)
    for operation in otherwise:
        check_operation(operation)


def _check_compare(compare: Compare) -> None:
    is_token = compare.field is CompareField.TOKEN
    check_text(
        compare.key,
        "the name of a lock" if is_token else "a key",
        NAME_BYTES_MAX if is_token else KEY_BYTES_MAX,
        0 if compare.field is CompareField.COUNT else 1,
    )
    if isinstance(compare.operand, bytes) != (compare.field is CompareField.VALUE):
        raise InvalidRequest("a value is compared with bytes, everything else with a number")
    if is_token and compare.relation > CompareRelation.NOT_EQUAL:
        raise InvalidRequest("a fencing token is compared by = or != only")


def check_operation(operation: Operation) -> None:
    """Raise InvalidRequest for a key, prefix or value that is out of bounds."""
    match operation:
        case PutKey():
            check_text(operation.key, "a key", KEY_BYTES_MAX)
            if len(operation.value) > VALUE_BYTES_MAX:
                raise InvalidRequest(
                    f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(operation.value)}: what"
                    " is larger belongs into `covey kv`"
                )
            check_number(operation.session, "a session", 0, UINT64_MAX)
        case GetRange():
            check_text(operation.prefix, "a prefix", KEY_BYTES_MAX, 0)
            check_text(operation.after, "`after`", KEY_BYTES_MAX, 0)
            check_number(operation.limit, "`limit`", 1, RANGE_ENTRIES_MAX)
        case DeletePrefix():
            check_text(operation.prefix, "a prefix", KEY_BYTES_MAX)
        case _:
            check_text(operation.key, "a key", KEY_BYTES_MAX)
