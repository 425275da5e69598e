"""Asking all owners, every few seconds, how much there is in the spaces that have a quota.

They answer with what they answer to ``covey kv stats``, so whoever asks for that as well has it
counted once. Where no space has a quota nobody is asked.
"""

import logging

from agent.cluster.kv_stats import KvSurvey
from agent.exits import AgentError
from agent.loop.periodic import until_next
from gossip.kv.limits import QUOTA_ROUND_S
from gossip.kv.plane import KvPlane

log = logging.getLogger(__name__)


class QuotaRounds:
    """Keeps what a node knows of how full its spaces are."""

    def __init__(self, survey: KvSurvey, state: KvPlane) -> None:
        self._survey, self._state = survey, state

    async def follow(self) -> None:
        """Ask again and again. Runs until cancelled."""
        while True:
            await until_next(QUOTA_ROUND_S)
            try:
                await self.ask()
            except AgentError as error:  # our own disk; what was known before still counts
                log.info("quotas of the shared keys: %s", error.message)

    async def ask(self) -> None:
        """Ask all owners once, if any space has a quota. Raises AgentError for our own disk."""
        quotas = self._state.writes.quotas
        if quotas.names():
            quotas.begin_round()
            report = await self._survey.report()
            quotas.end_round(report.uses(), self._state.registry.ownerships)
