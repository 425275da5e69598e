"""Thirty agents started at once, on one switch: all see all, and nobody dies on the way.

How long a hundred take is what `make bench-membership` measures. Here it only has to come true.
"""

import pytest

from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import LAN_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.alone]

MEMBERS = 30
ALL_SEE_ALL_S = 60.0
"""Two cores start thirty interpreters in ten seconds, if they have nothing else to do."""
CALM_WITHIN_S = 30.0
ASKED = 10
TOML = f"{LAN_TOML}[apps.system]\nenabled = false\n"
"""No app: thirty more processes on a small machine would be what is measured."""


def test_thirty_join_at_once(networks: None) -> None:
    names = [f"node-{number}" for number in range(MEMBERS)]
    with Fleet() as fleet:
        fleet.admit(*names, toml=TOML)
        chronicle = Chronicle(fleet)
        for agent in fleet.agents.values():
            agent.launch()
        # Logs are read, because to answer all the questions would cost what is waited for.
        eventually(
            lambda: len({(told.by, told.name) for told in chronicle.changes()}),
            lambda views: views == MEMBERS**2,
            ALL_SEE_ALL_S,
            "all have seen all",
        )
        expected = dict.fromkeys(names, "alive")
        eventually(
            lambda: [agent.states() for agent in fleet.running()[:: MEMBERS // ASKED]],
            lambda views: all(view == expected for view in views),
            CALM_WITHIN_S,
            "nobody is even suspect",
        )
        assert not chronicle.deaths()
