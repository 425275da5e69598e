"""What the HTTP API needs of an agent, and no more: its services, and what it tells of itself.

``agent/agent.py`` has all of it, and is not imported here, since it opens the API; so has a fake in
the tests.
"""

from collections.abc import Sequence
from typing import Protocol

from agent.access.access import AccessService
from agent.access.audit import AuditLog
from agent.access.caller import Caller
from agent.admission.allegiance import Allegiance
from agent.admission.former_membership import FormerMembership
from agent.admission.newcomer import Newcomer
from agent.admission.server import AdmissionServer
from agent.apps.host import AppHost
from agent.blocks.service import BlockService
from agent.cluster.agreement import Agreement
from agent.cluster.events import EventService
from agent.cluster.fact_publisher import FactPublisher
from agent.cluster.flash_budget import FlashBudget
from agent.cluster.fleet_settings import FleetSettings
from agent.cluster.kv import Kv
from agent.cluster.kv_reports import KvReports
from agent.cluster.kv_spaces import KvSpaces
from agent.cluster.recovery import Recovery
from agent.cluster.rtt import RttClient
from agent.cluster.voters import Voters
from agent.config.loader import Config
from agent.doctor.on_call import OnCallDoctor
from agent.identity.identity import Identity
from agent.keys.key_service import KeyService
from agent.metrics import Metrics
from agent.readiness import Stage
from agent.telemetry.service import Telemetry
from agent.telemetry.uplink.service import Uplink
from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address
from gossip.membership.model.members import MemberTable
from gossip.membership.network.reachability import PathStatus
from gossip.registry.registry import Registry


class AgentServices(Protocol):
    """One agent; what belongs to a later ``stage`` than its own is not there yet."""

    config: Config
    newcomer: Newcomer
    doctor: OnCallDoctor
    metrics: Metrics
    stage: Stage

    identity: Identity
    boot: Boot
    telemetry: Telemetry
    uplink: Uplink
    apps: AppHost

    kv: Kv
    kv_reports: KvReports
    blocks: BlockService
    access: AccessService
    audit: AuditLog
    agreement: Agreement
    voters: Voters
    recovery: Recovery
    fleet_settings: FleetSettings
    kv_spaces: KvSpaces
    event_service: EventService
    facts: FactPublisher
    admission: AdmissionServer
    allegiance: Allegiance
    keys: KeyService
    round_trips: RttClient
    flash: FlashBudget

    @property
    def members(self) -> MemberTable:
        """Who is there, as this node sees it. Never used to compute who owns what."""

    @property
    def registry(self) -> Registry:
        """Who belongs, and who owns what."""

    @property
    def rival(self) -> Registry | None:
        """The registry that shows that the one in force has forked; None while all is well."""

    @property
    def shared_bytes(self) -> int:
        """How much of the disk the shared keys take that lie here."""

    @property
    def uptime_s(self) -> float:
        """For how long this agent has been there, whatever became of the clock."""

    @property
    def advice(self) -> str:
        """What to do for the agent to come further; empty when it takes part."""

    def require(self, stage: Stage) -> None:
        """Raise AgentError when the agent has not come so far."""

    def app_with(self, key: str) -> Caller | None:
        """Return the app that has this key to the apps' socket; None if it is nobody's."""

    def facts_of(self, node: NodeId) -> dict[str, str]:
        """Return what a member published about itself, as far as it has arrived here."""

    def now(self) -> float:
        """Return the instant on the clock of the member table."""

    def reason_of(self, node: NodeId) -> str:
        """Return why a member is in its state; may be empty."""

    def paths_of(self, node: NodeId) -> PathStatus:
        """Return which ways to a member worked."""

    def is_flapping(self, node: NodeId) -> bool:
        """Say whether a member comes and goes too often."""

    def clones_of(self, node: NodeId) -> Sequence[Address]:
        """Return where several devices with one identity were heard; empty if it is one."""

    def unapplied(self) -> tuple[list[str], str]:
        """Return the settings that were changed since the start, or what is wrong with them now."""

    def not_ready(self) -> Sequence[str]:
        """Return why the agent cannot do its work now; empty when it can."""

    def losses(self) -> Sequence[str]:
        """Return what was found to be lost on the disk since the start; empty when nothing was."""

    async def sleep(self, duration_s: float) -> float:
        """Tell the others that this node is silent for so long; return the grace in seconds."""

    async def awaken(self) -> bool:
        """End an announced sleep; say whether there was one."""

    async def part(self, parting: FormerMembership) -> None:
        """Write down that this node leaves its covey. Raises AgentError."""

    async def leave(self) -> None:
        """Say goodbye and begin to stop."""
