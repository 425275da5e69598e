"""A covey whose authority is replaced as fast as it is asked for."""

from typing import Protocol

from agent.exits import AgentError
from gossip.registry import registry as registries
from gossip.registry.succession import Authority, Succession

SUCCESSION = Succession(
    Authority(0, bytes(32), b"former"), Authority(1, bytes(32), b"next"), bytes(64), bytes(64)
)


class HasRegistry(Protocol):
    """What of an agent is changed."""

    registry: registries.Registry


class FakeAllegiance:
    """A roll-over that is over at once with force, and waits for ``cy`` without."""

    def __init__(self, agent: HasRegistry) -> None:
        self._agent = agent
        self.refusal: AgentError | None = None

    async def roll_over(self, *, force: bool) -> None:
        if self.refusal:
            raise self.refusal
        registry = self._agent.registry
        if not registry.overlaps:
            registry = registries.succeed(registry, SUCCESSION)
        self._agent.registry = registries.retire(registry) if force else registry
