"""Addresses that several devices have, hints that are too many, and words that have no room."""

import msgspec
import pytest

from gossip.core.errors import LimitExceeded
from gossip.core.machine import Address
from gossip.core.tuning import LAN
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import (
    ALIVE_BYTES_MAX,
    DATAGRAMS,
    Ack,
    Hello,
    Nack,
    Ping,
    PingRequest,
)
from tests.support.membership_solo import MINE, Solo, alive, said, where

DOCKER = [Address(f"172.{17 + n}.0.1", 7747) for n in range(8)]
LAN_OF_2 = where(2)


def with_docker(*others: int) -> Solo:
    solo = Solo(*others)
    solo.swim.set_addresses([MINE], solo.now, own=DOCKER)
    solo.drain()
    return solo


def test_the_source_of_the_first_packet_is_the_first_way_to_a_member() -> None:
    solo = Solo()
    solo.hear(2, alive(2, addresses=tuple(DOCKER)), source=LAN_OF_2)
    assert solo.swim.addresses_of(2)[0] == LAN_OF_2
    pinged = [to for to, message in solo.run(2) if isinstance(message, Ping)]
    assert pinged[0] == LAN_OF_2


def test_where_we_are_ourselves_nobody_else_is_looked_for() -> None:
    solo = with_docker(3)
    solo.hear(3, alive(2, addresses=(*DOCKER[:3], LAN_OF_2)))
    assert solo.swim.addresses_of(2) == [LAN_OF_2]
    sent = solo.run(60)
    assert said(sent, Ping, LAN_OF_2)
    assert not {to for to, _ in sent} & {*DOCKER, MINE}
    assert solo.swim.members[2].addresses == (*DOCKER[:3], LAN_OF_2), "others may find it there"


def test_who_has_no_address_but_ours_is_pinged_nowhere_until_it_is_heard() -> None:
    solo = with_docker(3)
    solo.hear(3, alive(2, addresses=tuple(DOCKER)))
    assert solo.swim.addresses_of(2) == []
    assert not said(solo.run(5), Ping, DOCKER[0])
    assert solo.state(2) is MemberState.ALIVE, "it had no chance to answer"
    solo.hear(2, Ack(1), source=LAN_OF_2)
    assert solo.swim.addresses_of(2) == [LAN_OF_2]


def test_an_address_that_becomes_ours_or_ceases_to_be_is_looked_at_anew() -> None:
    solo = Solo(2, 3)
    solo.hear(3, alive(4, addresses=(DOCKER[0], where(4))))
    assert solo.swim.addresses_of(4) == [DOCKER[0], where(4)]
    solo.swim.set_addresses([MINE], solo.now, own=DOCKER)
    assert solo.swim.addresses_of(4) == [where(4)]
    solo.swim.set_addresses([MINE], solo.now)
    assert solo.swim.addresses_of(4) == [DOCKER[0], where(4)]


def test_our_other_addresses_are_told_to_nobody_and_change_no_incarnation() -> None:
    solo = Solo(2)
    before = solo.swim.incarnation
    solo.swim.set_addresses([MINE], solo.now, own=DOCKER)
    assert solo.swim.incarnation == before
    assert solo.swim.members[1].addresses == (MINE,)
    assert solo.swim.addresses_of(1) == [MINE]


def test_hints_at_our_own_addresses_are_none() -> None:
    solo = with_docker()
    solo.swim.discovered(DOCKER, solo.now)
    assert solo.run(5) == []


def test_a_packet_that_says_to_come_from_us_shows_no_way() -> None:
    solo = with_docker(2)
    solo.run(10)
    solo.hear(2, Ack(1), source=DOCKER[0])
    assert solo.swim.addresses_of(2) == [LAN_OF_2]
    assert solo.swim.counts["addresses_ignored/our own, as a source"] == 1


@pytest.mark.parametrize("address", [DOCKER[0], Address("fe80::2%eth7", 7747)])
def test_a_relay_pings_where_it_knows_the_target_to_be(address: Address) -> None:
    """What the asker says is there is the relay itself, or on no link of the relay's."""
    solo = with_docker(2, 3)
    solo.hear(3, PingRequest(9, 2, address))
    assert [to for to, message in solo.drain() if isinstance(message, Ping)] == [LAN_OF_2]
    solo.hear(3, PingRequest(10, 77, address))
    assert not said(solo.drain(), Ping), "whom it does not know it can't find"
    assert solo.swim.counts["relays/refused"] == 1


def test_a_relay_pings_where_the_asker_says_if_that_is_somewhere() -> None:
    solo = with_docker(2, 3)
    elsewhere = Address("198.51.100.2", 7747)
    solo.hear(3, PingRequest(9, 2, elsewhere))
    assert [to for to, message in solo.drain() if isinstance(message, Ping)] == [elsewhere]
    assert said(solo.run(1), Nack, where(3))


def test_a_dead_member_is_looked_for_where_it_once_answered() -> None:
    """It says to be where everybody is; a seed had led us to it."""
    solo = with_docker(3)
    seed = Address("203.0.113.7", 7747)
    solo.swim.discovered([seed], solo.now)
    solo.run(1)
    solo.hear(2, alive(2, addresses=tuple(DOCKER)), source=seed)
    solo.run(10)
    solo.hear(2, Ack(1), boot=1, source=where(2))
    solo.run(120)
    assert solo.state(2) is MemberState.DEAD
    hellos = {to for to, message in solo.run(120) if isinstance(message, Hello)}
    assert {seed, where(2)} <= hellos
    assert not hellos & set(DOCKER)


# Hints, more than there is room for.

FEW = msgspec.structs.replace(LAN, candidates_max=10)


def first_greeted(solo: Solo, duration_s: float = 2.0) -> list[Address]:
    return list(dict.fromkeys(to for to, m in solo.run(duration_s) if isinstance(m, Hello)))


def test_of_too_many_hints_told_at_once_the_first_are_kept() -> None:
    solo = Solo(tuning=FEW)
    book = [Address(f"10.0.{n // 250}.{n % 250}", 7747) for n in range(1, 5000)]
    solo.swim.discovered(book, solo.now)
    assert set(first_greeted(solo)) == set(book[:10]), "who was seen last stands first in the book"
    assert solo.swim.counts["candidates_dropped/too many"] == len(book) - 10


def test_what_is_told_last_is_kept_and_followed_first() -> None:
    solo = Solo(tuning=FEW)
    old = [Address(f"10.0.0.{n}", 7747) for n in range(1, 11)]
    solo.swim.discovered(old, solo.now)
    solo.swim.discovered([where(9)], solo.now)
    greeted = first_greeted(solo)
    assert greeted[0] == where(9), "it was announced just now"
    assert set(greeted) == {where(9), *old[:9]}


def test_those_greeted_most_in_vain_go_first() -> None:
    solo = Solo(tuning=FEW)
    old = [Address(f"10.0.0.{n}", 7747) for n in range(1, 11)]
    solo.swim.discovered(old[:1], solo.now)
    solo.run(30)
    solo.swim.discovered(old[1:], solo.now)
    solo.swim.discovered([where(9)], solo.now)
    greeted = set(first_greeted(solo))
    assert where(9) in greeted
    assert set(old[1:]) <= greeted
    assert old[0] not in greeted


# Words about ourselves.

LONG = [Address(f"2001:db8:1111:2222:3333:4444:5555:{n:04x}", 7747) for n in range(1, 9)]


def test_addresses_that_have_no_room_are_left_out_and_come_back() -> None:
    local = LocalMember(
        1, 1, "name", LONG, {"k": "v" * 250, "l": "v" * 250, "m": "v" * 250, "n": "v" * 150}
    )
    assert 0 < len(local.alive.addresses) < len(LONG)
    assert local.alive.addresses == tuple(LONG)[: len(local.alive.addresses)]
    assert len(DATAGRAMS.encode(local.alive)) <= ALIVE_BYTES_MAX
    local.describe(tags={})
    assert local.alive.addresses == tuple(LONG)


def test_other_addresses_never_fail_whatever_the_tags_leave() -> None:
    tags = {f"{n}": "v" * 256 for n in range(3)}
    room = ALIVE_BYTES_MAX - len(DATAGRAMS.encode(LocalMember(1, 1, "n", [], tags).alive))
    tags["z"] = "v" * (room - 20)
    local = LocalMember(1, 1, "n", [Address("10.0.0.1", 1)], tags)
    for addresses in (LONG, LONG[:1], [Address("10.0.0.2", 1)], []):
        before = local.incarnation
        local.describe(addresses=addresses)
        assert local.incarnation == before + 1
        assert len(DATAGRAMS.encode(local.alive)) <= ALIVE_BYTES_MAX
        assert local.wishes == tuple(addresses)
    local.describe(addresses=LONG)
    assert local.alive.addresses == (), "none has room; members know it by its packets"


def test_tags_that_leave_no_room_for_an_address_are_refused() -> None:
    tags = {f"{n}": "v" * 256 for n in range(3)}
    room = ALIVE_BYTES_MAX - len(DATAGRAMS.encode(LocalMember(1, 1, "n", [], tags).alive))
    local = LocalMember(1, 1, "n", LONG, {})
    with pytest.raises(LimitExceeded, match="fewer or shorter tags"):
        local.describe(tags=tags | {"z": "v" * (room - 20)})
    assert (local.incarnation, local.alive.addresses) == (1, tuple(LONG))
