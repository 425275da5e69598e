"""Laws of the state sync: two members come to agree, and what others tell kills nobody."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.core.machine import SendFrame
from gossip.core.wire import tag_of
from gossip.events.plane import EventPlane
from gossip.membership.model.facts import Facts
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import FRAMES, SyncDelta, SyncEntry
from gossip.membership.swim import Swim
from tests.support.membership_solo import Solo, entry

ONE, OTHER = 2, 3
"""Under which ids the two talk; what they tell about themselves is not under test."""

MEMBERS = st.integers(10, 13)
ALIVE_OR_NOT = st.sampled_from(MemberState)
Table = list[SyncEntry]


@st.composite
def entries(draw: st.DrawFn, states: st.SearchStrategy[MemberState]) -> SyncEntry:
    described = draw(st.integers(0, 3))
    number = draw(st.integers(0, 3))
    return entry(
        draw(MEMBERS),
        draw(states),
        boot=draw(st.integers(1, 2)),
        incarnation=3 + draw(st.integers(0, 1)),
        described=described,
        age_s=draw(st.integers(0, 3)),
        facts=Facts(number, {"number": str(number)}) if number else None,
    )


def tables(states: st.SearchStrategy[MemberState]) -> st.SearchStrategy[Table]:
    return st.lists(entries(states), max_size=20)


def machine(known: Table) -> Swim[EventPlane]:
    solo = Solo()
    frame = SyncDelta(tuple(known), (), is_partial=False)
    solo.swim.receive_frame(FRAMES.encode(frame), 4, solo.now)
    solo.drain()
    return solo.swim


def exchange(one: Swim[EventPlane], other: Swim[EventPlane], now: float) -> int:
    """Let one begin an exchange with the other; return how many frames it took."""
    one._state_sync._begin(OTHER, now)
    frames = 0
    waiting = [(other, ONE, frame) for frame in frames_of(one)]
    while waiting:
        to, sender, frame = waiting.pop(0)
        frames += 1
        to.receive_frame(frame, sender, now)
        back = (one, OTHER) if to is other else (other, ONE)
        waiting += [(*back, answer) for answer in frames_of(to)]
    return frames


def frames_of(swim: Swim[EventPlane]) -> list[bytes]:
    sent = [effect.data for effect in swim.effects() if isinstance(effect, SendFrame)]
    return [data for data in sent if tag_of(data) in FRAMES.tags]


def knowledge(swim: Swim[EventPlane]) -> dict[int, object]:
    return {
        m.id: (m.boot, m.incarnation, m.state, m.described, swim.facts_of(m.id))
        for m in swim.members
        if m.id >= 10
    }


@settings(deadline=None, max_examples=200)
@given(
    tables(st.just(MemberState.ALIVE)),
    tables(st.just(MemberState.ALIVE)),
)
def test_about_the_living_all_is_agreed_and_then_there_is_nothing_to_say(
    mine: Table, theirs: Table
) -> None:
    one, other = machine(mine), machine(theirs)
    now = 100.0
    for _ in range(3):
        now += 1
        exchange(one, other, now)
    assert knowledge(one) == knowledge(other)
    assert exchange(one, other, now + 1) == 2


@settings(deadline=None)
@given(tables(ALIVE_OR_NOT), tables(ALIVE_OR_NOT))
def test_nobody_dies_and_nothing_is_forgotten_by_an_exchange(mine: Table, theirs: Table) -> None:
    one, other = machine(mine), machine(theirs)
    before = {m.id: m for m in one.members}
    exchange(one, other, 101.0)
    for node, member in before.items():
        after = one.members[node]
        assert after.precedence >= member.precedence
        if member.is_live:
            assert after.state is not MemberState.DEAD
    assert {m.id for m in one.members} == {m.id for m in other.members}
