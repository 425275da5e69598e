"""Whose files an agent's files are: always those of the owner of its data directory.

``sudo covey join`` beside a service that runs as another user would leave files that the service
cannot open. Giving them away afterwards is no way out: root that changes owners below a directory
which somebody else controls can be led to change those of any file (a hard link is enough). So
root works there as the directory's owner from the beginning, with the owner's rights and no more.

The owner may be unable to read where Covey is installed (below /root, say). A short command loads
what it needs before it gives root up; an agent, which loads code whenever it needs some, refuses.
"""

import os
from pathlib import Path

from agent.exits import NOT_PERMITTED, AgentError

ROOT = 0


def work_as_owner(directory: Path) -> None:
    """Give up root for the rest of this process if the directory belongs to somebody else.

    Without root, or where the directory is root's or is not there yet, nothing changes. Raises
    AgentError when its owner cannot work there from outside of its service.
    """
    if os.geteuid() != ROOT:
        return
    try:
        status = directory.stat()
    except OSError:
        return  # whoever makes it owns it, and meets the reason if it cannot be made
    if status.st_uid == ROOT:
        return
    os.setgroups([status.st_gid])
    os.setgid(status.st_gid)
    os.setuid(status.st_uid)
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise AgentError(
            f"{directory} belongs to the user {status.st_uid}, who can work there only within the "
            "service; nothing was changed",
            "start the service (`systemctl start covey`), then run the same command again: the "
            "running agent does the work itself",
            NOT_PERMITTED,
        )


def check_code_is_readable() -> None:
    """Raise AgentError when this user cannot load what an agent still has to load."""
    for part in (__file__, os.__file__):
        if not os.access(part, os.R_OK):
            raise AgentError(
                f"the owner of the data directory cannot read {part}; nothing was started",
                "install Covey where all users can read it, for example with `pipx install "
                "--global`, or start it as the service",
                NOT_PERMITTED,
            )
