"""The sealed datagram: layout, nonces, the replay window, and what strangers cannot do."""

import copy
import hashlib
import random
from typing import Any

import pytest

from gossip.core import envelope as module
from gossip.core.envelope import (
    HEADER,
    MAGIC_AND_VERSION,
    SALT_BITS,
    WINDOW_BITS,
    Envelope,
    ReplayWindow,
)
from gossip.core.errors import Forged, LimitExceeded, Malformed, RemoteError, Replayed
from gossip.core.tuning import BODY_BYTES_MAX, ENVELOPE_BYTES, PACKET_BYTES_MAX

CLUSTER = bytes(range(16))
ALICE, BOB = 0xA11CE, 0xB0B
BOOT = 1 << 32 | 7


class FakeAead:
    """Shows its plaintext and remembers its nonces: what a test needs, and no cipher at all."""

    def __init__(self, name: object, nonces: set[Any]) -> None:
        self.name = name
        self.nonces = nonces

    def tag(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        return hashlib.sha256(repr((self.name, nonce, data, aad)).encode()).digest()[:16]

    def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        assert (self.name, nonce) not in self.nonces, "a nonce was used twice"
        self.nonces.add((self.name, nonce))
        return data + self.tag(nonce, data, aad)

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        if data[-16:] != self.tag(nonce, data[:-16], aad):
            raise Forged("the tag does not fit")
        return data[:-16]


class FakeSuite:
    def __init__(self, secret: str = "secret", key_ids: tuple[int, ...] = (5,)) -> None:
        self.secret = secret
        self.key_ids = key_ids
        self.primary = key_ids[0]
        self.nonces: set[Any] = set()
        self.asked = 0
        self.salts = 0

    def salt(self) -> int:
        self.salts += 1
        return self.salts

    def aead(self, key_id: int, sender: int, boot: int) -> FakeAead | None:
        self.asked += 1
        if key_id not in self.key_ids:
            return None
        return FakeAead((self.secret, key_id, sender, boot), self.nonces)


def pair(**changes: Any) -> tuple[Envelope, Envelope]:
    suite = FakeSuite()
    alice = Envelope(CLUSTER, ALICE, BOOT, suite)
    options: dict[str, Any] = {
        "cluster_id": CLUSTER,
        "me": BOB,
        "boot": BOOT,
        "suite": suite,
    } | changes
    return alice, Envelope(**options)


def test_what_is_sealed_opens() -> None:
    alice, bob = pair()
    opened = bob.open(alice.seal(b"body", incarnation=3))
    assert (opened.sender, opened.boot, opened.incarnation, opened.body) == (
        ALICE,
        BOOT,
        3,
        b"body",
    )


def test_the_layout_is_the_documented_one() -> None:
    alice, _ = pair()
    alice.seal(b"", 1)
    packet = alice.seal(b"body", incarnation=3, epoch=9, mark=0xABCD)
    fields = [
        "c1",
        "00000005",
        "00000000000a11ce",
        "0000000100000007",
        "0000000002",
        "000002",  # the second salt that FakeSuite draws
        "0000000000000003",
        "00000009",
        "0000abcd",
        b"body".hex(),
    ]
    assert packet[:-16].hex() == "".join(fields)
    assert len(packet) == ENVELOPE_BYTES + 4


def test_two_packets_never_share_a_nonce() -> None:
    suite = FakeSuite()
    for boot in (BOOT, BOOT + 1):
        for me in (ALICE, BOB):
            sealer = Envelope(CLUSTER, me, boot, suite)
            for _ in range(50):
                sealer.seal(b"same", 1)
    assert len(suite.nonces) == 200


def test_a_body_that_does_not_fit_is_refused_before_it_uses_up_a_counter() -> None:
    alice, bob = pair()
    with pytest.raises(LimitExceeded, match=str(BODY_BYTES_MAX)):
        alice.seal(bytes(BODY_BYTES_MAX + 1), 1)
    packet = alice.seal(bytes(BODY_BYTES_MAX), 1)
    assert len(packet) == PACKET_BYTES_MAX
    assert HEADER.unpack_from(packet)[-1] >> SALT_BITS == 1
    assert len(bob.open(packet).body) == BODY_BYTES_MAX


def test_a_packet_opens_once() -> None:
    alice, bob = pair()
    packet = alice.seal(b"body", 1)
    bob.open(packet)
    with pytest.raises(Replayed):
        bob.open(packet)


def test_packets_may_overtake_each_other() -> None:
    alice, bob = pair()
    packets = [alice.seal(str(n).encode(), 1) for n in range(300)]
    random.Random(5).shuffle(packets)
    assert len({bob.open(packet).body for packet in packets}) == 300


def test_what_fell_out_of_the_window_is_refused() -> None:
    alice, bob = pair()
    packets = [alice.seal(b"", 1) for _ in range(WINDOW_BITS + 1)]
    bob.open(packets[-1])
    with pytest.raises(Replayed):
        bob.open(packets[0])
    bob.open(packets[1])


def test_another_life_has_a_window_of_its_own() -> None:
    suite = FakeSuite()
    bob = Envelope(CLUSTER, BOB, BOOT, suite)
    first = Envelope(CLUSTER, ALICE, BOOT, suite)
    second = Envelope(CLUSTER, ALICE, BOOT + 1, suite)
    for _ in range(3):
        bob.open(first.seal(b"", 1))
    assert bob.open(second.seal(b"new", 1)).body == b"new"
    assert bob.windows == 2


def test_our_own_packet_coming_back_is_a_replay() -> None:
    alice, _ = pair()
    with pytest.raises(Replayed, match="our own"):
        alice.open(alice.seal(b"", 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster_id": bytes(16)},
        {"suite": FakeSuite(secret="another")},
        {"suite": FakeSuite(key_ids=(6,))},
    ],
    ids=["another covey", "another secret", "unknown key"],
)
def test_what_is_not_ours_does_not_open_and_leaves_nothing(changes: dict[str, Any]) -> None:
    alice, bob = pair(**changes)
    with pytest.raises(Forged):
        bob.open(alice.seal(b"body", 1))
    assert bob.windows == 0


def test_every_flipped_bit_and_every_truncation_is_refused_and_changes_nothing() -> None:
    alice, bob = pair()
    packet = alice.seal(b"some body", 1)
    for at in range(len(packet) * 8):
        forged = bytearray(packet)
        forged[at // 8] ^= 1 << at % 8
        with pytest.raises((Malformed, Forged)):
            bob.open(bytes(forged))
    for length in range(len(packet)):
        with pytest.raises((Malformed, Forged)):
            bob.open(packet[:length])
    assert bob.windows == 0
    assert bob.open(packet).body == b"some body"


def test_a_forged_counter_does_not_move_the_window() -> None:
    alice, bob = pair()
    first, second = alice.seal(b"1", 1), alice.seal(b"2", 1)
    far = HEADER.pack(MAGIC_AND_VERSION, 5, ALICE, BOOT, 10**15) + first[HEADER.size :]
    bob.open(first)
    with pytest.raises(Forged):
        bob.open(far)
    assert bob.open(second).body == b"2"


def test_a_replay_is_refused_before_any_key_is_derived() -> None:
    suite = FakeSuite()
    alice, bob = (Envelope(CLUSTER, node, BOOT, suite) for node in (ALICE, BOB))
    packet = alice.seal(b"", 1)
    bob.open(packet)
    before = suite.asked
    with pytest.raises(Replayed):
        bob.open(packet)
    assert suite.asked == before


def test_random_bytes_are_refused() -> None:
    rng = random.Random(9)
    _, bob = pair()
    for _ in range(2000):
        junk = rng.randbytes(rng.randrange(1600))
        with pytest.raises(RemoteError):
            bob.open(bytes([MAGIC_AND_VERSION]) + junk if rng.random() < 0.5 else junk)
    assert bob.windows == 0


def test_the_number_of_windows_is_bounded_and_the_silent_go_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WINDOWS_MAX", 3)
    suite = FakeSuite()
    bob = Envelope(CLUSTER, BOB, BOOT, suite)
    talker = Envelope(CLUSTER, ALICE, BOOT, suite)
    packet = talker.seal(b"", 1)
    bob.open(packet)
    for sender in range(1, 10):
        bob.open(Envelope(CLUSTER, sender, BOOT, suite).seal(b"", 1))
        bob.open(talker.seal(b"", 1))
    assert bob.windows == 3
    with pytest.raises(Replayed):
        bob.open(packet)


def test_a_new_primary_key_is_used_at_once() -> None:
    suite = FakeSuite(key_ids=(5, 6))
    alice, bob = (Envelope(CLUSTER, node, BOOT, suite) for node in (ALICE, BOB))
    suite.primary = 6
    packet = alice.seal(b"", 1)
    assert HEADER.unpack_from(packet)[1] == 6
    bob.open(packet)


def test_the_window_agrees_with_a_set() -> None:
    """Against the plain definition: new, and less than a window's width below the highest."""
    rng = random.Random(3)
    window, seen, highest = ReplayWindow(), {0}, 0
    for _ in range(5000):
        counter = max(0, highest + rng.randrange(-2 * WINDOW_BITS, 40))
        if rng.random() < 0.01:
            counter = highest + rng.randrange(1, 3 * WINDOW_BITS)
        expected = counter not in seen and counter > highest - WINDOW_BITS
        assert window.is_new(counter) == expected
        if expected:
            window.admit(counter)
            seen.add(counter)
            highest = max(highest, counter)


@pytest.mark.interpreted
def test_a_life_that_goes_on_twice_uses_no_nonce_twice() -> None:
    """A snapshot of a machine, or of a process: both have the same key, and count on from there."""
    suite = FakeSuite()
    alice, bob = Envelope(CLUSTER, ALICE, BOOT, suite), Envelope(CLUSTER, BOB, BOOT, suite)
    alice.seal(b"before", 1)
    twin = copy.copy(alice)
    sent = [alice.seal(b"one", 1), twin.seal(b"another", 1), twin.seal(b"third", 1)]
    assert [HEADER.unpack_from(each)[-1] >> SALT_BITS for each in sent] == [2, 2, 3]
    assert len(suite.nonces) == 4, "FakeAead would have refused a second use"
    assert bob.open(sent[0]).body == b"one"
    with pytest.raises(Replayed):  # of one count, one packet is heard: which of the two is chance
        bob.open(sent[1])
    assert bob.open(sent[2]).body == b"third"


def test_an_empty_count_is_malformed_whatever_its_salt() -> None:
    _, bob = pair()
    header = HEADER.pack(MAGIC_AND_VERSION, 5, ALICE, BOOT, (1 << SALT_BITS) - 1)
    with pytest.raises(Malformed):
        bob.open(header + bytes(ENVELOPE_BYTES))
