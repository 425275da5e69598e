"""Trees of Debian, made by debootstrap from the machine's own mirror.

A tree is a directory with a whole Debian in it, without a kernel. It is never written to: each
container lays its own changes over it (``podman.py``), so that a device starts in a moment and
every one of them starts from the same card. What is in a tree is in its name, so a changed list of
packages makes a new one. They lie in ``.cache/debian``, until ``make clean``.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache" / "debian"
DEBOOTSTRAP_TIMEOUT_S = 900

SUITES = ("bookworm", "trixie")
# What the README asks for, and nothing else: Python 3, pip (it comes with venv) and make.
BARE = ("python3", "python3-venv", "make", "ca-certificates")
# A small device: systemd is its first process, and people on it have rights by sudo.
DEVICE = (
    *("systemd", "systemd-sysv", "dbus", "sudo", "iproute2"),
    *("python3", "python3-venv", "ca-certificates"),
)
# Made by apt on the way; what a tree takes is what each build of an image has to copy.
LEFTOVERS = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale")


def tree(suite: str, packages: Sequence[str]) -> Path:
    """Return a tree of this suite with these packages, made unless it is there. Needs root."""
    key = hashlib.blake2b(" ".join(sorted(packages)).encode(), digest_size=4).hexdigest()
    place = CACHE / f"{suite}-{key}"
    if place.is_dir():
        return place
    staged = CACHE / f"{place.name}.{os.getpid()}"
    try:
        _debootstrap(suite, packages, staged)
        staged.rename(place)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return place


def _debootstrap(suite: str, packages: Sequence[str], place: Path) -> None:
    place.mkdir(parents=True)
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}",
         suite, place, mirror()],
        capture_output=True, text=True, check=False, timeout=DEBOOTSTRAP_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"debootstrap {suite}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    for leftover in LEFTOVERS:
        for each in (place / leftover).glob("*"):
            is_file = each.is_symlink() or not each.is_dir()
            each.unlink() if is_file else shutil.rmtree(each)


def mirror() -> str:
    """Return the address that this machine's apt gets its packages from."""
    sources = Path("/etc/apt")
    for path in [*sources.glob("sources.list.d/*.sources"), *sources.glob("sources.list*")]:
        text = path.read_text() if path.is_file() else ""
        if found := re.search(r"^(?:URIs:|deb(?: \[.*?\])?) *(http\S+)", text, re.MULTILINE):
            return found[1]
    raise RuntimeError(f"no mirror of Debian is named below {sources}")
