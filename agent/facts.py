"""What an agent tells all others about itself and its machine, without being asked.

The facts are read once, when the agent starts: they tell versions and capacities apart, which do
not change while it runs. What changes is a reading, and the app ``system`` publishes it. How facts
travel, and what they may take, is in ``gossip/membership/facts.py``.
"""

import os
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path

from agent._version import __version__
from gossip.envelope import MAGIC_AND_VERSION

WIRE_VERSION_MASK = 0x0F


def built_in(data: Path, started_at: float, profile: str) -> dict[str, str]:
    """Return the facts of this agent; ``data`` is where it keeps its files.

    ``profile`` is that of the gossip, which has to be the same everywhere.

    What a machine does not tell is left out.
    """
    facts = {
        "covey": __version__,
        "wire": str(MAGIC_AND_VERSION & WIRE_VERSION_MASK),
        "profile": profile,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": str(os.cpu_count() or ""),
        "memory_bytes": _memory_bytes(),
        "disk_bytes": _disk_bytes(data),
        "started_at": datetime.fromtimestamp(started_at, UTC).isoformat(timespec="seconds"),
    }
    return {name: value for name, value in facts.items() if value}


def _memory_bytes() -> str:
    try:
        return str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (OSError, ValueError):
        return ""


def _disk_bytes(data: Path) -> str:
    try:
        return str(shutil.disk_usage(data).total)
    except OSError:
        return ""
