"""Sessions: all that one holds goes with it, at one revision; and who may end it."""

from gossip.control import bounds
from gossip.control.barriers import BarrierChange
from gossip.control.commands import EnterBarrier, OpenSession
from gossip.control.keys import KeyChange
from gossip.control.locks import LockChange
from gossip.control.outcomes import INVALID, NO_SESSION, STALE, TOO_MANY, EndedResult, SessionResult
from gossip.control.sessions import ControlSession
from tests.support.control_log import TERM, ControlLog


def test_all_that_a_session_holds_goes_with_it_at_once() -> None:
    log = ControlLog()
    session, other = log.session(), log.session()
    log.put("mine", session=session)
    log.put("also", session=session)
    log.put("taken over", session=session)
    log.put("taken over", session=other)
    log.put("nobody's")
    log.acquire("door", session)
    log.acquire("door", other)
    log.apply(EnterBarrier("start", session, 2))
    assert log.close(session) == EndedResult(ended=True)
    assert [entry.key for entry in log.state.keys] == ["nobody's", "taken over"]
    assert log.holders("door") == [(other, log.index)]
    assert log.state.barriers.get("start") is None
    batch = log.batches[-1]
    assert batch.revision == log.index
    assert [type(change) for change in batch.changes] == [
        KeyChange, KeyChange, LockChange, BarrierChange,
    ]  # fmt: skip
    log.check()


def test_a_session_that_is_gone_is_said_to_be() -> None:
    log = ControlLog()
    session = log.session()
    log.close(session)
    assert log.close(session).code == NO_SESSION
    assert log.acquire("door", session).code == NO_SESSION
    assert log.put("k", session=session).code == NO_SESSION
    assert log.expire(session) == EndedResult(ended=False)


def test_a_leader_of_another_term_ends_nothing() -> None:
    """Stuck while another was elected, it learns late that it leads no more (etcd#15247)."""
    log = ControlLog()
    session = log.session()
    assert log.expire(session, term=TERM - 1).code == STALE
    assert session in log.state.sessions
    assert log.expire(session) == EndedResult(ended=True)
    assert session not in log.state.sessions


def test_a_session_has_bounds() -> None:
    log = ControlLog()
    for ttl_ms in (bounds.SESSION_TTL_MS_MIN - 1, bounds.SESSION_TTL_MS_MAX + 1):
        outcome = log.apply(OpenSession(7, ttl_ms))
        assert getattr(outcome, "code", "") == INVALID
    outcome = log.apply(OpenSession(7, 5_000, label="x" * 300))
    assert getattr(outcome, "code", "") == INVALID


def test_no_label_takes_all_sessions() -> None:
    log = ControlLog()
    for state in (log.state, log.other):
        for number in range(1, bounds.LABEL_SESSIONS_MAX + 1):
            state.sessions.restore(ControlSession(number, 7, 5_000, label="app:door"))
    assert getattr(log.apply(OpenSession(7, 5_000, label="app:door")), "code", "") == TOO_MANY
    assert isinstance(log.apply(OpenSession(7, 5_000, label="app:lamp")), SessionResult)
    for state in (log.state, log.other):
        state.sessions.end(1)
    assert isinstance(log.apply(OpenSession(7, 5_000, label="app:door")), SessionResult)


def test_there_are_so_many_sessions_and_no_more() -> None:
    log = ControlLog()
    for state in (log.state, log.other):
        for number in range(1, bounds.SESSIONS_MAX + 1):
            state.sessions.restore(ControlSession(number, 7, 5_000))
    assert getattr(log.apply(OpenSession(7, 5_000)), "code", "") == TOO_MANY
