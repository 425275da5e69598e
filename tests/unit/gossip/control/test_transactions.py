"""Transactions: compare, then, else; whole or not at all; against a model that is a dict."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.control.bounds import OPERATIONS_MAX, VALUE_BYTES_MAX
from gossip.control.commands import CloseSession, Transact, check_command
from gossip.control.keys import KeyChange, KeyEntry
from gossip.control.outcomes import FULL, INVALID, NO_SESSION, TOO_LARGE, Declined
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
    PutKey,
    WrittenResult,
)
from gossip.core.errors import InvalidRequest
from tests.support.control_log import ControlLog

F, R = CompareField, CompareRelation


def test_a_key_has_the_numbers_of_etcd() -> None:
    log = ControlLog()
    log.put("a", b"1")
    log.put("other")
    log.put("a", b"2")
    assert log.get("a") == (KeyEntry("a", b"2", 1, 3, 2),)
    log.transact(DeleteKey("a"))
    assert log.get("a") == ()
    index = log.index + 1
    log.put("a", b"3")
    assert log.get("a") == (KeyEntry("a", b"3", index, index, 1),)


def test_compare_and_set() -> None:
    log = ControlLog()
    absent = Compare("a", F.CREATED, R.EQUAL, 0)
    assert log.transact(PutKey("a", b"1"), when=(absent,)).succeeded
    assert not log.transact(PutKey("a", b"2"), when=(absent,)).succeeded
    assert log.get("a")[0].value == b"1"


@pytest.mark.parametrize(
    ("field", "relation", "operand", "is_so"),
    [
        (F.VALUE, R.EQUAL, b"1", True),
        (F.VALUE, R.NOT_EQUAL, b"1", False),
        (F.VALUE, R.LESS, b"2", True),
        (F.VALUE, R.GREATER, b"1", False),
        (F.VERSION, R.EQUAL, 2, True),
        (F.CREATED, R.LESS, 2, True),
        (F.MODIFIED, R.GREATER, 1, True),
        (F.SESSION, R.EQUAL, 0, True),
        (F.COUNT, R.EQUAL, 1, True),
        (F.TOKEN, R.EQUAL, 1, False),
        (F.TOKEN, R.NOT_EQUAL, 1, True),
    ],
)
def test_comparisons(
    field: CompareField, relation: CompareRelation, operand: int | bytes, is_so: bool
) -> None:
    log = ControlLog()
    log.put("a", b"0")
    log.put("a", b"1")
    assert log.holds("a", field, relation, operand) is is_so


def test_a_key_that_is_not_there_has_zeros_and_no_value() -> None:
    log = ControlLog()
    for field in (F.VERSION, F.CREATED, F.MODIFIED, F.SESSION, F.COUNT):
        assert log.holds("a", field, R.EQUAL, 0)
    assert not log.holds("a", F.VALUE, R.EQUAL, b"")
    assert not log.holds("a", F.VALUE, R.LESS, b"z")
    assert log.holds("a", F.VALUE, R.NOT_EQUAL, b"")


def test_operations_see_those_before_them_and_others_see_the_end() -> None:
    log = ControlLog()
    log.put("k/a", b"0")
    result = log.transact(
        PutKey("k/a", b"1"), GetKey("k/a"), PutKey("k/b", b""), DeletePrefix("k"), GetRange(""),
        PutKey("k/a", b"2"), PutKey("k/a", b"3"), GetRange("", keys_only=True),
    )  # fmt: skip
    assert [each.version for each in result.results if isinstance(each, WrittenResult)] == [
        2, 1, 1, 1,
    ]  # fmt: skip
    assert result.results[1].entries[0].value == b"1"
    assert result.results[3] == DeletedResult(2)
    assert result.results[4] == EntriesResult(())
    assert result.results[7] == EntriesResult((KeyEntry("k/a", b"", 2, 2, 1),))
    assert log.batches[-1].changes == (KeyChange("k/a", KeyEntry("k/a", b"3", 2, 2, 1)),)


def test_what_is_declined_changes_nothing() -> None:
    log = ControlLog()
    log.put("a", b"0")
    declined = log.transact(PutKey("a", b"1"), DeleteKey("a"), PutKey("b", b"", 77))
    assert declined.code == NO_SESSION
    assert log.get("a")[0].value == b"0"
    log.state.space.limit_bytes = log.other.space.limit_bytes = 200
    declined = log.transact(PutKey("b", bytes(200)))
    assert declined.code == FULL
    assert "delete something" in declined.reason
    assert log.transact(DeleteKey("a"), PutKey("b", bytes(100))).succeeded
    log.check()


def test_who_fills_the_state_leaves_covey_room_for_its_own() -> None:
    log = ControlLog()
    log.put("a", b"0")
    log.state.space.limit_bytes = log.other.space.limit_bytes = log.state.space.used_bytes
    for key in ("b", "a", "covez"):
        assert log.transact(PutKey(key, b"11")).code == FULL
    mixed = log.transact(PutKey("covey/access/x", b"1"), PutKey("b", b"1"))
    assert mixed.code == FULL
    assert log.transact(PutKey("covey/access/x", b"1")).succeeded
    log.check()


def test_a_transaction_returns_so_many_bytes_and_no_more() -> None:
    log = ControlLog()
    for name in "abc":
        log.put(name, bytes(VALUE_BYTES_MAX))
    declined = log.transact(GetKey("a"), PutKey("d", b""), GetKey("b"), GetKey("c"))
    assert declined.code == TOO_LARGE
    assert log.get("d") == ()
    page = log.transact(GetRange("")).results[0]
    assert [each.key for each in page.entries] == ["a"]
    assert page.more
    page = log.transact(GetRange("", after="a", limit=1)).results[0]
    assert [each.key for each in page.entries] == ["b"]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Transact((), (GetKey(""),)), "a key has 1 to 512"),
        (Transact((), (GetKey("k" * 513),)), "a key has 1 to 512"),
        (Transact((), (GetKey("\ud800"),)), "surrogate"),
        (Transact((), (PutKey("k", bytes(VALUE_BYTES_MAX + 1)),)), "a value has at most"),
        (Transact((), (DeletePrefix(""),)), "a prefix has 1"),
        (Transact((), (GetRange("", limit=0),)), "`limit`"),
        (Transact((), (), (GetKey(""),)), "a key"),
        (Transact((), (GetKey("k"),) * (OPERATIONS_MAX + 1)), "at most 128"),
        (Transact((Compare("k", F.VALUE, R.EQUAL, 1),), ()), "compared with bytes"),
        (Transact((Compare("k", F.VERSION, R.EQUAL, b""),), ()), "compared with bytes"),
        (Transact((Compare("k", F.TOKEN, R.LESS, 1),), ()), "only"),
    ],
)
def test_what_no_state_could_do_is_refused(action: Transact, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        check_command(action)


def test_what_is_in_the_log_all_the_same_is_declined_by_all() -> None:
    log = ControlLog()
    outcome = log.apply(Transact((), (GetKey(""),)))
    assert isinstance(outcome, Declined)
    assert outcome.code == INVALID


# The model: a dict, and the text of the contract.

KEYS = st.sampled_from(["a", "a/1", "a/2", "b", "c"])
VALUES = st.binary(max_size=3)
PREFIXES = st.sampled_from(["a", "a/", "b"])
SESSIONS = st.sampled_from([0, 0, 1, 2, 99])
OPERATIONS = st.one_of(
    st.builds(PutKey, KEYS, VALUES, SESSIONS),
    st.builds(DeleteKey, KEYS),
    st.builds(DeletePrefix, PREFIXES),
    st.builds(GetKey, KEYS),
    st.builds(GetRange, PREFIXES, KEYS, st.integers(1, 3), st.booleans()),
)
NUMBERS = st.sampled_from([F.VERSION, F.CREATED, F.MODIFIED, F.SESSION, F.COUNT])
COMPARES = st.one_of(
    st.builds(Compare, KEYS, NUMBERS, st.sampled_from(R), st.integers(0, 6)),
    st.builds(Compare, KEYS, st.just(F.VALUE), st.sampled_from(R), VALUES),
)
TRANSACTIONS = st.builds(
    Transact,
    st.lists(COMPARES, max_size=2).map(tuple),
    st.lists(OPERATIONS, max_size=6).map(tuple),
    st.lists(OPERATIONS, max_size=3).map(tuple),
)


class Model:
    """Keys as a dict; a transaction works on a copy of it."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyEntry] = {}
        self.sessions: set[int] = set()

    def holds(self, compare: Compare) -> bool:
        entry = self.keys.get(compare.key)
        there: Any = {
            F.VALUE: entry.value if entry else None,
            F.VERSION: entry.version if entry else 0,
            F.CREATED: entry.created if entry else 0,
            F.MODIFIED: entry.modified if entry else 0,
            F.SESSION: entry.session if entry else 0,
            F.COUNT: len([key for key in self.keys if key.startswith(compare.key)]),
        }[compare.field]
        if there is None:
            return compare.relation is R.NOT_EQUAL
        answers: dict[CompareRelation, bool] = {
            R.EQUAL: there == compare.operand,
            R.NOT_EQUAL: there != compare.operand,
            R.LESS: there < compare.operand,
            R.GREATER: there > compare.operand,
        }
        return answers[compare.relation]

    def transact(self, action: Transact, index: int) -> tuple[bool, list[Any]] | None:
        succeeded = all(self.holds(each) for each in action.compares)
        keys = dict(self.keys)
        results = []
        for operation in action.then if succeeded else action.otherwise:
            if isinstance(operation, PutKey) and operation.session not in {0, *self.sessions}:
                return None
            results.append(self._carry_out(keys, operation, index))
        self.keys = keys
        return succeeded, results

    def _carry_out(self, keys: dict[str, KeyEntry], operation: Operation, index: int) -> Any:
        match operation:
            case PutKey(key=key, value=value, session=session):
                old = keys.get(key)
                version = 1 if old is None else old.version + (old.modified != index)
                created = old.created if old else index
                keys[key] = KeyEntry(key, value, created, index, version, session)
                return WrittenResult(version)
            case DeleteKey(key=key):
                return DeletedResult(int(keys.pop(key, None) is not None))
            case DeletePrefix(prefix=prefix):
                return DeletedResult(
                    len([keys.pop(key) for key in list(keys) if key.startswith(prefix)])
                )
            case GetKey(key=key):
                return EntriesResult((keys[key],) if key in keys else ())
            case GetRange(prefix=prefix, after=after, limit=limit, keys_only=keys_only):
                found = [keys[k] for k in sorted(keys) if k.startswith(prefix) and k > after]
                told = [
                    KeyEntry(
                        e.key, b"" if keys_only else e.value, e.created, e.modified, e.version,
                        e.session,
                    )
                    for e in found
                ]  # fmt: skip
                return EntriesResult(tuple(told[:limit]), len(told) > limit)


@settings(max_examples=60)
@given(st.lists(st.one_of(TRANSACTIONS, st.sampled_from(["close 1", "restore"])), max_size=12))
def test_transactions_are_what_the_model_says(steps: list[Transact | str]) -> None:
    log, model = ControlLog(), Model()
    first, second = log.session(), log.session()
    assert (first, second) == (1, 2)
    model.sessions = {first, second}
    for step in steps:
        if step == "restore":
            log.restore_other()
        elif isinstance(step, str):
            log.apply(CloseSession(1))
            model.sessions.discard(1)
            model.keys = {k: entry for k, entry in model.keys.items() if entry.session != 1}
        else:
            outcome: Any = log.apply(step)
            wanted = model.transact(step, log.index)
            if wanted is None:
                assert outcome.code == NO_SESSION
            else:
                assert (outcome.succeeded, list(outcome.results)) == wanted
        assert {entry.key: entry for entry in log.state.keys} == model.keys
    log.check()
