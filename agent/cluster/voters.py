"""Who votes, as their leader knows it; and the order to have one take another's place."""

from agent.cluster.agreement import expected
from agent.exits import NO, AgentError
from agent.runtime.driver import Driver
from gossip.control.messages import OverviewAnswer
from gossip.control.requests import (
    ControlOrder,
    ControlOverview,
    ReplacementResult,
)
from gossip.core.ids import NodeId

OVERVIEW_S = 3.0


class Voters:
    """Asks the leader. All raise AgentError when there is none that a majority follows."""

    def __init__(self, driver: Driver) -> None:
        self._calls = driver.control

    async def overview(self) -> OverviewAnswer:
        """Return how those are who take part, and why no more vote."""
        done = await self._calls.request(ControlOverview(OVERVIEW_S))
        return expected(done.result, OverviewAnswer)

    async def replace(self, old: NodeId, new: NodeId) -> None:
        """Begin to have ``new`` vote in the place of ``old``.

        It is done when the overview shows it. A leader that is followed by another forgets of it.
        """
        done = await self._calls.request(ControlOrder(old, new))
        refusal = expected(done.result, ReplacementResult).refusal
        if refusal:
            message, _, hint = refusal.partition("; ")
            raise AgentError(f"refused: {message}; nothing was begun", hint, NO)
