"""What the kernel says of where the power comes from."""

from pathlib import Path

import pytest

from agent.system.power import is_on_battery, is_to_be_spared

BATTERY, MAINS = {"type": "Battery", "status": "Discharging"}, {"type": "Mains", "online": "1"}


@pytest.mark.parametrize(("supplies", "expected"), [
    ({}, False),
    ({"BAT0": BATTERY}, True),
    ({"BAT0": {**BATTERY, "status": "Charging"}}, False),
    ({"BAT0": BATTERY, "AC": {**MAINS, "online": "0"}}, True),
    ({"BAT0": BATTERY, "AC": MAINS}, False),
    ({"BAT0": BATTERY, "usb": {"type": "USB", "online": "1"}}, False),
    ({"hid": {"type": "Battery"}, "AC": MAINS}, False),
    ({"odd": {"status": "Discharging"}}, False),
])  # fmt: skip
def test_a_battery_counts_while_it_is_used_up(
    tmp_path: Path, supplies: dict[str, dict[str, str]], *, expected: bool
) -> None:
    for name, told in supplies.items():
        (tmp_path / name).mkdir()
        for file, text in told.items():
            (tmp_path / name / file).write_text(f"{text}\n")
    assert is_on_battery(tmp_path) is expected


def test_where_nobody_tells_there_is_no_battery(tmp_path: Path) -> None:
    assert not is_on_battery(tmp_path / "nothing")


def test_on_a_link_that_is_paid_for_the_power_does_not_matter() -> None:
    assert is_to_be_spared("metered")
