"""Waiting: until an agent can go on, is told to stop, or something breaks.

Whatever it waits for, it says so to the service manager and in the log, and ends when told to.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from agent.loop.watched import Watch
from agent.readiness import STARTING, Lack
from agent.system.systemd import Notifier

log = logging.getLogger(__name__)


class Waiting:
    """What one agent lacks at the moment, and whether it is to stop."""

    def __init__(self, notifier: Notifier, watch: Watch) -> None:
        self.lack: Lack = STARTING
        self.stopping = asyncio.Event()
        """Set when the agent is to stop."""
        self._notifier, self._watch = notifier, watch
        self._said: Lack | None = None

    async def without(self, lack: Lack, *ends: Coroutine[Any, Any, object]) -> None:
        """Say what this node lacks, and wait for one of the ``ends`` of that, or to stop."""
        self.lack = lack
        if lack != self._said:  # what is tried in vain again and again is no news
            log.warning("%s; %s", lack.message, lack.hint)
        self._said = lack
        self._notifier.ready(f"waiting: {lack.message}; {lack.hint}")
        waiting = [asyncio.create_task(end, name="agent: until it can go on") for end in ends]
        try:
            await self.until_stopped(*waiting)
        finally:
            for each in waiting:
                each.cancel()
            self.lack = STARTING

    async def until_stopped(self, *ends: asyncio.Future[Any]) -> None:
        """Wait to stop, for one of the ``ends``, or for something to break. Raises what broke."""
        stopping = asyncio.create_task(self.stopping.wait(), name="agent: until told to stop")
        broken = asyncio.create_task(self._watch.ended(), name="agent: until something breaks")
        try:
            waiting: set[asyncio.Future[Any]] = {stopping, broken, *ends}
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            stopping.cancel()
            broken.cancel()
