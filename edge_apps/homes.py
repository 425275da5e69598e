"""What ``~`` at the beginning of a path stands for, also for users who have no home.

A service's user may have neither ``HOME`` nor an entry in the list of users. ``Path.expanduser``
raises a RuntimeError then, out of whatever command it was; here the path stays as it is written,
and whoever opens it says that there is no such file.
"""

from pathlib import Path


def expanded(path: "str | Path") -> Path:
    """Return a path with ``~`` and ``~name`` replaced, if these are known."""
    written = Path(path)
    try:
        return written.expanduser()
    except RuntimeError:
        return written
