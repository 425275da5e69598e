"""The app ``system`` on fixture trees of /proc and /sys, and once on this machine."""

from pathlib import Path
from typing import Any

import pytest

from edge_apps.builtin import system
from edge_apps.builtin.system import Counters, levels, rates, read_counters
from edge_apps.testing import AppHarness

PI = {
    "proc/stat": "cpu  1000 20 300 8000 600 0 40 40 0 0\ncpu0 1 2 3\nbtime 1\n",
    "proc/loadavg": "0.42 0.30 0.20 1/150 4242\n",
    "proc/uptime": "86400.50 300000.00\n",
    "proc/meminfo": "MemTotal:  1000000 kB\nMemFree: 1 kB\nMemAvailable:  750000 kB\n"
    "SwapTotal: 100000 kB\nSwapFree: 90000 kB\n",
    "proc/net/dev": "Inter-|   Receive                |  Transmit\n"
    " face |bytes packets errs drop fifo frame compressed multicast|bytes packets\n"
    "    lo: 999 9 0 0 0 0 0 0 999 9 0 0 0 0 0 0\n"
    "  eth0: 5000 50 0 0 0 0 0 0 700 7 0 0 0 0 0 0\n"
    " wlan0:    0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def measured(root: Path) -> dict[str, float]:
    return {one.sensor: one.value for one in levels(root, [])}


def test_reads_what_a_raspberry_pi_has(tmp_path: Path) -> None:
    assert measured(tree(tmp_path, PI)) == {
        "system/load": 0.42,
        "system/uptime": 86400.5,
        "system/memory": 25.0,
        "system/swap": 10.0,
        "system/temperature/cpu-thermal": 48.3,
    }


def test_an_empty_machine_measures_nothing(tmp_path: Path) -> None:
    assert measured(tmp_path) == {}
    assert read_counters(tmp_path, 7.0) == Counters(7.0, 0, 0, {}, {})
    assert list(rates(read_counters(tmp_path, 0.0), read_counters(tmp_path, 10.0))) == []


def test_counts_of_processor_and_network(tmp_path: Path) -> None:
    counters = read_counters(tree(tmp_path, PI), 5.0)
    assert counters == Counters(5.0, 1400, 10000, {"eth0": 5000}, {"eth0": 700})


def test_rates_are_differences_over_time() -> None:
    before = Counters(100.0, 1000, 10000, {"eth0": 5000, "gone": 1}, {"eth0": 700, "gone": 1})
    after = Counters(110.0, 1250, 11000, {"eth0": 9000, "new": 1}, {"eth0": 700, "new": 1})
    assert {one.sensor: (one.value, one.unit) for one in rates(before, after)} == {
        "system/cpu": (25.0, "%"),
        "system/network/eth0/received": (400.0, "B/s"),
        "system/network/eth0/sent": (0.0, "B/s"),
    }


def test_counters_that_go_back_are_left_out() -> None:
    before = Counters(100.0, 1000, 10000, {"eth0": 5000}, {"eth0": 700})
    after = Counters(110.0, 10, 100, {"eth0": 50}, {"eth0": 900})
    assert [one.sensor for one in rates(before, after)] == ["system/network/eth0/sent"]
    assert list(rates(before, before)) == []


@pytest.mark.parametrize("content", ["", "not a number", "-274000", "999000"])
def test_a_thermometer_that_is_none(tmp_path: Path, content: str) -> None:
    files = {**PI, "sys/class/thermal/thermal_zone0/temp": content}
    assert "system/temperature/cpu-thermal" not in measured(tree(tmp_path, files))


def test_chips_count_where_there_are_no_zones(tmp_path: Path) -> None:
    files = {
        "sys/class/hwmon/hwmon0/name": "coretemp",
        "sys/class/hwmon/hwmon0/temp1_input": "51000",
        "sys/class/hwmon/hwmon0/temp1_label": "Package id 0",
        "sys/class/hwmon/hwmon0/temp2_input": "49500",
    }
    assert measured(tree(tmp_path, files)) == {
        "system/temperature/coretemp-package-id-0": 51.0,
        "system/temperature/coretemp-temp2": 49.5,
    }


def test_disks(tmp_path: Path) -> None:
    (tmp_path / "var/lib").mkdir(parents=True)
    found = {one.sensor: one for one in levels(tmp_path, ["/", "/var/lib", "/nowhere"])}
    assert set(found) == {"system/disk/root", "system/disk/var-lib"}
    assert all(0 <= one.value <= 100 and one.unit == "%" for one in found.values())


def test_the_app_publishes_rates_from_the_second_round(tmp_path: Path) -> None:
    options: dict[str, Any] = {"root": str(tree(tmp_path, PI)), "disks": []}
    harness = AppHarness(system.app, options)
    harness.run(10)
    assert not harness.values("system/cpu")
    (tmp_path / "proc/stat").write_text("cpu  1500 20 300 8500 600 0 40 40 0 0\n")
    harness.run(10)
    assert harness.values("system/cpu") == [50.0]
    assert harness.values("system/network/eth0/sent") == [0.0]


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux")
def test_this_machine_has_a_processor_memory_and_a_disk() -> None:
    harness = AppHarness(system.app)
    harness.run(10)
    found = {reading.sensor for reading in harness.published}
    assert {"system/load", "system/uptime", "system/memory", "system/disk/root"} <= found
