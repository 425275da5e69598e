"""How to install a package beside Covey, into the environment that Covey runs from."""

import os
import shlex
import sys
from pathlib import Path


def install_command(package: str, prefix: Path | None = None, python: str = sys.executable) -> str:
    """Return what a person types to install a package into the environment at ``prefix``.

    pipx and uv keep a file of their own in the environments that they made; uv's have no pip. Who
    calls pipx is taken to mean the environments of their home, PIPX_HOME/venvs/NAME.
    """
    prefix = Path(sys.prefix) if prefix is None else prefix
    if (prefix / "pipx_metadata.json").exists():
        inject = shlex.join(["pipx", "inject", prefix.name, package])
        home = prefix.parents[1]
        is_own = home.is_relative_to(os.path.expanduser("~"))  # noqa: PTH111 - raises where no home is
        return inject if is_own else f"sudo PIPX_HOME={shlex.quote(str(home))} {inject}"
    if (prefix / "uv-receipt.toml").exists():
        return shlex.join(["uv", "pip", "install", "--python", python, package])
    return shlex.join([python, "-m", "pip", "install", package])
