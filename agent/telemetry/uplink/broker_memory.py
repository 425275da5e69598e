"""What each broker turned out to speak, kept over restarts of the agent.

One small file, ``<data>/uplink.json``. Losing it costs a few seconds at the next connection, so
it is not synced, and whatever is wrong with it counts as nothing known.
"""

import logging
from pathlib import Path

import msgspec

from agent.telemetry.uplink.version_fallback import Spoken

BROKERS_MAX = 32

log = logging.getLogger(__name__)


class BrokerMemory:
    """Brokers by ``HOST:PORT``; without a path, nothing outlives the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._brokers = _read(path) if path else {}

    def recall(self, broker: str) -> Spoken | None:
        """Return what a broker spoke when it was last reached."""
        return self._brokers.get(broker)

    def record(self, broker: str, spoken: Spoken) -> None:
        """Remember it, if it is new. Blocks for as long as a small file takes; never raises."""
        before = self._brokers.pop(broker, None)
        self._brokers[broker] = spoken
        while len(self._brokers) > BROKERS_MAX:
            del self._brokers[next(iter(self._brokers))]
        if self._path is None or (before and before.version == spoken.version == "5"):
            return
        if before != spoken:
            self._write(self._path)

    def _write(self, path: Path) -> None:
        beside = path.with_name(f"{path.name}.new")
        try:
            beside.write_bytes(msgspec.json.encode(self._brokers))
            beside.replace(path)
        except OSError as error:
            log.info("What the broker speaks is not remembered: %s", error)


def _read(path: Path) -> dict[str, Spoken]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Spoken])
    except (OSError, msgspec.DecodeError, RecursionError):
        return {}
