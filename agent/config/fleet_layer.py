"""What the covey has set for this device: a layer between the defaults and the device's own file.

The agent follows the settings of the fleet (``agent/cluster/fleet_settings.py``) and keeps those
that are for this device in ``fleet.json``, so that a start without any other member is as the last
one. What this device's own ``covey.toml`` or environment says wins: whoever stands before a device
has the last word about it.

Only some settings can be set for a fleet. None of them names a file, a command, an address to
listen on or who this node is: a mistake in one line must not lock a thousand devices out, and who
writes settings does not thereby run commands everywhere.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.text.suggestions import did_you_mean
from gossip.core.errors import InvalidRequest

FOR_FLEETS = (
    "gossip.profile",
    "gossip.bytes_per_day",
    "voters.settle",
    "state.durability",
    "state.missing_after",
    "state.transfers_in",
    "state.transfers_out",
    "state.transfer_bytes_per_s",
    "flash.bytes_per_hour",
    "log.level",
    "log.format",
    "uplink.host",
    "uplink.port",
    "uplink.tls",
    "uplink.username",
    "uplink.topic",
    "uplink.payload",
    "uplink.qos",
    "uplink.version",
    "uplink.window",
    "uplink.keepalive",
    "telemetry.waiting_max",
    "telemetry.keep_delivered",
    "events.timeout",
    "events.concurrency",
    "queries.timeout",
    "queries.concurrency",
)
"""The settings that can be set for many devices at once."""
WHERE_SECRETS_GO = frozenset({"uplink.host", "uplink.port", "uplink.tls"})
"""Of these, those that say who is shown a device's password: an administrator sets them."""
APPLIED_AT_ONCE = frozenset({"log.level"})
"""Of these, those that a running agent takes over; all others wait for its next start."""
FILE_BYTES_MAX = 256 * 1024


class SetForFleet(msgspec.Struct, frozen=True):
    """A setting as text, and the scope that gave it: ``all``, ``tag:K=V`` or ``node:NAME``."""

    text: str
    scope: str


class KeptSettings(msgspec.Struct, frozen=True):
    """What holds for this device as of a revision of the control plane."""

    revision: int = 0
    settings: dict[str, SetForFleet] = {}


def check_name(name: str) -> None:
    """Raise InvalidRequest for a setting that cannot be set for a fleet."""
    if name not in FOR_FLEETS:
        others = f"these can: {', '.join(FOR_FLEETS)}. All others are set on the device"
        hint = did_you_mean(name, FOR_FLEETS, others)
        raise InvalidRequest(f"{name!r:.80} cannot be set for a fleet; {hint}")


def read_layer(path: Path) -> KeptSettings:
    """Return what was kept; nothing if it cannot be read: it comes again."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(FILE_BYTES_MAX), type=KeptSettings)
    except (OSError, msgspec.DecodeError, RecursionError):
        return KeptSettings()


def write_layer(path: Path, layer: KeptSettings) -> None:
    """Keep a layer, whole or not at all. Raises OSError."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        file.write(msgspec.json.encode(layer))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def known(settings: Mapping[str, SetForFleet]) -> dict[str, SetForFleet]:
    """Return those that this version lets a fleet set: another version may have set more."""
    found = {}
    for name, given in settings.items():
        with contextlib.suppress(InvalidRequest):
            check_name(name)
            found[name] = given
    return found
