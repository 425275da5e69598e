"""What the HTTP API needs of an agent, and no more.

``agent/agent.py`` has all of it; so has a small fake in the tests. The services are described
where they live: ``agent/kv.py``, ``agent/telemetry/service.py``, ``agent/apps/host.py``,
``agent/admission/desk.py``, ``agent/uplink/``.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from agent.apps.host import AppStatus
from agent.config import Config
from agent.metrics import Metrics
from agent.store.outbox import Accepted, DeadLetter, OutboxStats, Receipt
from agent.telemetry.service import Overrun
from agent.uplink.status import UplinkStatus
from edge_apps.reading import Reading
from gossip.ids import Boot, ClusterId, NodeId
from gossip.membership.members import MemberTable
from gossip.state.registry import Registry
from gossip.state.requests import GetResult, ListResult, PutResult, WatchEvent


class IdentityFacade(Protocol):
    """Who this node is: ``agent/security/identity.py``."""

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
        """Yield readings as they are accepted."""

    def recent(self, pattern: str, limit: int) -> list[Accepted]:
        """Return the newest readings, oldest first."""

    def stats(self) -> OutboxStats:
        """Return the outbox in numbers."""

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters, oldest first."""


class UplinkFacade(Protocol):
    """The connection to the broker."""

    def status(self) -> UplinkStatus:
        """Return one look at it."""


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

    async def create_token(self, ttl_s: float, uses: int) -> str:
        """Return a new join token."""


class AgentFacade(Protocol):
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
    def apps(self) -> AppsFacade:
        """The apps."""

    @property
    def admission(self) -> AdmissionFacade:
        """Lets nodes in."""

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

    @property
    def registry(self) -> Registry:
        """Who belongs, and who owns what."""

    def now(self) -> float:
        """Return the instant on the clock of the member table."""

    def not_ready(self) -> Sequence[str]:
        """Return why the agent cannot do its work now; empty when it can."""

    async def leave(self) -> None:
        """Say goodbye and begin to stop."""
