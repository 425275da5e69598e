"""An authority follows another where both have signed so, one step after the other."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.identity.trust import REGISTRY_CONTEXT, Trust, is_signed
from gossip.core.errors import Forged, Malformed
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import Registry, found, retire, succeed
from gossip.registry.succession import (
    SUCCESSIONS_MAX,
    Authority,
    Succession,
    are_linked,
    follow,
    statement,
)

COVEY = bytes(range(16))
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([each]) * 32) for each in range(1, 9)]
AUTHORITIES = [
    Authority(number, key.public_key().public_bytes_raw(), b"certificate %d" % number)
    for number, key in enumerate(KEYS)
]


def step(
    former: int, following: int, by: int | None = None, authority: Authority | None = None
) -> Succession:
    """Return that one authority follows another, signed by the former, or by another key."""
    one, other = AUTHORITIES[former], authority or AUTHORITIES[following]
    told = statement(COVEY, one, other)
    signer = KEYS[former if by is None else by]
    return Succession(one, other, signer.sign(told), KEYS[following].sign(told))


STEPS = tuple(step(each, each + 1) for each in reversed(range(4)))
"""From 0 to 4, newest first."""


def founded() -> Registry:
    return found(COVEY, RegisteredNode(1, "ash", serials=(bytes(20),)), partitions=4)


def led(registry: Registry, *steps: Succession) -> Registry:
    for each in steps:
        registry = retire(succeed(registry, each))
    return registry


def signed(registry: Registry, by: int) -> tuple[bytes, bytes]:
    payload = registry.encode()
    return payload, KEYS[by].sign(REGISTRY_CONTEXT + payload)


def test_who_trusts_any_of_the_chain_comes_to_its_end() -> None:
    for number in range(5):
        assert follow(AUTHORITIES[number], STEPS, COVEY, is_signed) == AUTHORITIES[4]
    assert follow(AUTHORITIES[2], (), COVEY, is_signed) == AUTHORITIES[2]


@pytest.mark.parametrize(
    ("steps", "covey"),
    [
        ((step(0, 1, by=5),), COVEY),  # somebody else signed for the former
        ((msgspec.structs.replace(step(0, 1), by_next=bytes(64)),), COVEY),  # no proof of the key
        ((step(1, 2),), COVEY),  # a step is missing
        ((step(0, 1),), bytes(16)),  # of another covey
        ((step(5, 1),), COVEY),  # from somebody whom nobody trusts
        ((step(0, 2),), COVEY),  # a number is left out
    ],
)
def test_what_was_not_signed_by_both_leads_nowhere(
    steps: tuple[Succession, ...], covey: bytes
) -> None:
    with pytest.raises(Forged):
        follow(AUTHORITIES[0], steps, covey, is_signed)


def test_who_has_followed_one_refuses_its_rival() -> None:
    """The key was stolen before the roll-over: both statements are signed as they should be."""
    rival = Authority(1, KEYS[6].public_key().public_bytes_raw(), b"rival")
    told = statement(COVEY, AUTHORITIES[0], rival)
    theirs = Succession(AUTHORITIES[0], rival, KEYS[0].sign(told), KEYS[6].sign(told))
    assert follow(AUTHORITIES[0], (theirs,), COVEY, is_signed) == rival, "before it heard of ours"
    trust = Trust(COVEY, [AUTHORITIES[1]])
    payload, signature = signed(led(founded(), theirs), 6)
    assert not trust.verify_registry(payload, signature)


def test_registries_count_under_the_newest_alone() -> None:
    trust = Trust(COVEY, [AUTHORITIES[0]])
    overlapping = succeed(founded(), step(0, 1))
    assert trust.verify_registry(*signed(founded(), 0))
    assert trust.verify_registry(*signed(overlapping, 1))
    assert not trust.verify_registry(*signed(overlapping, 0)), "the next one signs it"
    assert trust.adopt(overlapping)
    assert trust.authorities == (AUTHORITIES[1], AUTHORITIES[0])
    assert not trust.verify_registry(*signed(founded(), 0)), "the former has no say any more"
    assert not trust.adopt(overlapping)
    assert trust.adopt(retire(overlapping))
    assert trust.authorities == (AUTHORITIES[1],)


def test_who_was_away_for_four_of_them_follows_and_for_five_does_not() -> None:
    five = led(founded(), *(step(each, each + 1) for each in range(5)))
    assert len(five.successions) == SUCCESSIONS_MAX
    assert Trust(COVEY, [AUTHORITIES[1]]).verify_registry(*signed(five, 5))
    assert not Trust(COVEY, [AUTHORITIES[0]]).verify_registry(*signed(five, 5))


def test_the_end_of_the_overlap_leaves_the_new_serials_alone() -> None:
    nodes = (
        RegisteredNode(1, "ash", serials=(b"n" * 20, b"o" * 20), authority=1),
        RegisteredNode(2, "birch", serials=(b"b" * 20,), authority=0),
    )
    overlapping = msgspec.structs.replace(succeed(founded(), step(0, 1)), nodes=nodes)
    assert [entry.name for entry in overlapping.uncertified] == ["birch"]
    assert [entry.serials for entry in retire(overlapping).nodes] == [nodes[0].serials, ()]


def test_a_registry_whose_authorities_do_not_follow_each_other_is_malformed() -> None:
    assert are_linked(STEPS)
    gap = msgspec.structs.replace(founded(), successions=(STEPS[0], STEPS[2]))
    nobody = msgspec.structs.replace(founded(), overlaps=True)
    for registry in (gap, nobody):
        with pytest.raises(Malformed):
            Registry.decode(registry.encode())
