"""One Swim machine, fed by hand: what exchanges of full states may and may not change."""

from gossip.membership.exchange import EpochHeard
from gossip.membership.members import MemberState
from gossip.membership.messages import (
    Dead,
    ExchangeReply,
    ExchangeRequest,
    Ping,
)
from tests.unit.membership_solo import ME, MY_BOOT, Solo, entry, exchange, said, where

# Exchanges.


def test_a_request_is_answered_with_all_we_know() -> None:
    solo = Solo(2, 3)
    exchange(solo, entry(4), kind=ExchangeRequest)
    [(to, reply)] = solo.frames
    assert (to, type(reply)) == (2, ExchangeReply)
    assert {e.member for e in reply.members} == {ME, 2, 3}
    assert solo.state(4) is MemberState.ALIVE


def test_another_epoch_is_reported_and_the_same_is_not() -> None:
    solo = Solo(2)
    solo.swim.epoch = 4
    exchange(solo, epoch=4)
    assert solo.events == []
    exchange(solo, epoch=9)
    assert solo.events == [EpochHeard(2, 9)]
    exchange(solo, kind=ExchangeRequest)
    assert solo.frames[0][1].epoch == 4


def test_hearsay_kills_nobody_but_is_told_to_the_one_concerned() -> None:
    solo = Solo(2, 3)
    sent = exchange(solo, entry(3, MemberState.DEAD))
    assert solo.state(3) is MemberState.ALIVE
    assert said(sent, Dead, where(3))
    assert said(solo.run(1.1), Ping)[0].target == 3, "and we look for ourselves"


def test_hearsay_about_us_is_refuted() -> None:
    solo = Solo(2)
    exchange(solo, entry(ME, MemberState.DEAD, boot=MY_BOOT))
    assert solo.swim.incarnation == 2


def test_the_departed_are_listed_as_of_their_death() -> None:
    solo = Solo(2)
    exchange(solo, entry(7, MemberState.DEAD, age_s=50), entry(8, MemberState.LEFT, age_s=60))
    assert solo.state(7) is MemberState.DEAD
    assert solo.swim.members[7].changed_at == solo.now - 50
    exchange(solo, entry(9, MemberState.DEAD, age_s=10**12))
    assert solo.state(9) is None, "dead for longer than we keep the dead"


def test_an_entry_may_know_a_life_better_than_its_words() -> None:
    solo = Solo(2)
    exchange(solo, entry(7, incarnation=9, described=4))
    member = solo.swim.members[7]
    assert (member.incarnation, member.described) == (9, 4)
    exchange(solo, entry(7, incarnation=9, described=8, name="newer"))
    assert solo.swim.members[7].name == "newer"


def test_unsound_entries_are_counted_and_ignored() -> None:
    solo = Solo(2)
    tags = {str(n): "v" * 250 for n in range(30)}
    exchange(
        solo, entry(7, described=2), entry(8, tags=tags), entry(9, MemberState.DEAD, tags=tags)
    )
    assert [solo.state(node) for node in (7, 8, 9)] == [None] * 3
    assert solo.swim.counts["claims_ignored/unsound"] == 3
