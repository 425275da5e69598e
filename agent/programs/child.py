"""A program as a child of the agent: its pipes, its group, its end.

It leads a process group, so that what it starts ends with it. Its stdin is a pipe of which we hold
the other end: a program that watches it learns that the agent is gone, by whatever means. We read
what it prints from pipes of our own, and never write while it runs: what it is told lies in the
pipe before it starts, so that nothing is lost, and nobody is in the way, when it ends without
having read it.
"""

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

PIPE_BYTES = 64 * 1024
"""What a pipe holds without a reader (pipe(7)); a program is told no more than that."""
OUTPUT_END_S = 1.0
"""How long to wait for the last output of a program that ended, while others hold the pipe."""


class Launch(NamedTuple):
    """What is started: under which name it is known, and how."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    directory: Path | None = None
    """Where it works; None leaves that to whoever starts it."""


class Ends(NamedTuple):
    """The ends of the pipes that a program gets, as numbers of files."""

    stdin: int
    stdout: int
    stderr: int


class Process(Protocol):
    """A process that was started, by us or by somebody for us."""

    @property
    def pid(self) -> int:
        """Its number; its group has the same."""

    async def wait(self) -> int:
        """Return its exit status, negative for a signal, once it has ended."""

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to it and all that it started; nothing if they are gone."""

    def release(self) -> None:
        """Give up what is held for it; it has ended."""


class Starter(Protocol):
    """Starts programs."""

    async def start(self, launch: Launch, ends: Ends) -> Process:
        """Start a program with these files. Raises OSError; then nothing runs."""


class ChildProcess:
    """A running program, with what is read from it."""

    def __init__(self, process: Process, stdin: int, pipes: "Sequence[_Reader]") -> None:
        self._process, self._stdin, self._pipes = process, stdin, pipes
        self.pid = process.pid

    @property
    def stdout(self) -> asyncio.StreamReader:
        """What it prints; with ``merged``, its complaints too."""
        return self._pipes[0].reader

    @property
    def stderr(self) -> asyncio.StreamReader:
        """Its complaints."""
        return self._pipes[-1].reader

    async def wait(self) -> int:
        """Return its exit status, negative for a signal, once it has ended."""
        return await self._process.wait()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to it and all that it started; nothing if they are gone."""
        self._process.signal_group(number)

    def close(self) -> None:
        """Close the pipes; whoever still holds the other ends is told by the system."""
        for pipe in self._pipes:
            pipe.transport.close()
        with contextlib.suppress(OSError):
            os.close(self._stdin)
        self._process.release()


async def start(
    starter: Starter, launch: Launch, told: bytes = b"", *, merged: bool
) -> ChildProcess:
    """Start a program that finds ``told`` on its stdin. Raises OSError; then nothing runs.

    With ``merged``, complaints are read together with the output, and stdin stays open until
    ``close``; otherwise stdin ends behind what was told.
    """
    assert len(told) <= PIPE_BYTES, "more would wait for a reader"
    theirs, ours = os.pipe()
    os.write(ours, told)
    if not merged:
        os.close(ours)
        ours = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    pipes = [os.pipe() for _ in range(1 if merged else 2)]
    ends = Ends(theirs, pipes[0][1], pipes[-1][1])
    try:
        process = await _started(starter, launch, ends)
    except BaseException:
        for handle in {ours, *(reading for reading, _ in pipes)}:
            os.close(handle)
        raise
    finally:
        for handle in set(ends):
            os.close(handle)
    return ChildProcess(process, ours, [await _open(reading) for reading, _ in pipes])


async def _started(starter: Starter, launch: Launch, ends: Ends) -> Process:
    try:
        return await starter.start(launch, ends)
    except ValueError as error:  # a NUL in a word or a variable
        raise OSError(errno.EINVAL, str(error)) from None


class AsThisUser:
    """Starts programs as children of this process, with its user."""

    async def start(self, launch: Launch, ends: Ends) -> Process:
        """Start a program with these files. Raises OSError, and ValueError for a NUL in a text."""
        # Not by the loop: uvloop leaves open what we inherited, and copies of the pipes' ends, so
        # that they end only with the last of all that the program has started.
        process = subprocess.Popen(  # noqa: ASYNC220, S603 - returns once it runs; the words are the owner's
            launch.command,
            stdin=ends.stdin,
            stdout=ends.stdout,
            stderr=ends.stderr,
            env=launch.environment,
            cwd=launch.directory,
            start_new_session=True,
        )
        return OwnProcess(process)


class OwnProcess:
    """A process whose parent we are."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.pid = process.pid
        self._loop = asyncio.get_running_loop()
        self._status: asyncio.Future[int] = self._loop.create_future()
        self._handle = os.pidfd_open(process.pid)
        self._loop.add_reader(self._handle, self._ended)

    def _ended(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        self._status.set_result(self._process.wait())

    async def wait(self) -> int:
        """Return its exit status, negative for a signal, once it has ended."""
        return await asyncio.shield(self._status)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal; the group outlives its leader, so its number still means it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def release(self) -> None:
        """Nothing is held."""


class _Reader(NamedTuple):
    reader: asyncio.StreamReader
    transport: asyncio.BaseTransport


async def _open(handle: int) -> _Reader:
    reader = asyncio.StreamReader(limit=PIPE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(handle, "rb", buffering=0)
    )
    return _Reader(reader, transport)
