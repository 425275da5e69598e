"""What an agent tells all others: which facts there are, and who may give them.

Some the agent gives by itself, without being asked: versions and capacities, which do not change
while it runs, its HTTP API, and the apps that run. What changes all the time is a reading, and the
app ``system`` publishes it. The owner gives others: in ``covey.toml``, or with ``covey facts
set``. A name of the agent's own is never given by anybody else, so that whoever reads ``covey`` or
``app/door`` knows who says so.

How facts travel, and what they may take, is in ``gossip/membership/model/facts.py``; how those of
this node come together, in ``agent/cluster/fact_publisher.py``.
"""

import os
import platform
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from agent._version import __version__
from agent.config.service_address import parse_service
from gossip.core.envelope import MAGIC_AND_VERSION
from gossip.membership.model.facts import FACT_NAME_CHARACTERS_MAX, FACT_VALUE_BYTES_MAX, flaw

WIRE_VERSION_MASK = 0x0F
COMMANDS = "commands"
"""The newest command of the control plane that this version carries out."""
HOMES = "homes"
"""Whether this version finds the keys of devices in homes of their own."""
SERVICE, APP = "service/", "app/"
API_SERVICE = f"{SERVICE}covey-api"
BUILT_IN = (
    *("covey", "wire", COMMANDS, HOMES, "profile", "python", "system", "machine"),
    *("cores", "memory_bytes", "disk_bytes", "started_at", API_SERVICE),
)

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_./-]{{0,{FACT_NAME_CHARACTERS_MAX - 1}}}")


def built_in(
    data: Path, started_at: float, profile: str, api: str = "", commands: int = 0
) -> dict[str, str]:
    """Return the facts of this agent; ``data`` is where it keeps its files.

    ``profile`` is that of the gossip, which has to be the same everywhere; ``api`` is the HTTP API
    as a service, empty where no other device reaches it; ``commands`` the newest command of the
    control plane that this version knows.

    What a machine does not tell is left out.
    """
    facts = {
        "covey": __version__,
        "wire": str(MAGIC_AND_VERSION & WIRE_VERSION_MASK),
        COMMANDS: str(commands or ""),
        HOMES: "1",
        "profile": profile,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": str(os.cpu_count() or ""),
        "memory_bytes": _memory_bytes(),
        "disk_bytes": _disk_bytes(data),
        "started_at": datetime.fromtimestamp(started_at, UTC).isoformat(timespec="seconds"),
        API_SERVICE: api,
    }
    return {name: value for name, value in facts.items() if value}


def is_agents_own(name: str) -> bool:
    """Say whether only the agent itself gives a fact of this name."""
    return name in BUILT_IN or name.startswith(APP)


def check_fact(name: str, value: str) -> None:
    """Raise ValueError for what cannot be a fact of an owner, and say why."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} cannot be a fact's name: it has 1 to {FACT_NAME_CHARACTERS_MAX} "
            "letters, digits, '_', '-', '.' and '/', and begins with a letter or digit"
        )
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name}: its value is not UTF-8") from None
    if size_bytes > FACT_VALUE_BYTES_MAX:
        raise ValueError(f"{name} takes {size_bytes} bytes, of {FACT_VALUE_BYTES_MAX} allowed")
    if name.startswith(SERVICE):
        parse_service(value)


def check_configured(facts: Mapping[str, str], services: Mapping[str, str]) -> None:
    """Raise ValueError for facts and services that the configuration may not give.

    It begins with the setting's name: ``facts: `` or ``services: ``.
    """
    for name, value in facts.items():
        if is_agents_own(name):
            raise ValueError(f"facts: {name!r} is told by the agent itself; choose another name")
        if name.startswith(SERVICE):
            raise ValueError(f"facts: {name!r} is a service; write it in [node.services]")
        _check("facts", name, value)
    for name, value in services.items():
        if is_agents_own(f"{SERVICE}{name}"):
            raise ValueError(f"services: {name!r} is told by the agent itself; choose another name")
        _check("services", f"{SERVICE}{name}", value)
    room = dict.fromkeys(BUILT_IN, "")
    if problem := flaw({**room, **facts, **service_facts(services)}):
        raise ValueError(f"facts: with those that the agent tells by itself, {problem}")


def service_facts(services: Mapping[str, str]) -> dict[str, str]:
    """Return services as facts."""
    return {f"{SERVICE}{name}": service for name, service in services.items()}


def app_facts(versions: Mapping[str, str]) -> dict[str, str]:
    """Return apps with their versions, which may be empty, as facts.

    An app whose name is too long for a fact is left out.
    """
    longest = FACT_NAME_CHARACTERS_MAX - len(APP)
    return {f"{APP}{name}": version for name, version in versions.items() if len(name) <= longest}


def _check(setting: str, name: str, value: str) -> None:
    try:
        check_fact(name, value)
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None


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
