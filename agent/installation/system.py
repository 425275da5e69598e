"""What of the machine a service needs: systemd's commands, and the lists of users and groups."""

import grp
import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.exits import NO, NOT_FOUND, NOT_PERMITTED, AgentError

TIMEOUT_S = 120
BOOTED_WITH_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)


class System:
    """This machine, if systemd is its first process."""

    def require_systemd(self) -> None:
        """Raise AgentError unless systemd runs this machine's services."""
        if not BOOTED_WITH_SYSTEMD.is_dir():
            raise AgentError(
                "systemd does not run this machine, and there is no service",
                "let what runs its services start `covey run`, which stays in the foreground "
                "and ends at SIGTERM",
                NOT_FOUND,
            )

    def require_root(self) -> None:
        """Raise AgentError unless this process may change the machine's services."""
        if os.geteuid() != 0:
            program, *words = sys.argv
            typed = shlex.join([str(Path(program).absolute()), *words])
            raise AgentError(
                "only root can change the services of this machine; nothing was changed",
                f"run it as root: `sudo {typed}`",
                NOT_PERMITTED,
            )

    def systemctl(self, *words: str) -> None:
        """Run systemctl. Raises AgentError with what it complained about."""
        self._run("systemctl", *words)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return what systemd knows of a unit."""
        done = self._run("systemctl", "show", unit, *(f"--property={each}" for each in properties))
        return dict(line.partition("=")[::2] for line in done.splitlines())

    def make_users(self, file: Path) -> None:
        """Make the users and groups that a file of sysusers.d(5) names. Raises AgentError."""
        self._run("systemd-sysusers", str(file))

    def status_under(self, restrictions: Sequence[str], *command: str) -> int:
        """Start a program as a unit with these ``NAME=value`` lines would; return its status."""
        options = [f"--property={line}" for line in restrictions]
        return _call("systemd-run", "--wait", "--quiet", "--collect", *options, "--", *command)[0]

    def output_of(self, *words: str, stdin: bytes) -> bytes | None:
        """Run a program, and return what it wrote on stdout; None if it is not here, or fails."""
        try:
            done = subprocess.run(  # noqa: S603 - the words are ours
                words, input=stdin, capture_output=True, check=False, timeout=TIMEOUT_S
            )
        except FileNotFoundError:
            return None
        return done.stdout if done.returncode == 0 else None

    def _run(self, *words: str) -> str:
        status, output, complaint = _call(*words)
        if status:
            raise AgentError(
                f"`{' '.join(words[:2])}` failed: {' '.join(complaint.split()) or status}",
                "what was put in place until then stays; mend this, and run the same command again",
                NO,
            )
        return output


def _call(*words: str) -> tuple[int, str, str]:
    """Run a program; return its status, and what it wrote on stdout and stderr."""
    try:
        done = subprocess.run(  # noqa: S603 - the words are ours and the paths of our own files
            words, capture_output=True, text=True, errors="replace", check=False,
            timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise AgentError(
            f"this machine has no {words[0]}, which comes with systemd; nothing was changed",
            "is systemd installed whole?",
            NOT_FOUND,
        ) from None
    return done.returncode, done.stdout, done.stderr


def has_user(name: str) -> bool:
    """Say whether this machine has such a user."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def people_in(group: str) -> list[str]:
    """Return whom somebody has put into a group."""
    try:
        return sorted(grp.getgrnam(group).gr_mem)
    except KeyError:
        return []
