"""The readings of an agent that is none, for the tests of its API and its command line."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from agent.exits import AgentError
from agent.telemetry.dead_letter_sql import LetterTotals
from agent.telemetry.dead_letters import Choice, DeadLetter, MoveResult
from agent.telemetry.outbox import Accepted, OutboxStats, Receipt
from agent.telemetry.service import Overrun
from edge_apps.reading import Reading


class FakeTelemetry:
    """Keeps readings in a list."""

    def __init__(self) -> None:
        self.accepted: list[Accepted] = []
        self.refusal: AgentError | None = None
        self.chosen: list[Choice] = []
        self.left = 0
        self.followers: list[asyncio.Queue[Accepted | Overrun]] = []

    async def accept(self, readings: Sequence[Reading]) -> Receipt:
        if self.refusal:
            raise self.refusal
        first = len(self.accepted) + 1
        new = [Accepted(n, f"a-1-{n}", reading) for n, reading in enumerate(readings, first)]
        self.accepted += new
        for follower in self.followers:
            for one in new:
                follower.put_nowait(one)
        return Receipt(len(new), new[0].id, new[-1].id)

    async def follow(self, pattern: str) -> AsyncIterator[Accepted | Overrun]:
        follower: asyncio.Queue[Accepted | Overrun] = asyncio.Queue()
        self.followers.append(follower)
        try:
            while True:
                yield await follower.get()
        finally:
            self.followers.remove(follower)

    async def recent(self, pattern: str, limit: int) -> list[Accepted]:
        return self.accepted[-limit:]

    def stats(self) -> OutboxStats:
        letters = LetterTotals(buried=4, held=1, held_bytes=60, replayed=2, dropped=1)
        dropped = {"bulk_full": 5, "normal_age": 1}
        return OutboxStats(len(self.accepted), 1000, 7, 4, 2, None, letters, 99, 1000, dropped)

    async def list_letters(self, choice: Choice, limit: int) -> list[DeadLetter]:
        self.chosen.append(choice)
        return self.dead_letters(limit)

    async def replay(self, choice: Choice) -> MoveResult:
        self.chosen.append(choice)
        return MoveResult(3, 1, self.left)

    async def drop_letters(self, choice: Choice) -> MoveResult:
        self.chosen.append(choice)
        return MoveResult(1, 0, 0)

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        return [
            DeadLetter("a-1-9", Reading("attic/gas", 1), "refused: 0x99", 1_700_000_000 * 10**9)
        ]
