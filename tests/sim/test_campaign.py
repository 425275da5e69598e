"""A slice of the campaign in every test run; ``tests/sim/campaign.py`` runs the long ones."""

from collections import Counter
from functools import cache

import pytest

from gossip.sim import campaign

VARIED = range(12)
"""So many seeds show everything that the campaign is for."""


@cache
def report(seed: int) -> campaign.Report:
    try:
        return campaign.run(seed)
    except Exception as error:
        error.add_note(f"replay: python tests/sim/campaign.py --seed {seed}")
        raise


def test_seed(campaign_seed: int) -> None:
    assert report(campaign_seed).events > 0


@pytest.mark.slow
def test_the_slice_is_not_vacuous(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--seed", None) is not None:
        return
    counts: Counter[str] = Counter()
    for seed in VARIED:
        counts.update(report(seed).counts)
    assert not campaign.vacuous(counts)


def test_a_run_is_decided_by_its_seed() -> None:
    first = report(0)
    again = campaign.run(0)
    assert again == first
    assert campaign.run(1).counts != first.counts
