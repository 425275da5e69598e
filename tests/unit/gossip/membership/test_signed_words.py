"""What a member says about itself counts with its signature, and nobody speaks in its name."""

from typing import Any

import msgspec
import pytest

from gossip.core.ids import CLUSTER_ID_BYTES
from gossip.core.machine import Address
from gossip.membership.anti_entropy import merge
from gossip.membership.detection.updates import BootSuperseded
from gossip.membership.model.facts import Facts
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import (
    Alive,
    Asleep,
    Dead,
    Hello,
    Left,
    Ping,
    Suspect,
    SyncEntry,
)
from gossip.membership.model.signatures import (
    FORGED,
    PROOFS_ASKED_MAX,
    REPORT_AGAIN_S,
    UNSIGNED,
    Signatures,
    WordsRefused,
)
from gossip.sim.toy_cipher import toy_key, toy_signing
from tests.support.membership_solo import ME, MY_BOOT, Solo, alive, entry, exchange, said, where

COVEY = bytes(range(CLUSTER_ID_BYTES))
NODES = range(1, 400)
ELSEWHERE = Address("198.51.100.66", 7747)


def sign(node: int, told: tuple[object, ...], covey: bytes = COVEY) -> bytes:
    return Signatures(node, toy_signing(covey, node)).sign(told)


def signed(words: Any, by: int = 0, covey: bytes = COVEY) -> Any:
    by = by or words.member
    return msgspec.structs.replace(words, signature=sign(by, words.said(), covey))


def asleep(node: int, left_s: int, announced_s: int, incarnation: int = 2) -> Asleep:
    made: Asleep = signed(Asleep(node, 1, incarnation, left_s, announced_s))
    return made


@pytest.fixture
def solo() -> Solo:
    """Two members that have signed, 2 and 3, and one of an earlier version, 4."""
    made = Solo(signing=toy_signing(COVEY, ME))
    admit(made)
    made.hear(2, signed(alive(2)))
    made.hear(3, signed(alive(3)))
    made.hear(4, alive(4))
    made.drain()
    return made


def admit(solo: Solo, *but: int) -> None:
    nodes = [node for node in NODES if node not in but]
    keys = {node: toy_key(node) for node in nodes}
    solo.swim.admit({node: f"n{node}" for node in nodes}, solo.now, keys)


def seen(solo: Solo, node: int) -> tuple[object, ...]:
    """What is believed of a member, but for the way to it."""
    member = solo.swim.members[node]
    return member.state, member.boot, member.incarnation, member.addresses, member.tags


def test_our_words_are_signed_once_for_each_change(solo: Solo) -> None:
    made = solo.swim.counts["signatures/made"]
    solo.swim.set_tags({"room": "attic"}, solo.now)
    for _ in range(3):
        solo.hear(2, Hello(wants_reply=True))
        solo.run(1)
    solo.hear(2, Hello(wants_reply=True))
    [told] = {
        msgspec.msgpack.encode(each) for each in said(solo.drain(), Alive) if each.member == ME
    }
    words = msgspec.msgpack.decode(told, type=Alive)
    assert words.signature == sign(ME, words.said())
    assert solo.swim.counts["signatures/made"] == made + 1


def test_words_are_passed_on_with_their_signature(solo: Solo) -> None:
    words = signed(alive(2, incarnation=2, tags={"a": "b"}))
    solo.hear(2, words, incarnation=2)
    told = set(map(str, said(solo.run(1), Alive)))
    assert str(words) in told
    member = solo.swim.members[2]
    assert solo.swim._updates.update_of(member) == words
    assert solo.swim._state_sync._entry(member, solo.now).words == words


LIES = {
    "alive": alive(2, incarnation=9, addresses=(ELSEWHERE,), tags={"x": "y"}),
    "of a later life": alive(2, boot=1 << 33, addresses=(ELSEWHERE,)),
    "left": Left(2, 1, 9),
    "asleep": Asleep(2, 1, 9, 3600, 3600),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("signer", [0, 3])
def test_nobody_speaks_in_the_name_of_another(solo: Solo, lie: str, signer: int) -> None:
    before = seen(solo, 2)
    words: Any = LIES[lie]
    solo.hear(3, signed(words, by=signer) if signer else words)
    assert seen(solo, 2) == before
    reason = FORGED if signer else UNSIGNED
    assert solo.swim.counts[f"words_refused/{reason}"] == 1
    sent = solo.drain()
    assert solo.events == [WordsRefused(2, reason, 3, where(3), "n2", "n3")]
    assert str(words) not in map(str, said(sent, type(words)))
    solo.hear(2, signed(words))
    assert seen(solo, 2) != before, "it was news, had it been true"


def test_a_signature_is_good_in_one_covey(solo: Solo) -> None:
    solo.hear(3, signed(LIES["alive"], covey=bytes(CLUSTER_ID_BYTES)))
    assert solo.swim.counts["words_refused/forged"] == 1


@pytest.mark.parametrize("kind", [Left, Asleep])
def test_a_signature_is_good_for_the_words_that_were_signed(solo: Solo, kind: type[Any]) -> None:
    true = signed(Left(2, 1, 2) if kind is Left else Asleep(2, 1, 2, 60, 60))
    later = msgspec.structs.replace(true, incarnation=3)
    solo.hear(3, later)
    assert solo.state(2) is MemberState.ALIVE
    solo.hear(3, true)
    assert solo.state(2) is (MemberState.LEFT if kind is Left else MemberState.ASLEEP)


def test_who_passes_lies_on_is_named_now_and_then(solo: Solo) -> None:
    for n in range(20):
        solo.hear(3, signed(alive(2, incarnation=9 + n), by=3))
    solo.hear(3, alive(2, incarnation=9))
    solo.drain()
    assert [event.reason for event in solo.events] == [FORGED, UNSIGNED]
    solo.now += REPORT_AGAIN_S
    solo.hear(3, signed(alive(2, incarnation=50), by=3))
    solo.drain()
    assert [event for event in solo.events if isinstance(event, WordsRefused)]
    assert solo.swim.counts["words_refused/forged"] == 21


def test_the_same_words_are_verified_once(solo: Solo) -> None:
    false = signed(alive(2, incarnation=9), by=3)
    before = solo.swim.counts["signatures/verified"]
    for _ in range(10):
        solo.hear(3, false)
    assert solo.swim.counts["signatures/verified"] == before + 1
    assert solo.swim.counts["signatures/known"] == 9
    for _ in range(10):
        solo.hear(2, signed(alive(2)))
    assert solo.swim.counts["signatures/verified"] == before + 1, "what is known is not looked at"


def test_a_packet_ends_at_the_first_false_signature(solo: Solo) -> None:
    before = solo.swim.counts["signatures/verified"]
    solo.hear(3, *(signed(alive(2, incarnation=9 + n), by=3) for n in range(8)))
    assert solo.swim.counts["signatures/verified"] == before + 1
    assert solo.swim.counts["datagrams_dropped/false signature"] == 1


# ---- members of an earlier version --------------------------------------------------------------


def test_who_never_signed_is_believed_as_before(solo: Solo) -> None:
    solo.hear(3, alive(4, boot=1 << 33))
    assert solo.swim.members[4].boot == 1 << 33
    solo.hear(4, Left(4, 1 << 33, 2), boot=1 << 33, incarnation=2)
    assert solo.state(4) is MemberState.LEFT


def test_who_never_signed_is_asked_for_it_a_few_times_in_a_life(solo: Solo) -> None:
    for _ in range(20):
        solo.run(1)
        solo.hear(4, Ping(1, ME))
    assert solo.swim.counts["bootstraps/asked for"] == PROOFS_ASKED_MAX


@pytest.mark.parametrize("boot", [1, 1 << 33])
def test_the_first_signed_words_void_what_was_invented(solo: Solo, boot: int) -> None:
    """What was told of 4 is a lie, and 4 has been updated and signs."""
    solo.hear(3, alive(4, boot=boot, incarnation=9, addresses=(ELSEWHERE,)))
    true = signed(alive(4, boot=1, incarnation=2))
    solo.hear(4, true, incarnation=2)
    member = solo.swim.members[4]
    assert (member.boot, member.addresses) == (1, (where(4),))
    solo.hear(3, alive(4, boot=1 << 34, incarnation=9, addresses=(ELSEWHERE,)))
    assert solo.swim.members[4].boot == 1


# ---- lives --------------------------------------------------------------------------------------


def test_a_header_alone_begins_no_life_but_earns_a_question(solo: Solo) -> None:
    solo.hear(2, Ping(1, ME), boot=1 << 33, source=ELSEWHERE)
    assert solo.swim.members[2].boot == 1
    assert solo.swim.members[2].path == where(2)
    assert said(solo.drain(), Hello, to=ELSEWHERE) == [Hello(wants_reply=True)]
    solo.hear(2, signed(alive(2, boot=1 << 33)), boot=1 << 33, source=ELSEWHERE)
    member = solo.swim.members[2]
    assert (member.boot, member.path) == (1 << 33, ELSEWHERE)


@pytest.mark.parametrize("kind", [Suspect, Dead])
def test_an_accusation_of_a_life_that_nobody_signed_is_none(solo: Solo, kind: type[Any]) -> None:
    solo.hear(3, kind(2, 1 << 33, 1, 3))
    assert seen(solo, 2)[:2] == (MemberState.ALIVE, 1)
    assert solo.swim.counts["words_refused/accused of another life"] == 1
    solo.hear(3, kind(2, 1, 1, 3))
    assert solo.state(2) is not MemberState.ALIVE, "anybody may accuse"
    solo.hear(2, signed(alive(2, incarnation=2)), incarnation=2)
    assert solo.state(2) is MemberState.ALIVE, "and signed words refute"


def test_behind_a_signed_goodbye_nothing_of_that_life_counts(solo: Solo) -> None:
    solo.hear(2, signed(Left(2, 1, 2)), incarnation=2)
    solo.hear(3, Suspect(2, 1, 5, 3), Dead(2, 1, 6, 3))
    solo.hear(2, Ping(1, ME), incarnation=7)
    assert solo.state(2) is MemberState.LEFT
    solo.hear(2, signed(alive(2, boot=2)), boot=2)
    assert solo.state(2) is MemberState.ALIVE


def test_a_later_life_of_ours_counts_if_our_own_key_has_signed_it(solo: Solo) -> None:
    later = alive(ME, boot=MY_BOOT + 1)
    solo.hear(3, later)
    solo.hear(3, signed(later, by=3))
    solo.hear(3, Dead(ME, MY_BOOT + 1, 1, 3))
    solo.hear(ME, boot=MY_BOOT + 1)
    exchange(solo, entry(ME, MemberState.DEAD, boot=MY_BOOT + 1))
    solo.drain()
    assert BootSuperseded(MY_BOOT + 1) not in solo.events
    solo.hear(ME, signed(later), boot=MY_BOOT + 1)
    solo.drain()
    assert solo.events == [BootSuperseded(MY_BOOT + 1)]


def test_who_was_set_back_is_shown_its_later_life_also_if_that_is_dead(solo: Solo) -> None:
    words = signed(alive(2, boot=9))
    solo.hear(2, words, boot=9)
    solo.hear(3, Dead(2, 9, 1, 3))
    solo.drain()
    solo.hear(2, Ping(1, ME))
    sent = solo.drain()
    assert [each for each in said(sent, Alive, to=where(2)) if each.member == 2] == [words]
    assert {each.boot for each in said(sent, Dead, to=where(2))} == {9}


# ---- sleep --------------------------------------------------------------------------------------


def test_nobody_makes_a_sleep_longer_than_it_was_announced(solo: Solo) -> None:
    solo.hear(3, msgspec.structs.replace(asleep(2, 60, 60), duration_s=86_400))
    assert solo.swim.members[2].asleep_until == solo.now + 60
    told = solo.swim._updates.update_of(solo.swim.members[2])
    assert told == asleep(2, 60, 60)


def test_our_sleep_is_signed_by_what_was_announced(solo: Solo) -> None:
    solo.swim.sleep(600, solo.now)
    sent = said(solo.run(100), Asleep)
    assert {each.announced_s for each in sent} == {600}
    assert all(each.signature == sign(ME, each.said()) for each in sent)


# ---- state syncs, facts, strangers --------------------------------------------------------------


def shown(told: SyncEntry) -> SyncEntry:
    return msgspec.structs.replace(told, signature=sign(told.member, told.words.said()))


def test_a_table_is_believed_as_far_as_it_is_signed(solo: Solo) -> None:
    exchange(
        solo,
        entry(2, boot=1 << 33),
        entry(2, MemberState.LEFT, incarnation=4),
        entry(2, MemberState.ASLEEP, incarnation=4, asleep_s=60),
        entry(3, MemberState.DEAD, boot=1 << 33),
        shown(entry(5, incarnation=3)),
        shown(entry(6, MemberState.DEAD, incarnation=3)),
    )
    assert [solo.state(node) for node in (2, 3, 5, 6)] == [
        MemberState.ALIVE, MemberState.ALIVE, MemberState.ALIVE, MemberState.DEAD,
    ]  # fmt: skip
    assert (solo.swim.members[2].boot, solo.swim.members[3].boot) == (1, 1)
    assert solo.swim.members[5].signature
    assert solo.swim.members[6].is_proven


def test_a_table_ends_at_the_first_false_signature(solo: Solo) -> None:
    false = msgspec.structs.replace(entry(5), signature=bytes(64))
    exchange(solo, false, shown(entry(6)))
    assert solo.state(6) is None
    exchange(solo, shown(entry(6)))
    assert solo.state(6) is MemberState.ALIVE


def test_of_a_long_table_the_rest_waits_for_the_next_one(
    solo: Solo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "VERIFIED_MAX", 3)
    exchange(solo, *(shown(entry(node)) for node in range(10, 15)))
    assert [solo.state(node) is None for node in range(10, 15)] == [False] * 3 + [True] * 2
    assert 2 in solo.swim._state_sync._wanted, "it is asked again, soon"


def test_whose_goodbye_alone_is_known_is_told_of_without_a_description(solo: Solo) -> None:
    goodbye = Left(7, 9, 2)
    told = entry(7, MemberState.LEFT, boot=9, incarnation=2, described=0, tags={"x": "y"})
    exchange(solo, told)
    assert solo.state(7) is MemberState.LEFT, "it never signed"
    exchange(solo, shown(entry(8)))
    bare = msgspec.structs.replace(
        told, member=8, absence=sign(8, msgspec.structs.replace(goodbye, member=8).said())
    )
    solo.hear(3, Dead(8, 1, 1, 3))
    exchange(solo, bare)
    assert seen(solo, 8) == (MemberState.LEFT, 9, 2, (), {})


def test_facts_are_signed_by_whom_they_are_about(solo: Solo) -> None:
    facts = Facts(1, {"rack": "south"})
    exchange(solo, entry(2, facts=facts))
    by_another = msgspec.structs.replace(facts, signature=sign(3, facts.said(2, 1)))
    exchange(solo, entry(2, facts=by_another))
    assert solo.swim.facts_of(2) == {}
    own = msgspec.structs.replace(facts, signature=sign(2, facts.said(2, 1)))
    exchange(solo, entry(2, facts=own))
    assert solo.swim.facts_of(2) == {"rack": "south"}
    solo.swim.set_facts({"rack": "north"}, solo.now)
    mine = solo.swim._state_sync._facts.of(solo.swim.members[ME])
    assert mine is not None
    assert mine.signature == sign(ME, mine.said(ME, MY_BOOT))


def test_the_words_of_a_stranger_are_checked_when_the_registry_has_its_key(solo: Solo) -> None:
    admit(solo, 8, 9)
    solo.hear(3, signed(alive(8, tags={"a": "b"}), by=3), signed(alive(9)))
    admit(solo)
    assert solo.state(8) is None
    assert solo.state(9) is MemberState.ALIVE
