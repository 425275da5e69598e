"""Handlers: the commands that the configuration names for events and queries.

A handler is a process of its own: it gets the payload on stdin and the rest in its environment,
and what it prints is the answer. It leads a process group, so that what it started ends with it.
Only a few run at a time, a bounded number wait, and whatever did not run is counted.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from agent.settings import HandlerSettings

WAITING_MAX = 64
ERROR_CHARACTERS = 200
COVEY_PREFIX = "COVEY_"

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What a handler did: its output, or in words why there is none."""

    is_ok: bool
    output: bytes


class Handlers:
    """Runs the commands of one table of the configuration.

    ``counts`` gets ``handlers/ok``, ``handlers/failed``, ``handlers/killed`` (its time was over)
    and ``handlers/not run`` (too many at once).
    """

    def __init__(
        self, settings: HandlerSettings, output_bytes_max: int, counts: Counter[str]
    ) -> None:
        self.timeout_s = settings.timeout_s
        self._commands = settings.handlers
        self._output_bytes_max = output_bytes_max
        self._counts = counts
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._waiting = 0

    def find(self, name: str) -> list[Sequence[str]]:
        """Return the commands for events or queries of this name; table keys may be globs."""
        return [command for key, command in self._commands.items() if fnmatchcase(name, key)]

    async def run(
        self, command: Sequence[str], payload: bytes, variables: Mapping[str, str]
    ) -> Outcome:
        """Run a command to its end, or until its time is over, waiting for its turn included."""
        if self._waiting >= WAITING_MAX:
            self._counts["handlers/not run"] += 1
            return Outcome(is_ok=False, output=b"too many handlers are waiting to run")
        self._waiting += 1
        try:
            async with asyncio.timeout(self.timeout_s), self._turns:
                outcome = await self._run(command, payload, variables)
        except TimeoutError:
            outcome = Outcome(is_ok=False, output=f"took more than {self.timeout_s:g} s".encode())
            self._counts["handlers/killed"] += 1
        else:
            self._counts["handlers/ok" if outcome.is_ok else "handlers/failed"] += 1
        finally:
            self._waiting -= 1
        if not outcome.is_ok:
            log.warning("handler %s: %s", command[0], outcome.output.decode(errors="replace"))
        return outcome

    async def _run(
        self, command: Sequence[str], payload: bytes, variables: Mapping[str, str]
    ) -> Outcome:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**inherited(), **variables},
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(is_ok=False, output=f"could not be started: {error}".encode())
        try:
            output, complaint = await self._talk(process, payload)
            await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if len(output) > self._output_bytes_max:
            return Outcome(
                is_ok=False, output=f"printed more than {self._output_bytes_max} bytes".encode()
            )
        if process.returncode:
            last = complaint.decode(errors="replace").strip()[-ERROR_CHARACTERS:]
            words = f"ended with exit status {process.returncode}: {last}"
            return Outcome(is_ok=False, output=words.rstrip(": ").encode())
        return Outcome(is_ok=True, output=output)

    async def _talk(
        self, process: asyncio.subprocess.Process, payload: bytes
    ) -> tuple[bytes, bytes]:
        assert process.stdin is not None, "stdin is a pipe"
        assert process.stdout is not None, "stdout is a pipe"
        assert process.stderr is not None, "stderr is a pipe"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(payload)
            process.stdin.close()
        return await asyncio.gather(
            _read(process.stdout, self._output_bytes_max + 1), _read(process.stderr, 64 * 1024)
        )


async def _read(pipe: asyncio.StreamReader, kept_bytes: int) -> bytes:
    """Read a pipe to its end and return the beginning: a full pipe would stop the process."""
    kept = b""
    while data := await pipe.read(64 * 1024):
        kept += data[: kept_bytes - len(kept)]
    return kept


def inherited() -> dict[str, str]:
    """Return the agent's environment without the agent's own settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith(COVEY_PREFIX)}
