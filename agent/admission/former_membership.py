"""What is left of a membership: the note that a node left or was removed, and files set aside.

``covey leave`` is meant to last: neither a service manager that restarts whatever ends, nor a
reboot, may bring a device back into a covey that its owner took it out of. So the wish is on disk
before anybody is told, and each start reads it.

With ``--forget`` the identity and the databases move to ``former/``, where whoever wants them back
finds them whole, readings that had not been delivered included. A node that was removed deletes
what it held for others, unless some of that may be on it alone (``RemovedNode.spared``); its
identity, and its own readings, stay. Its copies of shared keys lie in ``removed/`` for a day first,
for ``covey salvage``: what one owner alone had acknowledged may be nowhere else.
"""

import time
from enum import StrEnum
from itertools import chain, count
from pathlib import Path

from agent.config.paths import Paths
from agent.exits import NOT_PERMITTED, AgentError
from agent.files.directories import make_directory
from agent.files.private_files import DIRECTORY_MODE, replace_private, sync_directory

REMOVED_KEPT_S = 86_400.0


class FormerMembership(StrEnum):
    """How a node left its covey."""

    STAYS_AWAY = "stays away"
    """Until it is told to come back, as itself."""
    FORGETS = "forgets"
    """For good: the identity is to be set aside, which happens before the next start."""
    REMOVED = "removed"
    """For good, and not by its own wish. All is kept until it joins a covey as a new node."""


def record_parting(paths: Paths, parting: FormerMembership) -> None:
    """Write down that this node has left; it is on disk when this returns. Raises AgentError."""
    try:
        replace_private(paths.parting, f"{parting}\n".encode())
    except OSError as error:
        raise _not_done(paths, error) from None


def record_removal(paths: Paths, *, wipes: bool) -> None:
    """Write down that this node was removed, and whether it is to delete what it held.

    Raises AgentError.
    """
    if wipes:
        try:
            replace_private(paths.wipe_mark, b"")
        except OSError as error:
            raise _not_done(paths, error) from None
    record_parting(paths, FormerMembership.REMOVED)


def wipe(paths: Paths) -> bool:
    """Let go of what this node held for others, if it is to; tell whether. Raises AgentError.

    Shared keys go to ``removed/``, all else is deleted. Nobody may have the files open. Cut off in
    the middle, the next start goes on with it.
    """
    if recorded_parting(paths) is not FormerMembership.REMOVED or not paths.wipe_mark.exists():
        return False
    held = (paths.consensus_db, paths.fleet_settings, paths.run_mark)
    try:
        make_directory(paths.removed, DIRECTORY_MODE)
        for file in sorted(paths.data.glob(f"{paths.data_db.name}*")):
            file.replace(paths.removed / file.name)
        sync_directory(paths.removed)
        for file in [file for each in held for file in paths.data.glob(f"{each.name}*")]:
            file.unlink(missing_ok=True)
        sync_directory(paths.data)
        paths.wipe_mark.unlink()
        sync_directory(paths.data)
    except OSError as error:
        raise _not_done(paths, error) from None
    return True


def discard_removed(paths: Paths, now_s: float) -> bool:
    """Delete what was let go of more than a day ago; tell whether. Raises AgentError.

    By the clock of this device: one that is behind keeps it for longer.
    """
    try:
        if now_s - paths.removed.stat().st_mtime < REMOVED_KEPT_S:
            return False
        for file in paths.removed.iterdir():
            file.unlink(missing_ok=True)
        paths.removed.rmdir()
        sync_directory(paths.data)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _not_done(paths, error) from None
    return True


def recorded_parting(paths: Paths) -> FormerMembership | None:
    """Return how this node left, None when it did not. Raises AgentError."""
    try:
        text = paths.parting.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _not_done(paths, error) from None
    # Whatever else stands there, somebody wanted out.
    known = (FormerMembership.FORGETS, FormerMembership.REMOVED)
    return FormerMembership(text) if text in known else FormerMembership.STAYS_AWAY


def withdraw_parting(paths: Paths) -> None:
    """Have this node belong again. Raises AgentError."""
    try:
        paths.parting.unlink(missing_ok=True)
        sync_directory(paths.data)
    except OSError as error:
        raise _not_done(paths, error) from None


def set_aside(paths: Paths, now_s: float | None = None) -> Path:
    """Move identity, databases and what the covey has set away; return where. Raises AgentError.

    The identity goes last: cut off in the middle, the next start goes on with it.
    """
    target = _free_place(paths.data / "former", now_s)
    databases = (paths.control_db, paths.consensus_db, paths.data_db, paths.telemetry_db)
    # With their logs, notes and copies, which would be taken for those of the next ones.
    kept = (*databases, paths.audit_db, paths.fleet_settings, paths.run_mark)
    files = [file for each in kept for file in sorted(paths.data.glob(f"{each.name}*"))]
    try:
        make_directory(target.parent, DIRECTORY_MODE)
        make_directory(target, DIRECTORY_MODE)
        for each in (*files, paths.identity):
            if each.exists():
                each.rename(target / each.name)
        sync_directory(target)
        sync_directory(paths.data)
    except OSError as error:
        raise _not_done(paths, error) from None
    withdraw_parting(paths)
    return target


def _free_place(former: Path, now_s: float | None) -> Path:
    """Return a directory that is not there yet: a clock that stands wrong may repeat itself."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    names = (f"{stamp}{suffix}" for suffix in chain([""], map("-{}".format, count(2))))
    return next(former / name for name in names if not (former / name).exists())


def _not_done(paths: Paths, error: OSError) -> AgentError:
    return AgentError(
        f"{error.filename or paths.data}: {error.strerror}; this node is part of its covey as "
        "before",
        "check that the disk has space and that the agent's user may write there",
        NOT_PERMITTED,
    )
