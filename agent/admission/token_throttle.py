"""Who shows wrong tokens waits for the answer, longer each time.

A secret of 160 bits cannot be guessed, but each try costs the issuer a handshake, and all of them
together its CPU. A person who mistyped waits for half a second; whoever goes on from the same
address holds the few places that a stranger has (``agent/net/origin.py``) while it waits.
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable

from agent.net.origin import origin_of

FIRST_S, LONGEST_S = 0.5, 8.0
FORGOTTEN_S = 60.0
ORIGINS_MAX = 1024


class TokenThrottle:
    """Makes origins wait that show wrong tokens, ever longer; bounded: the longest silent goes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def delay_s(self, origin: str) -> float:
        """Count one more wrong token of this origin; return how long the answer is to wait.

        All addresses of an IPv6 /64 are one origin: a single host has them all.
        """
        with contextlib.suppress(ValueError):  # what is no address counts by itself
            origin = origin_of(origin)
        now = self._clock()
        times, last = self._wrong.pop(origin, (0, now))
        if now - last > FORGOTTEN_S:
            times = 0
        self._wrong[origin] = times + 1, now
        if len(self._wrong) > ORIGINS_MAX:
            self._wrong.popitem(last=False)
        delay_s: float = min(LONGEST_S, FIRST_S * 2**times)
        return delay_s
