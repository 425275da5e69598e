"""Attempts that are alike: the first is told at once, the others are counted; none is left out."""

import asyncio
from collections.abc import Callable

from agent.access.repeated_refusals import KINDS_MAX, MORE, OTHERS, RepeatedRefusals

Told = list[tuple[str, str, str, str, int]]


def watched(attempts: Callable[[RepeatedRefusals], None]) -> Told:
    told: Told = []

    async def scenario() -> None:
        attempts(RepeatedRefusals(lambda *entry: told.append(entry)))

    asyncio.run(scenario())
    return told


def test_the_first_is_told_at_once_and_how_many_followed() -> None:
    def attempts(refusals: RepeatedRefusals) -> None:
        for number in range(5):
            refusals.record("right", "panel", "fd00::1", "fd00::", f"PUT /{number}", number + 1)
        refusals.flush()
        refusals.flush()
        refusals.record("right", "panel", "fd00::2", "fd00::", "PUT /new")

    assert watched(attempts) == [
        ("panel", "fd00::1", "PUT /0", "right", 1),
        ("panel", "fd00::", MORE, "right", 14),
        ("panel", "fd00::2", "PUT /new", "right", 1),
    ]


def test_a_flood_for_one_reason_hides_none_for_another() -> None:
    def attempts(refusals: RepeatedRefusals) -> None:
        for number in range(1000):
            refusals.record("removed_node", f"node {number}", "10.0.0.1", "10.0.0.1", "a datagram")
        refusals.record("right", "panel", "10.0.0.2", "10.0.0.2", "PUT /")
        refusals.flush()

    told = watched(attempts)
    assert ("panel", "10.0.0.2", "PUT /", "right", 1) in told
    assert len(told) == KINDS_MAX + 3
    assert sum(times for *_, times in told) == 1001
    assert [who for who, *_ in told].count(OTHERS) == 1
