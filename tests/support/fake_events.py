"""Events and queries for the fake agent: what was sent, and what the test says was told."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from agent.cluster.event_json import (
    EventRecord,
    IncomingQuery,
    MissedEvents,
    QueryResponse,
    QuerySummary,
)
from agent.exits import NOT_FOUND, AgentError
from gossip.core.errors import InvalidRequest, LimitExceeded
from gossip.events.messages import ResponseKind

ME, OTHER = 0xA, 0xB


class FakeForum:
    """Remembers what was sent and asked; answers with what the test put there."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.refusal: AgentError | None = None
        self.told = [
            EventRecord("a-1-1", "door", b"open", ME, "ada", 7, False, 1_700_000_000.5),
            EventRecord("b-1-1", "door", b"\xff", OTHER, "bob", 5, True, 1_700_000_001.0),
        ]
        self.followed: list[EventRecord | MissedEvents] = []
        self.asked: dict[str, Any] = {}
        self.answers: list[QueryResponse | QuerySummary] = [
            QueryResponse(ME, "ada", ResponseKind.ANSWERED, b"pong", 0.001),
            QuerySummary(1, 1, ()),
        ]
        self.queries = [IncomingQuery("b-1-9", "weigh", b"now", OTHER, "bob", 5.0)]
        self.listened: tuple[str, ...] = ()
        self.answered: list[tuple[str, bytes, bool]] = []

    def send(self, name: str, payload: bytes) -> str:
        if self.refusal:
            raise self.refusal
        if len(payload) > 512:
            raise LimitExceeded("this does not fit; nothing was sent")
        self.sent.append((name, payload))
        return f"a-1-{len(self.sent)}"

    async def settle(self) -> None:
        return

    def recent(self, patterns: tuple[str, ...], limit: int) -> list[EventRecord]:
        return [one for one in self.told if one.name in patterns or "*" in patterns][:limit]

    async def follow(self, patterns: tuple[str, ...]) -> AsyncIterator[EventRecord | MissedEvents]:
        for one in self.followed:
            yield one

    def ask(
        self, name: str, payload: bytes, filters: Mapping[str, str], timeout_s: float
    ) -> AsyncIterator[QueryResponse | QuerySummary]:
        if timeout_s > 60:
            raise InvalidRequest("a query waits for at most 60 s; nobody was asked")
        self.asked = {"name": name, "payload": payload, "filters": filters, "timeout_s": timeout_s}
        return self._answers()

    async def _answers(self) -> AsyncIterator[QueryResponse | QuerySummary]:
        for one in self.answers:
            yield one

    async def listen(
        self, patterns: tuple[str, ...]
    ) -> AsyncIterator[IncomingQuery | MissedEvents]:
        self.listened = patterns
        for one in self.queries:
            yield one

    def answer(self, query: str, payload: bytes, *, failed: bool = False) -> None:
        if query != "b-1-9":
            raise AgentError(f"no query {query} waits for an answer", "", NOT_FOUND)
        self.answered.append((query, payload, failed))
