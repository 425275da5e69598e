"""What an agent's metrics show of how it stands now; what happened is counted where it happens."""

import time

from agent.cluster.flash_budget import FlashBudget
from agent.cluster.kv_stats import count_incomplete
from agent.cluster.traffic_budget import TrafficBudget
from agent.loop.stalls import StallWatch
from agent.metrics import Metrics
from agent.store.disk_room import DiskRoom
from agent.telemetry.service import Telemetry
from agent.telemetry.uplink.service import Uplink
from gossip.node import Node


def show_kept(metrics: Metrics, telemetry: Telemetry, uplink: Uplink) -> None:
    """Show how what is kept stands, from now on, to who scrapes the metrics."""
    gauge, outbox, link = metrics.gauge, telemetry.stats, uplink.status
    gauge("outbox_waiting", "Readings not yet delivered.", lambda: outbox().waiting)
    gauge("outbox_waiting_bytes", "What these take.", lambda: outbox().waiting_bytes)
    gauge("dead_letters_held", "Given up, and kept.", lambda: outbox().letters.held)
    gauge("dead_letters_bytes", "What these take.", lambda: outbox().letters.held_bytes)
    gauge("uplink_connected", "1 with a broker.", lambda: float(link().connected))
    gauge("uplink_in_flight", "Sent, not acknowledged.", lambda: link().in_flight)


def show_flash(metrics: Metrics, budget: FlashBudget) -> None:
    """Show what is written to the flash, from now on, to who scrapes the metrics."""
    gauge = metrics.gauge
    gauge("flash_bytes_per_hour", "Written by each database.", budget.rates, "database")
    gauge("flash_budget_exceeded", "1 above budget.", lambda: float(budget.exceeded))


def show_membership(
    metrics: Metrics, node: Node, budget: TrafficBudget, stalls: StallWatch, room: DiskRoom
) -> None:
    """Show how this node takes part, from now on, to who scrapes the metrics."""
    gauge, members, state = metrics.gauge, node.swim.members, node.state
    gauge("members", "Members in each state.", lambda: members.count_by_state(), "state")
    gauge("registry_epoch", "Epoch of the registry in force.", lambda: state.registry.epoch)
    gauge("registry_forked", "1 after a fork.", lambda: float(bool(state.registry_sync.rival)))
    gauge("registry_nodes", "Nodes that belong.", lambda: len(state.registry.nodes))
    gauge("registry_absent", "Let in and not heard.", lambda: len(state.registry.absent))
    gauge("registry_missing", "Not heard for long.", lambda: len(state.registry.missing))
    gauge("registry_draining", "To own nothing.", lambda: len(state.registry.draining))
    moving = "Partitions on their way to other owners, by stage."
    gauge("partitions_moving", moving, lambda: state.registry.count_moving(), "stage")
    _show_keys(metrics, node)
    gauge("gossip_bytes_per_day", "Gossip a day at this rate.", budget.projected)
    gauge("gossip_budget_exceeded", "1 above budget.", lambda: float(budget.exceeded))
    gauge("disk_used_ratio", "Of the disk, by whomever.", lambda: room.used_percent / 100)
    gauge("kv_puts_limited", "1 with no room for puts.", lambda: float(room.is_short))
    gauge("loop_stall_worst_seconds", "Longest stall.", lambda: stalls.worst_s)


def _show_keys(metrics: Metrics, node: Node) -> None:
    """Show how the shared keys stand here."""
    gauge, state, me, members = metrics.gauge, node.state, node.settings.me, node.swim.members

    def short() -> int:
        there = {each.id for each in members if each.is_live} | {me}
        return sum(not there.issuperset(owners) for owners in state.registry.owners)

    def ages_s() -> dict[str, float]:
        now, entry_of = time.clock_gettime(time.CLOCK_BOOTTIME), state.registry.node
        return {
            entry.name: max(0.0, now - state.repair.compared_at.get(peer, state.repair.began))
            for peer in state.repair.peers()
            if (entry := entry_of(peer)) is not None
        }

    own = "Partitions that this node owns."
    gauge("kv_partitions_owned", own, lambda: sum(me in each for each in state.registry.owners))
    gauge("kv_partitions_incomplete", "Not complete yet.", lambda: count_incomplete(state))
    gauge("kv_partitions_short", "With an owner away.", short)
    gauge("kv_hints_waiting", "To be compared.", lambda: state.repair.waiting().total())
    gauge("kv_comparison_age_seconds", "Since the last comparison.", ages_s, "node")
