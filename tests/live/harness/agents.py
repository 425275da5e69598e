"""Agents as a person has them: a directory, the ``covey`` command, a process that can be killed."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from agent import exits
from edge_apps.client import Client
from tests.live.harness.network import Host
from tests.live.harness.waiting import patience_s
from tests.support.patience import GIVE_UP_S

COVEY = Path(sys.executable).with_name("covey")
READY_WITHIN_S = 20.0
STOPPED_WITHIN_S = 15.0
LOG_LINES_SHOWN = 60
PASSING = (exits.TIMED_OUT, exits.UNREACHABLE, exits.UNHEALTHY)
"""With these a command ends where it may succeed a moment later."""
AGAIN_S = 0.5


class Outcome(NamedTuple):
    """What a command did: its exit status and what it printed."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return what was printed, as JSON."""
        return json.loads(self.stdout)


def environment(home: Path) -> dict[str, str]:
    """Return a clean environment: nothing of the developer's own agent leaks in."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("COVEY_")}
    return {**kept, "HOME": str(home), "NO_COLOR": "1", "PYTHONFAULTHANDLER": "1"}


class AgentProcess:
    """One agent: its directory, and its process while it runs."""

    def __init__(self, name: str, directory: Path, host: Host | None = None) -> None:
        self.name = name
        self.directory = directory
        self.host = host
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: list[str] = []
        directory.mkdir(parents=True, exist_ok=True)

    # --- commands -----------------------------------------------------------------------------

    def words(self, *arguments: str) -> list[str]:
        """Return a command of this agent, as its host runs it."""
        enter = self.host.enter() if self.host else []
        return [*enter, *self.prefix, str(COVEY), "--dir", str(self.directory), *arguments]

    def covey(self, *arguments: str, stdin: str = "", timeout_s: float = GIVE_UP_S) -> Outcome:
        """Run a command of this agent to its end, on its host, and return what it did.

        ``timeout_s`` is what it may take where nothing else is at work. The directory is left out
        of the commands in what it says.
        """
        done = subprocess.run(
            self.words(*arguments), input=stdin, capture_output=True, text=True, check=False,
            timeout=patience_s(timeout_s), env=environment(self.directory),
        )  # fmt: skip
        again = f"covey --dir {self.directory} "
        stdout, stderr = (text.replace(again, "covey ") for text in (done.stdout, done.stderr))
        return Outcome(done.returncode, stdout, stderr)

    def must(self, *arguments: str, stdin: str = "", timeout_s: float = GIVE_UP_S) -> Outcome:
        """Run a command that has to succeed; again, where it was refused for what passes.

        Where a machine is busy, a leader is deposed or an owner is late at any time, and not only
        when a test makes it so. A person who is told so types the command again.
        """
        give_up = time.monotonic() + GIVE_UP_S
        while True:
            outcome = self.covey(*arguments, stdin=stdin, timeout_s=timeout_s)
            if outcome.status not in PASSING or time.monotonic() > give_up:
                break
            print(f"{self.name}: covey {' '.join(arguments)}, once more: {outcome}")
            time.sleep(AGAIN_S)
        assert outcome.status == 0, f"{self.name}: covey {' '.join(arguments)}: {outcome}"
        return outcome

    def configure(self, text: str) -> None:
        """Write the agent's configuration."""
        (self.directory / "covey.toml").write_text(text)

    # --- the process --------------------------------------------------------------------------

    @property
    def log_file(self) -> Path:
        """Where the agent's stderr goes, over all its lives."""
        return self.directory / "agent.log"

    @property
    def log(self) -> str:
        """What the agent has said so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def at(self) -> Host:
        """The host that the agent runs on."""
        assert self.host, f"{self.name} has no host of its own"
        return self.host

    @property
    def pid(self) -> int:
        """The process id of the running agent."""
        assert self.process, f"{self.name} does not run"
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the agent was started, and ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def launch(self) -> None:
        """Start the agent and return at once."""
        assert self.process is None, f"{self.name} runs already"
        notify = self._notify_path()
        notify.unlink(missing_ok=True)
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(notify))
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.words("run"), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**environment(self.directory), "NOTIFY_SOCKET": str(notify)},
                start_new_session=True,
            )  # fmt: skip

    def _notify_path(self) -> Path:
        return self.directory / "notify.sock"

    def wait_ready(self) -> None:
        """Wait until the agent tells systemd, here played by us, that it is ready."""
        assert self.process, f"{self.name} was not launched"
        give_up = time.monotonic() + patience_s(READY_WITHIN_S)
        self._notified.settimeout(0.2)
        while time.monotonic() < give_up:
            assert self.process.poll() is None, f"{self.name} ended:\n{self.log_tail()}"
            try:
                if b"READY=1" in self._notified.recv(4096):
                    return
            except TimeoutError:
                continue
        raise AssertionError(f"{self.name} did not become ready:\n{self.log_tail()}")

    def start(self) -> None:
        """Start the agent and wait until it is ready."""
        self.launch()
        self.wait_ready()

    def kill(self) -> None:
        """End the agent as a power cut would: SIGKILL, no good-bye."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask the agent to leave (SIGTERM), and return its exit status."""
        return self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze the agent, as a device does that swaps."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen agent go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, with_signal: signal.Signals) -> int:
        assert self.process, f"{self.name} does not run"
        self.process.send_signal(with_signal)
        status = self.process.wait(patience_s(STOPPED_WITHIN_S))
        self.process = None
        self._notified.close()
        return status

    def close(self) -> None:
        """End the agent if it runs; its apps end with their session."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(patience_s(STOPPED_WITHIN_S))
            self.process = None
            self._notified.close()

    def log_tail(self) -> str:
        """Return the end of the agent's log, for a failure message."""
        return "\n".join(self.log.splitlines()[-LOG_LINES_SHOWN:])

    # --- looking inside -----------------------------------------------------------------------

    @property
    def api(self) -> Client:
        """The agent's API; quicker than a command, for what is asked again and again."""
        return Client(self.directory / "covey.sock", timeout_s=GIVE_UP_S)

    def members(self) -> list[dict[str, Any]]:
        """Return the agent's member list."""
        found: list[dict[str, Any]] = self.api.get("/api/v1/members")["members"]
        return found

    def states(self) -> dict[str, str]:
        """Return name and state of each member that the agent knows."""
        return {member["name"]: member["state"] for member in self.members()}

    def me(self) -> dict[str, Any]:
        """Return the agent's own entry."""
        return next(member for member in self.members() if member["self"])

    def rss_bytes(self) -> int:
        """Return the memory that the agent's process holds, apps not included."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found, status
        return int(found.group(1)) * 1024

    def counters(self) -> dict[str, float]:
        """Return the samples of /metrics by name with labels."""
        text = self.api.request("GET", "/metrics").body.decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#"]
        return {name: float(value) for name, value in lines}

    def refused(self) -> float:
        """Return how many datagrams, connections and frames the agent has refused so far."""
        return sum(
            value
            for name, value in self.counters().items()
            if re.search(r"_total\{", name) and re.search(r"dropped|refused|rejected", name)
        )
