"""The route that tells how the shared keys stand at all nodes, and whose owners are away."""

from typing import Any

from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.ring import is_up, node_of
from agent.cluster.kv_messages import ComparisonView, KvStats
from agent.cluster.kv_stats import KvStatsReport
from agent.http.request import Request
from agent.http.response import Response
from gossip.core.ids import format_node_id
from gossip.registry.node import RegisteredNode
from gossip.registry.ownership import majority
from gossip.registry.plan import owned
from gossip.registry.registry import Registry


async def show_stats(request: Request) -> Response:
    """Answer with sums over the covey, and with what each node told; the silent are named."""
    agent: AgentServices = request.app.state.agent
    report = await agent.kv_reports.survey.report()
    registry = agent.registry
    silent = [each.name for each in registry.nodes if each.id not in report.told]
    owning = owned(registry.owners)
    nodes = (
        _node(agent, entry, owning[entry.id], report.told.get(entry.id)) for entry in registry.nodes
    )
    return await listing("nodes", nodes, **_sums(agent, registry, report), silent=silent)


def _sums(agent: AgentServices, registry: Registry, report: KvStatsReport) -> dict[str, Any]:
    """Return what can be said of the whole covey."""
    present = is_up(agent)
    there = [sum(map(present, each.owners)) for _, each in registry.ownerships]
    owners = [each.owners for _, each in registry.ownerships]
    told = report.told.values()
    return {
        "epoch": registry.epoch,
        "partitions": registry.partitions,
        "replicas": registry.replicas,
        "homes": sum(place.device > 0 for place in registry.places),
        "spaces": registry.spaces,
        "moving": registry.count_moving(),
        "keys": sum(report.keys().values()),
        "copies": sum(count for stats in told for _, count in stats.keys),
        "bytes": sum(stats.bytes_used for stats in told),
        "short": sum(count < len(of) for count, of in zip(there, owners, strict=True)),
        "without_majority": sum(c < majority(of) for c, of in zip(there, owners, strict=True)),
        "uncounted": sum(
            not any(node in report.told for node in each.owners) for _, each in registry.ownerships
        ),
        "hints": sum(each.waiting for stats in told for each in stats.comparisons),
        "differing": sum(stats.differing for stats in told),
        "outcome": "partial" if len(report.told) < len(registry.nodes) else "ok",
    }


def _node(
    agent: AgentServices, entry: RegisteredNode, partitions: int, stats: KvStats | None
) -> dict[str, Any]:
    told = {
        **node_of(agent, entry.id),
        "partitions": partitions,
        "answered": stats is not None,
    }
    if stats is None:
        return told
    ages = [each.age_s for each in stats.comparisons if each.age_s is not None]
    return told | {
        "epoch": stats.epoch,
        "since_s": round(stats.since_s, 3),
        "keys": sum(count for _, count in stats.keys),
        "bytes": stats.bytes_used,
        "incomplete": stats.incomplete,
        "damaged": stats.damaged,
        "held_back": stats.is_held_back,
        "takes_puts": stats.takes_puts,
        "comparing": stats.comparing,
        "hints": sum(each.waiting for each in stats.comparisons),
        "differing": stats.differing,
        "failed": stats.failed,
        "diverged": stats.diverged,
        "repaired": stats.repaired,
        "compared_s": min(ages, default=None),
        "comparisons": [_comparison(agent, each) for each in stats.comparisons],
    }


def _comparison(agent: AgentServices, view: ComparisonView) -> dict[str, Any]:
    entry = agent.registry.node(view.peer)
    return {
        "id": format_node_id(view.peer),
        "name": entry.name if entry else "",
        "age_s": view.age_s,
        "hints": view.waiting,
    }


ROUTES = (("GET", "/api/v1/kv-stats", show_stats),)
