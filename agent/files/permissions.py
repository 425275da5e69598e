"""Refuses files that others could have written, as sudo and ssh do.

``covey.toml`` names commands that the agent runs, and programs: whoever can write it, or put
another in its place, is the agent.
"""

import grp
import os
import pwd
import stat
from pathlib import Path

from agent.exits import BAD_CONFIG, AgentError

ROOT = 0


def check_nobody_else_writes(path: Path, data: Path, *, is_system: bool = False) -> None:
    """Raise AgentError when somebody else than root and the agent's user can change a file.

    The agent's user is that of this process; for root, which works as the owner of the ``data``
    directory, also that one. A file that is not there is sound, and so is what lies on a mount that
    nobody writes to. ``is_system``: it is the machine's, and so root's, whoever looks at it.
    """
    places = dict.fromkeys((path.parent, path.resolve().parent, path))
    if not path.exists():
        return
    trusted = {ROOT, os.geteuid()}
    if os.geteuid() == ROOT and data.is_dir():
        trusted.add(data.stat().st_uid)
    for place in places:
        if why := _who_else_writes(place, trusted):
            mine = f"make it yours alone: `chown {os.geteuid()} {place} && chmod go-w {place}`"
            roots = f"make it root's alone: `sudo chown root: {place} && sudo chmod go-w {place}`"
            raise AgentError(
                f"{why} can write {place}: what the configuration names is run; it was not used",
                roots if is_system else mine,
                BAD_CONFIG,
            )


def _who_else_writes(place: Path, trusted: set[int]) -> str:
    """Say who else can write; empty if nobody can."""
    status = place.stat()
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return ""
    if status.st_uid not in trusted:
        return f"the user {status.st_uid}"
    is_shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & stat.S_IWOTH and not is_shared:
        return "everybody"
    if status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid, status.st_uid):
        return f"the group {status.st_gid}"
    return ""


def _is_private(group: int, user: int) -> bool:
    """Say whether a group is the one that a user has for itself, as Debian makes it."""
    try:
        members = grp.getgrgid(group).gr_mem
        owner = pwd.getpwuid(user)
    except KeyError:
        return False
    return owner.pw_gid == group and set(members) <= {owner.pw_name}
