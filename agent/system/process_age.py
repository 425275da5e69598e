"""How long ago this process began: where a machine is busy, that tells by how much.

From the call of a command to its first line of work it loads the interpreter and its modules. Who
begins at the same time takes as long for the same.
"""

import functools
import os
import time

from agent.system.resumption import began


@functools.cache
def first_work_s() -> float:
    """Return how long this process had been there when it first asked; 0 where nobody says."""
    began_ticks = began()
    if not began_ticks:
        return 0.0
    began_s = int(began_ticks) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began_s)
