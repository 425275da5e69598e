"""What each agent sees: the demo's picture of the covey, asked from their HTTP APIs.

Agents are asked side by side, and one that does not answer in time is shown as silent: a
picture must not wait for the agent that somebody just killed.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from agent.cli.demo.fleet import DemoNode
from edge_apps.client import ClientError

DEMO_KEY = "demo/greeting"


class AgentView(NamedTuple):
    """One agent's view. ``states`` maps a member's name to its state; all empty when silent."""

    name: str
    running: bool
    answers: bool
    states: dict[str, str]
    owners: tuple[str, ...]
    waiting: int
    uplink: str


async def poll(nodes: Sequence[DemoNode]) -> list[AgentView]:
    """Return the view of each node, in their order."""
    return list(await asyncio.gather(*(asyncio.to_thread(poll_one, node) for node in nodes)))


def poll_one(node: DemoNode) -> AgentView:
    """Return one node's view; blocks for as long as its client's timeout."""
    if not node.running:
        return _silent(node)
    try:
        members = node.client.get("/api/v1/members")["members"]
        status = node.client.get("/api/v1/status")
        ring = node.client.get("/api/v1/ring", key=DEMO_KEY)
    except ClientError:
        return _silent(node)
    return _view(node.name, members, status, ring)


def _view(name: str, members: list[Any], status: Any, ring: Any) -> AgentView:
    uplink = status["uplink"]
    return AgentView(
        name=name,
        running=True,
        answers=True,
        states={member["name"]: member["state"] for member in members},
        owners=tuple(owner["name"] for owner in ring["owners"]),
        waiting=status["outbox"]["waiting"],
        uplink=f"{uplink['state']}, MQTT {uplink['version']}",
    )


def _silent(node: DemoNode) -> AgentView:
    return AgentView(node.name, node.running, False, {}, (), 0, "")  # noqa: FBT003


def all_see(views: Sequence[AgentView], states: dict[str, str]) -> bool:
    """Say whether every running agent answers and sees exactly these states."""
    return all(view.states == states for view in views if view.running)
