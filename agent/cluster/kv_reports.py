"""What is told of the shared keys to people: of one key, of all of them, of those that move."""

from collections.abc import Callable

from agent.cluster.kv_messages import STATS_CODEC, VIEW_CODEC
from agent.cluster.kv_quotas import QuotaRounds
from agent.cluster.kv_stats import KeyCounter, KvSurvey
from agent.cluster.kv_why import KeyViews
from agent.cluster.ring_moves import RingMoves
from agent.runtime.driver import Driver
from gossip.core.ids import NodeId

Route = tuple[frozenset[int], Callable[[bytes, NodeId], None]]


class KvReports:
    """All kinds of reports, with the frames by which members ask each other for them."""

    def __init__(self, driver: Driver, counter: KeyCounter, uptime_s: Callable[[], float]) -> None:
        self.views = KeyViews(driver)
        self.survey = KvSurvey(driver, counter, uptime_s)
        self.quotas = QuotaRounds(self.survey, driver.node.state)
        self.moves = RingMoves(driver.node.state.registry)
        driver.listen(self.moves.on_event)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Who takes in which frames."""
        views, survey = self.views, self.survey
        return (VIEW_CODEC.tags, views.receive_frame), (STATS_CODEC.tags, survey.receive_frame)

    async def stop(self) -> None:
        """Answer nobody any more."""
        await self.survey.stop()
