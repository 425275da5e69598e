"""Whether a node may go on with its copy: never past a majority, and never past a newer copy."""

from typing import Any

import msgspec

from agent.cluster.recovery import CopyReport, assess
from gossip.consensus.configuration import Configuration, Voter
from gossip.control.messages import CopyStanding, Hearsay
from gossip.control.requests import SurveyResult

VOTERS = Configuration((Voter(11, 1), Voter(12, 2), Voter(13, 3)))
OWN = CopyStanding(1, 0, 11, 4, 100, 100, True, False, Hearsay(0, 0, (), 0))


def standing(store: int, **other: Any) -> CopyStanding:
    return msgspec.structs.replace(OWN, store=store, **other)


def found(
    *others: tuple[int, CopyStanding],
    own: CopyStanding = OWN,
    issuers: tuple[int, ...] = (),
    forks: tuple[int, ...] = (),
    without: tuple[int, ...] = (),
) -> CopyReport:
    result = SurveyResult(own, others)
    believed = frozenset({1, 2, 3, *issuers})
    return assess(1, result, VOTERS, believed, forks, frozenset(without))


def test_one_of_three_is_no_majority_and_two_are() -> None:
    assert not found().is_alive
    assert found().newest == {1}
    assert found((2, standing(12))).is_alive, "they could elect a leader yet"
    assert found((2, standing(12))).lost_voters() == [3]


def test_who_lost_its_log_or_does_not_take_part_is_no_voter_that_is_there() -> None:
    assert not found((2, standing(99))).is_alive, "another store on the node of a voter"
    assert not found((2, standing(12, takes_part=False))).is_alive
    assert found((2, standing(12, takes_part=False))).lost_voters() == [2, 3]


def test_a_leader_that_an_issuer_follows_is_a_majority() -> None:
    """Voters that this node has not heard of yet may have elected it; they are issuers by then."""
    leads = standing(17, has_majority=True)
    assert found((7, leads), issuers=(7,)).is_alive
    hearsay = standing(17, has_majority=True, takes_part=False)
    assert not found((7, hearsay), issuers=(7,)).is_alive


def test_a_member_without_a_role_makes_no_majority_and_no_fork() -> None:
    for lie in (
        {"has_majority": True},
        {"has_majority": True, "generation": 9},
        {"store": 12},
        {"store": 13, "has_majority": True},
    ):
        assert not found((7, standing(**{"store": 17, **lie}))).is_alive, lie
    assert not found(forks=(7,)).has_forked
    assert found(forks=(7, 3)).has_forked
    assert found(forks=(7,), issuers=(7,)).has_forked
    # Nor does a voter that speaks for the store of another.
    assert not found((2, standing(13))).is_alive


def test_whom_the_operator_leaves_out_has_no_newer_copy() -> None:
    ahead = standing(17, term=9, last_index=10_000)
    assert found((7, ahead)).newest == {7}, "what is there alone would be lost: who can know"
    assert found((7, ahead), without=(7,)).newest == {1}
    assert found((7, ahead), without=(7,)).others.keys() == {7}, "it is shown all the same"


def test_the_newest_has_the_latest_generation_then_term_then_index() -> None:
    longer = standing(14, last_index=120)
    later = standing(15, term=5, last_index=90)
    after = standing(16, generation=2, term=1, last_index=50)
    assert found((4, longer)).newest == {4}
    assert found((4, longer), (5, later)).newest == {5}
    assert found((4, longer), (5, later), (6, after)).newest == {6}
    assert found((4, standing(14))).newest == {1, 4}


def test_voters_of_a_former_generation_are_no_majority_of_the_latest() -> None:
    others = (2, standing(12)), (3, standing(13)), (4, standing(14, generation=2))
    report = found(*others, issuers=(4,))
    assert not report.is_alive
    assert report.newest == {4}
    assert found(*others).is_alive, "they believe no later generation of just anybody either"


def test_of_two_recoveries_nobody_says_which_is_newer() -> None:
    own = standing(11, generation=2, origin=11)
    other = standing(12, generation=2, origin=12, last_index=900)
    assert found((2, other), own=own).newest == {1}
