"""The command line: one command per file, each a thin client of the agent's HTTP API.

``covey`` is typed often and on slow devices, so a command imports what it needs and nothing
more: the root group (``root.py``) knows the names and the one-line helps of all commands and
loads the one that is called. ``tests/unit/house/test_imports.py`` keeps it so.

Results go to stdout, everything else to stderr; statuses are those of ``agent/exits.py``.
"""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


def main() -> None:
    """Run the command line of this process, and end the process with its status."""
    _open_standard_files()
    from agent.cli.plain_run import run_if_plain

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # real files here
    sys.excepthook = _on_unforeseen
    if (status := run_if_plain(sys.argv[1:])) is not None:
        sys.exit(status)
    from agent.cli.errors import run_to_status
    from agent.cli.root import root

    sys.exit(run_to_status(root))


def _on_unforeseen(
    kind: type[BaseException], error: BaseException, trace: "TracebackType | None"
) -> None:
    from agent.cli.errors import on_unforeseen

    on_unforeseen(kind, error, trace)


def _open_standard_files() -> None:
    """Open what our parent has closed of the standard files, and have it lead nowhere.

    Whatever is opened first would get its number otherwise, a database for instance, and then the
    words that are meant for a person, or for the log.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == number, "the lowest number that is free"
            os.set_inheritable(number, True)  # noqa: FBT003 - it is called so
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
