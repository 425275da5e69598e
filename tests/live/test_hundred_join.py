"""A hundred agents started at once, on one switch: all see all, and nobody dies on the way."""

import time

import pytest

from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import LAN_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(600)]

MEMBERS = 100
WITHIN_S = 180.0
"""Generous: this is no measurement. Two cores start a hundred interpreters in half a minute."""
CALM_WITHIN_S = 30.0
LOOK_EVERY_S = 1.0
ASKED = 10
TOML = f"{LAN_TOML}[apps.system]\nenabled = false\n"
"""No app: a hundred more processes on a small machine would be what is measured."""


def test_a_hundred_join_at_once(networks: None) -> None:
    names = [f"node-{number}" for number in range(MEMBERS)]
    with Fleet() as fleet:
        fleet.admit(*names, toml=TOML)
        chronicle = Chronicle(fleet)
        begun = time.monotonic()
        for agent in fleet.agents.values():
            agent.launch()
        # Logs are read, because to answer a hundred questions would cost what is waited for.
        while len({(told.by, told.name) for told in chronicle.changes()}) < MEMBERS**2:
            assert time.monotonic() < begun + WITHIN_S, "not all see all"
            time.sleep(LOOK_EVERY_S)
        print(f"all have seen all after {time.monotonic() - begun:.0f} s")
        expected = dict.fromkeys(names, "alive")
        eventually(
            lambda: [agent.states() for agent in fleet.running()[:: MEMBERS // ASKED]],
            lambda views: all(view == expected for view in views),
            CALM_WITHIN_S,
            "nobody is even suspect",
        )
        assert not chronicle.deaths()
