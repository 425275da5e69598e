"""What every benchmark prints: the machine, a table for people, one line of JSON for programs."""

import datetime as dt
import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def machine() -> str:
    """Return processor, cores, memory, kernel and Python in one line."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    total = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    gibibytes = int(total.group(1)) / 2**20 if total else 0
    return (
        f"{cpu.group(1) if cpu else platform.machine()}, {os.cpu_count()} cores, "
        f"{gibibytes:.0f} GiB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}"
    )


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table, ready for docs/BENCHMARKS.md."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|---" + "|---:" * (len(head) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(_written(cell) for cell in row) + " |")


def _written(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def finish(name: str, figures: dict[str, Any]) -> None:
    """Print where and when this was measured, and the figures as the last line."""
    today = dt.datetime.now(dt.UTC).date().isoformat()
    print(f"\n{today}, {machine()}\n")
    print(json.dumps({"bench": name, "date": today, "machine": machine(), **figures}))
