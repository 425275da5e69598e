"""Whether the service would start here, found out by starting something under its restrictions.

Reading what the kernel can, and where the program lies, would be guessing: the program may be in a
home directory, which the unit hides, its interpreter may, or the directory above it is closed to
others. systemd itself knows, and says so by its own exit statuses (systemd.exec(5), "Process Exit
Codes").
"""

import os
import sys
import sysconfig
from pathlib import Path

from agent.exits import NO, NOT_FOUND, NOT_PERMITTED, AgentError
from agent.installation.files import USER
from agent.installation.system import System

# What says when a unit starts and ends, and the directories that it owns.
NO_RESTRICTION = (
    *("Type", "NotifyAccess", "ExecStart", "Restart", "RestartSec", "RestartPreventExitStatus"),
    *("WatchdogSec", "TimeoutStopSec", "StateDirectory", "StateDirectoryMode"),
    *("RuntimeDirectory", "RuntimeDirectoryMode", "RuntimeDirectoryPreserve"),
    "ConfigurationDirectory",
)
PRIVATE_USERS = "PrivateUsers=yes"
NOT_EXECUTED = 203
NO_USER = 217
SYSTEMD_FAILED = range(200, 256)


def own_program() -> Path:
    """Return the program that starts this very installation of Covey. Raises AgentError."""
    for candidate in (Path(sysconfig.get_path("scripts")) / "covey", Path(sys.argv[0]).absolute()):
        if candidate.name == "covey" and os.access(candidate, os.X_OK):
            return candidate
    raise AgentError(
        "this installation of Covey has no program called covey; nothing was changed",
        "install it with pip or pipx, and call `covey service install` by that name",
        NOT_FOUND,
    )


def needs_no_user_namespaces(restrictions: list[str], program: Path, system: System) -> bool:
    """Try the program under the unit's restrictions; say whether it starts only without one.

    That one is PrivateUsers=, for which the kernel must have user namespaces; it is then taken out
    of the list. Raises AgentError when the service could not start.
    """
    status = system.status_under(restrictions, str(program), "--version")
    if status == NO_USER and PRIVATE_USERS in restrictions:
        restrictions.remove(PRIVATE_USERS)
        status = system.status_under(restrictions, str(program), "--version")
        _check(status, program)
        return True
    _check(status, program)
    return False


def restrictions_of(unit: str) -> list[str]:
    """Return the lines of a unit that say under what restrictions its program runs."""
    service = unit.partition("[Service]\n")[2].partition("\n[")[0]
    directives = [line for line in service.splitlines() if "=" in line and line[0] != "#"]
    return [line for line in directives if line.partition("=")[0] not in NO_RESTRICTION]


def _check(status: int, program: Path) -> None:
    if status == 0:
        return
    if status in SYSTEMD_FAILED and status != NOT_EXECUTED:
        raise AgentError(
            f"systemd cannot start a service under the unit's restrictions here: it says {status}; "
            "the unit was not installed",
            "`man systemd.exec` has the list of these statuses, `journalctl -b` the reason",
            NO,
        )
    raise AgentError(
        f"the service could not run {program}: it runs as the user {USER}, and home directories "
        "are hidden from it; the unit was not installed",
        "install Covey where every user may read it: `python3 -m venv /opt/covey`, "
        "`/opt/covey/bin/pip install WHEEL`, `/opt/covey/bin/covey service install`",
        NOT_PERMITTED,
    )
