"""What one member with good keys could once do to another with a packet or two, and cannot."""

import pytest

from gossip.core.errors import LimitExceeded
from gossip.core.machine import Address, SendDatagram
from gossip.core.wire import pack
from gossip.events.messages import Query
from gossip.events.queries import QueryReceived
from gossip.membership.dispatch import REQUESTS_MAX
from gossip.membership.model.addresses import is_gossiped, is_usable
from gossip.membership.model.messages import DATAGRAMS, Alive, Left, Ping, Suspect
from tests.sim.test_hostile_member import Scene
from tests.support.membership_solo import ME, Solo, where

HEALED_S = 300.0


@pytest.fixture
def solo() -> Solo:
    made = Solo()
    made.hear(2, Alive(2, 1, 1, "two", (where(2),), {}))
    made.drain()
    return made


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_member_that_loses_its_address_within_a_probe_ends_no_node(solo: Solo) -> None:
    while solo.swim._failure_detector._probe is None:
        solo.run(0.05)
    solo.hear(3, Alive(2, 1 << 33, 2, "two", (), {}))  # a later life, at no address
    solo.run(10)
    assert solo.swim.members[2].boot == 1 << 33


@pytest.mark.parametrize(
    "host", ["::ffff:224.0.0.1", "::ffff:255.255.255.255", "240.0.0.1", "fe80::1%\x00"]
)
def test_an_address_of_many_in_disguise_is_not_used(host: str) -> None:
    assert not is_usable(Address(host, 7747))


def test_a_link_local_address_means_nothing_to_others() -> None:
    assert is_usable(Address("fe80::1%eth0", 7747))
    assert not is_gossiped(Address("fe80::1", 7747))


def test_queries_that_wait_for_ever_make_nobody_deaf(solo: Solo) -> None:
    for number in range(64):
        solo.hear(2, Query(2, 1, number, "x", b"", {}, 2**63))
    solo.run(HEALED_S)
    solo.hear(3, Alive(3, 1, 1, "three", (where(3),), {}), Query(3, 1, 1, "x", b"", {}, 5000))
    solo.drain()
    assert [event for event in solo.events if isinstance(event, QueryReceived)]


def test_one_packet_earns_its_source_no_flood(solo: Solo) -> None:
    pings = pack([DATAGRAMS.encode(Ping(1, ME))] * 224)
    solo.swim.receive(pings, 2, 1, 1, Address("198.51.100.9", 53), solo.now)
    sent = [effect for effect in solo.swim.effects() if isinstance(effect, SendDatagram)]
    assert len(sent) == REQUESTS_MAX
    counts = solo.swim.counts
    assert counts["messages_skipped/too many requests"] == 224 - REQUESTS_MAX


def test_who_was_pushed_twice_before_anybody_heard_it_is_still_believed(scene: Scene) -> None:
    ada = scene.ada
    for _ in range(2):
        swim = ada.node.swim
        scene.mallory.say(ada, Suspect(ada.id, swim.boot, swim.incarnation + 2**32, 1))
    assert ada.node.swim.incarnation > 2**33
    scene.world.run(HEALED_S)
    assert scene.is_well()
    updates = [host.node.swim.members[ada.id].incarnation for host in scene.hosts[1:]]
    assert set(updates) == {ada.node.swim.incarnation}


def test_goodbyes_in_the_name_of_all_dissolve_no_covey(scene: Scene) -> None:
    """They are not signed, so nobody believes them."""
    lives = [(host.id, host.node.swim.boot, host.node.swim.incarnation + 1) for host in scene.hosts]
    for host in scene.hosts:
        scene.mallory.say(host, *(Left(*life) for life in lives if life[0] != host.id))
    assert scene.is_well()
    assert scene.counts("words_refused/unsigned") == len(lives) * (len(lives) - 1)


def test_half_a_character_in_an_event_is_refused_here(solo: Solo) -> None:
    with pytest.raises(LimitExceeded, match="nothing was sent"):
        solo.swim.with_delegate(
            lambda event_plane: event_plane.send_event("\ud800", b"", solo.now), solo.now
        )
