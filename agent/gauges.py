"""What an agent shows to Prometheus: every plane's counters, and the gauges worth a graph."""

from collections import Counter
from typing import TYPE_CHECKING

from agent.api.interfaces import AgentServices
from gossip.membership.model.members import MemberState
from gossip.registry.ownership import Stage
from gossip.registry.registry import Registry

if TYPE_CHECKING:
    from agent.agent import Agent


def export_kept(agent: "Agent") -> None:
    """Register what an agent counts and can tell as soon as its stores are open."""
    for source in (
        lambda: agent.telemetry.counts,
        lambda: agent.apps.counts,
        lambda: agent.uplink.counts,
        agent.store_counts,
        lambda: agent.stalls.counts,
    ):
        agent.metrics.count(source)
    gauge = agent.metrics.gauge
    gauge("outbox_waiting", "Readings not yet delivered.", lambda: agent.telemetry.stats().waiting)
    gauge("uplink_connected", "1 with a broker.", lambda: float(agent.uplink.status().connected))
    gauge("uplink_in_flight", "Sent, not acknowledged.", lambda: agent.uplink.status().in_flight)


def export_covey(agent: "Agent") -> None:
    """Register what an agent counts and can tell when it takes part in its covey."""
    for source in (
        lambda: agent.driver.node.counts,
        lambda: agent.forum.counts,
    ):
        agent.metrics.count(source)
    gauge = agent.metrics.gauge
    gauge("members", "Members in each state.", lambda: _floats(member_counts(agent)), "state")
    gauge("registry_epoch", "Epoch of the registry in force.", lambda: agent.registry.epoch)
    gauge("registry_forked", "1 after a fork.", lambda: float(agent.rival is not None))
    gauge("registry_nodes", "Nodes that belong.", lambda: len(agent.registry.nodes))
    gauge("registry_absent", "Let in and not heard.", lambda: len(agent.registry.absent))
    gauge(
        "partitions_moving",
        "Partitions on their way to other owners, by stage.",
        lambda: {stage: float(count) for stage, count in moving_counts(agent.registry).items()},
        "stage",
    )
    gauge("gossip_bytes_per_day", "Gossip a day at this rate.", lambda: agent.budget.projected())
    gauge("gossip_budget_exceeded", "1 above budget.", lambda: float(agent.budget.exceeded))
    gauge("loop_stall_worst_seconds", "Longest stall.", lambda: agent.stalls.worst_s)


def member_counts(agent: AgentServices) -> dict[str, int]:
    """Return how many members are in each state; every state is there."""
    counts = Counter(member.state for member in agent.members)
    return {state.value: counts[state] for state in MemberState}


def moving_counts(registry: Registry) -> dict[str, int]:
    """Return how many partitions are on their way to other owners, by stage, each of them."""
    stages = Counter(each.stage for each in registry.table)
    return {stage.value: stages[stage] for stage in Stage if stage is not Stage.SETTLED}


def _floats(counts: "dict[str, int] | Counter[str]") -> dict[str, float]:
    return {state: float(count) for state, count in counts.items()}
