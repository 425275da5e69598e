"""A test that fails fells no other one: what it leaves behind is made whole."""

import pytest

from tests.live.harness.fleet import LOCAL_TOML, Fleet

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar", "elm")


def test_a_fleet_in_ruins_is_made_whole(fleet: Fleet) -> None:
    fleet.form_admitted(*NAMES, east=("elm",), toml=LOCAL_TOML)
    ash, birch, cedar, elm = (fleet.agents[name] for name in NAMES)
    ash.kill()
    birch.pause()
    assert elm.process
    elm.process.kill()  # it ends, and nobody has noticed
    fleet.network.unplug(cedar.at)
    fleet.network.reject_datagrams(cedar.at)
    fleet.network.lose(90)
    fleet.network.cut()
    fleet.make_whole(NAMES)
    fleet.wait_formed(10.0)
