"""What agents came to believe of each other in some stretch of time: read from their logs.

Asking every now and then misses what is over between two questions. The log tells each change of
a member, so "nobody was declared dead" can be said of every moment.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from tests.live.harness.fleet import Fleet

CHANGE = re.compile(r"member_log: (\S+) is (\w+) \((.*)\)")


class Change(NamedTuple):
    """Somebody came to believe something of somebody."""

    by: str
    name: str
    state: str
    reason: str


class Chronicle:
    """All that the agents of a fleet tell about members from now on."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._begun = {name: len(agent.log) for name, agent in fleet.agents.items()}

    def changes(self, accept: Callable[[Change], bool] = lambda _: True) -> list[Change]:
        """Return those changes that fit, one agent after the other."""
        told = (
            Change(name, *found)
            for name, agent in self._fleet.agents.items()
            for found in CHANGE.findall(agent.log[self._begun[name] :])
        )
        return [change for change in told if accept(change)]

    def deaths(self) -> list[Change]:
        """Return who was declared dead, and by whom."""
        return self.changes(lambda change: change.state == "dead")

    def accusations(self) -> list[Change]:
        """Return who was suspected or declared dead, and by whom."""
        return self.changes(lambda change: change.state in ("suspect", "dead"))
