"""What the HTTP API needs of an agent, and no more.

``agent/agent.py`` has all of it; so has a small fake in the tests. The services are described
where they live: ``agent/cluster/kv.py``, ``agent/telemetry/service.py``, ``agent/apps/host.py``,
``agent/admission/server.py``, ``agent/uplink/``.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agent.admission.former_membership import FormerMembership
from agent.admission.messages import TokenShown
from agent.admission.token_terms import TokenTerms
from agent.apps.host import AppStatus
from agent.cluster.event_json import (
    EventRecord,
    IncomingQuery,
    MissedEvents,
    QueryResponse,
    QuerySummary,
)
from agent.config.loader import Config
from agent.keys.key_service import KeyHolding
from agent.keys.messages import KeyringState
from agent.metrics import Metrics
from agent.readiness import Stage
from agent.telemetry.outbox import Accepted, DeadLetter, OutboxStats, Receipt
from agent.telemetry.service import Overrun
from agent.telemetry.uplink.status import UplinkStatus
from edge_apps.reading import Reading
from gossip.core.ids import Boot, ClusterId, NodeId
from gossip.core.machine import Address
from gossip.kv.requests import GetResult, ListResult, PutResult, WatchEvent
from gossip.membership.model.members import MemberTable
from gossip.membership.network.reachability import PathStatus
from gossip.membership.rtt import Rtt
from gossip.registry.registry import Registry

if TYPE_CHECKING:
    from agent.telemetry.uplink.broker_test import ConnectStep


class IdentityFacade(Protocol):
    """Who this node is: ``agent/identity/identity.py``."""

    cluster_id: ClusterId
    cluster_name: str
    node_id: NodeId
    node_name: str

    @property
    def is_issuer(self) -> bool:
        """Whether this node can let others in by itself."""


class KvFacade(Protocol):
    """The shared keys. Raises InvalidRequest for what can never succeed."""

    async def put(
        self, key: str, value: bytes, *, w: int | None, context: bytes | None, timeout_s: float
    ) -> PutResult:
        """Write a value."""

    async def get(self, key: str, *, r: int | None, timeout_s: float) -> GetResult:
        """Read a key."""

    async def delete(
        self, key: str, *, w: int | None, context: bytes | None, timeout_s: float
    ) -> PutResult:
        """Delete a key."""

    async def list(
        self, prefix: str, *, after: str, limit: int, r: int | None, timeout_s: float
    ) -> ListResult:
        """Read the keys that begin with a prefix."""

    def watch(self, *, prefix: str | None, key: str | None) -> AsyncIterator[WatchEvent]:
        """Yield changes until the iterator is closed."""


class TelemetryFacade(Protocol):
    """The readings that this agent accepted."""

    async def accept(self, readings: Sequence[Reading]) -> Receipt:
        """Put readings on disk, all or none."""

    def follow(self, pattern: str) -> AsyncIterator[Accepted | Overrun]:
        """Yield readings as they are accepted, from now on."""

    async def recent(self, pattern: str, limit: int) -> list[Accepted]:
        """Return the newest readings, oldest first."""

    def stats(self) -> OutboxStats:
        """Return the outbox in numbers."""

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters, oldest first."""


class UplinkFacade(Protocol):
    """The connection to the broker."""

    def test(self) -> "AsyncIterator[ConnectStep]":
        """Try the broker step by step. Raises AgentError without one."""

    def status(self) -> UplinkStatus:
        """Return one look at it."""


class ForumFacade(Protocol):
    """Events and queries."""

    def send(self, name: str, payload: bytes) -> str:
        """Send an event; return its id."""

    async def settle(self) -> None:
        """Return when what was heard by now is among the recent events."""

    def recent(self, patterns: tuple[str, ...], limit: int) -> list[EventRecord]:
        """Return the last events, oldest first."""

    def follow(self, patterns: tuple[str, ...]) -> AsyncIterator[EventRecord | MissedEvents]:
        """Yield events as they are delivered."""

    def ask(
        self, name: str, payload: bytes, filters: Mapping[str, str], timeout_s: float
    ) -> AsyncIterator[QueryResponse | QuerySummary]:
        """Ask the members with these tags; return answers and, last, the summary."""

    def listen(self, patterns: tuple[str, ...]) -> AsyncIterator[IncomingQuery | MissedEvents]:
        """Yield queries that the caller is to answer."""

    def answer(self, query: str, payload: bytes, *, failed: bool = False) -> None:
        """Answer a query."""


class FactsFacade(Protocol):
    """What this node tells about itself."""

    def given(self) -> dict[str, str]:
        """Return the facts that were set while an agent ran here."""

    async def change(self, give: Mapping[str, str], drop: Collection[str]) -> None:
        """Set some facts and drop others, all or none. Raises LimitExceeded for too much."""


class AppsFacade(Protocol):
    """The apps that this agent runs."""

    async def list(self) -> list[AppStatus]:
        """Return all known apps."""

    async def start(self, name: str) -> AppStatus:
        """Run an app from now on."""

    async def stop(self, name: str) -> AppStatus:
        """Run an app no more."""

    def log(self, name: str, lines: int = 100, *, follow: bool = False) -> AsyncIterator[str]:
        """Yield what an app printed."""


class AdmissionFacade(Protocol):
    """Lets nodes in."""

    async def create_token(self, terms: TokenTerms) -> str:
        """Return a new join token."""

    async def tokens(self) -> Sequence[TokenShown]:
        """Return the tokens that the issuer remembers."""

    async def revoke_token(self, token_id: bytes) -> str:
        """End a token; return what it was worth before."""

    async def remove(self, node: NodeId, *, accept_loss: bool) -> int:
        """Take a node out of the covey; return the epoch since when. Raises AgentError."""

    async def mend(self) -> int:
        """End a fork of the registry; return the epoch of what ends it. Raises AgentError."""

    async def give_up_place(self) -> bool:
        """Have the place and the name of this node freed; tell whether they are."""

    async def allow_inviting(self, node: NodeId, *, allowed: bool) -> None:
        """Let a member make tokens, or not any more."""


class NewcomerFacade(Protocol):
    """Makes a node part of a covey: ``agent/admission/newcomer.py``. All raise AgentError."""

    async def found(self, name: str, node_name: str) -> IdentityFacade:
        """Found a covey."""

    async def join(
        self,
        token: str,
        node_name: str,
        seeds: Sequence[str],
        say: Callable[[str], None],
        *,
        replaces: bool,
    ) -> IdentityFacade:
        """Join the token's covey."""

    async def come_back(self) -> IdentityFacade:
        """Go back to the covey that was left."""


class RoundTripsFacade(Protocol):
    """How far members are from each other."""

    async def between(self, one: NodeId, other: NodeId) -> Rtt:
        """Return what is known; nothing in it may be."""


class KeysFacade(Protocol):
    """The keys that seal datagrams: ``agent/keys/key_service.py``."""

    def state(self) -> KeyringState:
        """Return what this node holds."""

    def awaited(self) -> list[NodeId]:
        """Return whom the next step of a rotation waits for."""

    async def report(self) -> list[KeyHolding]:
        """Return what everybody holds."""

    async def rotate(self, *, force: bool) -> None:
        """Begin a rotation."""


class AllegianceFacade(Protocol):
    """Whom the covey trusts to sign: ``agent/admission/allegiance.py``."""

    async def roll_over(self, *, force: bool) -> None:
        """Have another authority take over. Raises AgentError."""


class DoctorFacade(Protocol):
    """Looks at everything: ``agent/doctor/doctor.py``."""

    async def examine(self) -> dict[str, Any]:
        """Return the findings and the matrix, as JSON."""


class AgentServices(Protocol):
    """One agent. Its parts are read-only here, so that each may be a richer class."""

    @property
    def config(self) -> Config:
        """What the agent was told."""

    @property
    def identity(self) -> IdentityFacade:
        """Who this node is."""

    @property
    def kv(self) -> KvFacade:
        """The shared keys."""

    @property
    def telemetry(self) -> TelemetryFacade:
        """The readings."""

    @property
    def uplink(self) -> UplinkFacade:
        """The connection to the broker."""

    @property
    def forum(self) -> ForumFacade:
        """Events and queries."""

    @property
    def facts(self) -> FactsFacade:
        """What this node tells about itself."""

    def app_with(self, key: str) -> str:
        """Return the app that has this key to the apps' socket; empty if it is nobody's."""

    @property
    def apps(self) -> AppsFacade:
        """The apps."""

    @property
    def admission(self) -> AdmissionFacade:
        """Lets nodes in."""

    @property
    def round_trips(self) -> RoundTripsFacade:
        """How far members are from each other."""

    @property
    def allegiance(self) -> AllegianceFacade:
        """Whom the covey trusts to sign."""

    @property
    def keys(self) -> KeysFacade:
        """The keys that seal datagrams."""

    @property
    def doctor(self) -> DoctorFacade:
        """Looks at everything."""

    @property
    def metrics(self) -> Metrics:
        """What is exported."""

    @property
    def started_at(self) -> float:
        """Unix time of the start."""

    @property
    def boot(self) -> Boot:
        """The number of this life."""

    @property
    def members(self) -> MemberTable:
        """Who is there, as this node sees it. Never used to compute who owns what."""

    def facts_of(self, node: NodeId) -> dict[str, str]:
        """Return what a member published about itself, as far as it has arrived here."""

    @property
    def registry(self) -> Registry:
        """Who belongs, and who owns what."""

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

    @property
    def stage(self) -> Stage:
        """How far the agent has come; what belongs to a later stage is not there yet."""

    @property
    def advice(self) -> str:
        """What to do for the agent to come further; empty when it takes part."""

    def require(self, stage: Stage) -> None:
        """Raise AgentError when the agent has not come so far."""

    @property
    def rival(self) -> Registry | None:
        """The registry that shows that the one in force has forked; None while all is well."""

    @property
    def newcomer(self) -> NewcomerFacade:
        """Makes the node part of a covey."""

    async def part(self, parting: FormerMembership) -> None:
        """Write down that this node leaves its covey. Raises AgentError."""

    async def leave(self) -> None:
        """Say goodbye and begin to stop."""
