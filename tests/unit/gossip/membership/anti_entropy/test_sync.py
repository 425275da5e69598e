"""One Swim machine, fed by hand: how exchanges compare, and what they may and may not change."""

from typing import Any

import pytest

from gossip.core.tuning import FRAME_BYTES_MAX
from gossip.membership.anti_entropy.sync import PAGE_BYTES_MAX, EpochReported
from gossip.membership.model.facts import Facts
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import (
    FRAMES,
    VERSIONS_MAX,
    Dead,
    Ping,
    SyncBuckets,
    SyncDelta,
    SyncDigest,
    SyncSummary,
    SyncVersion,
)
from tests.support.membership_solo import (
    ME,
    MY_BOOT,
    Solo,
    entry,
    exchange,
    frame,
    said,
    summary,
    where,
)

OURSELVES = SyncVersion(ME, MY_BOOT, 1, 0, 1, 0)


def version(node: int, incarnation: int = 1, rank: int = 0, facts: int = 0) -> SyncVersion:
    return SyncVersion(node, 1, incarnation, rank, incarnation, facts)


def compare(solo: Solo, *versions: SyncVersion, peer: int = 2) -> SyncDelta:
    """Return what we tell a member that has these versions."""
    frame(solo, SyncDigest(1, (0,), versions), peer)
    [(to, difference)] = solo.frames
    assert to == peer
    assert isinstance(difference, SyncDelta)
    return difference


def told(difference: SyncDelta) -> set[int]:
    return {each.member for each in difference.entries}


def answer(solo: Solo, message: Any, peer: int = 2) -> Any:
    """Return the one frame with which we answer."""
    frame(solo, message, peer)
    [(to, answered)] = solo.frames
    assert to == peer
    return answered


# How it narrows down.


def test_members_that_agree_are_done_after_two_small_frames() -> None:
    one, other = Solo(2, 3), Solo(2, 3)
    mine = answer(one, summary())
    assert isinstance(mine, SyncBuckets)
    agreed = answer(other, SyncSummary(mine.table, 0))
    assert agreed == SyncBuckets(mine.table, b"", 0)
    frame(one, agreed)
    assert one.frames == []
    assert one.swim.counts["state_syncs/nothing new"] == 1


def test_only_the_shares_that_differ_are_compared() -> None:
    nodes = range(2, 60)
    one, other = Solo(*nodes), Solo(*nodes)
    exchange(other, entry(41, incarnation=9))
    outline = answer(other, summary())
    digest = answer(one, outline)
    assert isinstance(digest, SyncDigest)
    assert digest.differing == (41 % digest.buckets,)
    assert {v.member % digest.buckets for v in digest.versions} == {*digest.differing}
    difference = answer(other, digest)
    assert (told(difference), difference.wanted) == ({41}, ())
    frame(one, difference)
    assert one.swim.members[41].incarnation == 9
    assert answer(one, summary()).table == outline.table, "now they agree"


def test_each_learns_what_it_lacks() -> None:
    solo = Solo(2, 3, 4)
    difference = compare(solo, OURSELVES, version(2), version(3, incarnation=2), version(5))
    assert told(difference) == {4}
    assert difference.wanted == (3, 5)
    back = answer(solo, SyncDelta((), (2, 99), is_partial=False))
    assert (told(back), back.wanted) == ({2}, ()), "whom we do not know we cannot tell of"


def test_a_newcomer_is_told_everything() -> None:
    assert told(compare(Solo(2, 3))) == {ME, 2, 3}


@pytest.mark.parametrize(
    ("rank", "incarnation", "learns"),
    [(0, 1, False), (0, 0, True), (1, 1, False), (2, 1, False), (2, 0, True), (3, 2, False)],
)
def test_who_holds_a_member_for_worse_is_told_only_what_is_newer(
    rank: int, incarnation: int, learns: bool
) -> None:
    difference = compare(
        Solo(2, 3), OURSELVES, version(2), version(3, incarnation=incarnation, rank=rank)
    )
    assert (3 in told(difference)) is learns


def test_newer_words_and_facts_of_the_same_standing_are_told() -> None:
    solo = Solo(2)
    exchange(solo, entry(3, incarnation=9, described=8, facts=Facts(2, {})))
    known = [OURSELVES, version(2)]
    for described, facts, learns in [(8, 2, False), (7, 2, True), (8, 1, True), (9, 3, False)]:
        theirs = SyncVersion(3, 1, 9, 0, described, facts)
        assert (3 in told(compare(solo, *known, theirs))) is learns
        assert (3 in compare(solo, *known, theirs, peer=3).wanted) is (described > 8 or facts > 2)
        solo.run(0.6)


def test_words_of_the_departed_are_not_compared() -> None:
    one, other = Solo(2), Solo(2)
    exchange(one, entry(7, MemberState.DEAD, incarnation=5, described=5))
    exchange(other, entry(7, MemberState.DEAD, incarnation=5, described=4))
    assert answer(one, summary()).table == answer(other, summary()).table


# What peers may make us do.


def test_the_same_peer_is_not_answered_all_the_time() -> None:
    solo = Solo(2, 3)
    for _ in range(10):
        frame(solo, summary())
    assert solo.frames == []
    assert solo.swim.counts["state_syncs/asked for too often"] == 9
    answer(solo, summary(), peer=3)
    solo.run(1)
    answer(solo, summary())


def test_a_large_difference_is_cut_and_the_rest_follows() -> None:
    solo = Solo()
    values = {str(n): "v" * 4096 for n in range(15)}
    exchange(solo, *(entry(n, facts=Facts(1, values)) for n in range(2, 15)))
    exchange(solo, *(entry(n, facts=Facts(1, values)) for n in range(15, 30)))
    heard: dict[int, SyncVersion] = {}
    pages = 0
    difference = None
    while difference is None or difference.is_partial:
        pages += 1
        difference = compare(solo, *heard.values(), peer=99)
        assert len(FRAMES.encode(difference)) <= FRAME_BYTES_MAX
        heard |= {e.member: version(e.member, facts=1) for e in difference.entries}
        heard |= {ME: OURSELVES} if ME in heard else {}
        solo.run(0.6)
    assert heard.keys() == {ME, *range(2, 30)}
    assert pages == 2


def test_the_rest_is_asked_for_soon() -> None:
    solo = Solo(2)
    frame(solo, SyncDelta((), (), is_partial=True))
    solo.run(1.1)
    assert [to for to, f in solo.frames if isinstance(f, SyncSummary)] == [2]


def test_the_largest_frames_fit() -> None:
    most = 2**64 - 1
    versions = tuple(SyncVersion(most, most, most, 3, most, most) for _ in range(VERSIONS_MAX))
    digest = SyncDigest(1024, tuple(range(1024)), versions)
    wanted = SyncDelta((), (most,) * VERSIONS_MAX, is_partial=True)
    assert len(FRAMES.encode(digest)) <= FRAME_BYTES_MAX
    assert PAGE_BYTES_MAX + len(FRAMES.encode(wanted)) <= FRAME_BYTES_MAX


def test_an_outline_that_ends_within_a_hash_is_malformed() -> None:
    solo = Solo(2)
    frame(solo, SyncBuckets(bytes(16), b"12345", 0))
    assert solo.frames == []
    assert solo.swim.counts["frames_dropped/malformed"] == 1


# What they bring.


def test_what_is_told_is_believed() -> None:
    solo = Solo(2, 3)
    exchange(solo, entry(4))
    assert solo.state(4) is MemberState.ALIVE


def test_another_epoch_is_reported_and_the_same_is_not() -> None:
    solo = Solo(2)
    solo.swim.epoch = 4
    frame(solo, summary(epoch=4))
    assert solo.events == []
    assert solo.frames[0][1].epoch == 4
    frame(solo, SyncBuckets(bytes(16), b"", 9))
    assert solo.events == [EpochReported(2, 9)]
    frame(solo, summary(epoch=7), peer=3)
    assert solo.events == [EpochReported(3, 7)]


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
    assert solo.swim.counts["updates_ignored/unsound"] == 3
