"""One agent as a process: its lock, its logs, its event loop, its signals.

The first SIGTERM or SIGINT lets the agent say goodbye, so that the others list it as left and
nobody waits for a suspicion to run out; a second one ends it without manners, which loses no
more than a crash would: nothing that was acknowledged. SIGUSR1 writes the stacks of all threads
to stderr, for an agent that hangs.

Two agents on one directory would both write its databases and speak with one identity. A lock
on a file keeps the second away; the kernel gives it up when the process ends, however it ends.
"""

import asyncio
import errno
import faulthandler
import fcntl
import gc
import importlib.util
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

import msgspec

from agent import logs
from agent.config import load
from agent.exits import NO, NOT_PERMITTED, AgentError
from agent.paths import Paths

if TYPE_CHECKING:
    from agent.config import Config

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Runnable(Protocol):
    """What the process needs of ``agent/agent.py``."""

    async def run(self) -> None:
        """Serve until ``leave`` was called. Raises what stopped it otherwise."""

    async def leave(self) -> None:
        """Say goodbye, and let ``run`` return."""


def run_agent(paths: Paths, log_level: str | None = None) -> None:
    """Run the agent of these paths until it is told to stop.

    ``log_level`` replaces the configured one. Raises AgentError when it cannot start.
    """
    config = load(paths)
    if log_level is not None:
        config = msgspec.structs.replace(
            config, log=msgspec.structs.replace(config.log, level=log_level)
        )
    logs.configure(config.log)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    paths.create()
    with locked(paths), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config, paths))


async def _serve(config: "Config", paths: Paths) -> None:
    # What is loaded stays loaded: looking through it for garbage costs a tenth of the start, and
    # again each time that all is looked through.
    gc.disable()
    from agent.agent import Agent

    gc.freeze()
    gc.enable()
    await serve_until_stopped(Agent(config, paths))


async def serve_until_stopped(agent: Runnable) -> None:
    """Run the agent; the first stop signal lets it leave, the second ends it at once."""
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(agent.run(), name="agent")
    leaving: list[asyncio.Task[None]] = []

    def stop(number: signal.Signals) -> None:
        if leaving:
            logger.warning("%s again: stopping at once", number.name)
            running.cancel()
        else:
            logger.info("%s: leaving the covey; once more stops at once", number.name)
            leaving.append(asyncio.create_task(agent.leave(), name="agent: leave"))

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        await running
    except asyncio.CancelledError:
        if not leaving:
            raise
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Hold the lock of the data directory. Raises AgentError when another agent does."""
    try:
        handle = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot_write(paths, error) from None
    try:
        _lock(handle, paths)
        with suppress(OSError):  # a courtesy to whoever comes second; a full disk may refuse it
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, paths: Paths) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 20, 0).decode(errors="replace").strip()
        raise AgentError(
            f"an agent already runs on {paths.data} (process {owner}); it was left alone",
            "give each agent its own directory with --dir PATH, or stop the other: `covey leave`",
            NO,
        ) from None


def _cannot_write(paths: Paths, error: OSError) -> AgentError:
    if error.errno == errno.ENOSPC:
        return AgentError(
            f"the disk of {paths.data} is full; nothing was changed",
            "make room there, or choose another directory with --dir PATH",
            NO,
        )
    return AgentError(
        f"cannot write in {paths.data}: {error.strerror}; nothing was changed",
        "run as the directory's owner, or choose another with --dir PATH",
        NOT_PERMITTED,
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, if it is installed: about twice the packets per second."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
