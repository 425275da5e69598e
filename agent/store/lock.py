"""The lock of a data directory: one agent, or one command that does an agent's work, at a time.

Two agents on one directory would both write its databases and speak with one identity. A lock
on a file keeps the second away; the kernel gives it up when the process ends, however it ends.
"""

import errno
import fcntl
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.config.paths import Paths
from agent.exits import NO, NOT_PERMITTED, AgentError

FULL = "the disk of {} is full", "make room there"
OF_THE_DISK = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: (
        "the disk of {} is read-only",
        "mount it for writing (see `dmesg` for why it is not: a card may be worn out)",
    ),
    errno.EIO: ("the disk of {} reports an error", "see `dmesg` for its own words"),
}
KIND, PLACE = 1, 5
"""Where a line of /proc/locks has the kind of the lock, and device and inode of its file."""


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Hold the lock of the data directory. Raises AgentError when another agent does."""
    try:
        handle = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot_write(paths, error) from None
    try:
        _lock(handle, paths)
        with suppress(OSError):  # a courtesy to whoever comes second; a full disk may refuse it
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def is_held(paths: Paths) -> bool:
    """Say whether somebody holds the lock, without touching it: a try would get in an agent's way.

    Linux lists all locks (proc_locks(5)): ``1: FLOCK  ADVISORY  WRITE 4711 08:01:131077 0 EOF``.
    """
    try:
        inode = str(paths.lock.stat().st_ino)
        held = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    fields = (line.split() for line in held)
    return any(
        len(field) > PLACE and field[KIND] == "FLOCK" and field[PLACE].split(":")[-1] == inode
        for field in fields
    )


def _lock(handle: int, paths: Paths) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 20, 0).decode(errors="replace").strip()
        raise AgentError(
            f"an agent already runs on {paths.data} (process {owner}); it was left alone",
            "give each agent its own directory with --dir PATH, or stop the other: "
            "`systemctl stop covey` for the service, Ctrl-C for one in a terminal",
            NO,
        ) from None


def _cannot_write(paths: Paths, error: OSError) -> AgentError:
    """Say what is wrong; a disk may be better later, and a service tries again then."""
    if error.errno in OF_THE_DISK:
        what, hint = OF_THE_DISK[error.errno]
        return AgentError(
            f"{what.format(paths.data)}; nothing was changed",
            f"{hint}, or choose another directory with --dir PATH",
            NO,
        )
    return AgentError(
        f"cannot write in {paths.data}: {error.strerror}; nothing was changed",
        "run as the directory's owner, or choose another with --dir PATH; its mode has to let the "
        f"owner in: `chmod u+rwx {shlex.quote(str(paths.data))}`",
        NOT_PERMITTED,
    )
