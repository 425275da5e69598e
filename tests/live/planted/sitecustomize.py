"""Faults for agents that are to have one: put this folder on PYTHONPATH, and Python loads it.

Whoever merges the value ``poison`` fails, and whoever merges ``quicksand`` never comes to an end,
as with a fault in the code that all agents share. Where a file ``hanging`` lies beside the log that
the voters agree on, no save of it ends, and none fails.
"""

import asyncio
from collections.abc import Callable, Sequence

from agent.loop import stalls
from agent.store.consensus_store import ConsensusStore
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


sound_save = ConsensusStore.save


async def _save(self: ConsensusStore, changes: Sequence[object]) -> None:
    while self.database.path.with_name("hanging").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await sound_save(self, changes)


Replica._merge = _merge  # type: ignore[method-assign]
ConsensusStore.save = _save  # type: ignore[method-assign]
stalls.STUCK_S = 8.0  # not half a minute; and longer than a busy machine has a loop wait
