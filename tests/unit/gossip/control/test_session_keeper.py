"""Renewals that are lost, late or redirected: asked again soon, however long a session lives."""

import random

import pytest

from gossip.control.commands import OpenSession
from gossip.control.directory import VoterDirectory
from gossip.control.leader_search import LeaderSearch
from gossip.control.messages import CODEC, ControlAsk, RenewAnswer, RenewAsk
from gossip.control.outbound import ControlOutbound
from gossip.control.outcomes import SessionResult
from gossip.control.requests import SessionConfirmed, SessionLost
from gossip.control.session_keeper import (
    REDIRECTED_S,
    RETRY_S_MAX,
    WAITED_S,
    SessionKeeper,
)
from gossip.core.machine import Emit, SendFrame
from tests.support.control_net import ControlNet

TTLS_S = [15.0, 600.0, 3_600.0, 86_400.0]
ME, LEADER = 4, 1


def of_three_voters() -> ControlNet:
    net = ControlNet(4)
    net.vote(1, 2, 3)
    net.run(2.0)
    return net


def driven(net: ControlNet, ttl_s: float) -> int:
    opened = net.do(ME, OpenSession(ME, int(ttl_s * 1000), 0))
    assert isinstance(opened, SessionResult)
    net.planes[ME].keep_session(opened.session, ttl_s, net.now, is_driven=True)
    net.told[ME].clear()
    return opened.session


def renew(net: ControlNet, session: int) -> None:
    net.planes[ME].renew_session(session, net.now)
    net._perform(ME)


def is_told(net: ControlNet) -> bool:
    return any(isinstance(each, SessionConfirmed | SessionLost) for each in net.told[ME])


@pytest.mark.parametrize("ttl_s", TTLS_S)
def test_a_leader_that_dies_over_a_renewal_costs_an_election_and_no_share_of_the_time_to_live(
    ttl_s: float,
) -> None:
    net = of_three_voters()
    session = driven(net, ttl_s)
    leader = net.leader().me.node
    renew(net, session)
    net.crash(leader)
    net.until(lambda: len(net.planes) == 3 and net.leader().me.node != leader)
    net.until(lambda: is_told(net), within_s=10.0)
    assert isinstance(net.told[ME][0], SessionConfirmed)


@pytest.mark.parametrize("ttl_s", TTLS_S)
def test_a_stream_that_breaks_is_heard_of(ttl_s: float) -> None:
    net = of_three_voters()
    session = driven(net, ttl_s)
    net.cut.add(frozenset((net.leader().me.node, ME)))
    renew(net, session)
    net.run(0.1)
    assert not is_told(net)
    net.heal()
    net.until(lambda: is_told(net), within_s=1.0)
    assert isinstance(net.told[ME][0], SessionConfirmed)


class Keeper(SessionKeeper):
    """A keeper that knows who leads, and whose questions a test answers."""

    def __init__(self) -> None:
        self.outbound = ControlOutbound(ME, random.Random(0))
        self.directory = VoterDirectory(ME, lambda: (LEADER,))
        search = LeaderSearch(self.outbound, self.directory)
        super().__init__(self.outbound, self.directory, search)

    def questions(self, now: float) -> list[tuple[int, RenewAsk]]:
        """Return what is asked now, or once the leader is found again."""
        self.wake(now)
        if self.directory.leader is None:
            self.directory.follow(LEADER, 1)
            self.leader_changed(now)
            self.wake(now + REDIRECTED_S)
        sent = [each for each in self.outbound.drain() if isinstance(each, SendFrame)]
        asks = [CODEC.decode(each.data) for each in sent]
        return [
            (each.number, each.body)
            for each in asks
            if isinstance(each, ControlAsk) and isinstance(each.body, RenewAsk)
        ]

    def sure(self) -> list[float]:
        told = [each.event for each in self.outbound.drain() if isinstance(each, Emit)]
        return [each.sure_until for each in told if isinstance(each, SessionConfirmed)]


@pytest.mark.interpreted
def test_an_answer_that_takes_longer_than_the_repetition_is_taken() -> None:
    """It promises what it promised when it was asked for."""
    keeper = Keeper()
    keeper.keep(7, 3_600.0, 0.0, is_driven=True)
    keeper.directory.follow(LEADER, 1)
    assert keeper.renew(7, 100.0)
    [(first, _)] = keeper.questions(100.0)
    [(second, _)] = keeper.questions(100.0 + RETRY_S_MAX)
    assert keeper.answered(first, RenewAnswer((7,)))
    assert keeper.sure() == [100.0 + 3_240.0]
    assert keeper.answered(second, RenewAnswer((7,)))
    assert keeper.sure_until(7) == 100.0 + RETRY_S_MAX + REDIRECTED_S + 3_240.0


@pytest.mark.interpreted
def test_questions_about_sessions_that_are_asked_apart_later_are_forgotten() -> None:
    keeper = Keeper()
    for session in (7, 8):
        keeper.keep(session, 3_600.0, 0.0, is_driven=True)
    keeper.directory.follow(LEADER, 1)
    for kept in keeper._kept.values():
        kept.renew_at = 100.0
    [(both, ask)] = keeper.questions(100.0)
    assert ask.sessions == (7, 8)
    now = 100.0
    for session in (7, 8) * 40:
        now += 1.0
        keeper._kept[session].renew_at = now
        keeper.questions(now)
    assert len(keeper._asked) <= WAITED_S * 2
    assert not keeper.answered(both, RenewAnswer((7, 8)))
    assert keeper.asked(both) is None
