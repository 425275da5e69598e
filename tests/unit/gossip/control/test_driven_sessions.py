"""Sessions that their holder drives: renewed when it asks, and never on their own."""

from gossip.control.commands import OpenSession
from gossip.control.outcomes import SessionResult
from gossip.control.requests import ControlCompleted, ControlWrite, SessionConfirmed, SessionLost
from tests.support.control_solo import SoloDriver

ME, TTL_S = 5, 6.0


class Told(SoloDriver):
    """Keeps what the control plane tells."""

    def __init__(self) -> None:
        self.notices: list[object] = []
        super().__init__(ME)
        self.control.heard = self.notices.append  # type: ignore[method-assign, assignment]

    def opened(self) -> int:
        write = ControlWrite(OpenSession(ME, round(TTL_S * 1000), 0))
        self.act(lambda plane: plane.submit(write, self.time))
        [done] = [each for each in self.notices if isinstance(each, ControlCompleted)]
        assert isinstance(done.result, SessionResult)
        session = done.result.session
        self.act(lambda plane: plane.keep_session(session, TTL_S, self.time, is_driven=True))
        self.notices.clear()
        return session

    def renew(self, session: int) -> bool:
        return self.act(lambda plane: plane.renew_session(session, self.time))


def test_nobody_renews_it_but_its_holder() -> None:
    told = Told()
    session = told.opened()
    for _ in range(10):
        told.later(0.5)
    assert told.notices == []
    for _ in range(4):
        told.later(0.5)
    assert told.notices == [SessionLost(session, is_certain=False)], "by our clock, before theirs"
    assert session not in told.plane.state.sessions, "and then the leader has ended it"
    assert not told.renew(session)


def test_a_renewal_says_until_when_it_is_sure_counted_from_its_sending() -> None:
    told = Told()
    session = told.opened()
    told.later(3.0)
    assert told.renew(session)
    assert told.notices == [SessionConfirmed(session, told.time + TTL_S * 0.9)]
    told.later(4.0)
    assert len(told.plane.state.sessions) == 1, "ten seconds would be too long without it"
