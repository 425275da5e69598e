"""An agent for the tests of the API and the command line: real values, no network, no disk.

``serving`` puts it on a real Unix socket in a thread of its own, so that the real client and
the real commands talk to it, while the test can set what it will answer.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from agent.access.access import AccessService
from agent.access.audit import AuditLog
from agent.access.caller import Caller, app_caller
from agent.admission.former_membership import FormerMembership
from agent.admission.messages import TokenShown
from agent.admission.token_terms import TokenTerms, check_terms
from agent.api.interfaces import AgentServices
from agent.api.listeners import Listeners
from agent.apps.host import AppStatus
from agent.cluster.agreement import Agreement
from agent.cluster.fact_publisher import FactPublisher
from agent.cluster.flash_budget import FlashBudget
from agent.cluster.fleet_settings import FleetSettings
from agent.cluster.kv_spaces import KvSpaces
from agent.cluster.recovery import MakeLog, Recovery
from agent.cluster.voters import Voters
from agent.config.loader import Config
from agent.config.paths import Paths
from agent.config.settings import ApiSettings, NodeSettings
from agent.exits import NO, NOT_FOUND, AgentError
from agent.keys.key_service import KeyHolding
from agent.keys.messages import KeyringState, KeyShown
from agent.metrics import Metrics
from agent.readiness import Lack, Stage
from gossip.consensus.storage import StoredState
from gossip.core.errors import InvalidRequest
from gossip.core.ids import format_cluster_id, format_node_id
from gossip.core.machine import Address
from gossip.kv.changes import Change
from gossip.kv.quotas import Quotas
from gossip.kv.records import Version
from gossip.kv.requests import (
    Delete,
    Get,
    GetResult,
    ListEntry,
    ListResult,
    Put,
    PutResult,
    Request,
    Result,
    Value,
    WatchEvent,
)
from gossip.kv.spaces import Spaces
from gossip.membership.model.members import Member, MemberState, MemberTable
from gossip.membership.network.reachability import PathStatus as Ways
from gossip.membership.rtt import Rtt
from gossip.registry import registry as registries
from gossip.registry.node import RegisteredNode
from gossip.registry.node_change import NodeChange
from gossip.registry.registry import Registry
from tests.support.control_solo import SoloDriver
from tests.support.fake_allegiance import FakeAllegiance
from tests.support.fake_events import FakeForum
from tests.support.fake_files import FakeBlocks
from tests.support.fake_kv_reports import CLUSTER, GONE, ME, OTHER, STAMP, FakeKvReports
from tests.support.fake_telemetry import FakeTelemetry
from tests.support.fake_uplink import FakeUplink
from tests.support.patience import GIVE_UP_S


class Identity:
    cluster_id = CLUSTER
    cluster_name = "attic"
    node_id = ME
    node_name = "ada"
    is_issuer = True
    trust = SimpleNamespace(bundle="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")


STALE_CONTEXT = b"stale"
"""A context that has seen nothing of what a key has."""


class FakeKv:
    """A dictionary with the answers of a quorum."""

    def __init__(self) -> None:
        self.values: dict[str, list[bytes]] = {}
        self.types: dict[str, str] = {}
        self.expired: set[str] = set()
        """Keys that lists pass by, and show no more."""
        self.asked: list[dict[str, Any]] = []
        self.outcome = "ok"
        self.events: asyncio.Queue[WatchEvent | Exception] = asyncio.Queue()
        self.watches_open = 0
        self.begun, self.is_stuck = 0, False
        self.under_way: dict[int, Callable[[], None]] = {}

    def begin(self, request: Request, settle: Callable[[Result | AgentError], None]) -> int:
        self.begun += 1
        match request:
            case Put(key, value, w, context, timeout_s, if_unchanged, fsync):
                asked: Any = self.put(
                    key, value, w=w, context=context, timeout_s=timeout_s,
                    if_unchanged=if_unchanged, fsync=fsync or None,
                )  # fmt: skip
            case Get(key, r, timeout_s):
                asked = self.get(key, r=r, timeout_s=timeout_s)
            case Delete(key, w, context, timeout_s, fsync):
                asked = self.delete(
                    key, w=w, context=context, timeout_s=timeout_s, fsync=fsync or None
                )
        try:
            asked.send(None)
        except StopIteration as end:
            outcome = end.value
        except AgentError as error:
            outcome = error
        self.under_way[self.begun] = lambda: settle(outcome)
        if not self.is_stuck:
            asyncio.get_running_loop().call_soon(finish, self, self.begun)
        return self.begun

    def is_synced(self, fsync: bool | None) -> bool:
        return bool(fsync)

    def drop(self, number: int) -> None:
        self.under_way.pop(number, None)

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        w: int | None,
        context: bytes | None,
        timeout_s: float,
        if_unchanged: bool = False,
        fsync: bool | None = None,
        ttl_s: float | None = None,
    ) -> PutResult:
        checked: dict[str, Any] = {"if_unchanged": True} if if_unchanged else {}
        given = {"fsync": fsync, "ttl_s": ttl_s}
        checked |= {name: value for name, value in given.items() if value is not None}
        self.asked.append({"w": w, "context": context, "timeout_s": timeout_s, **checked})
        if if_unchanged and (context == STALE_CONTEXT or (context is None and key in self.values)):
            raise AgentError("not what was there", "get it again", NO)
        if w is not None and w > 3:
            raise InvalidRequest(f"`w={w}`: this key has 3 owners; use 1 to 3")
        unseen = self.values.get(key, []) if context == STALE_CONTEXT else []
        self.values[key] = [value, *unseen]
        acks = 2 if self.outcome == "ok" else 1
        return PutResult(self.outcome, acks, 2, b"ctx", len(self.values[key]))

    async def get(self, key: str, *, r: int | None, timeout_s: float) -> GetResult:
        self.asked.append({"r": r, "timeout_s": timeout_s})
        kind = self.types.get(key, "register")
        values = tuple(Value(value, STAMP, (1, 1), kind) for value in self.values.get(key, []))
        return GetResult(values, b"ctx\xff", 2 if self.outcome == "ok" else 1, 2, self.outcome)

    async def update(
        self,
        key: str,
        change: Change,
        *,
        w: int | None,
        timeout_s: float,
        fsync: bool | None = None,
    ) -> PutResult:
        self.asked.append({"change": change, "w": w, "timeout_s": timeout_s})
        self.asked[-1] |= {} if fsync is None else {"fsync": fsync}
        acks = 2 if self.outcome == "ok" else 1
        return PutResult(self.outcome, acks, 2, b"ctx", 1)

    async def delete(
        self,
        key: str,
        *,
        w: int | None,
        context: bytes | None,
        timeout_s: float,
        fsync: bool | None = None,
    ) -> PutResult:
        said = {} if fsync is None else {"fsync": fsync}
        self.asked.append({"w": w, "context": context, "timeout_s": timeout_s, **said})
        kept = self.values.get(key, []) if context == STALE_CONTEXT else []
        self.values.pop(key, None)
        if kept:
            self.values[key] = kept
        return PutResult(self.outcome, 2, 2, b"", len(kept))

    async def list(
        self, prefix: str, *, after: str, limit: int, r: int | None, timeout_s: float
    ) -> ListResult:
        found = sorted(key for key in self.values if key.startswith(prefix) and key > after)
        entries = tuple(
            ListEntry(
                key,
                tuple(
                    Value(value, STAMP, (1, 1), self.types.get(key, "register"))
                    for value in self.values[key]
                ),
                tuple(
                    Version(1, n, STAMP, value) for n, value in enumerate(self.values[key], start=1)
                ),
            )
            for key in found[:limit]
            if key not in self.expired
        )
        following = found[limit - 1] if len(found) > limit else ""
        return ListResult(entries, following, "ok" if self.outcome == "ok" else "partial")

    async def restore(
        self, key: str, versions: tuple[Version, ...], *, timeout_s: float
    ) -> PutResult:
        self.asked.append({"key": key, "timeout_s": timeout_s})
        values = [version.value for version in versions]
        if self.values.get(key) == values:
            return PutResult("unchanged", 2, 2, b"", len(values))
        if key in self.values:
            raise AgentError("the key has other values by now", "delete it first", NO)
        self.values[key] = values
        return PutResult(self.outcome, 2 if self.outcome == "ok" else 1, 2, b"", len(values))

    async def watch(
        self, *, prefix: str | None, key: str | None, since: bytes | None
    ) -> AsyncIterator[WatchEvent]:
        self.asked.append({"prefix": prefix, "key": key, "since": since})
        self.watches_open += 1
        try:
            while True:
                event = await self.events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.watches_open -= 1


def finish(kv: FakeKv, number: int) -> None:
    """Tell whoever waits what came of it; nothing when nobody waits any more."""
    if (settle := kv.under_way.pop(number, None)) is not None:
        settle()


class FakeApps:
    def __init__(self) -> None:
        self.state = {"system": "running", "sensor_sim": "stopped"}

    def _status(self, name: str) -> AppStatus:
        if name not in self.state:
            raise AgentError(f"no app is called {name!r}; nothing was changed", "", NOT_FOUND)
        return AppStatus(name, self.state[name], "started", 4711, 2, 0.0, "exit status 1")

    async def list(self) -> list[AppStatus]:
        return [self._status(name) for name in self.state]

    async def start(self, name: str) -> AppStatus:
        self._status(name)
        self.state[name] = "running"
        return self._status(name)

    async def stop(self, name: str) -> AppStatus:
        self._status(name)
        self.state[name] = "stopped"
        return self._status(name)

    def log(self, name: str, lines: int = 100, *, follow: bool = False) -> AsyncIterator[str]:
        self._status(name)
        return self._lines(lines, follow)

    async def _lines(self, lines: int, follow: bool) -> AsyncIterator[str]:
        for number in range(lines):
            yield f"line {number}\x1b[31m"
        if follow:
            yield "one more"


TOKEN_ID = b"tokenid8"


class FakeAdmission:
    def __init__(self) -> None:
        self.asked: TokenTerms | None = None
        self.made: dict[bytes, str] = {}
        self.admitted: tuple[str, ...] = ("00000000000000a1",)
        self.may_invite: dict[int, bool] = {}
        self.removed: list[int] = []
        self.placed: list[tuple[int, NodeChange]] = []
        self.placed_since = 8
        self.issuer_answers, self.mended = True, 0

    async def create_token(self, terms: TokenTerms) -> str:
        check_terms(terms)
        self.asked = terms
        self.made[TOKEN_ID] = "valid"
        return "covey-token-abc"

    async def tokens(self) -> tuple[TokenShown, ...]:
        return tuple(
            TokenShown(
                token_id, state, 1e9, "the operator of ada", 1e9 + 60, 2, 1, "", "shed", 0.0,
                self.admitted,
            )
            for token_id, state in self.made.items()
        )  # fmt: skip

    async def revoke_token(self, token_id: bytes) -> str:
        was, self.made[token_id] = self.made.get(token_id, "unknown"), "revoked"
        return was

    async def remove(self, node: int, *, accept_loss: bool) -> int:
        assert not accept_loss
        self.removed.append(node)
        return 7

    async def place(self, node: int, change: NodeChange) -> int:
        self.placed.append((node, change))
        return self.placed_since

    async def mend(self) -> int:
        self.mended += 1
        return 9

    async def give_up_place(self) -> bool:
        return self.issuer_answers

    async def allow_inviting(self, node: int, *, allowed: bool) -> None:
        self.may_invite[node] = allowed


class FakeRoundTrips:
    """Knows the way from ada to bob."""

    def __init__(self) -> None:
        self.known = {(ME, OTHER): Rtt(0.0123456, 0.012, 0.0034)}

    async def between(self, one: int, other: int) -> Rtt:
        return self.known.get((one, other)) or self.known.get((other, one), Rtt())


class FakeKeys:
    """Two nodes with one ring; ``bob`` takes each new ring one look later, ``cy`` never."""

    def __init__(self) -> None:
        self.generation, self.phase = 0, "steady"
        self.ordered: list[bool] = []
        self.refusal: AgentError | None = None

    def state(self) -> KeyringState:
        shown = (KeyShown(1, "aa" * 8), KeyShown(2, "bb" * 8))
        return KeyringState(self.generation, self.phase, 2, shown)

    def awaited(self) -> list[int]:
        return [GONE] if self.phase == "used" else []

    async def report(self) -> list[KeyHolding]:
        held = [
            KeyHolding(ME, "ada", True, True, self.state()),
            KeyHolding(GONE, "cy", False, False, None),
        ]
        if self.phase == "installed":
            self.generation, self.phase = 2, "used"
        return held

    async def rotate(self, *, force: bool) -> None:
        if self.refusal:
            raise self.refusal
        self.ordered.append(force)
        self.generation, self.phase = (3, "steady") if force else (1, "installed")


class FakeNewcomer:
    """Becomes part of whatever covey it is told; ``refusal`` is raised instead, if it is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.refusal: AgentError | None = None

    async def found(self, name: str, node_name: str) -> Identity:
        return self._arrive("found", name, node_name)

    async def join(
        self,
        token: str,
        node_name: str,
        seeds: Sequence[str],
        say: Callable[[str], None],
        *,
        replaces: bool,
    ) -> Identity:
        say("looking for a member of the covey")
        await asyncio.sleep(0)
        say("asking \x1b[1m192.168.1.8:7747")
        return self._arrive("replace" if replaces else "join", token, node_name, tuple(seeds))

    def former_place(self) -> tuple[str, list[str]]:
        return "ada", ["bob"]

    async def come_back(self) -> Identity:
        return self._arrive("come back")

    def _arrive(self, *asked: object) -> Identity:
        self.asked.append(asked)
        if self.refusal is not None:
            raise self.refusal
        return Identity()


class FakeDoctor:
    """Finds what the test says."""

    def __init__(self) -> None:
        self.checks = [
            {"id": "disk", "status": "ok", "message": "fine.", "hint": ""},
            {"id": "one-way", "status": "warn", "message": "ada \x1b[1m bob", "hint": "mend it"},
        ]

    async def examine(self) -> dict[str, Any]:
        matrix = {"names": ["ada", "bob"], "rows": [["-", "stream"], ["udp", "-"]]}
        return {"checks": self.checks, "matrix": matrix}


class FactsInMemory:
    """Keeps what was set, and what it was told to publish."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.published: list[dict[str, str]] = []
        self.refusal: AgentError | None = None

    def facts(self) -> dict[str, str]:
        return {**self.kept}

    async def save_facts(self, facts: Mapping[str, str]) -> None:
        if self.refusal:
            raise self.refusal
        self.kept = {**facts}


class FakeAgent:
    """What the API needs of an agent; ``test_fakes.py`` holds its parts against the real ones."""

    rival: Registry | None = None
    flash = FlashBudget((), 0)
    registry: Registry

    def __init__(self) -> None:
        self.config = Config()
        self.identity = Identity()
        self.kv, self.kv_reports, self.blocks = FakeKv(), FakeKvReports(), FakeBlocks()
        self.solo = SoloDriver(ME)
        self.agreement = Agreement(self.solo.driver())
        self.access = AccessService()
        self.audit = AuditLog()
        self.access.take_in(self.agreement, format_node_id(ME), "ada")
        self.voters = Voters(self.solo.driver())
        self.gone_on: list[StoredState] = []
        covey = format_cluster_id(CLUSTER), "farm"
        parts = self.solo.driver(), self.agreement
        self.data = Path("nowhere")
        path = self.data / "consensus.db"
        self.recovery = Recovery(*parts, lambda: self.registry, self._go_on, covey, path)
        self.fleet_settings = FleetSettings(
            self.agreement, Path("fleet.json"), "ada", {}, lambda: None
        )
        self.kv_spaces = KvSpaces(self.agreement, Quotas(Spaces()))
        self.telemetry, self.uplink = FakeTelemetry(), FakeUplink()
        self.event_service = FakeForum()
        self.fact_store = FactsInMemory()
        configured = NodeSettings(facts={"rack": "north"}, services={"web": ":80/http"})
        self.facts = FactPublisher(
            {"covey": "1.2.3"}, configured, self.fact_store, self.fact_store.published.append
        )
        self.facts.publish()
        self.apps = FakeApps()
        self.admission = FakeAdmission()
        self.round_trips = FakeRoundTrips()
        self.keys = FakeKeys()
        self.allegiance = FakeAllegiance(self)
        self.doctor = FakeDoctor()
        self.newcomer = FakeNewcomer()
        self.stage, self.advice = Stage.MEMBER, ""
        self.partings: list[FormerMembership] = []
        self.metrics = Metrics()
        self.app_keys: dict[str, str] = {}
        self.uptime_s = 90.0
        self.shared_bytes = 256 * 1000
        self.boot = 0x1_0000_0001
        self.members = MemberTable()
        self.reasons: list[str] = []
        self.changed_settings: list[str] = []
        self.configuration_problem = ""
        self.lost: list[str] = []
        self.left = threading.Event()
        self.leaves_at_once = True
        address = Address("192.168.1.7", 7747)
        for node, name, state in (
            (ME, "ada", MemberState.ALIVE),
            (OTHER, "bob", MemberState.SUSPECT),
            (GONE, "cy", MemberState.DEAD),
        ):
            tags = {"room": "attic"} if node == ME else {}
            self.members.put(Member(node, name, (address,), tags, state, 1, 2, changed_at=40.0))
        registry = registries.found(CLUSTER, RegisteredNode(ME, "ada"))
        self.registry = registries.admit(registry, RegisteredNode(OTHER, "bob"))

    async def _go_on(self, make: MakeLog) -> None:
        plane = self.solo.plane
        self.gone_on.append(make(plane.part.survivor(), plane.me))

    def services(self) -> AgentServices:
        return cast("AgentServices", self)

    def reason_of(self, node: int) -> str:
        return "did not answer" if node == OTHER else ""

    def paths_of(self, node: int) -> Ways:
        return Ways(udp_in_s=1.25, stream_s=60.0, udp_blocked=node == OTHER)

    def facts_of(self, node: int) -> dict[str, str]:
        if node == ME:
            return self.fact_store.published[-1]
        return {"covey": "1.2.3", "memory_bytes": "1024"} if node == OTHER else {}

    def now(self) -> float:
        return 100.0

    def unapplied(self) -> tuple[list[str], str]:
        return self.changed_settings, self.configuration_problem

    def not_ready(self) -> Sequence[str]:
        return self.reasons

    def losses(self) -> Sequence[str]:
        return self.lost

    def is_flapping(self, node: int) -> bool:
        return node == GONE

    def clones_of(self, node: int) -> Sequence[Address]:
        return (Address("192.168.1.7", 7747), Address("192.168.1.8", 7747)) if node == GONE else ()

    async def sleep(self, duration_s: float) -> float:
        me = msgspec.structs.replace(
            self.members[ME], state=MemberState.ASLEEP, asleep_until=self.now() + duration_s
        )
        self.members.put(me)
        return 120.0

    async def awaken(self) -> bool:
        was_asleep = self.members[ME].state is MemberState.ASLEEP
        me = msgspec.structs.replace(self.members[ME], state=MemberState.ALIVE, asleep_until=None)
        self.members.put(me)
        return was_asleep

    app_prefixes: tuple[str, ...] = ()

    def app_with(self, key: str) -> Caller | None:
        name = self.app_keys.get(key)
        return app_caller(name, keys=self.app_prefixes) if name else None

    def require(self, stage: Stage) -> None:
        if self.stage < stage:
            raise Lack("this node belongs to no covey yet", "found one with `covey init`").error()

    async def part(self, parting: FormerMembership) -> None:
        self.partings.append(parting)

    async def leave(self) -> None:
        self.left.set()
        if self.leaves_at_once:
            self.stage, self.uptime_s = Stage.WAITING, 0.0


class Served:
    """A fake agent that listens, and its event loop."""

    def __init__(self, directory: Path, settings: ApiSettings) -> None:
        self.agent = FakeAgent()
        self.paths = Paths.find(directory)
        self.paths.create()
        self.settings = settings
        self.loop = asyncio.new_event_loop()
        self.listeners: Listeners | None = None

    def call(self, coroutine: Any) -> Any:
        """Run a coroutine on the agent's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(GIVE_UP_S)

    async def settle(self) -> None:
        """Return when the agent knows what it has agreed on."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def open(self) -> None:
        await self.agent.audit.open(self.paths.audit_db)
        self.following = asyncio.create_task(self.agent.access.follow())
        self.listeners = Listeners(self.agent.services(), self.paths, self.settings)
        await self.listeners.open()

    async def close(self) -> None:
        assert self.listeners is not None
        self.following.cancel()
        await self.listeners.close()
        await self.agent.audit.close()


@contextmanager
def serving(directory: Path, settings: ApiSettings | None = None) -> Iterator[Served]:
    """Serve a fake agent under ``directory`` until the block ends."""
    served = Served(directory, settings or ApiSettings())
    thread = threading.Thread(target=served.loop.run_forever, daemon=True)
    thread.start()
    try:
        served.call(served.open())
        yield served
        served.call(served.close())
    finally:
        served.loop.call_soon_threadsafe(served.loop.stop)
        thread.join(GIVE_UP_S)
        served.loop.close()
