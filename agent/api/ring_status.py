"""The route that tells how far partitions are on their way to other owners."""

from typing import Any

from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.ring import node_of
from agent.cluster.kv_messages import KvStats
from agent.cluster.ring_moves import Delay, waits
from agent.http.request import Request
from agent.http.response import Response
from gossip.registry.node import RegisteredNode


async def show_status(request: Request) -> Response:
    """Answer with what is to move, what has moved, how fast, and who is waited for."""
    agent: AgentServices = request.app.state.agent
    report = await agent.kv_reports.survey.report()
    registry, moves = agent.registry, agent.kv_reports.moves
    told = report.told.values()
    silent = [each.name for each in registry.nodes if each.id not in report.told]
    sums = {
        "epoch": registry.epoch,
        "settled": registry.is_settled,
        "to_move": moves.to_move,
        "moved": moves.moved,
        "moving": registry.count_moving(),
        "took_s": round(moves.took_s, 3),
        "left_s": None if moves.left_s is None else round(moves.left_s, 3),
        "copied": sum(each.copied for each in told),
        "copied_per_s": round(sum(each.copied_per_s for each in told)),
        "waits": [_wait(agent, each) for each in waits(registry)],
        "silent": silent,
        "outcome": "partial" if silent else "ok",
    }
    nodes = (_node(agent, entry, report.told.get(entry.id)) for entry in registry.nodes)
    return await listing("nodes", nodes, **sums)


def _wait(agent: AgentServices, wait: Delay) -> dict[str, Any]:
    about = node_of(agent, wait.node)
    return {"stage": wait.stage.value, "partitions": wait.partitions, **about}


def _node(agent: AgentServices, entry: RegisteredNode, stats: KvStats | None) -> dict[str, Any]:
    about = {**node_of(agent, entry.id), "missing": entry.missing, "answered": stats is not None}
    if stats is None:
        return about
    return about | {
        "unfinished": stats.unfinished,
        "copying": stats.transferring,
        "queued": stats.queued,
        "copied": stats.copied,
        "copied_per_s": round(stats.copied_per_s),
        "sent": stats.sent,
    }


ROUTES = (("GET", "/api/v1/ring/status", show_status),)
