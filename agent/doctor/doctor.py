"""The doctor of a running agent: everything that there is to look at, in one answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from agent.cluster.agreement import Agreement
from agent.doctor import (
    address_family_checks,
    agent_checks,
    agreement_checks,
    clock_checks,
    network_checks,
    reachability,
    registry_checks,
    stream_checks,
)
from agent.doctor.device_checks import examine_device
from agent.doctor.findings import Finding
from agent.doctor.inputs import AgentInputs, MemberInputs
from agent.doctor.survey import Survey, SurveyResult, names_of
from agent.loop.slices import collect
from agent.net.dial_test import DialTest
from agent.store.salvage import damaged_files
from agent.system.wall_clock import boot_time
from edge_apps import builtin
from gossip.core.ids import NodeId, format_cluster_id, format_node_id
from gossip.core.machine import Address
from gossip.membership.model.members import MemberTable
from gossip.registry.registry import Registry

STREAM_TESTS_MAX = 32
"""So many streams are opened on trial at once; where more fail, they fail alike."""
ELECTED_S = 10.0
"""As long as an election may take, it is no fault that nobody leads."""


class EarlyDoctor:
    """Examines an agent that does not take part in a covey yet: its device, and why it waits."""

    def __init__(self, inputs: AgentInputs) -> None:
        self._inputs = inputs

    async def examine(self) -> dict[str, Any]:
        """Return the findings, as ``GET /api/v1/doctor`` shows them; there is no matrix."""
        inputs = self._inputs
        findings = [
            *await asyncio.to_thread(_check_device, inputs),
            agent_checks.health(inputs.not_ready(), inputs.advice()),
            *_check_process(inputs),
        ]
        return {"checks": msgspec.to_builtins(findings), "matrix": None}


def _check_device(inputs: AgentInputs) -> list[Finding]:
    network = inputs.config.network
    percent_max = inputs.config.storage.disk_percent_max
    return examine_device(inputs.paths, network.interfaces, percent_max, mdns=network.mdns)


def _check_process(inputs: AgentInputs) -> tuple[Finding, Finding]:
    watch = inputs.watch
    return (
        agent_checks.clock(inputs.clock.last_step, boot_time()),
        agent_checks.tasks(watch.troubles(), watch.last_errors, watch.counts),
    )


class Doctor:
    """Examines an agent that takes part in its covey, and asks the other members what they see."""

    def __init__(self, survey: Survey, inputs: AgentInputs, parts: MemberInputs) -> None:
        self._survey, self._inputs, self._parts = survey, inputs, parts
        self._driver, self._me = parts.driver, parts.identity.node_id
        self._config = inputs.config

    @property
    def _members(self) -> MemberTable:
        return self._driver.node.swim.members

    @property
    def _registry(self) -> Registry:
        return self._driver.node.state.registry

    async def examine(self) -> dict[str, Any]:
        """Return the findings and the matrix, as ``GET /api/v1/doctor`` shows them."""
        me, parts = self._me, self._parts
        device, (told, trials), is_agreed = await asyncio.gather(
            asyncio.to_thread(_check_device, self._inputs),
            self._ask_members(),
            Agreement(self._driver).is_agreed(ELECTED_S),
        )
        names = {**names_of(self._driver), me: parts.identity.node_name}
        silent = {node: trial for node, trial in trials.items() if node not in told.views}
        streamless = {(me, node) for node in stream_checks.blocked(silent)}
        ways = await reachability.build(told.asked, told.views, told.fresh_s, streamless)
        heard = [node for node in told.asked if ways.ways[node, me] in reachability.DATAGRAMS_PASS]
        ports = self._ports()
        findings = [
            *device,
            *self._check_inside(),
            agent_checks.apps(await parts.apps.list()),
            await self._program_users(),
            agent_checks.api_tls(self._config.api.listen, tls=self._config.api.tls),
            self._agreement(names, is_agreed=is_agreed),
            *clock_checks.examine(told.clocks_s, me, names),
            *await reachability.examine(ways, names, ports, self._are_apart()),
            address_family_checks.examine(
                {each.name: each.addresses for each in self._members if each.is_live}
            ),
            *stream_checks.examine(silent, heard, names, ports[me]),
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

    async def _ask_members(self) -> tuple[SurveyResult, dict[NodeId, DialTest]]:
        """Ask all; dial those who do not answer, and ask those once more who can be reached."""
        told = await self._survey.run()
        trials = await self._test_streams(told)
        return await self._survey.ask_again(
            told, trials.keys() - stream_checks.blocked(trials)
        ), trials

    async def _test_streams(self, told: SurveyResult) -> dict[NodeId, DialTest]:
        """Dial those who did not answer, to say why."""
        silent = [node for node in told.asked if node not in told.views][:STREAM_TESTS_MAX]
        tried = await asyncio.gather(*map(self._driver.try_stream, silent))
        return {node: trial for node, trial in zip(silent, tried, strict=True) if trial}

    async def _program_users(self) -> Finding:
        parts = self._parts
        programs = [name for name in parts.apps.running() if name not in builtin.NAMES]
        if self._config.events.handlers or self._config.queries.handlers:
            programs.append("handlers")
        lacking = (await parts.programs.apartness()).lacking if programs else ""
        return agent_checks.program_users(programs, lacking, is_issuer=parts.identity.is_issuer)

    def _agreement(self, names: Mapping[NodeId, str], *, is_agreed: bool) -> Finding:
        status = Agreement(self._driver).status()
        others = [names.get(node, format_node_id(node)) for _, node in status.forks]
        doubted = [names.get(node, format_node_id(node)) for node, _ in status.doubted]
        return agreement_checks.agreement(status, others, doubted, is_agreed=is_agreed)

    def _are_apart(self) -> Callable[[NodeId, NodeId], bool]:
        return address_family_checks.apart({each.id: each.addresses for each in self._members})

    def _ports(self) -> dict[NodeId, int]:
        """Return at which port each member is reached: for UDP and for TCP."""
        mine = self._config.network.port
        told = {each.id: each.addresses[0].port for each in self._members if each.addresses}
        return {each.id: told.get(each.id, mine) for each in self._members}

    def _profiles(self) -> dict[str, str]:
        """Return the gossip profile of each member that is there and has told it."""
        facts_of = self._driver.node.swim.facts_of
        told = {
            each.name: facts_of(each.id).get("profile", "")
            for each in self._members
            if each.is_live
        }
        return {name: profile for name, profile in told.items() if profile}

    def _check_registry(self) -> list[Finding]:
        node = self._driver.node
        live = {each.id for each in self._members if each.is_live}
        knocking = node.strangers.since(self._driver.now())
        rival = node.state.registry_sync.rival
        voters = Agreement(self._driver).status().voters
        return registry_checks.examine(self._registry, rival, live, voters, knocking)

    def _check_owners(self) -> Finding:
        """Look which partitions are on their way, and who keeps them there."""
        registry = self._registry
        live = {each.id for each in self._members if each.is_live}
        named = {entry.id: entry.name for entry in registry.nodes}
        holders = {node for _, each in registry.ownerships if each.pending for node in each.holders}
        waits_for = [named[node] for node in holders - live if node in named]
        issuers = [entry for entry in registry.nodes if entry.is_issuer]
        is_away = issuers and live.isdisjoint(entry.id for entry in issuers)
        away = ", ".join(entry.name for entry in issuers) if is_away else ""
        return agent_checks.owners(registry.count_moving(), waits_for, away)

    def _check_authority(self) -> Finding:
        registry = self._registry
        uncertified = [entry.name for entry in registry.uncertified]
        return agent_checks.authority(uncertified, overlaps=registry.overlaps)

    def _check_keys(self) -> Finding:
        keys = self._parts.keys
        named = {entry.id: entry.name for entry in self._registry.nodes}
        awaited = [named[node] for node in keys.awaited() if node in named]
        return agent_checks.keys(
            awaited, is_turning=keys.is_turning, is_known_outside=keys.must_exclude
        )

    def _clones(self) -> dict[str, Sequence[Address]]:
        """Return where several devices with one identity were heard, by the member's name."""
        node, now = self._driver.node, self._driver.now()
        return {
            each.name: at for each in self._members if (at := node.swim.clones_of(each.id, now))
        }

    def _check_inside(self) -> list[Finding]:
        inputs, parts, members = self._inputs, self._parts, self._members
        driver, discovery, network = self._driver, parts.discovery, self._config.network
        counts = Counter(driver.counts) + driver.node.counts
        me = parts.identity
        sightings = discovery.sightings()
        foreign = {format_cluster_id(each.cluster_id) for each in sightings}
        ours = [
            each
            for each in sightings
            if each.cluster_id == me.cluster_id and each.node_id != me.node_id
        ]
        others = sum(each.is_live and each.id != me.node_id for each in members)
        return [
            agent_checks.health(inputs.not_ready()),
            *_check_process(inputs),
            agent_checks.stores(parts.losses(), damaged_files(inputs.paths.data)),
            agent_checks.flash(parts.flash.report()),
            agent_checks.probation(parts.probation.set_aside),
            agent_checks.membership(members, self._registry.nodes, parts.uptime_s()),
            *self._check_registry(),
            self._check_owners(),
            self._check_authority(),
            self._check_keys(),
            agent_checks.names(members),
            agent_checks.profiles(self._config.gossip.profile, self._profiles()),
            agent_checks.clones(
                self._clones(),
                is_superseded=parts.is_superseded(),
                has_begun_anew=parts.has_begun_anew,
            ),
            agent_checks.seals(counts),
            agent_checks.other_coveys(
                foreign - {format_cluster_id(me.cluster_id)}, counts["discovery/other_covey"]
            ),
            *network_checks.examine(discovery.here, members, me.node_id, counts, discovery.failure),
            *network_checks.mdns(discovery.mdns_failure, discovery.here, enabled=network.mdns),
            agent_checks.sightings(others, len(ours), mdns=network.mdns),
            agent_checks.loop(
                parts.stalls.total,
                parts.stalls.worst_since(time.monotonic() - agent_checks.STALL_LOOK_BACK_S),
            ),
            agent_checks.uplink(parts.uplink.status()),
            agent_checks.dead_letters(
                parts.telemetry.stats().letters, parts.telemetry.dead_letters(1)
            ),
        ]
