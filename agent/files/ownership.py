"""Whose files an agent's files are: always those of the owner of its data directory.

``sudo covey join`` beside a service that runs as another user would leave files that the service
cannot open. Giving them away afterwards is no way out: root that changes owners below a directory
which somebody else controls can be led to change those of any file (a hard link is enough). So
root works there as the directory's owner from the beginning, with the owner's rights and no more.
A directory that is not there yet will belong to the owner of the one that it is to be made in:
whoever may write there has to open it later.

The owner may be unable to read where Covey is installed (below /root, say). A short command loads
what it needs before it gives root up; an agent, which loads code whenever it needs some, refuses.
"""

import os
import shlex
import stat
from pathlib import Path

from agent.exits import NOT_PERMITTED, AgentError
from agent.files.directories import make_directory

ROOT = 0
RUNTIME_MODE = 0o750
"""As the unit makes it: open to the owner's group, and so is the socket in it."""


def work_as_owner(directory: Path, runtime: Path | None = None) -> None:
    """Give up root for the rest of this process if the directory belongs to somebody else.

    Of one that is not there yet, the nearest above it tells whose it will be. ``runtime`` is made
    for the owner where only root can, as in /run. Without root, or where the directory is root's,
    nothing changes. Raises AgentError when its owner cannot work there from outside of its service.
    """
    if os.geteuid() != ROOT:
        return
    there = _nearest(directory)
    status = there.stat()
    if status.st_uid == ROOT:
        return
    if runtime is not None and _is_roots_alone(runtime.parent) and not runtime.exists():
        make_directory(runtime, RUNTIME_MODE)
        os.chown(runtime, status.st_uid, status.st_gid)
    os.setgroups([status.st_gid])
    os.setgid(status.st_gid)
    os.setuid(status.st_uid)
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise _shut(there, status)


def _is_roots_alone(directory: Path) -> bool:
    """Say whether nobody but root can put anything in a place that root has just looked at."""
    try:
        status = directory.stat()
    except OSError:
        return False
    return status.st_uid == ROOT and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _shut(directory: Path, status: os.stat_result) -> AgentError:
    """Return the error for a directory whose owner cannot work there."""
    belongs = f"{directory} belongs to the user {status.st_uid}"
    if status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        return AgentError(
            f"{belongs}, whom its mode keeps out; nothing was changed",
            f"open it to its owner: `chmod u+rwx {shlex.quote(str(directory))}`",
            NOT_PERMITTED,
        )
    return AgentError(
        f"{belongs}, who can work there only within the service; nothing was changed",
        "start the service (`systemctl start covey`), then run the same command again: the "
        "running agent does the work itself",
        NOT_PERMITTED,
    )


def _nearest(directory: Path) -> Path:
    """Return the directory, or the first one above it that is there."""
    return next(each for each in (directory, *directory.parents) if each.is_dir())


def check_code_is_readable() -> None:
    """Raise AgentError when this user cannot load what an agent still has to load."""
    for part in (__file__, os.__file__):
        if not os.access(part, os.R_OK):
            raise AgentError(
                f"the owner of the data directory cannot read {part}; nothing was started",
                "install Covey where all users can read it, as with `python3 -m venv /opt/covey`, "
                "or start it as the service",
                NOT_PERMITTED,
            )
