"""One device: Debian with systemd as its first process, people at its shells, a plug to pull."""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.devices.rig.podman import Failed, Podman
from tests.live.harness.waiting import eventually

BOOT_S = 10.0
COMMAND_TIMEOUT_S = 600.0
# What systemd in a container needs: a cgroup of its own, the right to mount, and the right to look
# into processes, without which PrivateUsers= fails beside ProtectProc=. A device gives it all.
AS_A_MACHINE = ("--systemd=always", "--cap-add", "SYS_ADMIN,SYS_PTRACE")

# A machine's mounts are shared (systemd sees to it, but not in a container); without that systemd
# has no way to hand a service its credentials.
SHARED = ("sh", "-c", "mount --make-rshared / && exec /sbin/init")

Done = subprocess.CompletedProcess[str]


class Device:
    """A device that runs; commands are run on it as people would type them."""

    def __init__(
        self,
        podman: Podman,
        name: str,
        card: Path,
        options: Sequence[str] = (),
        command: Sequence[str] = SHARED,
    ) -> None:
        self.name = name
        self._podman = podman
        podman.start(name, card, *AS_A_MACHINE, *options, command=command)
        self._await_boot()

    def __repr__(self) -> str:
        return f"Device({self.name})"

    def attempt(self, command: str, who: str = "root", text: str | None = None) -> Done:
        """Run a line of shell in a login of ``who``, whatever comes of it; ``text`` is stdin."""
        words = ["runuser", "-l", who, "-c", command]
        inside = ("exec", "--interactive", self.name, *words)
        return self._podman.attempt(*inside, timeout_s=COMMAND_TIMEOUT_S, text=text)

    def run(self, command: str, who: str = "root", text: str | None = None) -> str:
        """Run a line of shell in a login of ``who``; return its output. Raises Failed."""
        done = self.attempt(command, who, text)
        if done.returncode:
            raise Failed([self.name, who, command], done)
        return done.stdout

    def unit(self, name: str) -> str:
        """Return one property of the unit, as systemd knows it."""
        return self.run(f"systemctl show --property={name} --value covey").strip()

    def await_unit(self, name: str, value: str, within_s: float = 20.0) -> None:
        """Wait until a property of the unit is this."""
        what = f"{self.name}: {name} is {value}"
        eventually(lambda: self.unit(name), lambda seen: seen == value, within_s, what)

    def await_output(self, command: str, part: str, who: str = "root", within_s: float = 20) -> str:
        """Wait until a line of shell succeeds and says this; return all it said."""
        what = f"{self.name}: {command} says {part}"
        return eventually(lambda: self.run(command, who), lambda said: part in said, within_s, what)

    def journal(self) -> str:
        """Return what the service logged since the device was made."""
        return self.attempt("journalctl --no-pager --output=cat -u covey").stdout

    def pull_plug(self) -> None:
        """Take the power away, from one moment to the next."""
        self._podman("kill", "--signal", "KILL", self.name)
        self._podman("wait", self.name)

    def plug_in(self) -> None:
        """Boot it again; the network may give it another address."""
        self._podman("start", self.name)
        self._await_boot()

    def reboot(self) -> None:
        """Shut down in order, and boot again."""
        self._podman("stop", "--time", "90", self.name)
        self.plug_in()

    def disconnect(self) -> None:
        """Pull the network's cable; it stays out over a boot."""
        self._podman.disconnect(self.name)

    def copy_in(self, text: str, path: str) -> None:
        """Write a file on the device."""
        self.run(f"cat > {shlex.quote(path)}", text=text)

    def remove(self) -> None:
        """Throw the device away."""
        self._podman("rm", "--force", "--time", "0", self.name)

    def _await_boot(self) -> None:
        eventually(
            lambda: self.attempt("systemctl is-system-running").stdout.strip(),
            lambda state: state in ("running", "degraded"),
            BOOT_S,
            f"{self.name}: booted",
        )
