"""How to install a package beside Covey, into the environment that Covey runs from."""

import shlex
import sys
from pathlib import Path


def install_command(package: str, prefix: Path | None = None, python: str = sys.executable) -> str:
    """Return what a person types to install a package into the environment at ``prefix``.

    pipx and uv keep a file of their own in the environments that they made; uv's have no pip.
    """
    prefix = Path(sys.prefix) if prefix is None else prefix
    if (prefix / "pipx_metadata.json").exists():
        return f"pipx inject {shlex.quote(prefix.name)} {package}"
    if (prefix / "uv-receipt.toml").exists():
        return shlex.join(["uv", "pip", "install", "--python", python, package])
    return shlex.join([python, "-m", "pip", "install", package])
