"""Voters grow and heal while nodes crash, are cut off and lose logs, and while leaders die."""

from collections import Counter

import pytest

from tests.sim.voters import MUST_HAPPEN, Growth


def test_a_few_schedules_of_growth() -> None:
    assert Growth(4).run()["grown"]


@pytest.mark.slow
def test_many_schedules_of_growth_and_none_of_it_is_vacuous() -> None:
    happened: Counter[str] = Counter()
    for seed in (*range(1, 21), 38):  # `make soak-voters` runs many more
        happened += Growth(seed).run()
    missing = [label for label in MUST_HAPPEN if not happened[label]]
    assert not missing, happened
