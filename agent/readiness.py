"""How far an agent has come, and what each stage offers.

An agent that cannot take part in a covey yet is not a failure: a device is switched on before
anybody lets it in, or wakes up without a clock. It runs, says what it waits for, and does what it
can. Each stage includes those before it::

    WAITING ──an identity──▶ KEEPING ──a plausible clock──▶ MEMBER
       ▲                                                      │
       └────────────────────── `covey leave` ─────────────────┘
"""

from enum import IntEnum
from typing import NamedTuple

from agent.exits import UNHEALTHY, AgentError


class Stage(IntEnum):
    """What an agent can do by now."""

    WAITING = 0
    """It answers on its socket: it belongs to no covey, or it left the one it belonged to."""
    KEEPING = 1
    """It knows who it is, takes and keeps readings and runs apps, but talks with nobody."""
    MEMBER = 2
    """It takes part."""

    @property
    def word(self) -> str:
        """The stable word for programs."""
        return self.name.lower()


class Lack(NamedTuple):
    """What keeps an agent from the next stage, and what to do about it."""

    message: str
    hint: str

    def error(self) -> AgentError:
        """Return it as the answer to a request that needs more."""
        return AgentError(f"{self.message}; nothing was done", self.hint, UNHEALTHY)


STARTING = Lack("the agent is starting", "try again in a moment")
