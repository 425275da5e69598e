"""Waiting for voters that are electing a leader.

What found no majority has done nothing, and may be tried again. The attempts are short, so that
another node can be asked in between; all of them together outlast an election.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent.cluster.agreed_registry import NoMajorityError
from gossip.control.requests import TIMEOUT_S

AGAIN_S = 0.5
ELECTED_S = TIMEOUT_S
"""No attempt begins later than so long after the first."""

T = TypeVar("T")


async def once_elected(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what an attempt comes to.

    Raises NoMajorityError as the last attempt did, and at once whatever else an attempt raises.
    """
    until = time.monotonic() + ELECTED_S
    while True:
        try:
            return await attempt()
        except NoMajorityError:
            if time.monotonic() + AGAIN_S >= until:
                raise
        await asyncio.sleep(AGAIN_S)
