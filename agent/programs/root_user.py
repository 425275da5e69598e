"""Programs as users of their own, started by a root that gives itself up for each.

Each name gets a number of the range that systemd uses for its dynamic users, which nobody else has,
and a directory of that owner. The owner of the directory is the memory: a name that had a number
keeps it, and nothing ever changes owners below a directory that somebody else controls.
``setpriv(1)`` changes the user, and leaves neither groups nor capabilities, nor a way to new ones.
"""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.files.directories import make_directory
from agent.programs.child import AsThisUser, Ends, Launch, Process

USERS = range(61184, 65520)
"""systemd's range of dynamic users (systemd.exec(5), "DynamicUser=")."""
HOME_MODE, PARENT_MODE = 0o700, 0o711
TRIAL_S = 30.0
INTERPRETER = (sys.executable, "-P", "-c")
TRIAL = """
import os, sys
sys.base_prefix == sys.argv[2] or sys.exit("another Python")
import edge_apps
os.access(sys.argv[1], os.X_OK) or sys.exit("shut")
"""
"""An interpreter whose own library is shut to a user starts with another's, if there is one."""


class AsOwnUsers:
    """Starts each program as a user of its own; ``homes`` has their directories."""

    def __init__(self, homes: Path) -> None:
        self._homes = homes
        self._starter = AsThisUser()

    async def start(self, launch: Launch, ends: Ends) -> Process:
        """Start a program with these files. Raises OSError."""
        user, home = self._user(launch.name)
        own = {"HOME": str(home), "TMPDIR": str(home), "USER": launch.name, "LOGNAME": launch.name}
        environment = {**launch.environment, **own}
        command = as_user(user, launch.command)
        return await self._starter.start(Launch(launch.name, command, environment, home), ends)

    def _user(self, name: str) -> tuple[int, Path]:
        """Return the number and the directory of a program. Raises OSError."""
        make_directory(self._homes, PARENT_MODE)
        home = self._homes / name
        if not home.exists():
            self._make(home)
        return home.stat(follow_symlinks=False).st_uid, home

    def _make(self, home: Path) -> None:
        taken = {each.stat(follow_symlinks=False).st_uid for each in self._homes.iterdir()}
        user = next(user for user in USERS if user not in taken and not _is_somebody(user))
        make_directory(home, HOME_MODE)
        os.chown(home, user, user, follow_symlinks=False)


def as_user(user: int, command: Sequence[str]) -> tuple[str, ...]:
    """Return the command that runs another as this user, with no more rights than it has."""
    given = (f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs")
    nothing = ("--inh-caps=-all", "--bounding-set=-all")
    return ("setpriv", *given, *nothing, "--", *command)


def why_not(directory: Path) -> str:
    """Say why this agent cannot give programs users of their own; empty if it can.

    ``directory`` is one that they have to enter.
    """
    if os.geteuid() != 0:
        return "the agent does not run as root"
    if shutil.which("setpriv") is None:
        return "setpriv (util-linux) is not installed"
    command = as_user(USERS[0], (*INTERPRETER, TRIAL, str(directory), sys.base_prefix))
    try:
        done = subprocess.run(  # noqa: S603 - nothing in it is anybody else's
            command, capture_output=True, timeout=TRIAL_S, cwd="/", check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"setpriv cannot be run ({error})"
    if done.returncode:
        return f"another user cannot run {sys.executable}, or cannot enter {directory}"
    return ""


def _is_somebody(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True
