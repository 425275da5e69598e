"""Takes connections from a listening socket, one at a time, also on a bad day.

asyncio's own servers take as many as the backlog is long in one go. Without file descriptors all
of these attempts fail, each is reported, and each sets a timer to try again. Here one attempt is
followed by a pause, is counted, and is said once a minute. So is what is closed at once, because
it got one of the descriptors that are kept for the agent's own files.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from agent.config.logs import RateLimitedLog
from agent.system import descriptors

PAUSE_S = 0.5


async def connections(
    listening: socket.socket, counts: Counter[str], family: str, quiet: RateLimitedLog
) -> AsyncIterator[tuple[socket.socket, Any]]:
    """Yield each connection with the address of its other end, until cancelled.

    What cannot be taken is counted as ``accept_failed`` of the family, and what would take the last
    descriptors is closed and counted as ``reserve``.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, address = await loop.sock_accept(listening)
        except OSError as error:
            # No file descriptors or memory left, or a client that is gone already.
            counts[f"{family}/accept_failed"] += 1
            quiet.warning("accept", "cannot accept a connection: %s", error)
            await asyncio.sleep(PAUSE_S)
        else:
            if descriptors.is_reserved(accepted.fileno()):
                accepted.close()
                counts[f"{family}/reserve"] += 1
                quiet.warning("reserve", "closed a connection: few file descriptors are left")
            else:
                yield accepted, address
            await asyncio.sleep(0)  # what waits is taken without a pause, and others want a turn
