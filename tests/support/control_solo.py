"""One node that agrees with itself: the real control plane, over a disk that never fails.

``SoloDriver`` stands for ``agent/runtime/driver.py`` where something asks the control plane: each
call runs to its end at once. Its clock stands still unless a test sets it on.
"""

import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from agent.runtime.control_requests import ControlRequests
from agent.runtime.driver import Driver
from gossip.consensus.configuration import Voter
from gossip.consensus.roles import Role
from gossip.consensus.storage import MemoryLog, StoredState, founded
from gossip.control.plane import ControlPlane, StoredLog
from gossip.core.machine import Emit, Persist, SendFrame

T = TypeVar("T")

STORE, BOOT, ELECTED_WITHIN_S = 7, 9, 60


class SoloDriver:
    """What the services of the control plane use of a driver; ``later`` lets time pass."""

    def __init__(self, me: int, state: StoredState | None = None) -> None:
        log = MemoryLog()
        log.replace(state or founded(Voter(STORE, me)))
        self.time = 1000.0
        stored = StoredLog(STORE, BOOT, log.stored())
        self.plane = ControlPlane(me, stored, lambda: (), dict, random.Random(1), self.time)
        self.counts: Counter[str] = Counter()
        self.node = SimpleNamespace(
            settings=SimpleNamespace(me=me), with_control=lambda action, _now: self.act(action)
        )
        self.control = ControlRequests(
            lambda action: self.act(lambda plane: action(plane, self.time)),
            self.now,
            self.counts,
        )
        for _ in range(ELECTED_WITHIN_S):
            self.later(1.0)
        assert self.plane.part.raft is not None
        assert self.plane.part.raft.role is Role.LEADER

    def now(self) -> float:
        return self.time

    def later(self, seconds: float) -> None:
        self.time += seconds
        self.act(lambda plane: plane.wake(self.time))

    def act(self, action: Callable[[ControlPlane], T]) -> T:
        result = action(self.plane)
        while effects := list(self.plane.effects()):
            for effect in effects:
                if isinstance(effect, SendFrame):
                    self.plane.peer_unreachable(effect.to, self.time)  # nobody else is there
                if isinstance(effect, Persist):
                    self.plane.persisted(effect.token, self.time)
                elif isinstance(effect, Emit):
                    self.control.heard(cast("Any", effect.event))
        return result

    def driver(self) -> Driver:
        return cast("Driver", self)
