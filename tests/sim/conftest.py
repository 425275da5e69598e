"""An option of the simulation's tests: which seed to replay."""

import pytest

SLICE = range(4)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer ``--seed`` to ``pytest tests/sim``."""
    group = parser.getgroup("simulation")
    group.addoption("--seed", type=int, help="run this seed alone instead of the usual slice")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that take a ``campaign_seed`` once for each seed of the slice."""
    if "campaign_seed" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--seed", None)
        metafunc.parametrize("campaign_seed", SLICE if chosen is None else [chosen])
