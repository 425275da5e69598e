"""The doctor of a running agent: everything that there is to look at, in one answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from agent.apps.host import AppHost
from agent.config.loader import Config
from agent.config.paths import Paths
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
from agent.identity.identity import Identity
from agent.keys.key_service import KeyService
from agent.loop.slices import collect
from agent.loop.stalls import StallWatch
from agent.loop.watched import Watch
from agent.net.dial_test import DialTest
from agent.net.discovery import Discovery
from agent.programs.isolation import Programs
from agent.runtime.driver import Driver
from agent.runtime.probation import Probation
from agent.store.salvage import damaged_files
from agent.system.wall_clock import WallClock, boot_time
from agent.telemetry.uplink.service import Uplink
from edge_apps import builtin
from gossip.core.ids import NodeId, format_cluster_id
from gossip.core.machine import Address
from gossip.membership.model.members import MemberTable
from gossip.registry.registry import Registry

TRIALS_MAX = 32
"""So many streams are opened on trial at once; where more fail, they fail alike."""


class AgentInputs(NamedTuple):
    """What there is to look at of an agent from its start on."""

    config: Config
    paths: Paths
    clock: WallClock
    watch: Watch
    not_ready: Callable[[], Sequence[str]]
    """Returns why the agent cannot do its work now; empty when it can."""
    advice: Callable[[], str]
    """Returns what to do for it to come further."""


class MemberInputs(NamedTuple):
    """What there is to look at besides when the agent takes part in its covey."""

    identity: Identity
    driver: Driver
    discovery: Discovery
    apps: AppHost
    programs: Programs
    uplink: Uplink
    keys: KeyService
    probation: Probation
    stalls: StallWatch
    losses: Callable[[], Sequence[str]]
    """Returns what was found to be lost on the disk since the start."""
    is_superseded: Callable[[], bool]
    """Tells whether another device with this identity is believed in place of this one."""
    has_begun_anew: bool
    """Whether this process began another life of its node within the last hour."""


class EarlyDoctor:
    """Examines an agent that does not take part in a covey yet: its device, and why it waits."""

    def __init__(self, inputs: AgentInputs) -> None:
        self._inputs = inputs

    async def examine(self) -> dict[str, Any]:
        """Return the findings, as ``GET /api/v1/doctor`` shows them; there is no matrix."""
        inputs = self._inputs
        findings = [
            *await asyncio.to_thread(_look_at_device, inputs),
            agent_checks.health(inputs.not_ready(), inputs.advice()),
            *_look_at_process(inputs),
        ]
        return {"checks": msgspec.to_builtins(findings), "matrix": None}


def _look_at_device(inputs: AgentInputs) -> list[Finding]:
    network = inputs.config.network
    return examine_device(inputs.paths, network.interfaces, mdns=network.mdns)


def _look_at_process(inputs: AgentInputs) -> tuple[Finding, Finding]:
    watch = inputs.watch
    return (
        agent_checks.clock(inputs.clock.last_step, boot_time()),
        agent_checks.tasks(watch.troubles(), watch.last_errors, watch.counts),
    )


class Doctor:
    """Examines an agent that takes part in its covey, and asks the other members what they see."""

    def __init__(self, survey: Survey, inputs: AgentInputs, parts: MemberInputs) -> None:
        self._desk, self._inputs, self._parts = survey, inputs, parts
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
        device, told = await asyncio.gather(
            asyncio.to_thread(_look_at_device, self._inputs), self._desk.run()
        )
        names = {**names_of(self._driver), me: parts.identity.node_name}
        trials = await self._try_streams(told)
        streamless = {(me, node) for node in stream_checks.blocked(trials)}
        ways = await reachability.build(told.asked, told.views, told.fresh_s, streamless)
        heard = [node for node in told.asked if ways.ways[node, me] in reachability.DATAGRAMS_PASS]
        ports = self._ports()
        findings = [
            *device,
            *self._look_inside(),
            agent_checks.apps(await parts.apps.list()),
            await self._program_users(),
            *clock_checks.examine(told.clocks_s, me, names),
            *await reachability.examine(ways, names, ports, self._are_apart()),
            address_family_checks.examine(
                {each.name: each.addresses for each in self._members if each.is_live}
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
        tried = await asyncio.gather(*map(self._driver.try_stream, silent))
        return {node: trial for node, trial in zip(silent, tried, strict=True) if trial}

    async def _program_users(self) -> Finding:
        parts = self._parts
        programs = [name for name in parts.apps.running() if name not in builtin.NAMES]
        if self._config.events.handlers or self._config.queries.handlers:
            programs.append("handlers")
        lacking = (await parts.programs.apartness()).lacking if programs else ""
        return agent_checks.program_users(programs, lacking, is_issuer=parts.identity.is_issuer)

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

    def _look_at_registry(self) -> list[Finding]:
        node = self._driver.node
        live = {each.id for each in self._members if each.is_live}
        knocking = node.strangers.since(self._driver.now())
        rival = node.state.registry_sync.rival
        return registry_checks.examine(self._registry, rival, live, knocking)

    def _look_at_owners(self) -> Finding:
        """Look which partitions are on their way, and who keeps them there."""
        registry = self._registry
        live = {each.id for each in self._members if each.is_live}
        named = {entry.id: entry.name for entry in registry.nodes}
        holders = {node for each in registry.table if each.pending for node in each.holders}
        waits_for = [named[node] for node in holders - live if node in named]
        issuers = [entry for entry in registry.nodes if entry.is_issuer]
        is_away = issuers and live.isdisjoint(entry.id for entry in issuers)
        away = ", ".join(entry.name for entry in issuers) if is_away else ""
        return agent_checks.owners(registry.count_moving(), waits_for, away)

    def _look_at_authority(self) -> Finding:
        registry = self._registry
        uncertified = [entry.name for entry in registry.uncertified]
        return agent_checks.authority(uncertified, overlaps=registry.overlaps)

    def _look_at_keys(self) -> Finding:
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

    def _look_inside(self) -> list[Finding]:
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
            *_look_at_process(inputs),
            agent_checks.stores(parts.losses(), damaged_files(inputs.paths.data)),
            agent_checks.probation(parts.probation.set_aside),
            agent_checks.membership(members),
            *self._look_at_registry(),
            self._look_at_owners(),
            self._look_at_authority(),
            self._look_at_keys(),
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
        ]
