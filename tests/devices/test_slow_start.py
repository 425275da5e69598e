"""systemd waits for an agent that has much to mend, also longer than its unit lets it start."""

import json
from collections.abc import Callable

import pytest

from tests.devices.rig.card import PROGRAM
from tests.devices.rig.device import Device

pytestmark = [pytest.mark.devices]

READINGS = 200_000
FILL = f"""python3 -c '
for n in range({READINGS}):
    print("temp,room=%d value=%d.5" % (n % 10, n))
' | covey publish --format influx"""
STORE = "/var/lib/covey/telemetry.db"
MICROSECONDS = 1_000_000


def took_s(device: Device) -> float:
    """Return how long the last start took, from the process to READY=1."""
    begun, ended = "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic"
    return (int(device.unit(ended)) - int(device.unit(begun))) / MICROSECONDS


def took_again_s(device: Device) -> float:
    """Start it once more, and return how long that took."""
    device.run("systemctl restart covey")
    return took_s(device)


def waiting(device: Device) -> int:
    """Return how many readings wait."""
    status = json.loads(device.run("covey status -o json"))
    return int(status["outbox"]["waiting"])


def test_a_start_that_mends_much_is_not_cut_off(device: Callable[..., Device]) -> None:
    """Two usual starts are what the unit allows; the file is read row by row, and that is more."""
    fir = device("fir")
    fir.run(f"{PROGRAM} init barn && {PROGRAM} service install --now")
    fir.run(FILL)
    allowed_s = 2 * min(took_again_s(fir) for _ in range(3))  # others may be at work meanwhile
    fir.run(f"systemctl stop covey; dd if=/dev/zero of={STORE} bs=100 count=1 conv=notrunc")
    fir.run("mkdir -p /etc/systemd/system/covey.service.d")
    fir.copy_in(
        f"[Service]\nTimeoutStartSec={allowed_s * 1000:.0f}ms\n",
        "/etc/systemd/system/covey.service.d/short.conf",
    )
    fir.run("systemctl daemon-reload; systemctl start covey")
    assert took_s(fir) > allowed_s, "it mended too fast to show anything"
    assert fir.unit("NRestarts") == "0", "systemd has ended no start"
    assert "telemetry.db was damaged" in fir.journal()
    assert waiting(fir) == READINGS
