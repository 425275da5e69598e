"""Types commands as a person would: in this process, with a directory of the test's own."""

import io
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.cli.errors import run_to_status
from agent.cli.root import root


class Outcome(NamedTuple):
    """What a command printed where, and how it ended."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return what it printed with ``-o json``."""
        return json.loads(self.stdout)


Covey = Callable[..., Outcome]


def commands_in(directory: Path, captured: pytest.CaptureFixture[bytes]) -> Covey:
    """Return a function that runs a command with this directory; bytes may be no UTF-8.

    The directory is left out of commands in what it prints: ``test_copyable.py`` looks at that.
    """
    again = f"covey --dir {shlex.quote(str(directory))} "

    def run(*arguments: str) -> Outcome:
        status = run_to_status(root, ["--dir", str(directory), *arguments])
        printed = captured.readouterr()
        stdout = printed.out.decode(errors="surrogateescape")
        stderr = printed.err.decode().replace(again, "covey ")
        return Outcome(status, stdout.replace(again, "covey "), stderr)

    return run


def feed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: bytes) -> None:
    """Put bytes on stdin."""
    (tmp_path / "stdin").write_bytes(data)
    handle = os.open(tmp_path / "stdin", os.O_RDONLY)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(os.fdopen(handle, "rb")))
