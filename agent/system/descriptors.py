"""File descriptors: as many as one may need, and the last of them for the agent's own files.

Whoever connects costs a descriptor, and without one SQLite can open no temporary file, no member
can be dialled and no app be started. So strangers do not get the last ones. That asks for no count:
the kernel gives out the lowest number that is free (POSIX, ``open``), so a connection with a high
number has all those below it taken.
"""

import contextlib
import errno
import os
import resource

ENOUGH = 65_536
"""More is of no use, and slows down programs that the agent starts: some close all there may be."""
RESERVE_MAX = 256
RESERVE_SHARE = 4
"""A quarter of all, where that is less."""
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors of a process, or of a machine, that has no descriptor left."""


def raise_limit() -> None:
    """Allow this process as many descriptors as it may allow itself, up to ``ENOUGH``.

    Many systems begin at 1,024, for programs that use select(2), of which we are none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    # A service may not be allowed to, and goes on with what its unit says.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def limit() -> int:
    """Return how many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def is_reserved(descriptor: int) -> bool:
    """Say whether a descriptor is one of the last, which are not for connections of strangers."""
    most = limit()
    return descriptor >= most - min(RESERVE_MAX, most // RESERVE_SHARE)


def are_left() -> bool:
    """Say whether there is a descriptor now, by taking one."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in SHORTAGES
    return True
