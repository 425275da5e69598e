"""Runs a command of this work tree in a Debian that has Python, pip and make, and nothing else.

::

    python -m tests.devices.bare bookworm make demo CHECK=1
    python -m tests.devices.bare --privileged trixie make test

The command sees a copy of the tree as a clone of it would be, in a directory of its own, as root,
with the machine's network. Its output is shown as it comes, each line behind the seconds since the
clone, and its status is ours.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.devices.rig.debian import BARE, ROOT, SUITES, tree
from tests.devices.rig.podman import LIMITS, Podman, missing, ways_out

SOURCE = "/home/covey"
USAGE = 2
PRIVILEGED = "--privileged"
"""Root in a container may usually make no network namespaces; with this it may."""


def run(suite: str, command: Sequence[str], options: Sequence[str] = ()) -> int:
    """Run a command in a bare Debian, with more options of podman; return its exit status."""
    rootfs = tree(suite, BARE)
    with contextlib.closing(Podman()) as podman, tempfile.TemporaryDirectory() as source:
        begun = time.monotonic()
        clone(Path(source))
        words = podman.words(
            "run", "--rm", *LIMITS, *ways_out(), *options,
            "--volume", f"{source}:{SOURCE}", "--workdir", SOURCE,
            "--rootfs", f"{rootfs}:O", *command,
        )  # fmt: skip
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout is not None, "a pipe was asked for"
            for line in process.stdout:
                print(f"{time.monotonic() - begun:6.1f} s | {line}", end="", flush=True)
        return process.returncode


def clone(place: Path) -> None:
    """Copy all files that git knows or would take, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # a file that was just removed is still listed
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)


def main() -> int:
    """Read the command line; return the exit status."""
    _, *words = sys.argv
    options = [words.pop(0)] if words[:1] == [PRIVILEGED] else []
    if len(words) < 2 or words[0] not in SUITES:
        print(
            f"usage: python -m tests.devices.bare [{PRIVILEGED}] {{{','.join(SUITES)}}} COMMAND ..."
        )
        return USAGE
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    return run(words[0], words[1:], options)


if __name__ == "__main__":
    sys.exit(main())
