"""Double barriers: together in, together out."""

from typing import Any

from gossip.control.commands import EnterBarrier, LeaveBarrier
from gossip.control.outcomes import NOT_HELD, OTHER_COUNT, UNDER_WAY, BarrierResult
from tests.support.control_log import ControlLog


def test_it_opens_with_the_last_and_ends_with_the_last() -> None:
    log = ControlLog()
    ada, ben, cleo = log.session(), log.session(), log.session()
    assert log.apply(EnterBarrier("b", ada, 2)) == BarrierResult(1, is_open=False)
    assert log.apply(EnterBarrier("b", ada, 2)) == BarrierResult(1, is_open=False)
    assert log.apply(EnterBarrier("b", ben, 2)) == BarrierResult(2, is_open=True)
    late: Any = log.apply(EnterBarrier("b", cleo, 2))
    assert late.code == UNDER_WAY
    assert log.apply(LeaveBarrier("b", ada)) == BarrierResult(1, is_open=True)
    again: Any = log.apply(LeaveBarrier("b", ada))
    assert again.code == NOT_HELD
    log.check()
    assert log.apply(LeaveBarrier("b", ben)) == BarrierResult(0, is_open=True)
    assert log.apply(EnterBarrier("b", cleo, 3)) == BarrierResult(1, is_open=False)
    log.check()


def test_who_dies_outside_is_missing_and_who_dies_inside_has_left() -> None:
    log = ControlLog()
    ada, ben, cleo = log.session(), log.session(), log.session()
    log.apply(EnterBarrier("b", ada, 2))
    log.expire(ada)
    assert log.apply(EnterBarrier("b", ben, 2)) == BarrierResult(1, is_open=False)
    assert log.apply(EnterBarrier("b", cleo, 2)) == BarrierResult(2, is_open=True)
    log.expire(ben)
    log.expire(cleo)
    assert log.state.barriers.get("b") is None
    log.check()


def test_all_wait_for_as_many() -> None:
    log = ControlLog()
    ada, ben = log.session(), log.session()
    log.apply(EnterBarrier("b", ada, 2))
    other: Any = log.apply(EnterBarrier("b", ben, 3))
    assert other.code == OTHER_COUNT
