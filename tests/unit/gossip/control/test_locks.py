"""Locks, semaphores, elections: who holds what by which token, against a model of lists."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.control.bounds import LOCK_VALUE_BYTES_MAX
from gossip.control.commands import AcquireLock, ProclaimValue
from gossip.control.locks import LockChange
from gossip.control.outcomes import (
    FULL,
    INVALID,
    NOT_HELD,
    OTHER_PERMITS,
    EndedResult,
    LockResult,
    ReleasedResult,
)
from gossip.control.transactions import Compare, CompareField, CompareRelation, PutKey
from tests.support.control_log import ControlLog


def test_one_holds_it_and_the_others_wait_in_order() -> None:
    log = ControlLog()
    ada, ben, cleo = log.session(), log.session(), log.session()
    held = log.acquire("door", ada)
    assert held == LockResult(log.index)
    assert log.acquire("door", ben) == LockResult(0, 1)
    assert log.acquire("door", cleo) == LockResult(0, 2)
    assert log.acquire("door", cleo) == LockResult(0, 2), "asking again does no harm"
    assert log.acquire("door", ada) == held
    assert log.release("door", ada) == ReleasedResult(held=True)
    assert log.holders("door") == [(ben, log.index)]
    assert log.release("door", ada).code == NOT_HELD
    assert log.release("door", cleo) == ReleasedResult(held=False)
    assert log.release("door", ben) == ReleasedResult(held=True)
    assert log.state.locks.get("door") is None, "a lock that nobody wants costs nothing"
    log.check()


def test_who_does_not_want_to_wait_does_not() -> None:
    log = ControlLog()
    ada, ben = log.session(), log.session()
    log.acquire("door", ada)
    assert log.acquire("door", ben, wait=False) == LockResult(0, 0)
    log.release("door", ada)
    assert log.acquire("door", ben, wait=False).token == log.index


def test_a_semaphore_has_several_permits() -> None:
    log = ControlLog()
    sessions = [log.session() for _ in range(4)]
    for session in sessions:
        log.acquire("slots", session, permits=2)
    assert [session for session, _ in log.holders("slots")] == sessions[:2]
    assert log.acquire("slots", log.session(), permits=3).code == OTHER_PERMITS
    log.close(sessions[0])
    assert [session for session, _ in log.holders("slots")] == sessions[1:3]
    log.check()


def test_a_token_guards_a_key() -> None:
    log = ControlLog()
    ada, ben = log.session(), log.session()
    first = log.acquire("door", ada).token

    def guarded(token: int) -> Any:
        when = Compare("door", CompareField.TOKEN, CompareRelation.EQUAL, token)
        return log.transact(PutKey("state", b"open"), when=(when,)).succeeded

    assert guarded(first)
    log.acquire("door", ben)
    log.expire(ada)
    assert not guarded(first), "its holder was paused and does not know"
    assert guarded(log.holders("door")[0][1])


def test_a_lost_holders_lock_stays_shut_for_its_delay() -> None:
    log = ControlLog()
    ada, ben = log.session(lock_delay_ms=15_000), log.session()
    log.acquire("door", ada)
    log.acquire("door", ben)
    log.expire(ada)
    lost = log.index
    assert log.holders("door") == []
    assert log.acquire("door", ben, wait=False) == LockResult(0, 1)
    assert log.end_delay("door", lost + 1) == EndedResult(ended=False)
    assert log.end_delay("door", lost) == EndedResult(ended=True)
    assert log.holders("door") == [(ben, log.index)]
    log.check()


def test_a_holder_that_closes_its_session_shuts_nothing() -> None:
    log = ControlLog()
    ada = log.session(lock_delay_ms=15_000)
    log.acquire("door", ada)
    log.close(ada)
    assert log.state.locks.get("door") is None


def test_who_leads_is_who_holds_it_and_everybody_sees_its_word() -> None:
    log = ControlLog()
    ada, ben = log.session(), log.session()
    log.apply(AcquireLock("lead", ada, value=b"ada"))
    token = log.index
    log.apply(AcquireLock("lead", ben, value=b"ben"))
    assert log.apply(ProclaimValue("lead", ada, b"ada, busy")) == LockResult(token)
    outcome: Any = log.apply(ProclaimValue("lead", ben, b"me"))
    assert outcome.code == NOT_HELD
    log.close(ada)
    words = [
        change.lock.holders[0].value
        for batch in log.batches
        for change in batch.changes
        if isinstance(change, LockChange) and change.lock
    ]
    assert words == [b"ada", b"ada", b"ada, busy", b"ben"]


def test_what_a_lock_takes_is_bounded() -> None:
    log = ControlLog()
    ada = log.session()
    outcome: Any = log.apply(AcquireLock("d", ada, value=bytes(LOCK_VALUE_BYTES_MAX + 1)))
    assert outcome.code == INVALID
    outcome = log.apply(AcquireLock("d", ada, permits=0))
    assert outcome.code == INVALID
    for state in (log.state, log.other):
        state.space.limit_bytes = state.space.used_bytes + 300
    assert log.acquire("door", ada).token
    outcome = log.apply(ProclaimValue("door", ada, bytes(300)))
    assert outcome.code == FULL
    outcome = log.apply(AcquireLock("d", ada, value=bytes(300)))
    assert outcome.code == FULL
    log.check()


# The model: for each name the holders, those who wait, and how many permits are shut.

PERMITS = {"one": 1, "two": 2}
SESSIONS = st.integers(1, 4)
NAMES = st.sampled_from(sorted(PERMITS))
STEPS = st.one_of(
    st.tuples(st.just("acquire"), NAMES, SESSIONS),
    st.tuples(st.just("try"), NAMES, SESSIONS),
    st.tuples(st.just("release"), NAMES, SESSIONS),
    st.tuples(st.just("lose"), NAMES, SESSIONS),
    st.tuples(st.just("open"), NAMES, SESSIONS),
    st.tuples(st.just("restore"), NAMES, SESSIONS),
)


class Model:
    def __init__(self) -> None:
        self.holders: dict[str, list[tuple[int, int]]] = {name: [] for name in PERMITS}
        self.queue: dict[str, list[int]] = {name: [] for name in PERMITS}
        self.shut: dict[str, list[int]] = {name: [] for name in PERMITS}

    def free(self, name: str) -> int:
        return PERMITS[name] - len(self.holders[name]) - len(self.shut[name])

    def step(self, what: str, name: str, session: int, index: int) -> None:
        held = [each for each, _ in self.holders[name]]
        if what in ("acquire", "try") and session not in (*held, *self.queue[name]):
            if what == "acquire" or (self.free(name) and not self.queue[name]):
                self.queue[name].append(session)
        elif what == "release":
            self.forget(name, session)
        elif what == "lose":
            for each in PERMITS:
                if session in [holder for holder, _ in self.holders[each]]:
                    self.shut[each].append(index)
                self.forget(each, session)
        elif what == "open" and self.shut[name]:
            self.shut[name].pop(0)
        for each in PERMITS:
            if self.free(each) and self.queue[each]:
                self.holders[each].append((self.queue[each].pop(0), index))

    def forget(self, name: str, session: int) -> None:
        self.holders[name] = [each for each in self.holders[name] if each[0] != session]
        self.queue[name] = [each for each in self.queue[name] if each != session]


@settings(max_examples=80)
@given(st.lists(STEPS, max_size=30))
def test_locks_are_what_the_model_says(steps: list[tuple[str, str, int]]) -> None:
    log, model = ControlLog(), Model()
    sessions = {number: log.session(lock_delay_ms=1_000) for number in range(1, 5)}
    newest: dict[str, int] = dict.fromkeys(PERMITS, 0)
    known: set[tuple[str, int]] = set()
    for what, name, number in steps:
        session = sessions[number]
        shut = list(model.shut[name])
        model.step(what, name, session, log.index + 1)
        if what in ("acquire", "try"):
            log.acquire(name, session, PERMITS[name], wait=what == "acquire")
        elif what == "release":
            log.release(name, session)
        elif what == "lose":
            log.expire(session)
            sessions[number] = log.session(lock_delay_ms=1_000)
        elif what == "open" and shut:
            log.end_delay(name, shut[0])
        else:
            log.restore_other()
        for each in PERMITS:
            assert log.holders(each) == model.holders[each]
            for _, token in log.holders(each):
                assert (each, token) in known or token > newest[each], "tokens only grow"
                newest[each] = max(newest[each], token)
                known.add((each, token))
    log.check()
