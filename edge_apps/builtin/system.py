"""Built-in app ``system``: what the machine under the agent is doing.

Everything comes from the kernel's own files in ``/proc`` and ``/sys`` (proc(5), and
``Documentation/admin-guide/thermal`` and ``hwmon`` of the kernel), so nothing needs to be
installed or compiled. What a machine does not have is left out: a virtual machine without a
thermometer publishes no temperature, rather than a zero that looks like a measurement.

Options in ``[apps.system.options]``: ``disks = ["/"]``, the mount points to watch;
``root = "/"``, the directory that holds ``proc`` and ``sys``, for an agent in a container that sees
its host's under ``/host``.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edge_apps.app import App, Context

PERCENT, CELSIUS, SECONDS, BYTES_PER_SECOND = "%", "C", "s", "B/s"
# A thermal zone that reads below or above this is not connected; the kernel has no error for it.
TEMPERATURES_C = (-60.0, 200.0)
IDLE, IOWAIT, GUEST = 3, 4, 8  # columns of the line "cpu" in proc(5); guest is part of user
RECEIVED, SENT = 0, 8  # columns of /proc/net/dev

app = App("system")


class Measured(NamedTuple):
    """One value, before it is a reading."""

    sensor: str
    value: float
    unit: str = ""


class Counters(NamedTuple):
    """Counts since the machine started; two of them, and the time between, make rates."""

    time_s: float
    cpu_busy: int
    cpu_total: int
    received: dict[str, int]
    sent: dict[str, int]


@app.every("10s")
def sample(context: Context) -> None:
    """Publish everything that this machine can tell."""
    root = Path(context.options.get("root", "/"))
    disks = context.options.get("disks", ["/"])
    for measured in levels(root, disks):
        context.publish(measured.sensor, measured.value, unit=measured.unit)
    counters = read_counters(root, context.time())
    before = context.scratch.get("counters")
    context.scratch["counters"] = counters
    if before is not None:
        for measured in rates(before, counters):
            context.publish(measured.sensor, measured.value, unit=measured.unit)


def levels(root: Path, disks: list[str]) -> Iterator[Measured]:
    """Yield what can be read at one moment."""
    if load := _words(root / "proc/loadavg"):
        yield Measured("system/load", float(load[0]))
    if uptime := _words(root / "proc/uptime"):
        yield Measured("system/uptime", float(uptime[0]), SECONDS)
    yield from _memory(root)
    for mount in disks:
        yield from _disk(root, mount)
    yield from _temperatures(root)


def rates(before: Counters, after: Counters) -> Iterator[Measured]:
    """Yield what needs two moments; a counter that went back (a new driver) is left out."""
    total = after.cpu_total - before.cpu_total
    busy = after.cpu_busy - before.cpu_busy
    if 0 <= busy <= total and total:
        yield Measured("system/cpu", round(100 * busy / total, 1), PERCENT)
    seconds = after.time_s - before.time_s
    if seconds <= 0:
        return
    for direction, old, new in (
        ("received", before.received, after.received),
        ("sent", before.sent, after.sent),
    ):
        for name in sorted(old.keys() & new.keys()):
            if new[name] >= old[name]:
                speed = round((new[name] - old[name]) / seconds, 1)
                yield Measured(
                    f"system/network/{_level(name)}/{direction}", speed, BYTES_PER_SECOND
                )


def read_counters(root: Path, time_s: float) -> Counters:
    """Return the counts at ``time_s``; zeros and empty dicts where there are none."""
    cpu = [int(word) for word in _words(root / "proc/stat")[1 : GUEST + 1]]
    idle = sum(cpu[IDLE : IOWAIT + 1])
    received: dict[str, int] = {}
    sent: dict[str, int] = {}
    for line in _lines(root / "proc/net/dev"):
        name, colon, numbers = line.partition(":")
        counts = [int(word) for word in numbers.split()] if colon else []
        # An interface that never carried anything is not in use.
        if counts and name.strip() != "lo" and counts[RECEIVED] + counts[SENT]:
            received[name.strip()] = counts[RECEIVED]
            sent[name.strip()] = counts[SENT]
    return Counters(time_s, sum(cpu) - idle, sum(cpu), received, sent)


def _memory(root: Path) -> Iterator[Measured]:
    kibibytes = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in _lines(root / "proc/meminfo"))
        if rest.split()
    }
    total, available = kibibytes.get("MemTotal"), kibibytes.get("MemAvailable")
    if total and available is not None:
        yield Measured("system/memory", round(100 * (1 - available / total), 1), PERCENT)
    swap = kibibytes.get("SwapTotal")
    if swap:
        yield Measured("system/swap", round(100 * (1 - kibibytes["SwapFree"] / swap), 1), PERCENT)


def _disk(root: Path, mount: str) -> Iterator[Measured]:
    try:
        status = os.statvfs(root / mount.lstrip("/"))
    except OSError:
        return
    # As df(1): the blocks that are kept for root count as neither used nor free.
    usable = status.f_blocks - status.f_bfree + status.f_bavail
    if usable:
        used = round(100 * (1 - status.f_bavail / usable), 1)
        yield Measured(f"system/disk/{_level(mount.strip('/')) or 'root'}", used, PERCENT)


def _temperatures(root: Path) -> Iterator[Measured]:
    """Yield the thermal zones; the chips of hwmon only where there are no zones.

    Both often show the same diode, under different names.
    """
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*"))
    found = [(_text(zone / "type") or zone.name, zone / "temp") for zone in zones]
    if not found:
        chips = sorted(root.glob("sys/class/hwmon/hwmon*/temp*_input"))
        found = [(_chip_name(chip), chip) for chip in chips]
    seen: set[str] = set()
    for name, file in found:
        celsius = _millidegrees(file)
        if celsius is not None and name not in seen:
            seen.add(name)
            yield Measured(f"system/temperature/{_level(name)}", celsius, CELSIUS)


def _chip_name(file: Path) -> str:
    label = _text(file.with_name(file.name.replace("_input", "_label")))
    chip = _text(file.parent / "name") or file.parent.name
    return f"{chip} {label or file.name.removesuffix('_input')}"


def _millidegrees(file: Path) -> float | None:
    try:
        celsius = int(_text(file)) / 1000
    except ValueError:
        return None
    lowest, highest = TEMPERATURES_C
    return round(celsius, 1) if lowest <= celsius <= highest else None


def _level(name: str) -> str:
    """Return a name as one level of a sensor's name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-").lower()


def _lines(file: Path) -> list[str]:
    return _text(file).splitlines()


def _words(file: Path) -> list[str]:
    """Return the words of the first line."""
    return next(iter(_lines(file)), "").split()


def _text(file: Path) -> str:
    """Return a small file's text; empty when it is absent or the sensor behind it fails."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
