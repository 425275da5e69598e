"""Hostile input: whatever arrives, it is counted or it decodes, and nothing grows without bound.

What comes here has passed the envelope, so the sender holds the covey's keys; it may still be a
newer version, a broken build, or a stolen device.
"""

import random

import msgspec
import pytest

from gossip.core.errors import LimitExceeded, Malformed
from gossip.core.machine import Address, SendDatagram, SendFrame
from gossip.core.tuning import BODY_BYTES_MAX, LAN
from gossip.core.wire import pack
from gossip.events.events import check
from gossip.events.messages import BROADCASTS, Event
from gossip.events.plane import EventPlane
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import (
    DATAGRAMS,
    FRAMES,
    Alive,
    Datagram,
    Dead,
    Left,
    Suspect,
    SyncDelta,
    SyncDigest,
    SyncEntry,
)
from gossip.membership.swim import Swim
from tests.fuzz.hostile import bit_flips, truncations
from tests.support.membership_net import Net
from tests.unit.gossip.membership.test_vectors import EXAMPLES, codec_of

ME, BOOT = 1, 5 << 32
THEM = Address("192.0.2.2", 7747)
MAX = 2**64 - 1


def machine() -> Swim[EventPlane]:
    swim = Swim(
        ME, BOOT, "me", (Address("192.0.2.1", 7747),), {}, LAN, random.Random(1), 0.0, EventPlane
    )
    feed(swim, Alive(2, 1, 1, "two", (THEM,), {}))
    return swim


def feed(swim: Swim[EventPlane], *messages: Datagram, now: float = 0.0, sender: int = 2) -> None:
    body = pack(DATAGRAMS.encode(message) for message in messages)
    swim.receive(body, sender, 1, 1, THEM, now)


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_a_machine_survives_every_mutation_of_every_message(name: str) -> None:
    codec = codec_of(type(EXAMPLES[name]))
    whole = codec.encode(EXAMPLES[name])
    swim = machine()
    now = 0.0
    for peer, data in enumerate((*truncations(whole), *bit_flips(whole)), 1000):
        now += 0.001
        if codec in (DATAGRAMS, BROADCASTS):
            swim.receive(pack([data]), 2, 1, 1, THEM, now)
            swim.receive(data, 2, 1, 1, THEM, now)
        else:
            # Each from another peer: the same one would soon not be answered any more.
            swim.frame_handlers[min(codec.tags)](data, peer, now)
        swim.wake(now)
        list(swim.effects())
    swim.wake(now + 60)
    list(swim.effects())
    itself = swim.members[ME]
    assert itself.state is MemberState.ALIVE
    assert itself.boot == BOOT


@pytest.mark.parametrize("name", ["", "x$(id)", "a b", "a\x1b[2J", "a\n", "-rf", "Küche", "a" * 64])
def test_who_has_no_name_is_not_listed(name: str) -> None:
    swim = machine()
    feed(swim, Alive(3, 1, 1, name, (THEM,), {}))
    assert 3 not in swim.members
    assert swim.counts["datagrams_dropped/malformed"] == 1


@pytest.mark.parametrize("name", ["a\0", "a\nPATH=.", "a\x9b", "a\u2028"])
def test_an_event_has_a_name_of_one_line(name: str) -> None:
    """It becomes a variable of a handler's environment."""
    with pytest.raises(Malformed):
        BROADCASTS.decode(BROADCASTS.encode(Event(2, 1, 1, 1, name, b"")))
    with pytest.raises(LimitExceeded, match="control character"):
        check(Event(2, 1, 1, 1, name, b""))


def test_random_bytes_are_counted() -> None:
    rng = random.Random(2)
    swim = machine()
    for turn in range(3000):
        junk = rng.randbytes(rng.randrange(1, 200))
        swim.receive(junk, 2, 1, 1, THEM, turn * 0.001)
        swim.receive_frame(junk, 2, turn * 0.001)
        swim.receive_delegate_frame(junk, 2, turn * 0.001)
    assert swim.counts["datagrams_dropped/malformed"] > 2500
    assert swim.counts["frames_dropped/malformed"] > 5000


def test_unknown_kinds_are_skipped_and_what_follows_is_read() -> None:
    swim = machine()
    newer = msgspec.msgpack.encode([31, "from", {"the": "future"}])
    swim.receive(
        pack([newer, DATAGRAMS.encode(Alive(3, 1, 1, "three", (), {}))]), 2, 1, 1, THEM, 0.0
    )
    assert 3 in swim.members
    assert swim.counts["messages_skipped/unknown kind"] == 1


# Numbers.


@pytest.mark.parametrize("incarnation", [2**33, 2**62, 2**63, MAX])
def test_our_incarnation_cannot_be_driven_to_its_end(incarnation: int) -> None:
    swim = machine()
    for claim in (Suspect, Dead):
        feed(swim, claim(ME, BOOT, incarnation, 2))
    feed(swim, Left(ME, BOOT, incarnation))
    feed(swim, Alive(ME, BOOT, incarnation, "x", (), {}))
    assert swim.incarnation == 1
    assert swim.counts["updates_ignored/implausible"] == 4


@pytest.mark.parametrize(
    "claim",
    [
        Dead(2, 1, MAX, 9),
        Suspect(2, MAX, 1, 9),
        Left(2, MAX, MAX),
        Alive(2, MAX, 1, "x", (), {}),
        Alive(2, 1, MAX, "x", (), {}),
    ],
)
def test_nobody_else_can_be_driven_to_the_end_either(claim: Datagram) -> None:
    swim = machine()
    feed(swim, claim)
    member = swim.members[2]
    assert (member.boot, member.incarnation, member.state) == (1, 1, MemberState.ALIVE)
    assert swim.counts["updates_ignored/implausible"] == 1


def test_a_header_cannot_jump() -> None:
    swim = machine()
    swim.receive(b"", 2, MAX, 1, THEM, 0.0)
    swim.receive(b"", 2, 1, MAX, THEM, 0.0)
    assert swim.members[2].precedence == (1, 1, 0)


def test_a_stranger_with_impossible_numbers_is_not_listed() -> None:
    swim = machine()
    feed(swim, Alive(9, 1, MAX, "x", (), {}))
    assert 9 not in swim.members


def test_a_member_that_is_pushed_can_still_refute() -> None:
    """The largest step that is believed leaves room for billions more."""
    net = Net(3)
    net.join_all()
    node, boot = net.ids[1], net.swims[1].boot
    for _ in range(20):
        incarnation = net.swims[1].incarnation + 2**31
        body = pack([DATAGRAMS.encode(Dead(node, boot, incarnation, net.ids[2]))])
        net.swims[0].receive(body, net.ids[2], net.swims[2].boot, 1, net.addresses[2], net.now)
        net.settle(0)
        net.run_until(net.agree, within_s=10)


# Sizes.


def test_addresses_that_are_none_are_not_passed_on() -> None:
    swim = machine()
    bad = (Address("example.org", 1), Address("224.0.0.1", 1), Address("fe80::1%eth0", 1))
    feed(swim, Alive(3, 1, 1, "three", (*bad, THEM), {}))
    assert swim.members[3].addresses == (THEM,)


def test_an_oversized_description_is_refused() -> None:
    swim = machine()
    tags = {str(n): "v" * 200 for n in range(6)}
    feed(swim, Alive(3, 1, 1, "three", (), tags))
    assert 3 not in swim.members
    assert swim.counts["updates_ignored/too large"] == 1


def test_a_flood_of_strangers_fills_the_list_and_no_more() -> None:
    tuning = msgspec.structs.replace(LAN, members_max=100, strangers_max=50, updates_max=80)
    swim = Swim(ME, BOOT, "me", (), {}, tuning, random.Random(1), 0.0, EventPlane)
    for node in range(2, 2000):
        feed(swim, Alive(node, 1, 1, "x", (THEM,), {}))
    assert len(swim.members) == 100
    assert len(swim._outbound.update_queue) <= 80
    assert swim.counts["members_refused/list full"] == 1998 - 99


def test_a_flood_of_questions_earns_no_flood_of_answers() -> None:
    swim = machine()
    list(swim.effects())
    for turn in range(1000):
        swim.receive(b"", 1000 + turn, 1, 1, THEM, turn * 1e-6)
        feed(swim, Suspect(ME, BOOT, 0, 9), now=turn * 1e-6)
    assert len([e for e in swim.effects() if isinstance(e, SendDatagram)]) < 10


def test_every_packet_fits_whatever_is_known() -> None:
    tags = {f"key-{n}": "v" * 100 for n in range(8)}
    net = Net(12, loss=0.1)
    for index, swim in net.swims.items():
        swim.set_tags(tags, net.now)
        net.settle(index)
    net.join_all(within_s=30)
    net.kill(3)
    net.run(30)
    assert 800 < net.largest_bytes <= BODY_BYTES_MAX


def test_however_much_is_asked_for_a_frame_at_a_time_is_sent() -> None:
    tuning = msgspec.structs.replace(LAN, members_max=4000)
    swim = Swim(ME, BOOT, "me", (), {}, tuning, random.Random(1), 0.0, EventPlane)
    tags = {f"key-{n}": "v" * 100 for n in range(8)}
    entries = tuple(
        SyncEntry(n, 1, 1, MemberState.DEAD, 1, 5, f"n{n}", (THEM,), tags) for n in range(2, 2000)
    )
    told = SyncDelta(entries, (), is_partial=False)
    swim.receive_frame(FRAMES.encode(told), 2, 0.0)
    nodes = tuple(entry.member for entry in entries)
    for ask in (SyncDigest(1, (0,), ()), SyncDelta((), nodes, is_partial=False)):
        for _ in range(50):
            swim.receive_frame(FRAMES.encode(ask), 2, 0.0)
    frames = [effect.data for effect in swim.effects() if isinstance(effect, SendFrame)]
    assert len(frames) == 2, "one for each question, the rest too soon"
    assert all(2**18 < len(data) <= 2**20 for data in frames)
    assert len(swim.members) == 1999
