"""Looking now and then at what nobody tells of: all who do so look at the same moments.

What costs an idle device is waking its processor, not the look: those who look every second and
every other share one wake-up.
"""

import asyncio

EARLY_SHARE = 0.1
"""A timer may fire a little before its time: that still was this moment, and not the next."""


async def until_next(interval_s: float) -> None:
    """Sleep until the loop's clock is at a multiple of this interval."""
    await asyncio.sleep(rest_s(asyncio.get_running_loop().time(), interval_s))


def rest_s(now_s: float, interval_s: float) -> float:
    """Return how long it is to the next moment.

    >>> rest_s(10.25, 1.0), rest_s(9.75, 2.0), rest_s(9.9375, 1.0)
    (0.75, 0.25, 1.0625)
    """
    left_s = interval_s - now_s % interval_s
    return left_s if left_s >= EARLY_SHARE * interval_s else left_s + interval_s
