"""Podman, in a corner of its own: its storage, its network and what runs there vanish together.

Containers run on a tree of ``debian.py`` with a layer of their own over it (``--rootfs TREE:O``),
so nothing is copied. Their network is a bridge in a network namespace that belongs to this run; the
machine's own interfaces and packet filter stay as they are. From there nothing leads outside:
what needs packages or wheels runs with the host's network.
"""

import atexit
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

# Where Debian keeps what only root needs; not every root shell looks there.
os.environ["PATH"] += ":/usr/sbin:/sbin"

# On a real disk: a container's changes are whole files. Short: sockets lie in it.
PLACE = Path("/var/tmp")
NAME = re.compile(r"cvd([0-9]+)-[0-9a-f]+")
NAMESPACES = Path("/run/netns")
# Where the plugins of podman's network note which addresses are given away.
GIVEN_AWAY = Path("/var/lib/cni/networks")
SUBNET = "10.78.0.0/24"
PROGRAMS = ("podman", "runc", "debootstrap", "ip", "nsenter")
# podman's own defaults may lie above what this machine allows, and then nothing starts.
LIMITS = ("--ulimit", "nofile=8192:8192", "--ulimit", "nproc=4096:4096")
# How pip and apt get out of here, should this machine have its own ways.
WAYS_OUT = ("/etc/pip.conf", "/etc/xdg/pip", "/etc/ssl/certs")


def missing() -> str:
    """Say what keeps this machine from running containers; empty when nothing does."""
    if os.geteuid() != 0:
        return "needs root to run containers"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs {', '.join(absent)} to run containers" if absent else ""


class Failed(Exception):
    """A command ended with a status other than 0."""

    def __init__(self, command: Sequence[str], done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        self.status = done.returncode


class Podman:
    """A podman with its own storage and network; ``close`` removes all of it."""

    def __init__(self) -> None:
        _remove_leftovers()
        self._name = f"cvd{os.getpid()}-{secrets.token_hex(2)}"
        self.place = PLACE / self._name
        self.place.mkdir(mode=0o700)
        atexit.register(self.close)
        _run(["ip", "netns", "add", self._name])
        self("network", "create", "--subnet", SUBNET, "--disable-dns", self._name)

    def __call__(self, *words: str | Path, timeout_s: float = 600) -> str:
        """Run one command of podman on our network, and return its output. Raises Failed."""
        return self.attempt(*words, timeout_s=timeout_s, check=True).stdout

    def attempt(
        self,
        *words: str | Path,
        timeout_s: float = 600,
        check: bool = False,
        text: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of podman on our network, whatever comes of it; ``text`` is its stdin."""
        command = ["nsenter", f"--net={NAMESPACES / self._name}", *self.words(*words)]
        return _run(command, check=check, timeout_s=timeout_s, text=text)

    def outside(self, *words: str | Path, timeout_s: float = 600) -> str:
        """Run one command of podman where the machine's own network is. Raises Failed."""
        return _run(self.words(*words), timeout_s=timeout_s).stdout

    def start(self, name: str, tree: Path, *options: str | Path, command: Sequence[str]) -> None:
        """Start a container called ``name`` on a tree, on our network."""
        at = ("--name", name, "--hostname", name, "--network", self._name)
        self("run", "--detach", *at, *LIMITS, *options, "--rootfs", f"{tree}:O", *command)

    def run_image(self, name: str, image: str, *options: str | Path) -> None:
        """Start a container called ``name`` of an image, on our network."""
        at = ("--name", name, "--hostname", name, "--network", self._name)
        self("run", "--detach", *at, *options, image)

    def disconnect(self, name: str) -> None:
        """Take a container off our network."""
        self("network", "disconnect", self._name, name)

    def close(self) -> None:
        """Remove every container, image, file, mount and interface of this podman."""
        atexit.unregister(self.close)
        if self.place.exists():
            self.attempt("rm", "--all", "--force", "--time", "0")
            _remove(self._name)

    def words(self, *words: str | Path) -> list[str]:
        """Return the command line of one command of this podman, on the machine's own network."""
        return [
            *("podman", "--root", f"{self.place}/store", "--runroot", f"{self.place}/run"),
            *("--network-config-dir", f"{self.place}/networks", "--cgroup-manager", "cgroupfs"),
            *("--runtime", "runc", "--log-level", "error", *map(str, words)),
        ]


def ways_out() -> list[str]:
    """Return podman's options for a container that installs packages or wheels."""
    options = ["--network", "host"]
    for place in filter(os.path.exists, WAYS_OUT):
        options += ["--volume", f"{place}:{place}:ro"]
    return options


def _run(
    command: Sequence[str],
    *,
    check: bool = True,
    timeout_s: float = 600,
    text: str | None = None,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout_s, input=text or ""
    )
    if check and done.returncode:
        raise Failed(command, done)
    return done


def _remove_leftovers() -> None:
    """Remove what runs left behind that were killed, their containers with it."""
    for place in PLACE.iterdir():
        if (owner := NAME.fullmatch(place.name)) and not Path("/proc", owner[1]).exists():
            _remove(place.name)


def _remove(name: str) -> None:
    _kill_all(PLACE / name)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed([each for each in mounts if each.startswith(f"{PLACE / name}/")]):
        _run(["umount", "--lazy", mount], check=False)
    for namespace in (name, *_namespaces_of_containers(PLACE / name)):
        _run(["ip", "netns", "delete", namespace], check=False)
    shutil.rmtree(GIVEN_AWAY / name, ignore_errors=True)
    shutil.rmtree(PLACE / name, ignore_errors=True)


def _namespaces_of_containers(place: Path) -> set[str]:
    """Return the network namespaces that a podman made for its containers, by what it wrote."""
    found = set()
    for written in place.glob("store/overlay-containers/*/userdata/config.json"):
        for each in json.loads(written.read_bytes())["linux"]["namespaces"]:
            path = Path(each.get("path", ""))
            if each["type"] == "network" and path.parent == NAMESPACES:
                found.add(path.name)
    return found


def _kill_all(place: Path) -> None:
    """Kill what a podman left running whose maker is gone: each conmon names its storage."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(words[0]).name == "conmon" and any(str(place) in word for word in words):
                for child in (process / "task" / process.name / "children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
                os.kill(int(process.name), signal.SIGKILL)
