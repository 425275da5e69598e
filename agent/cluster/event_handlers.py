"""Handlers: the commands that the configuration names for events and queries.

A handler is a process of its own (``agent/programs``): it gets the payload on stdin and the rest in
its environment, and what it prints is the answer. What it started ends with it.
Only a few run at a time, a bounded number wait, and whatever did not run is counted.
"""

import asyncio
import logging
import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple

from agent.config.logs import OUR_INTERVAL_S, RateLimitedLog
from agent.config.settings import HandlerSettings
from agent.loop import watched
from agent.programs.child import OUTPUT_END_S, AsThisUser, Launch, Starter, start
from agent.programs.environment import passed_on

WAITING_MAX = 64
ERROR_CHARACTERS = 200
COMPLAINT_BYTES_MAX = 64 * 1024
NAME = "_handlers"
"""Of the user that all of them share, where programs have users of their own; no app's name."""

log = logging.getLogger(__name__)


class HandlerOutcome(NamedTuple):
    """What a handler did: its output, or in words why there is none."""

    is_ok: bool
    output: bytes


class EventHandlers:
    """Runs the commands of one table of the configuration.

    ``counts`` gets ``handlers/ok``, ``handlers/failed``, ``handlers/killed`` (its time was over)
    and ``handlers/not run`` (too many at once).
    """

    def __init__(
        self,
        settings: HandlerSettings,
        output_bytes_max: int,
        counts: Counter[str],
        starter: Starter | None = None,
    ) -> None:
        self.timeout_s = settings.timeout_s
        self._more = settings.environment
        self._starter = starter or AsThisUser()
        self._commands = settings.handlers
        self._output_bytes_max = output_bytes_max
        self._counts = counts
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._waiting = 0
        self._quiet = RateLimitedLog(log, OUR_INTERVAL_S)

    def find(self, name: str) -> list[Sequence[str]]:
        """Return the commands for events or queries of this name; table keys may be globs."""
        return [command for key, command in self._commands.items() if fnmatchcase(name, key)]

    async def run(
        self, command: Sequence[str], payload: bytes, variables: Mapping[str, str]
    ) -> HandlerOutcome:
        """Run a command to its end, or until its time is over, waiting for its turn included."""
        if self._waiting >= WAITING_MAX:
            self._counts["handlers/not run"] += 1
            return HandlerOutcome(is_ok=False, output=b"too many handlers are waiting to run")
        self._waiting += 1
        try:
            async with asyncio.timeout(self.timeout_s), self._turns:
                outcome = await self._run(command, payload, variables)
        except TimeoutError:
            outcome = HandlerOutcome(
                is_ok=False, output=f"took more than {self.timeout_s:g} s".encode()
            )
            self._counts["handlers/killed"] += 1
        else:
            self._counts["handlers/ok" if outcome.is_ok else "handlers/failed"] += 1
        finally:
            self._waiting -= 1
        if not outcome.is_ok:
            why = outcome.output.decode(errors="replace")
            self._quiet.warning(command[0], "handler %s: %s", command[0], why)
        return outcome

    async def _run(
        self, command: Sequence[str], payload: bytes, variables: Mapping[str, str]
    ) -> HandlerOutcome:
        environment = {**passed_on(os.environ, self._more), **variables}
        launch = Launch(NAME, command, environment)
        try:
            process = await start(self._starter, launch, payload, merged=False)
        except OSError as error:
            return HandlerOutcome(is_ok=False, output=f"could not be started: {error}".encode())
        output, complaint = bytearray(), bytearray()
        reading = [
            watched.start("handler-output", partial(_read, *each))
            for each in (
                (process.stdout, output, self._output_bytes_max + 1),
                (process.stderr, complaint, COMPLAINT_BYTES_MAX),
            )
        ]
        try:
            status = await process.wait()
            # What it left behind is over with it, and nobody waits for who got away with the pipe.
            process.signal_group(signal.SIGKILL)
            await asyncio.wait(reading, timeout=OUTPUT_END_S)
        finally:
            process.signal_group(signal.SIGKILL)
            for each in reading:
                each.cancel()
            process.close()
        return self._judge(status, bytes(output), bytes(complaint))

    def _judge(self, status: int, output: bytes, complaint: bytes) -> HandlerOutcome:
        if len(output) > self._output_bytes_max:
            words = f"printed more than {self._output_bytes_max} bytes"
            return HandlerOutcome(is_ok=False, output=words.encode())
        if status:
            last = complaint.decode(errors="replace").strip()[-ERROR_CHARACTERS:]
            words = f"ended with exit status {status}: {last}"
            return HandlerOutcome(is_ok=False, output=words.rstrip(": ").encode())
        return HandlerOutcome(is_ok=True, output=output)


async def _read(pipe: asyncio.StreamReader, kept: bytearray, kept_bytes: int) -> None:
    """Read a pipe to its end and keep the beginning: a full pipe would stop the process."""
    while data := await pipe.read(64 * 1024):
        kept += data[: kept_bytes - len(kept)]
