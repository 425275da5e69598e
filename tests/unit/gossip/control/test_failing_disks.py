"""Leaders whose disk is full, hangs or is slow, or whose copy has halted: somebody else leads.

What a disk refuses its driver says each second; a save that hangs is said by nobody.
"""

from typing import Any

import msgspec
import pytest

from gossip.control.commands import AcquireLock, Transact
from gossip.control.outcomes import TransactionResult
from gossip.control.plane import ControlPlane
from gossip.control.proposals import TAKES_NOTHING
from gossip.control.requests import (
    ControlOverview,
    ControlWrite,
    IndeterminateResult,
    SessionLost,
    UnavailableResult,
)
from gossip.control.transactions import PutKey, WrittenResult
from gossip.core.ids import NodeId
from tests.support.control_net import BY_HAND, ControlNet

NEVER_S = 1e6
REFUSED_AGAIN_S = 1.0
YIELDED_S = 10.0
"""Two of the shortest election waits: one until it yields, one in which a successor may fail."""


def put(key: str) -> Transact:
    return Transact((), (PutKey(key, b""),))


class FailingDisks(ControlNet):
    """Disks that end no save, and such as refuse each."""

    def __init__(self, nodes: int, **more: Any) -> None:
        super().__init__(nodes, **more)
        self.bad: set[NodeId] = set()
        self.save_s = lambda node: NEVER_S if node in self.bad else 0.002

    def fail(self, node: NodeId, *, refuses: bool) -> None:
        self.bad.add(node)
        if refuses:
            self._refuse(node)

    def _refuse(self, node: NodeId) -> None:
        if node in self.planes and node in self.bad:
            self.planes[node].hold_back(self.now, held=True)
            self._perform(node)
            self._at(self.now + REFUSED_AGAIN_S, lambda: self._refuse(node))

    def mend(self, node: NodeId) -> None:
        """Let a disk end what it was given, in its order."""
        self.bad.remove(node)
        self._saved_at[node] = self.now
        waiting = sorted(each for each in self._queue if each[0] >= NEVER_S)
        self._queue = [each for each in self._queue if each[0] < NEVER_S]
        for _, _, saved in waiting:
            saved()
        self.planes[node].hold_back(self.now, held=False)
        self._perform(node)

    def led_by(self) -> tuple[NodeId, int]:
        plane = self.leader()
        assert plane.part.raft is not None
        return plane.me.node, plane.part.raft.term

    def others_in_order(self, leader: NodeId) -> list[NodeId]:
        return [each.node for each in self.configuration().voters if each.node != leader]


def lost(net: ControlNet, node: NodeId) -> list[SessionLost]:
    return [each for each in net.told[node] if isinstance(each, SessionLost)]


@pytest.fixture(params=[True, False], ids=["refused", "hanging"])
def refuses(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_session_outlives_a_leader_whose_disk_fails(refuses: bool) -> None:
    net = FailingDisks(5)
    net.vote(1, 2, 3)
    net.run(2.0)
    bad, term = net.led_by()
    holder, waiter = net.session(4, ttl_s=15.0), net.session(5, ttl_s=15.0)
    token = net.do(4, AcquireLock("door", holder)).token
    net.submit(5, ControlWrite(AcquireLock("door", waiter), 30.0))
    net.run(1.0)
    net.fail(bad, refuses=refuses)
    net.put(4, "while it fails")
    net.run(YIELDED_S)
    assert net.led_by()[0] != bad
    assert net.led_by()[1] > term
    net.run(120.0)
    assert not lost(net, 4)
    assert not lost(net, 5)
    lock = net.leader().state.locks.get("door")
    assert lock is not None
    assert [(each.session, each.token) for each in lock.holders] == [(holder, token)]
    net.crash(4)
    net.run(15.0 + 5.0)
    lock = net.leader().state.locks.get("door")
    assert lock is not None
    assert [each.session for each in lock.holders] == [waiter], "and ends with its holder"


def test_what_is_asked_meanwhile_is_done_once_and_told(refuses: bool) -> None:
    net = FailingDisks(4)
    net.vote(1, 2, 3)
    net.run(2.0)
    bad, _ = net.led_by()
    net.put(4, "before")
    net.fail(bad, refuses=refuses)
    for number in range(6):
        result = net.put(4, f"k{number}")
        assert isinstance(result, TransactionResult)
        assert result.results == (WrittenResult(1),)
    other = next(node for node in (1, 2, 3) if node != bad)
    for node in (bad, other, 4):
        assert len(net.keys(node)) == 7, "also for who asks at the voter that cannot write"
    net.run(30.0)
    net.mend(bad)
    net.run(5.0)
    net.agree()
    assert net.planes[bad].own_reports.takes_writes


def test_of_five_voters_one_is_off_and_another_one_leads(refuses: bool) -> None:
    net = FailingDisks(6)
    net.vote(1, 2, 3, 4, 5)
    net.run(2.0)
    bad, _ = net.led_by()
    off = net.others_in_order(bad)[0]
    net.crash(off)
    net.run(3.0)
    net.session(6, ttl_s=15.0)
    net.fail(bad, refuses=refuses)
    net.submit(6, ControlWrite(put("a"), 30.0))
    net.run(YIELDED_S)
    assert net.led_by()[0] not in (bad, off)
    net.run(60.0)
    assert isinstance(net.put(6, "b"), TransactionResult)
    assert not lost(net, 6)


def test_where_nobody_else_can_write_it_leads_on_and_sessions_live(refuses: bool) -> None:
    net = FailingDisks(4)
    net.vote(1, 2, 3)
    net.run(2.0)
    bad, term = net.led_by()
    net.session(4, ttl_s=15.0)
    net.crash(net.others_in_order(bad)[1])
    also_bad = net.others_in_order(bad)[0]
    net.fail(also_bad, refuses=True)
    net.run(3.0)
    net.fail(bad, refuses=refuses)
    net.submit(4, ControlWrite(put("a"), 300.0))
    net.run(120.0)
    assert net.led_by() == (bad, term)
    assert not lost(net, 4)


def test_two_full_disks_of_three_do_not_end_sessions(refuses: bool) -> None:
    """The one with room cannot be elected by itself, and the leader knows it."""
    net = FailingDisks(4)
    net.vote(1, 2, 3)
    net.run(2.0)
    bad, term = net.led_by()
    net.session(4, ttl_s=15.0)
    net.fail(net.others_in_order(bad)[0], refuses=True)
    net.run(3.0)
    net.fail(bad, refuses=refuses)
    net.submit(4, ControlWrite(put("a"), 300.0))
    net.run(120.0)
    assert net.led_by() == (bad, term)
    assert not lost(net, 4)
    result = net.do(4, put("b"), timeout_s=9.0)
    assert isinstance(result, UnavailableResult)


def test_who_votes_alone_begins_nothing_that_it_cannot_save(refuses: bool) -> None:
    net = FailingDisks(2)
    net.put(2, "before")
    net.session(2, ttl_s=15.0)
    net.fail(1, refuses=refuses)
    if not refuses:
        begun = net.do(2, put("begun"), timeout_s=9.0)
        assert isinstance(begun, IndeterminateResult), "nobody knew yet"
    for node in (1, 2):
        for number in range(3):
            result = net.do(node, put(f"not begun {node} {number}"), timeout_s=3.0)
            assert result == UnavailableResult(TAKES_NOTHING)
    net.run(60.0)
    assert not lost(net, 2), "sessions are renewed in memory"
    net.mend(1)
    net.run(5.0)
    assert not [key for key in net.keys(2) if key.startswith("not begun")]
    assert isinstance(net.put(2, "after"), TransactionResult)


def shown(net: ControlNet, node: NodeId) -> dict[NodeId, bool | None]:
    """Return who takes writes, as the leader tells."""
    overview: Any = net.ask(node, ControlOverview(10.0)).result
    return {each.node: each.takes_writes for each in overview.members}


def test_the_leader_says_who_cannot_write(refuses: bool) -> None:
    net = FailingDisks(4)
    net.vote(1, 2, 3)
    net.run(2.0)
    bad = net.others_in_order(net.led_by()[0])[0]
    net.fail(bad, refuses=refuses)
    net.put(4, "a")
    net.run(YIELDED_S)
    assert shown(net, 4) == {each: each != bad for each in (1, 2, 3)}
    net.mend(bad)
    net.run(2.0)
    assert shown(net, 4) == dict.fromkeys((1, 2, 3), True)
    assert net.planes[bad].status(net.now).takes_writes


def test_how_long_a_save_hangs_is_told() -> None:
    net = FailingDisks(1)
    net.put(1, "a")
    net.fail(1, refuses=False)
    net.submit(1, ControlWrite(put("b"), 300.0))
    net.run(4.9)
    assert net.planes[1].status(net.now).takes_writes
    net.run(60.0)
    status = net.planes[1].status(net.now)
    assert not status.takes_writes
    assert status.save_hangs_s == pytest.approx(64.9)
    assert shown(net, 1) == {1: False}, "it says so of itself, too"
    net.mend(1)
    status = net.planes[1].status(net.now)
    assert status.takes_writes
    assert status.save_hangs_s == 0


# A copy that has halted: its disk is good, and it can answer nobody.


def halt(plane: ControlPlane, net: ControlNet) -> None:
    plane.applier.halt(plane.state.index + 1, "a command of a later version", net.now)
    net._perform(plane.me.node)


def test_a_leader_that_understands_no_more_hands_over_whoever_is_off() -> None:
    net = ControlNet(6)
    net.vote(1, 2, 3, 4, 5)
    net.run(2.0)
    leader = net.leader()
    net.session(6, ttl_s=15.0)
    voters = [each.node for each in net.configuration().voters if each != leader.me]
    net.crash(voters[0])
    halt(net.planes[voters[1]], net)
    net.run(3.0)
    halt(leader, net)
    net.run(YIELDED_S)
    assert net.leader().me.node in voters[2:], "not to one that halted, either"
    assert isinstance(net.put(6, "a"), TransactionResult)
    assert not lost(net, 6)


def test_where_all_have_halted_nobody_hands_over() -> None:
    net = ControlNet(3)
    net.vote(1, 2, 3)
    net.run(2.0)
    leader = net.leader()
    for plane in net.planes.values():
        halt(plane, net)
    assert leader.part.raft is not None
    term = leader.part.raft.term
    net.run(120.0)
    assert net.leader() is leader
    assert leader.part.raft.term == term


def test_who_has_halted_refuses_commands() -> None:
    net = ControlNet(2)
    net.put(2, "a")
    halt(net.planes[1], net)
    assert net.do(2, put("b"), timeout_s=3.0) == UnavailableResult(TAKES_NOTHING)
    assert not net.planes[1].status(net.now).takes_writes


# Disks that are slow.


def test_a_leader_whose_disk_is_too_slow_to_vote_hands_over_to_one_that_is_not() -> None:
    net = ControlNet(4, voter_tuning=msgspec.structs.replace(BY_HAND, report_every_s=30.0))
    net.vote(1, 2, 3)
    slow = net.leader().me.node
    for number in range(5):
        net.put(4, f"quick {number}")
    net.run(40.0)
    assert net.leader().me.node == slow
    net.save_s = lambda node: 3.0 if node == slow else 0.002
    for number in range(40):
        net.put(4, f"slow {number}")
        net.run(4.0)
    assert net.leader().me.node != slow
    assert net.planes[slow].counts["control_voters/handed_over"] == 1
    leader = net.leader()
    for number in range(20):
        net.put(4, f"after {number}")
        net.run(5.0)
    assert net.leader() is leader, "and it stays there"


def test_where_all_are_slow_the_leader_stays() -> None:
    net = ControlNet(4, voter_tuning=msgspec.structs.replace(BY_HAND, report_every_s=30.0))
    net.vote(1, 2, 3)
    net.save_s = lambda _node: 3.0
    for number in range(5):
        net.put(4, f"known {number}")
        net.run(30.0)
    leader = net.leader()
    before = leader.counts["control_voters/handed_over"]
    for number in range(20):
        net.put(4, f"{number}")
        net.run(30.0)
    assert net.leader() is leader
    assert leader.counts["control_voters/handed_over"] == before


def test_a_new_session_can_be_opened_while_a_disk_hangs() -> None:
    net = FailingDisks(4)
    net.vote(1, 2, 3)
    net.run(2.0)
    bad, _ = net.led_by()
    net.fail(bad, refuses=False)
    sessions = {net.session(4, ttl_s=15.0) for _ in range(3)}
    assert len(sessions) == 3
    net.crash(4)
    net.run(15.0 + 5.0)
    assert not len(net.leader().state.sessions), "each is measured by who leads now"
