"""A Raft group under trouble: a slice of the campaign, and a scenario for each rule that needs one.

``python -m tests.sim.consensus_campaign`` runs the long ones.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache

import pytest

from gossip.consensus.raft import Raft
from tests.sim import consensus
from tests.sim.consensus_scenarios import SCENARIOS

FAST = range(4)
VARIED = range(60)
"""So many seeds show everything that the campaign is for."""


@cache
def report(seed: int) -> consensus.Report:
    try:
        return consensus.run(seed)
    except Exception as error:
        error.add_note(f"replay: python -m tests.sim.consensus_campaign --seed {seed}")
        raise


@pytest.mark.parametrize("seed", FAST)
def test_seed(seed: int) -> None:
    assert report(seed).events > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(len(FAST), len(VARIED)))
def test_more_seeds(seed: int) -> None:
    assert report(seed).events > 0


@pytest.mark.slow
def test_the_slice_is_not_vacuous() -> None:
    counts: Counter[str] = Counter()
    for seed in VARIED:
        counts.update(report(seed).counts)
    assert not consensus.vacuous(counts)


def test_a_run_is_decided_by_its_seed() -> None:
    first = report(0)
    assert consensus.run(0) == first
    assert report(1).counts != first.counts


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_scenario(scenario: Callable[[], None]) -> None:
    scenario()


def test_a_failure_detector_has_no_seat() -> None:
    """Whoever may speak to a machine is listed here; of those who guess it takes two hints.

    Lies about these come in the campaign (``lies``). Neither adds or takes a vote.
    """
    told = {name for name, each in vars(Raft).items() if callable(each) and name[0] != "_"}
    by_applications = {"propose", "read", "change", "transfer", "applied", "compacted"}
    by_its_driver = {"receive", "persisted", "wake", "deadline", "effects", "hold_back"}
    hints = {"forget_leader", "peer_unreachable"}
    assert told == by_applications | by_its_driver | hints | {"status"}
