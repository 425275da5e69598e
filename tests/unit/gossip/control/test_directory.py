"""Whom to ask: what is believed of who leads, and for how long it is not."""

import pytest

from gossip.control.directory import REFUTED_MAX, VoterDirectory
from gossip.control.messages import Hearsay

ME, ANNE, BOB = 1, 2, 3


@pytest.fixture
def directory() -> VoterDirectory:
    return VoterDirectory(ME, lambda: ())


def leads(node: int, term: int = 5) -> Hearsay:
    return Hearsay(node, term, (ANNE, BOB), 1)


def test_whoever_could_not_help_is_not_believed_to_lead_at_once(directory: VoterDirectory) -> None:
    """A voter that stands for election and names itself was asked at network speed."""
    assert directory.learn(leads(ANNE))
    directory.failed(ANNE)
    assert not directory.learn(leads(ANNE))
    assert directory.leader is None


def test_two_that_name_each_other_in_two_terms_are_asked_once_each(
    directory: VoterDirectory,
) -> None:
    named = 0
    for leader, term in ((ANNE, 5), (BOB, 4)) * 10:
        named += directory.learn(leads(leader, term))
        directory.failed(leader)
    assert named == 2


def test_a_term_has_one_leader(directory: VoterDirectory) -> None:
    """Two that name each other in one term, one of which lies, are not asked for ever."""
    named = sum(directory.learn(leads(leader)) for leader in (ANNE, BOB) * 10)
    assert named == 2


def test_it_is_believed_again_in_a_later_term_and_after_a_time(directory: VoterDirectory) -> None:
    directory.learn(leads(ANNE))
    directory.failed(ANNE)
    assert directory.learn(leads(ANNE, term=6))
    directory.failed(ANNE)
    directory.forgive()
    assert directory.learn(leads(ANNE, term=6))


def test_nobody_is_believed_that_we_lead(directory: VoterDirectory) -> None:
    assert not directory.learn(leads(ME))
    assert directory.leader is None


def test_what_is_not_believed_is_bounded(directory: VoterDirectory) -> None:
    for node in range(2, 10 * REFUTED_MAX):
        directory.learn(leads(node))
        directory.failed(node)
    assert len(directory._refuted) <= REFUTED_MAX


def test_who_leads_itself_goes_on_believing_it(directory: VoterDirectory) -> None:
    """Only its own log says so, and says it once: its own slow answer is no reason to forget it."""
    directory.follow(ME, 5)
    directory.failed(ME)
    assert directory.leader == ME
