"""The doctor of a running agent: everything that there is to look at, in one answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from agent.doctor import (
    address_family_checks,
    agent_checks,
    clock_checks,
    network_checks,
    reachability,
    registry_checks,
    stream_checks,
)
from agent.doctor.device_checks import examine_device
from agent.doctor.findings import Finding
from agent.doctor.survey import Survey, SurveyResult, names_of
from agent.loop.slices import collect
from agent.net.dial_test import DialTest
from agent.store.salvage import damaged_files
from agent.system.wall_clock import boot_time
from edge_apps import builtin
from gossip.core.ids import NodeId, format_cluster_id

if TYPE_CHECKING:
    from agent.agent import Agent

TRIALS_MAX = 32
"""So many streams are opened on trial at once; where more fail, they fail alike."""


class EarlyDoctor:
    """Examines an agent that does not take part in a covey yet: its device, and why it waits."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent

    async def examine(self) -> dict[str, Any]:
        """Return the findings, as ``GET /api/v1/doctor`` shows them; there is no matrix."""
        agent = self._agent
        network = agent.config.network
        device = await asyncio.to_thread(
            examine_device, agent.paths, network.interfaces, mdns=network.mdns
        )
        findings = [
            *device,
            agent_checks.health(agent.not_ready(), agent.advice),
            agent_checks.clock(agent.clock.last_step, boot_time()),
            agent_checks.tasks(agent.watch.troubles(), agent.watch.last_errors, agent.watch.counts),
        ]
        return {"checks": msgspec.to_builtins(findings), "matrix": None}


class Doctor:
    """Examines the agent that it belongs to."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._desk = Survey(agent.driver)
        self.receive_frame = self._desk.receive_frame

    async def examine(self) -> dict[str, Any]:
        """Return the findings and the matrix, as ``GET /api/v1/doctor`` shows them."""
        agent = self._agent
        network = agent.config.network
        device, told = await asyncio.gather(
            asyncio.to_thread(examine_device, agent.paths, network.interfaces, mdns=network.mdns),
            self._desk.run(),
        )
        names = {**names_of(agent.driver), agent.identity.node_id: agent.identity.node_name}
        trials = await self._try_streams(told)
        me = agent.identity.node_id
        streamless = {(me, node) for node in stream_checks.blocked(trials)}
        ways = await reachability.build(told.asked, told.views, told.fresh_s, streamless)
        heard = [node for node in told.asked if ways.ways[node, me] in reachability.DATAGRAMS_PASS]
        ports = self._ports()
        findings = [
            *device,
            *self._look_inside(),
            agent_checks.apps(await agent.apps.list()),
            await self._program_users(),
            *clock_checks.examine(told.clocks_s, agent.identity.node_id, names),
            *await reachability.examine(ways, names, ports, self._are_apart()),
            address_family_checks.examine(
                {each.name: each.addresses for each in agent.members if each.is_live}
            ),
            *stream_checks.examine(trials, heard, names, ports[me]),
        ]
        return {
            "checks": msgspec.to_builtins(findings),
            "matrix": {
                "names": [names[node] for node in ways.nodes],
                "rows": await collect(
                    [ways.ways[a, b].value for b in ways.nodes] for a in ways.nodes
                ),
            },
        }

    async def _try_streams(self, told: SurveyResult) -> dict[NodeId, DialTest]:
        """Dial those who did not answer, to say why."""
        silent = [node for node in told.asked if node not in told.views][:TRIALS_MAX]
        tried = await asyncio.gather(*map(self._agent.driver.try_stream, silent))
        return {node: trial for node, trial in zip(silent, tried, strict=True) if trial}

    async def _program_users(self) -> Finding:
        agent = self._agent
        programs = [name for name in agent.apps.running() if name not in builtin.NAMES]
        if agent.config.events.handlers or agent.config.queries.handlers:
            programs.append("handlers")
        lacking = (await agent.programs.apartness()).lacking if programs else ""
        return agent_checks.program_users(programs, lacking, is_issuer=agent.identity.is_issuer)

    def _are_apart(self) -> Callable[[NodeId, NodeId], bool]:
        return address_family_checks.apart(
            {each.id: each.addresses for each in self._agent.members}
        )

    def _ports(self) -> dict[NodeId, int]:
        """Return at which port each member is reached: for UDP and for TCP."""
        mine = self._agent.config.network.port
        told = {each.id: each.addresses[0].port for each in self._agent.members if each.addresses}
        return {each.id: told.get(each.id, mine) for each in self._agent.members}

    def _profiles(self) -> dict[str, str]:
        """Return the gossip profile of each member that is there and has told it."""
        agent = self._agent
        told = {
            each.name: agent.facts_of(each.id).get("profile", "")
            for each in agent.members
            if each.is_live
        }
        return {name: profile for name, profile in told.items() if profile}

    def _look_at_registry(self) -> list[Finding]:
        agent = self._agent
        live = {each.id for each in agent.members if each.is_live}
        knocking = agent.driver.node.strangers.since(agent.now())
        return registry_checks.examine(agent.registry, agent.rival, live, knocking)

    def _look_at_owners(self) -> Finding:
        """Look which partitions are on their way, and who keeps them there."""
        registry = self._agent.registry
        live = {each.id for each in self._agent.members if each.is_live}
        named = {entry.id: entry.name for entry in registry.nodes}
        holders = {node for each in registry.table if each.pending for node in each.holders}
        waits_for = [named[node] for node in holders - live if node in named]
        issuers = [entry for entry in registry.nodes if entry.is_issuer]
        is_away = issuers and live.isdisjoint(entry.id for entry in issuers)
        away = ", ".join(entry.name for entry in issuers) if is_away else ""
        return agent_checks.owners(registry.count_moving(), waits_for, away)

    def _look_at_authority(self) -> Finding:
        registry = self._agent.registry
        uncertified = [entry.name for entry in registry.uncertified]
        return agent_checks.authority(uncertified, overlaps=registry.overlaps)

    def _look_inside(self) -> list[Finding]:
        agent = self._agent
        counts = Counter(agent.driver.counts) + agent.driver.node.counts
        me = agent.identity
        sightings = agent.discovery.sightings()
        foreign = {format_cluster_id(each.cluster_id) for each in sightings}
        ours = [
            each
            for each in sightings
            if each.cluster_id == me.cluster_id and each.node_id != me.node_id
        ]
        others = sum(each.is_live and each.id != me.node_id for each in agent.members)
        return [
            agent_checks.health(agent.not_ready()),
            agent_checks.clock(agent.clock.last_step, boot_time()),
            agent_checks.tasks(agent.watch.troubles(), agent.watch.last_errors, agent.watch.counts),
            agent_checks.stores(agent.losses(), damaged_files(agent.paths.data)),
            agent_checks.probation(agent.probation.set_aside),
            agent_checks.membership(agent.members),
            *self._look_at_registry(),
            self._look_at_owners(),
            self._look_at_authority(),
            agent_checks.names(agent.members),
            agent_checks.profiles(agent.config.gossip.profile, self._profiles()),
            agent_checks.clones(
                {each.name: at for each in agent.members if (at := agent.clones_of(each.id))}
            ),
            agent_checks.seals(counts),
            agent_checks.other_coveys(
                foreign - {format_cluster_id(me.cluster_id)}, counts["discovery/other_covey"]
            ),
            *network_checks.examine(
                agent.discovery.here, agent.members, me.node_id, counts, agent.discovery.failure
            ),
            *network_checks.mdns(
                agent.discovery.mdns_failure,
                agent.discovery.here,
                enabled=agent.config.network.mdns,
            ),
            agent_checks.sightings(others, len(ours), mdns=agent.config.network.mdns),
            agent_checks.loop(
                agent.stalls.total,
                agent.stalls.worst_since(time.monotonic() - agent_checks.STALL_LOOK_BACK_S),
            ),
            agent_checks.uplink(agent.uplink.status()),
        ]
