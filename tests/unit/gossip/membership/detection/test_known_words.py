"""Words that were heard before are known by their bytes; if they hold is looked up each time."""

from collections.abc import Callable

import pytest

from gossip.membership.detection import known_words
from gossip.membership.detection.known_words import KnownWords
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import DATAGRAMS, Suspect
from tests.support.membership_solo import ME, MY_BOOT, Solo, alive

KNOWN = "updates_ignored/known already"


def test_words_are_taken_apart_once_and_counted_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    solo, decoded = Solo(2, 3), list[str]()

    def noted(what: str, take: Callable[[], None]) -> bool:
        decoded.append(what)
        take()
        return True

    solo.swim.put_on_trial(noted)
    before = solo.swim.counts[KNOWN]
    for _ in range(5):
        solo.hear(3, alive(2))
    assert decoded == [], "they were known from the first time on"
    assert solo.swim.counts[KNOWN] == before + 5
    monkeypatch.setattr(KnownWords, "has", lambda *_: False)
    solo.hear(3, alive(2))
    assert solo.swim.counts[KNOWN] == before + 6, "it is the same as without them"


def test_the_same_words_count_again_once_they_are_no_longer_what_is_believed() -> None:
    solo = Solo(2, 3)
    solo.hear(3, alive(2, incarnation=2))
    solo.hear(3, Suspect(2, 1, 2, 3))
    assert solo.state(2) is MemberState.SUSPECT
    solo.hear(3, alive(2, incarnation=2))
    assert solo.state(2) is MemberState.SUSPECT, "they refute nothing"
    solo.hear(3, alive(2, incarnation=3))
    assert solo.state(2) is MemberState.ALIVE


def test_what_is_not_believed_is_not_remembered() -> None:
    solo = Solo(2)
    words = KnownWords(solo.swim.members, ME)
    for each in (alive(3), alive(2, incarnation=2), alive(ME, boot=MY_BOOT)):
        item = DATAGRAMS.encode(each)
        words.record(item, each)
        assert not words.has(item)
    signed = alive(2, signature=b"x" * 64)
    words.record(DATAGRAMS.encode(signed), signed)
    assert not words.has(DATAGRAMS.encode(signed)), "the signature would be news"
    words.record(DATAGRAMS.encode(alive(2)), alive(2))
    assert words.has(DATAGRAMS.encode(alive(2)))


def test_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_words, "REMEMBERED_MAX", 2)
    solo = Solo(2, 3, 4)
    words = KnownWords(solo.swim.members, ME)
    for node in (2, 3, 4):
        words.record(DATAGRAMS.encode(alive(node)), alive(node))
    assert [words.has(DATAGRAMS.encode(alive(node))) for node in (2, 3, 4)] == [False, False, True]
