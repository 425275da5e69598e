"""Whether this device runs on its battery, as the kernel tells it, or is to be spared anyway."""

from contextlib import suppress
from pathlib import Path

SUPPLIES = Path("/sys/class/power_supply")
PLUGGED = ("Mains", "USB")


def is_on_battery(supplies: Path = SUPPLIES) -> bool:
    """Tell whether a battery is being used up, and nothing is plugged in; False if nobody knows."""
    told = [_told(each) for each in sorted(supplies.glob("*"))]
    if any(kind in PLUGGED and online == "1" for kind, online, _ in told):
        return False
    return any(kind == "Battery" and status == "Discharging" for kind, _, status in told)


def is_to_be_spared(profile: str) -> bool:
    """Tell whether each byte costs battery or money; ``profile`` is that of the gossip."""
    return profile == "metered" or is_on_battery()


def _told(supply: Path) -> tuple[str, str, str]:
    return _read(supply / "type"), _read(supply / "online"), _read(supply / "status")


def _read(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""
