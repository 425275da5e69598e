"""The demo without a terminal: a line whenever something changed, and every few seconds."""

import asyncio
import time

from agent.cli.demo.setup import DemoSetup, Say
from agent.cli.demo.views import AgentView, poll

LOOK_S = 1.0
LINE_S = 5.0


async def print_changes(stage: DemoSetup, seconds: float | None, say: Say) -> None:
    """Print lines until ``seconds`` have passed, or for ever."""
    end = None if seconds is None else time.monotonic() + seconds
    last, next_line = "", 0.0
    while end is None or time.monotonic() < end:
        views = await poll(stage.fleet.nodes)
        members = describe(views)
        now = time.monotonic()
        if members != last or now >= next_line:
            collector = stage.collector
            say(f"{members}; {collector.rate():.0f} readings/s, {len(collector.times_seen)} so far")
            last, next_line = members, now + LINE_S
        left_s = LOOK_S if end is None else min(LOOK_S, max(0.0, end - now))
        await asyncio.sleep(left_s)


def describe(views: list[AgentView]) -> str:
    """Return one line: how many members each agent sees alive.

    >>> describe([View("lark", True, True, {"lark": "alive", "wren": "dead"}, (), 0, "")])
    'lark sees 1 of 2 alive'
    """
    return ", ".join(_describe(view) for view in views)


def _describe(view: AgentView) -> str:
    if not view.answers:
        return f"{view.name} {'is starting' if view.running else 'is down'}"
    alive = sum(state == "alive" for state in view.states.values())
    return f"{view.name} sees {alive} of {len(view.states)} alive"
