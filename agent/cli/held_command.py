"""Runs a command while a lock is held, or a barrier is open, and stops it when that is lost.

The command is a process group of its own, so that what it starts is stopped as well; at a terminal
it shares ours, to be able to read from it. A guard, a small process beside, waits for our end: if
we are killed, it stops the command, which would go on without its lock otherwise.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Protocol

from agent import exits
from agent.exits import AgentError

LOOK_S = 0.1
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OF_SIGNALS = 128
CANNOT_START, NO_SUCH_COMMAND = 126, 127
"""As a shell says it."""

GUARD = """
import os, signal, sys, time
words = sys.stdin.read().split()
if len(words) == 2:
    pid, grace_s = int(words[0]), float(words[1])
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            break
        end = time.monotonic() + grace_s
        while time.monotonic() < end and number == signal.SIGTERM:
            time.sleep(0.05)
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                sys.exit()
"""
"""Reads whom to stop; two words and then the end mean that nobody is left who could do it."""


class Holding(Protocol):
    """What a command relies on: a lock, or a place inside a barrier."""

    @property
    def lost(self) -> bool:
        """Whether it is not held, or may not be."""


class HeldCommand:
    """One command that runs as long as something is held."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], grace_s: float
    ) -> None:
        self._grace_s = grace_s
        self._is_apart = not sys.stdin.isatty()
        self._guard = subprocess.Popen(  # noqa: S603  ourselves
            [sys.executable, "-I", "-S", "-c", GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._process = subprocess.Popen(  # noqa: S603  what the user has asked for
                list(command),
                env={**os.environ, **environment},
                process_group=0 if self._is_apart else None,
            )
        except OSError as error:
            self._dismiss()
            status = NO_SUCH_COMMAND if isinstance(error, FileNotFoundError) else CANNOT_START
            raise AgentError(
                f"{command[0]}: {error.strerror or error}", "check the command", status
            ) from None
        self._tell(f"{self._target} {grace_s} ")

    @property
    def _target(self) -> int:
        return -self._process.pid if self._is_apart else self._process.pid

    def run(self, held: Holding, what: str) -> int:
        """Wait for the command; return its exit status. Raises AgentError if ``held`` is lost.

        ``what`` is what is held, for people.
        """
        before = [signal.signal(number, self._pass_on) for number in PASSED_ON]
        try:
            while (status := self._wait(LOOK_S)) is None:
                if held.lost:
                    self._stop()
                    raise AgentError(
                        f"{what} was lost; the command was stopped",
                        "`covey voters` says whether the covey has a majority of its voters",
                        exits.UNHEALTHY,
                    )
        finally:
            for number, handler in zip(PASSED_ON, before, strict=True):
                signal.signal(number, handler)
            self._dismiss()
        return OF_SIGNALS - status if status < 0 else status

    def _wait(self, timeout_s: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        return None

    def _stop(self) -> None:
        """Ask the command to end, and then end it; with all that it has started."""
        self._signal(signal.SIGTERM)
        until = time.monotonic() + self._grace_s
        while time.monotonic() < until and (self._wait(LOOK_S) is None or self._has_heirs()):
            time.sleep(LOOK_S / 2)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _has_heirs(self) -> bool:
        """Tell whether something that the command started is there still."""
        if not self._is_apart:
            return False
        try:
            os.kill(self._target, 0)
        except ProcessLookupError:
            return False
        return True

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if self._is_apart or number != signal.SIGINT:  # a terminal's Ctrl-C has reached it already
            self._signal(signal.Signals(number))

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._target, number)

    def _tell(self, text: str) -> None:
        assert self._guard.stdin is not None, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(text.encode())
            self._guard.stdin.flush()

    def _dismiss(self) -> None:
        """Let the guard go: there is nothing to stop any more."""
        self._tell("done")
        assert self._guard.stdin is not None, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()
        self._guard.wait()
