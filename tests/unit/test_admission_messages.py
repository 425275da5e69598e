"""The bytes of admission: fixed for ever, and hard to upset."""

import random

import pytest

from agent.admission.messages import (
    GUEST_CODEC,
    MEMBER_CODEC,
    RELAY_CODEC,
    TAGS,
    Admission,
    Answer,
    Ask,
    Granted,
    Greeting,
    KnownPeer,
    Refused,
    TokenMade,
    TokenOrder,
    Welcome,
)
from gossip.errors import Malformed
from gossip.machine import Address

COVEY = bytes(range(16))
ADMISSION = Admission(b"id", b"secret", b"csr", 1_790_000_000_000, 1.0, "shed")
GRANTED = Granted("barn", b"crt", b"ring", b"reg", (KnownPeer(7, "pi", (Address("::1", 1),)),))

# name: (codec, message, bytes). Appended, never edited: devices in the field speak these.
VECTORS = {
    "greeting": (
        GUEST_CODEC,
        Greeting(COVEY),
        "9250c410000102030405060708090a0b0c0d0e0f",
    ),
    "welcome": (
        MEMBER_CODEC,
        Welcome(COVEY, b"ca"),
        "9351c410000102030405060708090a0b0c0d0e0fc4026361",
    ),
    "admission": (
        GUEST_CODEC,
        ADMISSION,
        "9752c4026964c406736563726574c403637372cf000001a0c4506c00cb3ff0000000000000a473686564",
    ),
    "granted": (
        MEMBER_CODEC,
        GRANTED,
        "9653a46261726ec403637274c40472696e67c40372656791" + "9307a270699192a33a3a3101",
    ),
    "refused": (MEMBER_CODEC, Refused(12, "no", "ask"), "94540ca26e6fa361736b"),
    "ask": (RELAY_CODEC, Ask(1, TokenOrder(60.0, 2)), "9358019355cb404e00000000000002"),
    "answer": (RELAY_CODEC, Answer(1, TokenMade("t")), "9359019256a174"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_the_bytes_stay(name: str) -> None:
    codec, message, expected = VECTORS[name]
    assert codec.encode(message).hex() == expected  # type: ignore[attr-defined]
    assert codec.decode(bytes.fromhex(expected)) == message  # type: ignore[attr-defined]


def test_all_tags_are_ours() -> None:
    tags = GUEST_CODEC.tags | MEMBER_CODEC.tags | RELAY_CODEC.tags
    assert tags <= set(TAGS)


@pytest.mark.parametrize("name", VECTORS)
def test_damage_is_malformed_or_decodes_but_never_raises_otherwise(name: str) -> None:
    codec, _, expected = VECTORS[name]
    data, rng = bytes.fromhex(expected), random.Random(5)
    damaged = [data[:size] for size in range(len(data))]
    for at in range(len(data)):
        for bit in range(8):
            damaged.append(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
    damaged += [rng.randbytes(rng.randrange(64)) for _ in range(500)]
    refused = 0
    for each in damaged:
        try:
            codec.decode(each)  # type: ignore[attr-defined]
        except Malformed:
            refused += 1
    assert refused > len(data), "each truncation, at least, is refused"


def test_secrets_are_not_shown() -> None:
    shown = repr(ADMISSION) + repr(GRANTED) + repr(TokenMade("covey1-secret"))
    assert "secret" not in shown
    assert "ring" not in shown
    assert "secret" not in repr(Ask(1, ADMISSION))
