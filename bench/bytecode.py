"""Covey's own code compiled beforehand, as pip leaves it on a device.

Where PYTHONDONTWRITEBYTECODE is set, as in many containers, each start of a checkout would compile
all of it again, and that would be most of what is measured.
"""

import compileall
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agent", "gossip", "edge_apps")


def compile_packages() -> None:
    """Write the bytecode of all our packages; what is up to date stays."""
    for package in PACKAGES:
        compileall.compile_dir(ROOT / package, quiet=1)
