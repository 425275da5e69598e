"""Voters are lost for good and recovered; tokens grow, and in the end all follow one agreement."""

from collections import Counter

import pytest

from tests.sim.recoveries import MUST_HAPPEN, Recoveries


def test_a_few_schedules_of_recoveries() -> None:
    assert Recoveries(3).run()["recovered"]


def test_tokens_that_go_back_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that is planted: a generation begins right behind the one that its survivor knew."""
    for module in ("gossip.consensus.storage", "gossip.control.recovery"):
        monkeypatch.setattr(f"{module}.index_of_next", lambda last, _at_s=0.0: last + 100)
    with pytest.raises(AssertionError, match="a token"):
        _run_many(30)


@pytest.mark.slow
def test_many_schedules_of_recoveries_and_none_of_it_is_vacuous() -> None:
    happened = _run_many(40)
    missing = [label for label in MUST_HAPPEN if not happened[label]]
    assert not missing, happened


def _run_many(seeds: int) -> Counter[str]:
    happened: Counter[str] = Counter()
    for seed in range(seeds):
        happened += Recoveries(seed).run()
    return happened
