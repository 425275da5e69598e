"""Faults for agents that are to have one: put this folder on PYTHONPATH, and Python loads it.

Whoever merges the value ``poison`` fails, and whoever merges ``quicksand`` never comes to an end,
as with a fault in the code that all agents share.
"""

from collections.abc import Callable

from agent.loop import stalls
from gossip.core.machine import Instant
from gossip.kv.records import KeyState
from gossip.kv.replica import Replica

sound: Callable[[Replica, int, str, KeyState, Instant], None] = Replica._merge


def _merge(self: Replica, partition: int, key: str, state: KeyState, now: Instant) -> None:
    values = {version.value for version in state.live}
    if b"poison" in values:
        raise RuntimeError("a planted fault")
    while b"quicksand" in values:
        pass
    sound(self, partition, key, state, now)


Replica._merge = _merge  # type: ignore[method-assign]
stalls.STUCK_S = 2.0
