"""A person at a device: a shell that remembers, and a terminal that shows what a command prints."""

import contextlib
import fcntl
import os
import pty
import secrets
import signal
import struct
import subprocess
import termios
from pathlib import Path

from tests.live.harness.agents import COVEY
from tests.live.harness.network import Host
from tests.live.harness.waiting import patience_s

COMMAND_WITHIN_S = 60.0
HOME = "/home/pi"
"""What pages show in the place of a device's directory."""
TERMINAL_COLUMNS = 100
NAMED = "printf %s {name} > /proc/sys/kernel/hostname; exec bash --norc --noprofile"


class Device:
    """A host with a name of its own, an agent's directory, and somebody's shell on it."""

    def __init__(self, name: str, host: Host, directory: Path) -> None:
        self.name, self.host, self.directory = name, host, directory
        directory.mkdir(parents=True)
        kept = {key: text for key, text in os.environ.items() if not key.startswith("COVEY_")}
        self.environment = {
            **kept,
            "COLUMNS": str(TERMINAL_COLUMNS),
            "COVEY_DIR": str(directory),
            "HOME": str(directory),
            "NO_COLOR": "1",
            "PATH": f"{COVEY.parent}:{kept['PATH']}",
        }
        self.log = directory / "shell.log"
        with self.log.open("wb") as log:
            self._shell = subprocess.Popen(
                [*host.enter(), "unshare", "--uts", "sh", "-c", NAMED.format(name=name)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=self.environment, cwd=directory, start_new_session=True,
            )  # fmt: skip

    def type(self, line: str) -> tuple[int, str]:
        """Run a line in the shell; return its status, and what went to stdout, a pipe."""
        mark = f"done-{secrets.token_hex(4)}"
        limit = f"timeout --foreground {patience_s(COMMAND_WITHIN_S):.0f} "
        words = line if line.rstrip().split("#")[0].rstrip().endswith("&") else limit + line
        assert self._shell.stdin is not None, "stdin is a pipe"
        assert self._shell.stdout is not None, "stdout is a pipe"
        self._shell.stdin.write(f"{words}\nprintf '\\n%s %s\\n' {mark} $?\n".encode())
        self._shell.stdin.flush()
        shown = ""
        while True:
            read = self._shell.stdout.readline().decode()
            assert read, f"the shell of {self.name} ended: {self.said()}"
            if read.startswith(mark):
                return int(read.split()[1]), shown.removesuffix("\n")
            shown += read

    def see(self, command: str) -> str:
        """Run a command at a terminal; return all that it shows there."""
        ours, theirs = pty.openpty()
        size = struct.pack("HHHH", 24, TERMINAL_COLUMNS, 0, 0)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
        with subprocess.Popen(
            [*self.host.enter(), "bash", "-c", command],
            stdin=theirs, stdout=theirs, stderr=theirs,
            env=self.environment, cwd=self.directory, start_new_session=True,
        ):  # fmt: skip
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
                while part := os.read(ours, 65536):
                    shown += part
        os.close(ours)
        lines = shown.decode().replace("\r\n", "\n").split("\n")
        # What a progress had drawn on a line is gone when it is cleared.
        text = "\n".join(line.rpartition("\x1b[K")[2] for line in lines)
        return text.replace(str(self.directory), HOME)

    def said(self) -> str:
        """Return the end of what went to the shell's stderr, with the agent's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def close(self) -> None:
        """End the shell and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
