"""The command line: one command per file, each a thin client of the agent's HTTP API.

``covey`` is typed often and on slow devices, so a command imports what it needs and nothing
more: the root group (``root.py``) knows the names and the one-line helps of all commands and
loads the one that is called. ``tests/unit/house/test_imports.py`` keeps it so.

Results go to stdout, everything else to stderr; statuses are those of ``agent/exits.py``.
"""

import sys


def main() -> None:
    """Run the command line of this process, and end the process with its status."""
    from agent.cli.errors import on_unforeseen, run_to_status
    from agent.cli.root import root

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # real files here
    sys.excepthook = on_unforeseen
    sys.exit(run_to_status(root))
