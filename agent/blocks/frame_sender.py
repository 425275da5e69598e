"""Sends blocks no faster than the streams take them, so that other frames do not wait behind them.

To whom a block goes on, and who hears of it, a member says that pushes it: only other members are
sent anything. A stream's queue is shared by all that two members say to each other. So of blocks it
holds a quarter of a MiB at most; whoever has more to send waits.
"""

import asyncio
from collections import Counter

from agent.runtime.driver import Driver
from gossip.bodies.messages import CODEC, BlockMessage
from gossip.core.ids import NodeId

QUEUED_BYTES_MAX = 256 * 1024
LOOK_S = 0.002
PATIENCE_S = 10.0
"""A stream that takes nothing for so long is given up; whoever waits for what it was to carry
notices that in its own time."""


class FrameSender:
    """Sends frames of files and blocks."""

    def __init__(self, driver: Driver, counts: Counter[str]) -> None:
        self._driver, self._counts = driver, counts
        self._me = driver.node.settings.me

    def send(self, message: BlockMessage, to: NodeId) -> None:
        """Send something short."""
        if to == self._me or to not in self._driver.node.state.registry.ids():
            self._counts["blocks_dropped/stranger"] += 1
            return
        self._driver.send_frame(CODEC.encode(message), to)

    async def send_paced(self, message: BlockMessage, to: NodeId) -> None:
        """Send a slice once there is room for it, or once there was none for too long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        # A stream has many users and tells none of them when there is room.
        while self._driver.waiting_bytes(to) > QUEUED_BYTES_MAX and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        self.send(message, to)
        await asyncio.sleep(0)
