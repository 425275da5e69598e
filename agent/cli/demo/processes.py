"""Processes of the demo: they leave no orphans and do not hear the terminal's Ctrl-C.

Each child is a session of its own, so that Ctrl-C reaches the demo alone, which then ends its
children in order. Should the demo itself be killed, the kernel ends them (PR_SET_PDEATHSIG,
prctl(2); it follows the thread that forked, which for the demo is the main one).
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.exits import NO, AgentError

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
STOP_GRACE_S = 8.0
COMMAND_TIMEOUT_S = 90.0
LOG_TAIL_LINES = 8

_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: a forked child must not load anything


class DemoProcess:
    """One process, with its output in ``log``."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    @staticmethod
    async def start(command: Sequence[str], environ: Mapping[str, str], log: Path) -> "DemoProcess":
        """Start a process. Raises OSError when it cannot be."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environ),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        return DemoProcess(process, log)

    @property
    def pid(self) -> int:
        """The process number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.returncode is None

    async def kill(self) -> None:
        """End it as a power cut would (SIGKILL), and wait until it is gone."""
        self._signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> None:
        """End it with SIGTERM, or with SIGKILL when it does not go in time."""
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_GRACE_S)
        except TimeoutError:
            await self.kill()

    def last_lines(self) -> str:
        """Return the end of its output, for an error message."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


async def run_covey(arguments: Sequence[str], directory: Path) -> str:
    """Run one ``covey`` command for the agent in ``directory``; return what it printed.

    Raises AgentError with what it said when it failed.
    """
    process = await asyncio.create_subprocess_exec(
        *covey_command(*arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment_of(directory),
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    try:
        printed, said = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT_S)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode:
        words = said.decode(errors="replace").strip()
        raise AgentError(f"`covey {arguments[0]}` failed: {words}", "", NO)
    return printed.decode()


def covey_command(*arguments: str) -> tuple[str, ...]:
    """Return the command line of ``covey ARGUMENTS``, with this very interpreter and code."""
    return (sys.executable, "-P", "-m", "agent", *arguments)


def environment_of(directory: Path) -> dict[str, str]:
    """Return the environment of an agent under ``directory``, free of another one's settings."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("COVEY_")}
    return inherited | {"COVEY_DIR": str(directory), "PYTHONUNBUFFERED": "1"}


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
