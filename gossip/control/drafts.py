"""One transaction on its way: what it reads and writes, kept apart until all of it is allowed.

A transaction is carried out whole or not at all. So its operations work on a draft over the state:
when one of them is declined, for lack of space or because its session is gone, the draft is thrown
away and nothing has changed.
"""

import heapq
from collections.abc import Callable, Iterator
from operator import itemgetter

from gossip.control.bounds import RESULT_BYTES_MAX, Space
from gossip.control.fleet_settings import RESERVED_PREFIX
from gossip.control.keys import KeyEntry, KeyTable
from gossip.control.outcomes import FULL, TOO_LARGE, Declined, TransactionResult
from gossip.control.transactions import (
    Compare,
    CompareField,
    CompareRelation,
    DeletedResult,
    DeleteKey,
    DeletePrefix,
    EntriesResult,
    GetKey,
    GetRange,
    Operation,
    OperationResult,
    PutKey,
    WrittenResult,
)


class DraftDeclined(Exception):
    """What a transaction asks cannot be done; nothing was changed."""

    def __init__(self, outcome: Declined) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Draft:
    """What a transaction has done so far. ``index`` is the revision of what it writes."""

    def __init__(
        self, keys: KeyTable, space: Space, has_session: Callable[[int], bool], index: int
    ) -> None:
        self._keys = keys
        self._space = space
        self._has_session = has_session
        self._index = index
        self._written: dict[str, KeyEntry | None] = {}
        self._more_bytes = 0
        self._result_bytes = 0

    def carry_out(self, operations: tuple[Operation, ...]) -> tuple[OperationResult, ...]:
        """Carry out operations on the draft. Raises DraftDeclined."""
        results = tuple([self._carry_out(operation) for operation in operations])
        if not self._fits():
            raise DraftDeclined(
                Declined(
                    FULL,
                    f"the control plane holds {self._space.used_bytes} of"
                    f" {self._space.limit_bytes} bytes; delete something first",
                )
            )
        return results

    def commit(self) -> None:
        """Make the draft the state."""
        assert self._fits(), "carry_out has looked"
        for key, entry in sorted(self._written.items(), key=itemgetter(0)):
            if entry is not None:
                self._keys.put(entry)
            elif self._keys.get(key) is not None:
                self._keys.delete(key)

    def _fits(self) -> bool:
        if self._space.fits(self._more_bytes):
            return True
        is_own = all(key.startswith(RESERVED_PREFIX) for key in self._written)
        return self._space.fits(self._more_bytes, is_own=is_own)

    def _carry_out(self, operation: Operation) -> OperationResult:
        match operation:
            case PutKey():
                return self._put(operation)
            case DeleteKey():
                return DeletedResult(int(self._delete(operation.key)))
            case DeletePrefix():
                names = list(self._names(operation.prefix, ""))
                return DeletedResult(sum(self._delete(name) for name in names))
            case GetKey():
                return self._read(operation)
            case GetRange():
                return self._read_range(operation)

    def _get(self, key: str) -> KeyEntry | None:
        written = self._written
        return written[key] if key in written else self._keys.get(key)

    def _names(self, prefix: str, after: str) -> Iterator[str]:
        """Yield the keys as the draft has them."""
        fresh = sorted(
            key
            for key, entry in self._written.items()
            if entry is not None
            and key.startswith(prefix)
            and key > after
            and self._keys.get(key) is None
        )
        both = heapq.merge(self._keys.names(prefix, after), fresh)
        return (key for key in both if self._get(key) is not None)

    def _set(self, key: str, entry: KeyEntry | None, before: KeyEntry | None) -> None:
        self._more_bytes += (entry.size_bytes if entry else 0) - (
            before.size_bytes if before else 0
        )
        self._written[key] = entry

    def _put(self, put: PutKey) -> WrittenResult:
        if put.session and not self._has_session(put.session):
            raise DraftDeclined(Declined.no_session(put.session))
        before = self._get(put.key)
        if before is None:
            created, version = self._index, 1
        else:
            # Written twice in one transaction is written once, for all who look at it from outside.
            created = before.created
            version = before.version + (before.modified < self._index)
        entry = KeyEntry(put.key, put.value, created, self._index, version, put.session)
        self._set(put.key, entry, before)
        return WrittenResult(version)

    def _delete(self, key: str) -> bool:
        before = self._get(key)
        if before is None:
            return False
        self._set(key, None, before)
        return True

    def _read(self, get: GetKey) -> EntriesResult:
        entry = self._get(get.key)
        if entry is None:
            return EntriesResult(())
        self._result_bytes += entry.size_bytes
        if self._result_bytes > RESULT_BYTES_MAX:
            raise DraftDeclined(
                Declined(
                    TOO_LARGE,
                    f"a transaction returns at most {RESULT_BYTES_MAX} bytes; read the keys apart"
                    " from it",
                )
            )
        return EntriesResult((entry,))

    def _read_range(self, get: GetRange) -> EntriesResult:
        entries, more, size = read_page(
            (self._get(key) for key in self._names(get.prefix, get.after)),
            get,
            RESULT_BYTES_MAX - self._result_bytes,
        )
        self._result_bytes += size
        return EntriesResult(entries, more)


def read_page(
    found: Iterator[KeyEntry | None], get: GetRange, bytes_max: int
) -> tuple[tuple[KeyEntry, ...], bool, int]:
    """Return the first entries that fit, whether there are more, and their bytes."""
    entries: list[KeyEntry] = []
    size = 0
    for entry in found:
        assert entry is not None, "the names are of keys that are there"
        told = _without_value(entry) if get.keys_only else entry
        if len(entries) == get.limit or size + told.size_bytes > bytes_max:
            return tuple(entries), True, size
        entries.append(told)
        size += told.size_bytes
    return tuple(entries), False, size


def _without_value(entry: KeyEntry) -> KeyEntry:
    return KeyEntry(entry.key, b"", entry.created, entry.modified, entry.version, entry.session)


def holds(compare: Compare, keys: KeyTable, has_token: Callable[[str, int], bool]) -> bool:
    """Tell whether a comparison holds in the state as it is."""
    operand = compare.operand
    if compare.field is CompareField.TOKEN:
        assert isinstance(operand, int), "checked when the transaction was"
        equal = has_token(compare.key, operand)
        return equal is (compare.relation is CompareRelation.EQUAL)
    entry = keys.get(compare.key)
    if compare.field is CompareField.VALUE:
        if entry is None:
            return compare.relation is CompareRelation.NOT_EQUAL
        return _compared(entry.value, compare.relation, operand)
    numbers = {
        CompareField.VERSION: entry.version if entry else 0,
        CompareField.CREATED: entry.created if entry else 0,
        CompareField.MODIFIED: entry.modified if entry else 0,
        CompareField.SESSION: entry.session if entry else 0,
    }
    if compare.field is CompareField.COUNT:
        return _compared(keys.count(compare.key), compare.relation, operand)
    return _compared(numbers[compare.field], compare.relation, operand)


def _compared(there: int | bytes, relation: CompareRelation, operand: int | bytes) -> bool:
    if relation is CompareRelation.EQUAL:
        return there == operand
    if relation is CompareRelation.NOT_EQUAL:
        return there != operand
    # Both are numbers, or both bytes: checked when the transaction was.
    less = there < operand  # type: ignore[operator]
    return less if relation is CompareRelation.LESS else there > operand  # type: ignore[operator]


def transact(
    compares: tuple[Compare, ...],
    then: tuple[Operation, ...],
    otherwise: tuple[Operation, ...],
    draft: Draft,
    keys: KeyTable,
    has_token: Callable[[str, int], bool],
) -> TransactionResult | Declined:
    """Carry a transaction out, whole or not at all."""
    succeeded = all(holds(compare, keys, has_token) for compare in compares)
    try:
        results = draft.carry_out(then if succeeded else otherwise)
    except DraftDeclined as declined:
        return declined.outcome
    draft.commit()
    return TransactionResult(succeeded, results)
