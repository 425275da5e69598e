"""Going on after a lost majority: what survives, who gives way, and what two operators see."""

from typing import Any

import msgspec
import pytest

from gossip.consensus.configuration import Configuration, Voter
from gossip.consensus.messages import NUMBER_MAX, Entry, EntryKind
from gossip.consensus.storage import (
    CLOCK_STEP,
    GENERATION_INDEX_STEP,
    AppendChange,
    HardState,
    MemoryLog,
    SnapshotChange,
    StoredState,
    arrival,
    blank,
    founded,
    mark_of,
)
from gossip.control import messages as m
from gossip.control.barriers import Barrier
from gossip.control.bounds import RESERVE_BYTES, STATE_BYTES_MAX, VALUE_BYTES_MAX
from gossip.control.commands import AcquireLock, ChangeRegistry, ReleaseLock, TokenChange, Transact
from gossip.control.keys import KeyEntry, KeyTable
from gossip.control.outcomes import LockResult
from gossip.control.recovery import (
    CHUNK_BYTES,
    RECOVERY_KEY,
    SavedState,
    note_of,
    origin_of,
    recover,
    recover_set_aside,
    restore,
    state_at_end,
)
from gossip.control.requests import (
    ControlOverview,
    ControlSurvey,
    GenerationDoubted,
    GenerationForked,
    GenerationSuperseded,
    SurveyResult,
)
from gossip.control.state_image import StateImage, encode_image
from gossip.control.state_machine import ControlState
from gossip.control.transactions import DeleteKey
from gossip.core.errors import InvalidRequest
from tests.support.control_net import ControlNet
from tests.support.registries import registries, signed


def lost_majority() -> ControlNet:
    """Three vote, of whom 2 and 3 are lost; 4 has a copy."""
    net = ControlNet(4)
    net.vote(1, 2, 3)
    assert net.put(4, "kept", b"1").succeeded
    net.agree()
    net.crash(2)
    net.crash(3)
    net.run(20.0)
    return net


def token(net: ControlNet, node: int, name: str = "door") -> int:
    session = net.session(node, ttl_s=300.0)
    result = net.do(node, AcquireLock(name, session))
    assert isinstance(result, LockResult)
    return result.token


def settle(net: ControlNet, seconds: float = 30.0) -> list[int]:
    """Let time pass, in which whoever hears of a later generation begins anew; return who did."""
    gave_way: list[int] = []
    for _ in range(int(seconds / 2.0)):
        net.run(2.0)
        gave_way += net.give_way()
    return gave_way


def survey(net: ControlNet, node: int) -> SurveyResult:
    result = net.ask(node, ControlSurvey(net.ids)).result
    assert isinstance(result, SurveyResult)
    return result


def test_what_the_survivor_has_goes_on_and_tokens_only_grow() -> None:
    net = ControlNet(4)
    net.vote(1, 2, 3)
    before = token(net, 4)
    net.put(4, "kept", b"1")
    net.agree()
    net.crash(2)
    net.crash(3)
    net.recover(1)
    assert net.get(4, "kept") == b"1", "and the copies follow"
    assert token(net, 4, "other") > before + GENERATION_INDEX_STEP // 2
    state = net.planes[1].state
    note = note_of(state)
    assert note is not None
    assert (note.kind, note.generation, note.node) == ("recovered", 2, 1)
    assert origin_of(net.planes[4].state) == net.stores[1]


def go_on(net: ControlNet, copy: StoredState, *, is_saved: bool) -> ControlState:
    """Return the state after a recovery from a copy, or after it was restored as a saved state."""
    me = Voter(net.stores[1], 1)
    if not is_saved:
        return state_at_end(recover(copy, me, 0.0))
    then = state_at_end(copy)
    saved = SavedState(then.snapshot(), copy.hard.generation, then.index)
    return state_at_end(restore(net.planes[1].part.survivor(), saved, me, 0.0))


@pytest.mark.parametrize("is_saved", [False, True])
def test_a_lock_that_the_copy_does_not_know_to_be_given_on_is_nobody_s(is_saved: bool) -> None:
    """Who held it by the copy, and who has held it by a later token, are both told."""
    net = ControlNet(1)
    net.leader()
    first, second = (net.session(1, ttl_s=300.0, lock_delay_ms=5_000) for _ in range(2))
    token_of_first = net.do(1, AcquireLock("door", first, permits=2)).token
    net.do(1, AcquireLock("door", second, permits=2))
    net.put(1, "there", b"1", session=first)
    copy = net.planes[1].part.survivor()
    net.do(1, ReleaseLock("door", first))
    assert token(net, 1, "other") > token_of_first
    state = go_on(net, copy, is_saved=is_saved)
    assert not list(state.sessions)
    assert state.keys.get("there") is None
    lock = state.locks.get("door")
    assert lock is not None
    assert not lock.holders
    assert [each.delay_ms for each in lock.delays] == [5_000, 5_000], "they may believe so long"
    assert len({each.since for each in lock.delays}) == 2, "a leader ends each of them"


def test_a_copy_without_a_vote_can_go_on_with_what_it_has_in_memory() -> None:
    net = lost_majority()
    net.crash(1)
    assert not net.logs[4].entries, "it has saved at most a snapshot"
    net.recover(4)
    assert net.get(4, "kept") == b"1"
    assert net.planes[4].status(net.now).generation == 2


def test_who_was_lost_and_comes_back_is_told_and_begins_as_another_store() -> None:
    net = lost_majority()
    net.recover(1)
    net.leader()
    net.put(4, "later", b"2")
    former = net.stores[2]
    net.start(2)
    assert settle(net) == [2]
    assert net.stores[2] != former
    assert net.get(2, "later") == b"2"
    assert not net.planes[2].part.configuration.is_voter(former)


def test_a_majority_of_before_that_comes_back_gives_way() -> None:
    """They can agree without the survivor, and do, until they hear one word of it."""
    net = lost_majority()
    net.recover(1)
    net.leader()
    net.separate(1, 4)
    net.start(2)
    net.start(3)
    net.run(20.0)
    assert net.put(2, "in_vain").succeeded, "nobody has told them yet"
    net.heal()
    assert sorted(settle(net, 60.0)) == [2, 3]
    assert net.get(2, "in_vain") is None
    assert net.put(3, "together").succeeded
    net.agree()


def test_a_lost_node_that_speaks_to_nobody_is_asked_when_it_is_seen() -> None:
    net = lost_majority()
    net.grant(4)
    net.recover(4)
    net.leader()
    net.start(2)
    net.start(3)
    net.cut = {frozenset((2, 1)), frozenset((3, 1))}
    net.planes[4].peer_alive(2, net.now)
    net.planes[4].peer_alive(3, net.now)
    net._perform(4)
    assert 2 in settle(net)


def test_a_later_generation_without_a_majority_makes_nobody_give_way() -> None:
    net = lost_majority()
    net.recover(1)
    net.leader()
    # The new group grows by hand and loses its majority as well.
    leader = net.planes[1].part.raft
    assert leader is not None
    net.crash(1)
    net.start(2)
    net.start(3)
    net.run(20.0)
    assert net.put(2, "on").succeeded
    assert settle(net) == []


def test_who_only_says_that_it_is_later_is_asked_first() -> None:
    net = ControlNet(3)
    net.leader()
    liar = net.planes[3].standing()
    later = msgspec.structs.replace(liar, generation=9, origin=1, has_majority=True)
    plane = net.planes[1]
    for body in (m.StandingAnswer(later), m.StandingAnswer(later)):
        plane.receive_frame(m.CODEC.encode(m.ControlAnswer(77, body)), 3, net.now)
    assert plane.counts["control_answers/late"] == 2
    plane.receive_frame(m.CODEC.encode(m.ControlAsk(5, m.StandingAsk(later))), 3, net.now)
    net._perform(1)
    net.run(2.0)
    assert settle(net, 4.0) == [], "the other one answers that it is not so"
    assert net.put(2, "on").succeeded


def lie(net: ControlNet, liar: int, **changes: Any) -> None:
    """Let a node say something else of itself, and let everybody ask it."""
    plane = net.planes[liar]
    truth = plane.standing

    def standing() -> m.CopyStanding:
        return msgspec.structs.replace(truth(), **changes)

    plane.standings._own = standing
    for node in net.planes:
        if node != liar:
            net.planes[node].standings.met(liar, net.now)
            net._perform(node)


LATER = {"generation": 9, "origin": 77, "has_majority": True, "takes_part": True}


def test_a_member_that_lies_about_a_later_generation_ends_nobodys_log() -> None:
    """It neither votes nor holds the authority's key: not while all is well, nor when none is."""
    net = ControlNet(5)
    net.vote(1, 2, 3)
    net.put(5, "kept", b"1")
    net.agree()
    lie(net, 4, **LATER)
    assert settle(net) == []
    assert net.put(1, "on").succeeded
    for node in (1, 2, 3, 5):
        assert net.planes[node].status(net.now).doubted == ((4, 9),)
    (told,) = (each for each in net.told[1] if isinstance(each, GenerationDoubted))
    assert (told.generation, told.later, told.by) == (1, 9, 4)
    net.crash(2)
    net.crash(3)
    net.run(20.0)
    lie(net, 4, **LATER)
    assert settle(net) == [], "the voter that is left keeps its log"
    net.recover(1)
    assert net.get(1, "kept") == b"1"


@pytest.mark.interpreted
def test_a_copy_that_hears_a_leader_takes_no_later_generation_over_from_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = ControlNet(5)
    net.vote(1, 2, 3)
    net.put(5, "kept", b"1")
    net.agree()
    plane = net.planes[5]
    before = plane.state.snapshot()
    plane.part.copy._open = None
    monkeypatch.setattr(plane.part.copy._directory, "any_voter", lambda: 4)
    plane.part.copy.wake(net.now + 100.0)
    monkeypatch.undo()
    asked = plane.part.copy._open
    assert asked is not None
    made_up = mark_of(b"x", 2**40, 3, (0, Configuration()), CHUNK_BYTES)
    answer = m.ControlAnswer(asked.number, m.MarkAnswer(9, made_up, 77))
    plane.receive_frame(m.CODEC.encode(answer), 4, net.now)
    net._perform(5)
    net.run(5.0)
    assert plane.state.snapshot() == before
    assert plane.part.generation == 1


def test_a_copy_that_is_alone_for_long_follows_who_went_on_and_keeps_what_it_had() -> None:
    """Node 4 neither voted nor holds the key: an operator had it go on all the same."""
    net = ControlNet(5)
    net.vote(1, 2, 3)
    net.put(5, "kept", b"1")
    net.put(4, "kept", b"1")
    net.agree()
    for node in (1, 2, 3):
        net.crash(node)
    net.recover(4)
    net.leader()
    assert settle(net, 30.0) == [], "a leader was heard not long ago"
    former = net.stores[5]
    assert settle(net, 120.0) == [5], "its copy is set aside, not overwritten"
    assert net.stores[5] != former
    assert net.get(5, "kept") == b"1"
    assert net.planes[5].status(net.now).generation == 2


@pytest.mark.parametrize("has_majority", [False, True])
def test_a_voter_of_before_follows_who_held_no_key_by_an_operators_word(
    has_majority: bool,
) -> None:
    net = lost_majority()
    net.crash(1)
    net.recover(4)
    net.leader()
    net.put(4, "later", b"2")
    net.run(6.0)
    for node in (2, 3) if has_majority else (2,):
        net.start(node)
        net.meet(node)
    assert settle(net, 200.0) == []
    assert net.planes[2].status(net.now).doubted == ((4, 2),)
    net.trust()
    gave_way = settle(net, 60.0)
    assert gave_way == ([2, 3] if has_majority else [2])
    assert net.get(2, "later") == b"2"


def test_who_went_on_is_believed_where_the_registry_says_that_it_is_an_issuer() -> None:
    """A device that comes back after long has the registry of today before it decides."""
    net = ControlNet(5)
    net.vote(1, 2, 3)
    net.agree()
    net.crash(2)
    net.crash(3)
    net.recover(1)
    net.run(5.0)
    net.vote(1, 4, 5)
    today, net.entries = net.entries, {}
    net.crash(1)
    net.run(10.0)
    net.start(2)
    net.meet(2)
    assert settle(net, 60.0) == [], "by the registry of before nobody there is known"
    net.entries = today
    net.meet(2)
    assert settle(net, 60.0) == [2]
    assert net.planes[2].status(net.now).generation == 2


def test_who_is_not_believed_names_who_may_be() -> None:
    """A voter of before that meets a copy alone asks those whom the copy follows."""
    net = lost_majority()
    net.recover(1)
    net.leader()
    net.get(4, "kept")
    net.run(5.0)
    net.start(2)
    net.planes[2].standings.met(4, net.now)
    net._perform(2)
    net.run(1.0)
    assert [each.by for each in net.told[2] if isinstance(each, GenerationSuperseded)] == [1]


def test_no_generation_is_believed_that_is_too_far_ahead() -> None:
    net = ControlNet(3)
    net.vote(1, 2, 3)
    lie(net, 3, **{**LATER, "generation": 2**20})
    assert settle(net) == [], "not even of a voter"
    assert net.put(1, "on").succeeded


def test_who_says_much_of_other_generations_is_not_asked_at_network_speed() -> None:
    net = ControlNet(2)
    net.leader()
    later = msgspec.structs.replace(net.planes[2].standing(), generation=9)
    before = net.frames
    for number in range(100):
        ask = m.ControlAsk(number, m.StandingAsk(later))
        net.planes[1].receive_frame(m.CODEC.encode(ask), 2, net.now)
    net._perform(1)
    assert net.frames - before <= 102, "an answer each, and one question"


def test_two_recoveries_of_one_generation_are_seen_and_do_not_mix() -> None:
    net = ControlNet(5)
    net.vote(1, 2, 3)
    net.put(4, "kept", b"1")
    net.agree()
    net.crash(3)
    net.separate(1, 4)
    net.recover(1)
    net.recover(2)
    net.run(20.0)
    assert net.put(1, "side", b"one").succeeded
    assert net.put(2, "side", b"two").succeeded
    assert net.get(4, "side") == b"one"
    assert net.get(5, "side") == b"two"
    net.heal()
    net.planes[1].peer_alive(2, net.now)
    net._perform(1)
    assert settle(net, 120.0) == [], "neither gives way"
    assert (net.get(4, "side"), net.get(5, "side")) == (b"one", b"two")
    for node, other in ((1, 2), (2, 1)):
        assert net.planes[node].status(net.now).forks == ((net.stores[other], other),)
        assert any(isinstance(event, GenerationForked) for event in net.told[node])
    # The operator decides: where it goes on, it is recovered once more.
    net.recover(1)
    net.leader()
    assert settle(net, 120.0) == [2]
    assert net.get(5, "side") == b"one"
    assert net.planes[1].status(net.now).forks == ()


def test_a_survey_says_who_has_most() -> None:
    net = lost_majority()
    found = survey(net, 4)
    assert [node for node, _ in found.others] == [1]
    assert found.others[0][1].takes_part
    assert not found.own.takes_part
    assert not found.others[0][1].has_majority
    assert found.others[0][1].newness >= found.own.newness
    net.start(2)
    net.leader()
    assert any(standing.has_majority for _, standing in survey(net, 4).others)


def test_an_overview_comes_from_the_leader_whoever_is_asked() -> None:
    net = ControlNet(4)
    net.vote(1, 2, 3)
    net.agree()
    told: Any = net.ask(4, ControlOverview()).result
    assert {each.node for each in told.members if each.votes} == {1, 2, 3}
    assert (told.wanted, [wait.node for wait in told.waits]) == (3, [4])
    net.crash(2)
    net.crash(3)
    net.run(20.0)
    refused: Any = net.ask(4, ControlOverview(5.0)).result
    assert "majority" in refused.reason


def test_what_was_not_committed_counts_too() -> None:
    net = ControlNet(1)
    net.leader()
    net.put(1, "lamp", b"on")
    log = net.logs[1]
    ahead = log.stored()
    last = ahead.entries[-1]
    log.apply([AppendChange((Entry(last.index + 1, last.term, EntryKind.NOTHING),))])
    after = recover(log.stored(), Voter(net.stores[1], 1), 0.0)
    assert after.last_index == last.index + 1 + GENERATION_INDEX_STEP
    assert recover(after, Voter(5, 1), 0.0).hard.generation == 3


def test_recoveries_that_know_nothing_of_each_other_give_other_tokens_in_their_order() -> None:
    """The first one is lost before anybody has followed it."""
    net = ControlNet(1)
    net.leader()
    survivor, me = net.planes[1].part.survivor(), Voter(net.stores[1], 1)
    at_s = 1_800_000_000.0
    first, second = recover(survivor, me, at_s), recover(survivor, Voter(5, 2), at_s + 60.0)
    assert second.last_index >= first.last_index + CLOCK_STEP
    third = recover(second, me, at_s)
    assert third.last_index == second.last_index + GENERATION_INDEX_STEP, "and clocks may be wrong"
    for wrong_s in (0.0, -1e12, 1e300):
        log = recover(survivor, me, wrong_s)
        assert survivor.last_index < log.last_index < NUMBER_MAX, wrong_s
    assert recover(survivor, me, 3_700_000_000.0).last_index < 2**53, "for JSON, until 2087"


def test_there_is_nothing_to_recover_from_an_empty_copy_or_one_that_is_not_understood() -> None:
    with pytest.raises(InvalidRequest, match="no copy"):
        recover(blank(), Voter(1, 1), 0.0)
    log = MemoryLog()
    log.replace(founded(Voter(1, 1)))
    log.apply([AppendChange((Entry(2, 1, EntryKind.COMMAND, b"?"),))])
    with pytest.raises(InvalidRequest, match="update this agent"):
        recover(log.stored(), Voter(1, 1), 0.0)


@pytest.mark.parametrize(("generation", "index"), [(1, 40), (4, 3 * 2**32 + 40)])
def test_a_saved_state_goes_on_later_than_both(generation: int, index: int) -> None:
    net = ControlNet(1)
    net.leader()
    net.put(1, "lamp", b"saved")
    saved = SavedState(net.planes[1].state.snapshot(), generation, index)
    net.put(1, "lamp", b"later")
    present = net.planes[1].part.survivor()
    after = restore(present, saved, Voter(net.stores[1], 1), 0.0)
    assert after.hard.generation == generation + 1
    assert after.last_index == max(index, present.last_index) + GENERATION_INDEX_STEP
    net.crash(1)
    net.logs[1].replace(after)
    net.start(1)
    assert net.get(1, "lamp") == b"saved"
    note = note_of(net.planes[1].state)
    assert note is not None
    assert (note.kind, note.after) == ("restored", index)
    with pytest.raises(InvalidRequest, match="does not decode"):
        restore(present, SavedState(b"?", 1, 1), Voter(1, 1), 0.0)


@pytest.mark.parametrize("noted", [b"", b"{", b"[]", b"\xff", b"[" * 10_000, b'{"kind":"x"}'])
def test_a_note_that_nobody_can_have_made_is_none(noted: bytes) -> None:
    state = ControlState()
    state.keys.put(KeyEntry(RECOVERY_KEY, noted, 1, 1, 1))
    assert note_of(state) is None
    assert origin_of(state) == 0


def test_who_belongs_is_not_set_back_by_a_saved_state() -> None:
    """A registry of before would be a fork of the one that all nodes follow."""
    first, second = registries(2)
    net = ControlNet(1)
    net.leader()
    net.do(1, ChangeRegistry(b"", signed(first), (TokenChange(b"old", 0, b"saved"),)))
    saved = SavedState(net.planes[1].state.snapshot(), 1, net.planes[1].state.index)
    revision = net.planes[1].state.registry.token(b"old")
    assert revision is not None
    tokens = TokenChange(b"old", revision.revision, b""), TokenChange(b"new", 0, b"present")
    net.do(1, ChangeRegistry(first.mark, signed(second), tokens))
    present = net.planes[1].part.survivor()
    after = state_at_end(restore(present, saved, Voter(net.stores[1], 1), 0.0))
    assert after.registry.mark == second.mark
    assert [each.id for each in after.registry] == [b"new"]
    assert after.snapshot() == ControlState.restore(after.snapshot(), after.index).snapshot()


def test_a_saved_state_opens_the_api_to_nobody() -> None:
    """Neither to those whose token was revoked since, nor to whom whoever wrote the file chose."""
    net = ControlNet(1)
    net.leader()
    net.put(1, "covey/access/revoked", b"saved")
    net.put(1, "covey/settings/all/log.level", b"debug")
    saved = SavedState(net.planes[1].state.snapshot(), 1, net.planes[1].state.index)
    net.do(1, Transact((), (DeleteKey("covey/access/revoked"),)))
    net.put(1, "covey/access/later", b"present")
    present = net.planes[1].part.survivor()
    after = state_at_end(restore(present, saved, Voter(net.stores[1], 1), 0.0))
    assert list(after.keys.names("covey/access/")) == ["covey/access/later"]
    assert after.keys.get("covey/settings/all/log.level") is not None
    assert after.snapshot() == ControlState.restore(after.snapshot(), after.index).snapshot()


def test_the_note_of_a_recovery_is_a_key_like_any_other() -> None:
    net = ControlNet(1)
    net.leader()
    net.recover(1)
    net.leader()
    data = net.planes[1].state.snapshot()
    again = ControlState.restore(data, net.planes[1].state.index)
    assert note_of(again) == note_of(net.planes[1].state)


def test_a_saved_copy_that_nobody_can_have_made_is_pulled_again() -> None:
    """Written by a version that took over what a voter had made up: the next start goes on."""
    net = ControlNet(2)
    net.put(2, "a", b"1")
    net.agree()
    mark = net.logs[2].stored().snapshot or mark_of(b"", 1, 1, (0, Configuration()), CHUNK_BYTES)
    net.crash(2)
    lie = encode_image(StateImage(1, (), (), (), (Barrier("b", 1, (1,), is_open=False),), ()))
    made_up = mark_of(lie, mark.index + 1, 1, (0, Configuration()), CHUNK_BYTES)
    net.logs[2].apply([HardState(1, 1), *arrival(made_up, lie), SnapshotChange(made_up)])
    plane = net.start(2)
    assert plane.counts["control_copies/malformed"] == 1
    net.put(1, "b", b"2")
    net.agree()
    assert net.get(2, "b", stale=True) == b"2"


@pytest.mark.interpreted
def test_a_copy_at_which_a_command_fails_is_none_to_go_on_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = ControlNet(1)
    net.put(1, "a", b"1")
    survivor = net.planes[1].part.survivor()

    def put(_table: KeyTable, _entry: KeyEntry) -> None:
        raise KeyError("a fault that somebody left here")

    monkeypatch.setattr(KeyTable, "put", put)
    with pytest.raises(InvalidRequest, match="a fault that somebody left here"):
        recover(survivor, Voter(1, 1), 0.0)


def test_a_token_that_goes_with_a_session_is_not_taken_over() -> None:
    """All sessions end in a restored state: what would go with one that is not there is none."""
    net = ControlNet(1)
    net.leader()
    saved = SavedState(net.planes[1].state.snapshot(), 1, net.planes[1].state.index)
    net.put(1, "covey/access/kept", b"")
    net.put(1, "covey/access/bound", b"", net.session(1, ttl_s=300.0))
    present = net.planes[1].part.survivor()
    after = state_at_end(restore(present, saved, Voter(net.stores[1], 1), 0.0))
    assert list(after.keys.names("covey/access/")) == ["covey/access/kept"]


def test_two_states_that_do_not_fit_together_are_not_put_together() -> None:
    """What is reserved for Covey itself is full in the file, and the registry here is large."""
    full = ControlState()
    value = bytes(VALUE_BYTES_MAX)
    for number in range(1, (STATE_BYTES_MAX + RESERVE_BYTES) // (VALUE_BYTES_MAX + 200)):
        full.keys.put(KeyEntry(f"{number:06}", value, number, number, 1))
    saved = SavedState(full.snapshot(), 1, 2000)
    net = ControlNet(1)
    for number in range(50):
        net.put(1, f"covey/access/{number:06}", value)
    with pytest.raises(InvalidRequest, match="does not fit"):
        restore(net.planes[1].part.survivor(), saved, Voter(1001, 1), 0.0)


def test_nobody_goes_on_from_a_copy_that_ends_with_its_own_removal() -> None:
    """What was merely proposed counts as agreed on, and nobody would follow who is out."""
    net = ControlNet(1)
    net.leader()
    [first] = registries(1)
    net.do(1, ChangeRegistry(b"", signed(first)))
    stored, out = net.logs[1].stored(), 1 + max(first.ids())
    belongs = min(first.ids())
    assert recover(stored, Voter(9, belongs), 0.0).hard.generation == 2
    with pytest.raises(InvalidRequest, match="this node was removed"):
        recover(stored, Voter(9, out), 0.0)
    with pytest.raises(InvalidRequest, match="this node was removed"):
        recover_set_aside(blank(), stored, Voter(9, out), 0.0)
