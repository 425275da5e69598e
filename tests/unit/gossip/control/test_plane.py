"""Whole control planes: voters and copies, leaders that die, votes that are lost, sessions."""

from typing import Any

import msgspec
import pytest

from gossip.consensus.configuration import Configuration
from gossip.consensus.storage import AppendChange
from gossip.control import committed_log, copy_saver, participation
from gossip.control import messages as m
from gossip.control.commands import (
    AcquireLock,
    CloseSession,
    Command,
    ExpireSession,
    OpenSession,
    RegisterClient,
    Transact,
    encode_command,
)
from gossip.control.keys import KeyEntry, KeyTable
from gossip.control.lookups import LocksResult, ReadKeys, ReadLocks, ReadSessions
from gossip.control.outcomes import LockResult, TransactionResult
from gossip.control.requests import (
    ControlRead,
    ControlWrite,
    CopyHalted,
    IndeterminateResult,
    SessionLost,
    UnavailableResult,
)
from gossip.control.transactions import (
    Compare,
    CompareField,
    CompareRelation,
    GetKey,
    PutKey,
)
from gossip.control.watchers import ControlEvent, ControlWatch, WatchEnded
from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId
from gossip.core.machine import Persist, SendFrame
from tests.support.control_net import ControlNet, voter


def put(key: str, value: bytes = b"") -> Transact:
    return Transact((), (PutKey(key, value),))


def increment(net: ControlNet, node: int) -> Any:
    """Add one to a counter by compare-and-set, as one attempt; return the result."""
    before = net.get(node, "counter")
    same = (
        Compare("counter", CompareField.CREATED, CompareRelation.EQUAL, 0)
        if before is None
        else Compare("counter", CompareField.VALUE, CompareRelation.EQUAL, before)
    )
    value = str(int(before or b"0") + 1).encode()
    return net.do(node, Transact((same,), (PutKey("counter", value),)), 60.0)


# One voter, and those who follow.


def test_a_founder_alone_agrees_with_itself_and_keeps_it() -> None:
    net = ControlNet(1)
    assert net.put(1, "a", b"1").succeeded
    assert net.get(1, "a") == b"1"
    net.crash(1)
    net.start(1)
    assert net.get(1, "a") == b"1"
    assert net.put(1, "a", b"2").succeeded


def test_everybody_writes_and_reads_and_has_a_copy() -> None:
    net = ControlNet(4)
    for node in net.ids:
        assert net.put(node, f"by {node}", b"1").succeeded
    for node in net.ids:
        assert net.keys(node) == [f"by {each}" for each in net.ids]
    net.agree()
    assert net.keys(4, stale=True) == net.keys(1)


def test_a_copy_tells_its_watches_in_order_and_once() -> None:
    net = ControlNet(3)
    net.put(1, "a", b"0")
    net.agree()
    number = net.submit(3, ControlWatch("a", after=net.planes[3].state.index))
    for value in (b"1", b"2", b"3"):
        net.put(2, "a", value)
    net.agree()
    told = [each for each in net.told[3] if isinstance(each, ControlEvent)]
    assert [each.changes[0].entry.value for each in told] == [b"1", b"2", b"3"]  # type: ignore[union-attr]
    assert sorted({each.revision for each in told}) == [each.revision for each in told]
    net.planes[3].cancel(number, net.now)
    net.put(1, "a", b"4")
    net.agree()
    assert len([each for each in net.told[3] if isinstance(each, ControlEvent)]) == 3


def test_a_copy_that_starts_again_goes_on_from_what_it_saved() -> None:
    net = ControlNet(2)
    for number in range(20):
        net.put(1, f"k{number}")
    net.agree()
    net.run(copy_saver.SAVE_S + 1)
    saved = net.planes[2].state.index
    net.crash(2)
    net.put(1, "later")
    net.start(2)
    assert net.planes[2].state.index == saved
    net.agree()
    assert net.planes[2].counts["control_copies/snapshots"] == 0


def test_a_copy_that_is_far_behind_gets_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committed_log, "KEPT_ENTRIES_MAX", 5)
    monkeypatch.setattr(committed_log, "CHUNK_BYTES", 100)
    net = ControlNet(2)
    net.put(1, "a")
    net.agree()
    net.submit(2, ControlWatch("", is_prefix=True))
    net.separate(2)
    net.run(40.0)
    for number in range(10):
        net.put(1, f"k{number}", bytes(50))
    net.heal()
    net.agree()
    assert [each for each in net.told[2] if isinstance(each, WatchEnded)], "no gap without a word"


# Three voters.


def test_copies_become_voters_and_voters_copies() -> None:
    net = ControlNet(4)
    net.put(2, "a", b"1")
    net.agree()
    net.run(copy_saver.SAVE_S + 1)
    net.vote(1, 2, 3)
    assert net.put(4, "b", b"2").succeeded
    net.vote(2, 3, 4)
    net.run(3 * participation.OUTSIDE_S)
    assert net.planes[1].status(net.now).role == "copy"
    assert net.put(1, "c", b"3").succeeded
    assert net.keys(1) == ["a", "b", "c"]
    net.crash(1)
    net.start(1)
    net.put(2, "d")
    net.agree()
    assert net.planes[4].status(net.now).voters == (2, 3, 4)


@pytest.mark.interpreted
def test_who_was_taken_out_asks_again_though_it_was_told_who_leads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it was told is as old as what it knows of the voters; others copy from it meanwhile."""
    net = ControlNet(4)
    net.vote(1, 2, 3)
    leader = net.leader().me.node
    out, other = sorted({1, 2, 3} - {leader})
    net.run(1.0)
    net.separate(out)
    net.vote(leader, other, 4)
    net.run(30.0)
    told = net.planes[other].directory.hearsay()
    before = net.planes[out].directory.hearsay()
    older = msgspec.structs.replace(before, leader=told.leader, term=told.term)
    net.planes[out].directory.learn(older)
    monkeypatch.setattr(net.planes[out].own_reports, "wake", lambda _now: None)
    net.heal()
    net.run(1.5 * participation.OUTSIDE_S)
    assert net.planes[out].part.raft is None
    net.agree()


def test_a_leader_that_dies_costs_an_election_and_no_write() -> None:
    net = ControlNet(5)
    net.vote(1, 2, 3)
    numbers = [
        (node, net.submit(node, ControlWrite(put(f"k{place}"), 60.0)))
        for place, node in enumerate([4, 5, 2, 3] * 5)
    ]
    net.crash(net.leader().me.node)
    net.until(lambda: all(each in net.results for each in numbers))
    assert all(isinstance(net.results[each].result, TransactionResult) for each in numbers)
    keys = net.keys(4)
    assert len(keys) == len(numbers)
    entries = [net.leader().state.keys.get(key) for key in keys]
    assert {entry.version for entry in entries if entry} == {1}, "each was carried out once"


def test_each_command_counts_once_on_a_bad_network() -> None:
    net = ControlNet(5, seed=3)
    net.vote(1, 2, 3)
    net.loss = 0.15
    added, unsure = 0, 0
    for place in range(25):
        result = increment(net, 1 + place % 5)
        added += getattr(result, "succeeded", False)
        unsure += isinstance(result, IndeterminateResult)
        if place % 8 == 7:
            node = net.leader().me.node
            net.crash(node)
            net.run(1.0)
            net.start(node)
    net.loss = 0.0
    counted = int(net.get(4, "counter") or b"0")
    assert added <= counted <= added + unsure
    assert added > 15
    net.agree()


def test_commands_that_come_together_share_a_batch_and_a_frame() -> None:
    net = ControlNet(3, seed=3)
    net.vote(1, 2, 3)
    net.put(1, "registered")
    leader = net.leader()
    for number in range(20):
        leader.submit(ControlWrite(put(f"k{number}")), net.now)
    effects = list(leader.effects())
    [batch] = [each for each in effects if isinstance(each, Persist)]
    [change] = batch.changes
    assert isinstance(change, AppendChange)
    assert len(change.entries) == 20
    frames = [each.to for each in effects if isinstance(each, SendFrame)]
    assert sorted(frames) == [node for node in net.ids if node != leader.me.node]


def test_a_leader_that_is_cut_off_answers_no_stale_read_and_takes_no_write() -> None:
    net = ControlNet(4)
    net.vote(1, 2, 3)
    old = net.leader().me.node
    net.put(old, "a", b"old")
    net.separate(old)
    read = net.submit(old, ControlRead(ReadKeys((GetKey("a"),)), timeout_s=8.0))
    write = net.submit(old, ControlWrite(put("a", b"lost?"), 8.0))
    assert net.put(4, "a", b"new").succeeded
    net.run(10.0)
    assert isinstance(net.results[old, read].result, UnavailableResult)
    lost: Any = net.results[old, write].result
    assert isinstance(lost, IndeterminateResult)
    assert "carried out yet, or not" in lost.reason
    assert not net.planes[old].status(net.now).has_majority
    net.heal()
    assert net.get(old, "a") == b"new"


def test_without_a_majority_each_refusal_says_what_still_works() -> None:
    net = ControlNet(4)
    net.vote(1, 2, 3)
    net.put(4, "a", b"1")
    net.agree()
    for node in [2, 3] if net.leader().me.node == 1 else [1, 2]:
        net.crash(node)
    net.run(40.0)
    result: Any = net.do(4, put("a", b"2"), 5.0)
    assert isinstance(result, UnavailableResult | IndeterminateResult)
    result = net.do(4, put("a", b"2"), 5.0)
    assert isinstance(result, UnavailableResult)
    assert "readings go on without it" in result.reason
    assert net.get(4, "a", stale=True) == b"1"
    for node in (1, 2, 3):
        if node not in net.planes:
            net.start(node)
    assert net.put(4, "a", b"3").succeeded


def test_the_log_is_compacted_and_a_late_voter_catches_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(participation, "COMPACT_ENTRIES", 20)
    net = ControlNet(3)
    net.vote(1, 2, 3)
    late = next(node for node in (2, 3) if node != net.leader().me.node)
    net.crash(late)
    for number in range(60):
        net.put(1, f"k{number % 7}", str(number).encode())
    assert net.logs[net.leader().me.node].snapshot is not None
    net.start(late)
    net.agree()


# Sessions.


def test_a_session_lives_while_it_is_renewed_and_a_lost_one_frees_its_lock() -> None:
    net = ControlNet(5)
    net.vote(1, 2, 3)
    holder, other = net.session(4, ttl_s=10.0), net.session(5, ttl_s=10.0)
    first: Any = net.do(4, AcquireLock("door", holder))
    assert isinstance(first, LockResult)
    assert first.token > 0
    assert net.do(5, AcquireLock("door", other)) == LockResult(0, 1)
    net.run(100.0)
    assert net.leader().state.locks.has_token("door", first.token), "renewed ten times over"
    net.separate(4)
    cut_at = net.now
    net.until(lambda: any(isinstance(each, SessionLost) for each in net.told[4]))
    lost_at = net.now
    assert net.told[4][-1] == SessionLost(holder, is_certain=False)
    net.until(lambda: not net.leader().state.locks.has_token("door", first.token))
    assert cut_at < lost_at < net.now, "whoever held it knows before anybody else gets it"
    [held] = net.leader().state.locks.get("door").holders  # type: ignore[union-attr]
    assert held.session == other
    assert held.token > first.token


@pytest.mark.parametrize("is_one_off", [False, True])
def test_a_leader_that_is_about_to_be_gone_hands_over_in_a_moment(is_one_off: bool) -> None:
    """Whoever is first in the configuration may be off."""
    net = ControlNet(6)
    net.vote(1, 2, 3, 4, 5)
    net.run(2.0)
    leader = net.leader()
    others = [each.node for each in net.configuration().voters if each != leader.me]
    if is_one_off:
        net.crash(others[0])
        net.run(3.0)
    leader.hand_over(net.now)
    net._perform(leader.me.node)
    net.run(1.0)
    assert net.leader() is not leader
    successor = net.leader()
    leader.hand_over(net.now)
    net._perform(leader.me.node)
    net.run(1.0)
    assert net.leader() is successor, "who does not lead has nothing to hand over"


def test_who_votes_alone_has_nobody_to_hand_over_to() -> None:
    net = ControlNet(2)
    net.put(2, "a")
    net.planes[1].hand_over(net.now)
    net._perform(1)
    assert net.put(2, "b").succeeded


def test_sessions_outlive_their_leader() -> None:
    net = ControlNet(5, seed=1)
    net.vote(1, 2, 3)
    session = net.session(4, ttl_s=20.0)
    for _ in range(3):
        node = net.leader().me.node
        net.crash(node)
        net.run(15.0)
        net.start(node)
        net.run(5.0)
    assert session in net.leader().state.sessions
    assert not [each for each in net.told[4] if isinstance(each, SessionLost)]


def test_a_paused_leader_ends_no_session_that_its_successor_renews() -> None:
    """It wakes with all timers overdue, and believes that it leads (etcd#15247)."""
    net = ControlNet(5, seed=2)
    net.vote(1, 2, 3)
    session = net.session(4, ttl_s=30.0)
    node = net.leader().me.node
    paused = net.planes[node]
    net.separate(node)
    net._due.pop(node)
    del net.planes[node]
    net.run(100.0)
    assert session in net.leader().state.sessions
    net.planes[node] = paused
    paused.wake(net.now)
    net._perform(node)
    net.heal()
    net.run(20.0)
    assert session in net.leader().state.sessions
    net.agree()


def test_nobody_renews_and_the_session_ends_with_its_delay_measured() -> None:
    net = ControlNet(3)
    session: Any = net.do(2, OpenSession(2, 5_000, 15_000))
    other = net.session(3, ttl_s=30.0)
    net.do(2, AcquireLock("door", session.session))
    net.do(3, AcquireLock("door", other))
    begun = net.now
    net.until(lambda: session.session not in net.planes[1].state.sessions)
    assert net.now - begun >= 4.9
    lost_at = net.now
    net.until(lambda: bool(net.planes[1].state.locks.get("door").holders))  # type: ignore[union-attr]
    assert 15.0 <= net.now - lost_at < 16.5


def test_who_is_told_that_its_session_ended_is_told_for_certain() -> None:
    net = ControlNet(2)
    session = net.session(2)
    net.do(1, CloseSession(session))
    net.until(lambda: bool(net.told[2]))
    assert net.told[2] == [SessionLost(session, is_certain=True)]
    lookup: Any = net.ask(2, ControlRead(ReadSessions())).result
    assert lookup.sessions == ()


# What is refused.


def test_what_nobody_may_ask_of_another_is_refused() -> None:
    """That a session is over is found by its leader alone."""
    net = ControlNet(2)
    session = net.session(1)
    leader = net.planes[1]
    assert leader.part.raft is not None
    for data in (
        encode_command(Command(ExpireSession(session, leader.part.raft.term))),
        b"\x91\x91\x50",
        b"",
    ):
        frame = m.CODEC.encode(m.ControlAsk(7, m.ProposeAsk(data)))
        leader.receive_frame(frame, 2, net.now)
        net._perform(1)
    net.run(1.0)
    assert session in leader.state.sessions
    assert leader.counts["control_asks/invalid"] == 3


def test_what_no_state_could_do_is_refused_before_it_is_sent() -> None:
    net = ControlNet(1)
    for request in (
        ControlWrite(put("")),
        ControlWrite(put("a"), timeout_s=0.0),
        ControlRead(ReadKeys((GetKey(""),))),
        ControlWatch(""),
    ):
        with pytest.raises(InvalidRequest):
            net.planes[1].submit(request, net.now)


def test_a_command_of_a_newer_version_halts_the_copy_and_nothing_else() -> None:
    net = ControlNet(3)
    net.vote(1, 2, 3)
    leader = net.leader()
    assert leader.part.raft is not None
    net.put(1, "a")
    leader.part.raft.propose([b"\x91\x91\x50"], net.now)
    net._perform(leader.me.node)
    net.run(2.0)
    for node in net.ids:
        assert net.planes[node].status(net.now).is_halted
        assert [each for each in net.told[node] if isinstance(each, CopyHalted)]
    assert len({plane.state.snapshot() for plane in net.planes.values()}) == 1


def test_garbage_is_counted() -> None:
    net = ControlNet(1)
    plane = net.planes[1]
    for data in (b"", b"\x93\x7d\x01\xc0", b"\x92\x70\x01", b"\x92\x7e\x01", bytes(50)):
        plane.receive_frame(data, 9, net.now)
    counts = plane.counts
    assert counts["frames_dropped/malformed"] + counts["consensus_dropped/malformed"] == 5
    plane.receive_frame(m.CODEC.encode(m.ControlAnswer(5, m.RenewAnswer(()))), 9, net.now)
    assert plane.counts["control_answers/late"] == 1


def test_locks_are_read_like_keys() -> None:
    net = ControlNet(2)
    session = net.session(2)
    net.do(2, AcquireLock("door", session, value=b"me"))
    read: Any = net.ask(2, ControlRead(ReadLocks("do"))).result
    assert isinstance(read, LocksResult)
    assert [(each.name, each.holders[0].value) for each in read.locks] == [("door", b"me")]
    assert not read.more


def test_a_forgotten_client_begins_anew() -> None:
    net = ControlNet(2)
    net.put(2, "a")
    net.agree()
    state = net.planes[1].state
    for copy in (state, net.planes[2].state):
        while len(copy.clients):
            copy.clients._forget_longest_silent()
    assert net.put(2, "b").succeeded
    assert net.do(1, RegisterClient(1)).client > 0
    net.agree()


def test_an_unfinished_change_of_voters_does_not_stop_anybody() -> None:
    net = ControlNet(3)
    leader = net.leader()
    net.run(1.0)
    assert leader.part.raft is not None
    leader.part.raft.change(Configuration((voter(1),), (), (voter(2), voter(3))), net.now)
    net._perform(1)
    net.crash(3)
    assert net.put(2, "a").succeeded
    net.start(3)
    net.agree()


@pytest.mark.interpreted
@pytest.mark.parametrize("node", [1, 4])
def test_a_command_that_fails_halts_the_copy_and_nothing_else(
    node: NodeId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in a command's code, half way through, at a voter and at a copy without a vote."""
    net = ControlNet(4)
    net.vote(1, 2, 3)
    net.put(1, "before")
    net.agree()
    plain = KeyTable.put

    def put(table: KeyTable, entry: KeyEntry) -> None:
        plain(table, entry)
        # What a voter does not get past it hands on to no copy, so there one is alone with it.
        is_here = node == 1 or table is net.planes[node].state.keys
        assert entry.key != "second" or not is_here, "a fault that somebody left here"

    monkeypatch.setattr(KeyTable, "put", put)
    both = Transact((), (PutKey("first", b""), PutKey("second", b"")))
    net.submit(1, ControlWrite(both, timeout_s=5.0))
    net.run(10.0)
    plane = net.planes[node]
    assert plane.status(net.now).is_halted
    assert plane.counts["control_halts/failed"] == 1
    (halted,) = (each for each in net.told[node] if isinstance(each, CopyHalted))
    assert halted.index > 0
    assert "a fault that somebody left here" in halted.reason
    assert plane.state.keys.get("first") is None, "what is half done counts for nothing"
    assert plane.state.index < halted.index
    # The vote goes on: a leader is there, and a restart comes as far again.
    net.leader()
    net.crash(node)
    again = net.start(node)
    net.run(20.0)
    assert again.status(net.now).is_halted
    assert again.state.index < halted.index
    net.leader()
    # With the fault mended, what was in the log is carried out.
    monkeypatch.undo()
    for each in net.ids:
        net.crash(each)
        net.start(each)
    net.agree()
    assert net.get(node, "second", stale=True) == b""
