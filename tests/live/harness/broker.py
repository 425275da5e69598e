"""Debian's Mosquitto on a host of its own, and a collector that writes down all that arrives.

The broker is made to keep what it acknowledges, as far as it can: a covey's promise ends where
the broker's begins.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.live.harness.network import Host
from tests.live.harness.waiting import eventually
from tests.support.patience import GIVE_UP_S

PORT = 1883
ROOT = Path(__file__).resolve().parents[3]
STARTED_WITHIN_S = 10.0

CONFIGURATION = """
listener {port}
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
max_queued_messages 0
queue_qos0_messages true
user root
"""


class Mosquitto:
    """A broker process that can be killed and started again with its disk."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        self._file.write_text(CONFIGURATION.format(port=PORT, folder=folder))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the broker."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.host.enter(), "mosquitto", "-c", str(self._file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        """End the broker as a power cut would."""
        assert self._process, "the broker does not run"
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(GIVE_UP_S)
        self._process = None

    def close(self) -> None:
        """End the broker if it runs."""
        if self._process:
            self.kill()


class Collector:
    """A subscriber with a session that outlives its connections; keeps every arrival in order."""

    def __init__(self, host: Host, broker: Host, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "arrivals.ndjson"
        self._file.touch()
        self._process = subprocess.Popen(
            [*host.enter(), sys.executable, "-m", "tests.live.harness.collector",
             broker.ipv4, str(PORT), str(self._file)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def _events(self) -> Iterator[dict[str, Any]]:
        for line in self._file.read_text().splitlines():
            if line.endswith("}"):  # the last one may be half written
                yield json.loads(line)

    def subscriptions(self) -> int:
        """Return how often the collector has connected and subscribed."""
        return sum("subscribed" in event for event in self._events())

    def wait_subscribed(self, times: int) -> None:
        """Wait until the collector has subscribed this many times in all."""
        eventually(
            self.subscriptions, lambda seen: seen >= times, STARTED_WITHIN_S, "collector subscribed"
        )

    def arrivals(self) -> list[dict[str, Any]]:
        """Return the payloads in the order of their arrival."""
        return [event["payload"] for event in self._events() if "payload" in event]

    def close(self) -> None:
        """End the collector."""
        self._process.kill()
        self._process.wait(GIVE_UP_S)
