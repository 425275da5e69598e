"""Majorities, joint ones too, and which changes of the voters are legal."""

import itertools
import random

import msgspec
import pytest

from gossip.consensus.configuration import (
    Configuration,
    Voter,
    check_target,
    decode_configuration,
    encode_configuration,
    new_store_id,
)
from gossip.core.errors import InvalidRequest


def voters(*stores: int) -> tuple[Voter, ...]:
    return tuple(Voter(store, 100 + store) for store in stores)


THREE = Configuration(voters(1, 2, 3))


def test_a_majority_of_the_voters_is_a_quorum() -> None:
    assert THREE.is_quorum({1, 2})
    assert not THREE.is_quorum({1})
    assert not THREE.is_quorum({1, 8, 9}), "who does not vote counts for nothing"
    assert not Configuration(voters(1, 2, 3, 4)).is_quorum({1, 2})
    assert not Configuration().is_quorum({1, 2}), "where nobody votes, nothing is agreed"


def test_a_joint_quorum_has_a_majority_of_either_side() -> None:
    joint = THREE.joint(Configuration(voters(3, 4, 5)))
    assert joint.is_joint
    assert not joint.is_quorum({1, 2})
    assert not joint.is_quorum({4, 5})
    assert joint.is_quorum({1, 3, 4})
    assert joint.left() == Configuration(voters(3, 4, 5))


def test_agreed_is_what_a_quorum_has_reached() -> None:
    reached = {1: 9, 2: 7, 3: 5, 4: 3, 5: 1}
    assert THREE.agreed(lambda store: reached[store]) == 7
    assert Configuration(voters(1, 2, 3, 4)).agreed(lambda store: reached[store]) == 5
    joint = THREE.joint(Configuration(voters(3, 4, 5)))
    assert joint.agreed(lambda store: reached[store]) == 3
    assert Configuration().agreed(lambda store: 9) == 0


def test_agreed_and_is_quorum_say_the_same() -> None:
    """Whatever is agreed, those who have reached it are a quorum, and of more they are none."""
    rng, stores = random.Random(1), range(1, 7)
    for _ in range(300):
        incoming = voters(*rng.sample(stores, rng.randint(1, 5)))
        outgoing = voters(*rng.sample(stores, rng.randint(0, 5)))
        configuration = Configuration(incoming, outgoing)
        reached = {store: rng.randint(1, 4) for store in stores}
        agreed = configuration.agreed(reached.__getitem__)
        assert configuration.is_quorum(s for s in stores if reached[s] >= agreed)
        assert not configuration.is_quorum(s for s in stores if reached[s] > agreed)


def test_quorums_of_successive_configurations_intersect() -> None:
    before, after = Configuration(voters(1, 2, 3)), Configuration(voters(4, 5, 6))
    joint = before.joint(after)
    stores = range(1, 7)
    groups = [set(g) for size in stores for g in itertools.combinations(stores, size)]
    for one, other in ((before, joint), (joint, after)):
        for some in filter(one.is_quorum, groups):
            for others in filter(other.is_quorum, groups):
                assert some & others


def test_members_are_named_once_and_found_by_their_store() -> None:
    joint = Configuration(voters(3, 4), voters(1, 3), voters(1))
    assert joint.members == voters(1, 3, 4)
    assert joint.member(4) == Voter(4, 104)
    assert joint.member(5) is None
    assert joint.is_voter(1), "an outgoing voter votes, though it will be a learner"
    assert not joint.left().is_voter(1)
    assert joint.voter_stores() == {1, 3, 4}


def test_a_configuration_is_the_data_of_an_entry() -> None:
    joint = Configuration(voters(3, 4), voters(1, 3), voters(1))
    assert decode_configuration(encode_configuration(joint)) == joint


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (Configuration(), "without voters"),
        (Configuration(voters(1, 2)), "two voters"),
        (Configuration(voters(*range(1, 9))), "at most 7"),
        (Configuration(voters(1), (), voters(*range(2, 7))), "at most 4"),
        (Configuration(voters(1), voters(2)), "who goes out"),
        (Configuration(voters(1, 2, 2)), "once"),
        (Configuration(voters(1), (), voters(1)), "once"),
        (Configuration((Voter(0, 1),)), "once"),
        (Configuration((Voter(1, 101), Voter(2, 101), Voter(3, 9))), "one log"),
        (Configuration((Voter(1, 9),)), "another store"),
    ],
)
def test_an_illegal_change_is_refused_with_the_rule(target: Configuration, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        check_target(THREE, target)


@pytest.mark.parametrize("stores", [(1,), (1, 2, 4), (4, 5, 6), (1, 2, 3, 4, 5)])
def test_a_legal_change_is_let_through(stores: tuple[int, ...]) -> None:
    check_target(THREE, Configuration(voters(*stores)))


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x93\x90\x90", b"\x93\x91\x91\xff\x90\x90"])
def test_other_data_is_no_configuration(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_configuration(data)


def test_a_store_id_is_never_nobodys() -> None:
    drawn = {new_store_id(random.Random(seed)) for seed in range(50)}
    assert len(drawn) == 50
    assert all(0 < store < 2**63 for store in drawn)
