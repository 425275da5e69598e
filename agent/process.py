"""One agent as a process: its logs, its event loop, its signals.

The first SIGTERM or SIGINT lets the agent say goodbye, so that the others list it as left and
nobody waits for a suspicion to run out; a second one ends it without manners, which loses no
more than a crash would: nothing that was acknowledged. SIGUSR1 writes the stacks of all threads
to stderr, for an agent that hangs.

A node that leaves its covey (``covey leave``) does not end the process: whoever watches over it
would start it again. A new agent takes the place of the one that left, and waits. Nor does one that
finds itself restored from a snapshot, that the others know a later life of it, or that goes on with
another log of what is agreed on: another takes its place, with a life of its own. A later life is
outrun once in an hour at most, for two devices with one identity would outrun each other for ever.
"""

import asyncio
import faulthandler
import gc
import importlib.util
import logging
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from agent.config import logs
from agent.config.loader import load, replaced
from agent.config.paths import Paths
from agent.exits import AgentError
from agent.files.ownership import check_code_is_readable, work_as_owner
from agent.net import tls_buffers
from agent.store import page_caches
from agent.store.lock import locked
from agent.system import descriptors, heap

if TYPE_CHECKING:
    from agent.config.loader import Config

logger = logging.getLogger(__name__)

OUTRUN_AGAIN_S = 3600.0
SWITCH_S = 1e-4
"""How long one thread keeps Python's lock from another that wants it, and not five milliseconds: a
commit takes it some twenty times, and each time the event loop would be in its way for so long."""
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
    config = _read(paths, log_level)
    logs.configure(config.log)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    descriptors.raise_limit()
    heap.keep_small()
    sys.setswitchinterval(SWITCH_S)
    page_caches.keep_small()
    tls_buffers.keep_small()
    work_as_owner(paths.data, paths.runtime)
    check_code_is_readable()
    paths.create()
    with locked(paths), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        lives = Lives()
        while runner.run(_serve(config, paths, lives)):
            config = _read_again(config, paths, log_level)
            logger.info("the agent goes on in the same process")


def _read(paths: Paths, log_level: str | None) -> "Config":
    config = load(paths)
    return config if log_level is None else replaced(config, "log.level", log_level)


def _read_again(before: "Config", paths: Paths, log_level: str | None) -> "Config":
    """Return the configuration as it is now, which another life begins with as a start does.

    Where it cannot be read any more, the one of before: nobody is there to mend it.
    """
    try:
        config = _read(paths, log_level)
    except AgentError as error:
        logger.warning("the agent goes on with the configuration of before: %s", error.message)
        return before
    logs.configure(config.log)
    return config


class Lives:
    """When this process last began another life of its node."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun_at: float | None = None

    def may_be_outrun(self) -> bool:
        """Tell whether a life that others know the end of is followed by another."""
        return self._begun_at is None or self._clock() - self._begun_at >= OUTRUN_AGAIN_S

    def begin(self) -> None:
        """Note that another one begins."""
        self._begun_at = self._clock()


async def _serve(config: "Config", paths: Paths, lives: Lives) -> bool:
    """Run one agent to its end; tell whether another one is to follow in its place."""
    # What is loaded stays loaded: looking through it for garbage costs a tenth of the start, and
    # again each time that all is looked through.
    gc.disable()
    from agent.agent import Agent

    gc.freeze()
    gc.enable()
    agent = Agent(config, paths, may_be_outrun=lives.may_be_outrun())
    told_to_stop = await serve_until_stopped(agent)
    if agent.is_resumed:
        lives.begin()
    goes_on = agent.has_left or agent.is_resumed or agent.has_another_log
    return goes_on and not told_to_stop


async def serve_until_stopped(agent: Runnable) -> bool:
    """Run the agent; the first stop signal lets it leave, the second ends it at once.

    Return whether there was a signal.
    """
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(agent.run(), name="agent")
    leaving: list[asyncio.Task[None]] = []

    def stop(number: signal.Signals) -> None:
        if leaving:
            logger.warning("%s again: stopping at once", number.name)
            running.cancel()
        else:
            logger.info("%s: stopping; once more stops at once", number.name)
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
    return bool(leaving)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, if it is installed: about twice the packets per second."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
