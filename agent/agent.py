"""One agent, wired: what is opened, in which order, and who is told of what.

Everything of an agent hangs on the ``AsyncExitStack`` of ``run``: what was opened last is closed
first, however far the start got. The order is also the order of trust: who we are, what we must
not lose, the network, the protocols on top of it, and at the end the services that people and
apps use, so that nobody is answered before there is something to answer with.

What keeps a node from taking part does not end its agent: it waits, at the stage that it has
reached (``readiness.py``), answers on its socket meanwhile, and goes on by itself.
"""

import asyncio
import logging
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from agent.access.access import AccessService
from agent.access.audit import AuditLog
from agent.access.caller import Caller, app_caller
from agent.admission.allegiance import Allegiance, keep_newest
from agent.admission.former_membership import FormerMembership, record_parting
from agent.admission.messages import RELAY_CODEC
from agent.admission.newcomer import Newcomer
from agent.admission.refused_strangers import RefusedStrangers
from agent.admission.registry_issuer import RegistryIssuer
from agent.admission.removal import Removal
from agent.admission.server import AdmissionServer
from agent.api.listeners import Listeners
from agent.apps.host import AppHost
from agent.blocks.service import BlockService
from agent.cluster.agreed_registry import AgreedRegistry
from agent.cluster.agreement import Agreement
from agent.cluster.cluster_view import ClusterView
from agent.cluster.events import EventService
from agent.cluster.fact_publisher import FactPublisher
from agent.cluster.flash_budget import FlashBudget
from agent.cluster.fleet_settings import FleetSettings
from agent.cluster.kv import Kv
from agent.cluster.kv_reports import KvReports
from agent.cluster.kv_spaces import KvSpaces
from agent.cluster.member_log import log_member
from agent.cluster.recovery import MakeLog, Recovery
from agent.cluster.rtt import RttClient
from agent.cluster.state_reasons import ChangeReasons
from agent.cluster.traffic_budget import TrafficBudget
from agent.cluster.voters import Voters
from agent.config.fact_rules import built_in
from agent.config.loader import Config, load, taken_over, unapplied
from agent.config.paths import Paths
from agent.config.service_address import service_of_api
from agent.config.settings import AppSettings
from agent.doctor.inputs import AgentInputs, MemberInputs
from agent.doctor.messages import CODEC as DOCTOR_CODEC
from agent.doctor.on_call import OnCallDoctor
from agent.doctor.survey import Survey
from agent.exits import AgentError
from agent.gauges import show_flash, show_kept, show_membership
from agent.identity import identity
from agent.identity.keyring import Keyring
from agent.identity.trust import is_signed
from agent.keys.key_service import KeyService
from agent.keys.messages import CODEC as KEY_CODEC
from agent.loop import watched
from agent.loop.stalls import StallWatch
from agent.metrics import Metrics
from agent.net.discovery import Discovery, Here, Plan, find_addresses
from agent.net.sockets import open_sockets
from agent.net.streams import Streams
from agent.net.udp import UdpEndpoint
from agent.programs.isolation import Programs, apartness_here
from agent.readiness import Lack, Stage
from agent.runtime.driver import Driver
from agent.runtime.keeper import Keeper
from agent.runtime.probation import Probation
from agent.runtime.save_queue import ChangeStore
from agent.runtime.waiting import Waiting
from agent.startup import Approach
from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.consensus_store import ConsensusStore
from agent.store.control import ControlStore
from agent.store.database import Database
from agent.store.disk_room import DiskRoom
from agent.store.known_peers import KnownPeers
from agent.store.kv_store import doubt_if_gone
from agent.store.resealing import open_records
from agent.store.synced_changes import SyncedChanges
from agent.system.power import is_to_be_spared
from agent.system.resumption import Resumption
from agent.system.systemd import Notifier, ask_for_time, keep_alive
from agent.system.wall_clock import ClockStep, WallClock, boot_time, date
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.service import Telemetry, open_outbox
from agent.telemetry.timekeeping import Timekeeper
from agent.telemetry.uplink.broker_memory import BrokerMemory
from agent.telemetry.uplink.service import Uplink
from agent.telemetry.uplink.template import TemplateContext
from agent.text.units import counted
from gossip.consensus.configuration import Voter
from gossip.consensus.storage import StoredState, founded, founded_again
from gossip.control.commands import NEWEST_TAG
from gossip.control.messages import CHUNK_BYTES
from gossip.control.plane import ControlPlane, StoredLog
from gossip.control.state_machine import ControlState
from gossip.core.ids import Boot, NodeId, format_cluster_id, format_node_id, next_boot
from gossip.core.machine import Address, Durability, Instant
from gossip.core.tuning import PROFILES
from gossip.kv.requests import FORKED
from gossip.kv.transfers import TransferBudget
from gossip.membership.model.members import MemberTable
from gossip.membership.model.signatures import SigningKeys
from gossip.membership.network.reachability import PathStatus as Ways
from gossip.node import Node, NodeConfig
from gossip.registry.registry import Registry, SignedRegistry

LOG_BOOT_BITS, ACTOR_BITS = 63, 64

SUPERSEDED = "another device has this node's identity, and nobody listens to this one any more"

log = logging.getLogger(__name__)


class Agent:
    """An agent on one set of directories; ``run`` once, ``leave`` to end it.

    Between the two it is also the facade of the HTTP API (``agent/api/interfaces.py``).
    """

    identity: identity.Identity
    boot: Boot
    driver: Driver
    kv: Kv
    kv_reports: KvReports
    blocks: BlockService
    agreement: Agreement
    voters: Voters
    recovery: Recovery
    fleet_settings: FleetSettings
    kv_spaces: KvSpaces
    timekeeper: Timekeeper
    telemetry: Telemetry
    uplink: Uplink
    event_service: EventService
    facts: FactPublisher
    apps: AppHost
    admission: AdmissionServer
    round_trips: RttClient
    keys: KeyService
    allegiance: Allegiance
    probation: Probation
    doctor: OnCallDoctor
    discovery: Discovery

    def __init__(self, config: Config, paths: Paths, *, may_be_outrun: bool = True) -> None:
        """``may_be_outrun``: a life that others know the end of is followed by another one."""
        self.config, self.paths = config, paths
        self.started_at, self._began_at = time.time(), boot_time()
        self.stage = Stage.WAITING
        self.has_left = False
        """Whether it ends because the node has left its covey, and is to wait from now on."""
        self.is_resumed = False
        """Whether it ends because this process is a copy, and is to take a life of its own."""
        self.has_another_log = False
        """Whether it ends because it goes on with another log of what is agreed on."""
        self._next_log: StoredState | None = None
        self._is_superseded, self._may_be_outrun = False, may_be_outrun
        """Whether nobody listens to this life any more, and no other is to follow by itself."""
        self.newcomer = Newcomer(config, paths)
        self.clock = WallClock()
        self.programs = Programs(partial(apartness_here, paths))
        self.access, self.audit = AccessService(), AuditLog()
        self._listeners = Listeners(self, paths, config.api)
        self.metrics = Metrics()
        self.counts: Counter[str] = Counter()
        self.metrics.count(lambda: self.counts)
        self.watch = watched.Watch()
        self.metrics.count(lambda: self.watch.counts)
        self._rng = random.Random(secrets.randbits(ACTOR_BITS))
        self._notifier = Notifier()
        self._waiting = Waiting(self._notifier, self.watch)
        self._reasons = ChangeReasons()
        self.stalls = StallWatch()
        self.metrics.count(lambda: self.stalls.counts)
        self._background: list[asyncio.Task[None]] = []
        self._tuning = PROFILES[config.gossip.profile]

    # ---- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until ``leave`` or ``part``. Raises AgentError for what stopped it otherwise."""
        async with AsyncExitStack() as opened:
            self.doctor = OnCallDoctor(self._inputs())
            watched.use(self.watch)
            self.watch.on_trouble(asyncio.get_running_loop())
            opened.push_async_callback(self._end_background)
            self.keep("start-time", partial(ask_for_time, self._notifier))
            self.keep("watchdog", partial(keep_alive, self._notifier))
            self.keep("api-socket", self._listeners.stay)
            self.keep("clock", partial(self.clock.follow, self._note_step))
            opened.push_async_callback(self._listeners.close)
            approach = Approach(
                self.config, self.paths, self.clock, self._waiting, self._listeners, opened
            )
            await approach.until_admitted(self.newcomer)
            if not approach.is_over:
                self._open_identity()
                await approach.until_stores_open(self._open_stores, self.keep)
            if not approach.is_over:
                kept = self.identity, self._control, self.apps
                await approach.until_clock_is_plausible(*kept)
                await approach.until_certificate_is_good(*kept)
            if not approach.is_over:
                await self._open_network(opened)
                await self._open_services(opened)
                await approach.serve(self.apps)
                self.keep("facts", partial(self.facts.follow, self.apps))
                self.stage = Stage.MEMBER
                self.stalls.start()
                opened.callback(self.stalls.stop)
                self._notifier.ready(f"{self.identity.node_name} of {self.identity.cluster_name}")
                self.keep("driver", self.driver.wait)
                self.keep("resumption", self._begin_anew)
                await self._waiting.until_stopped()
            # A node that has left goes on in the same process: systemd would kill what it was told
            # is stopping.
            if not (self.has_left or self.is_resumed or self.has_another_log):
                self._notifier.stopping()

    async def leave(self) -> None:
        """Say goodbye to the others and let ``run`` return."""
        try:
            if not self._waiting.stopping.is_set() and hasattr(self, "driver"):
                self.driver.call(self._node.leave)
                await asyncio.sleep(self._tuning.leave_linger_s + self._tuning.gossip_interval_s)
        finally:
            self._waiting.stopping.set()

    async def part(self, parting: FormerMembership) -> None:
        """Write down that this node leaves its covey, for good or for now. Raises AgentError."""
        self.newcomer.check_may_part(parting)
        await asyncio.to_thread(record_parting, self.paths, parting)
        self.has_left = True
        log.info("leaving the covey; `covey join` ends the time away")

    async def sleep(self, duration_s: float) -> float:
        """Announce a sleep; return, when all were told, after what grace we would be dead."""
        self.driver.call(lambda now: self._node.sleep(duration_s, now))
        await asyncio.sleep(self._tuning.leave_linger_s + self._tuning.gossip_interval_s)
        log.info("asleep for %g s; `covey wake` ends it early", duration_s)
        return self._tuning.sleep_grace_s

    async def awaken(self) -> bool:
        """End an announced sleep; say whether there was one."""
        was_asleep = self._node.swim.asleep_until is not None
        self.driver.call(self._node.awaken)
        return was_asleep

    # ---- what the API asks ----------------------------------------------------------------------

    @property
    def members(self) -> MemberTable:
        """Who is there, as this node sees it."""
        return self._node.swim.members

    def app_with(self, key: str) -> Caller | None:
        """Return the app that has this key; None if it is nobody's."""
        name = self.programs.keys.who_has(key)
        settings = self.config.apps.get(name, AppSettings())
        return app_caller(name, settings.rights, settings.keys) if name else None

    def facts_of(self, node: NodeId) -> dict[str, str]:
        """Return what a member published about itself."""
        return self._node.swim.facts_of(node)

    @property
    def registry(self) -> Registry:
        """Who belongs, and who owns what."""
        return self._node.state.registry

    @property
    def rival(self) -> Registry | None:
        """The registry that shows that ours has forked."""
        return self._node.state.registry_sync.rival

    def now(self) -> Instant:
        """Return the instant on the clock of the member table."""
        return self.driver.now()

    def reason_of(self, node: NodeId) -> str:
        """Return why a member is in its state."""
        return self._reasons.of(node)

    def paths_of(self, node: NodeId) -> Ways:
        """Return which ways to a member worked."""
        return self._node.swim.paths_of(node, self.now())

    def is_flapping(self, node: NodeId) -> bool:
        """Say whether a member comes and goes too often."""
        return self._node.swim.is_flapping(node, self.now())

    def clones_of(self, node: NodeId) -> Sequence[Address]:
        """Return where several devices with one identity were heard; empty if it is one."""
        return self._node.swim.clones_of(node, self.now())

    def unapplied(self) -> tuple[list[str], str]:
        """Return the settings that were changed since the start, or what is wrong with them now."""
        return unapplied(self.config, self.paths)

    @property
    def shared_bytes(self) -> int:
        """How much of the disk the shared keys take that lie here."""
        return self._records.size_bytes()

    @property
    def uptime_s(self) -> float:
        """For how long this agent has been there, whatever became of the clock."""
        return boot_time() - self._began_at

    def not_ready(self) -> Sequence[str]:
        """Return why the agent cannot do its work now; empty when it can."""
        if self.stage is Stage.WAITING:
            return [self._waiting.lack.message, *self.watch.troubles()]
        reasons = [each.problem.removesuffix(".") for each in self._databases if each.problem]
        reasons += self.watch.troubles()
        lack = self._waiting.lack if self.stage < Stage.MEMBER else self.clock_lack()
        if lack is not None:
            reasons.append(lack.message)
        if self.stage is Stage.MEMBER and self.rival is not None:
            reasons.append(FORKED)
        if self._is_superseded:
            reasons.append(SUPERSEDED)
        if self.stage is Stage.MEMBER and (hangs_s := self.agreement.status().save_hangs_s):
            reasons.append(f"the disk hangs: it has not ended a save for {hangs_s:.0f} s")
        return [*reasons, "leaving the covey"] if self._waiting.stopping.is_set() else reasons

    def clock_lack(self) -> Lack | None:
        """Say why the clock cannot be right; None if it can."""
        return self.clock.lack(*self.identity.plausible)

    def losses(self) -> Sequence[str]:
        """Return what was found to be lost on the disk since the start; empty when nothing was."""
        if self.stage is Stage.WAITING:
            return []
        told = [loss for each in self._databases for loss in each.losses]
        lost = self._outbox.counts["readings_lost/damaged"]
        return [*told, f"{counted(lost, 'reading')} lost on the disk"] if lost else told

    def require(self, stage: Stage) -> None:
        """Raise AgentError, with what to do, when the agent has not come so far."""
        if self.stage < stage:
            raise self._waiting.lack.error()

    @property
    def advice(self) -> str:
        """What to do for the agent to come further; empty when it takes part."""
        return self._waiting.lack.hint if self.stage < Stage.MEMBER else ""

    # ---- opening, from the bottom up ------------------------------------------------------------

    def _open_identity(self) -> None:
        self.identity = identity.load(self.paths.identity)
        log.info(
            "node %s (%s) of covey %s",
            self.identity.node_name,
            format_node_id(self.identity.node_id),
            self.identity.cluster_name,
        )

    async def _open_stores(self, opened: AsyncExitStack) -> tuple[Database, ...]:
        """Open them; return those that others write to. Raises StorageError."""
        me, cluster = self.identity.node_id, self.identity.cluster_id
        self._control = await ControlStore.open(self.paths.control_db, cluster, me)
        opened.push_async_callback(self._control.close)
        mark = CleanShutdownMark(self.paths.run_mark)
        self._keeper = Keeper(self._control, mark, self._outrun, self._begin_another_log)
        opened.push_async_callback(self._keeper.finish)
        self.timekeeper = Timekeeper(valid=self.identity.plausible)
        self.boot = next_boot(starts := await self._control.count_start(), self._rng)
        await doubt_if_gone(self.paths.data_db, mark, starts)
        self._agreed = await ConsensusStore.open(self.paths.consensus_db, mark, self._control)
        opened.push_async_callback(self._agreed.close)
        opened.push_async_callback(self._replace_log)
        self._log = await self._open_log()
        self._records = await open_records(self.paths.data_db, self.config.storage, opened)
        await self._records.believe(mark)
        opened.push_async_callback(self._records.finish, mark)
        telemetry_db = await Database.open(self.paths.telemetry_db, OUTBOX_MIGRATIONS)
        opened.push_async_callback(telemetry_db.close)
        agreed = self._agreed.database
        audit_db = await self.audit.open(self.paths.audit_db)
        opened.push_async_callback(self.audit.close)
        own = self._control.database, agreed, self._records.database
        self._databases = *own, telemetry_db, audit_db
        self._outbox = await open_outbox(
            telemetry_db, me, self.boot, self.config.telemetry, self.timekeeper
        )
        opened.push_async_callback(self._outbox.close)
        self.metrics.count(self._store_counts)
        self.metrics.count(lambda: self.audit.counts)
        self.telemetry = Telemetry(self._outbox)
        self.metrics.count(lambda: self.telemetry.counts)
        paths = self.paths
        self.apps = AppHost(self.config.apps, self.programs, paths.app_logs, paths.app_wishes)
        self.metrics.count(lambda: self.apps.counts)
        who, memory = self.identity, BrokerMemory(self.paths.data / "uplink.json")
        place = TemplateContext(who.cluster_name, who.node_name, format_node_id(who.node_id))
        self.uplink = Uplink(self.config.uplink, self._outbox, place, self._rng, memory)
        self.metrics.count(lambda: self.uplink.counts)
        show_kept(self.metrics, self.telemetry, self.uplink)
        self.flash = FlashBudget(self._databases, self.config.flash.bytes_per_hour)
        show_flash(self.metrics, self.flash)
        self.keep("flash-budget", self.flash.run)
        self.stage = Stage.KEEPING
        return self._databases[1:]

    async def _open_log(self) -> StoredLog:
        """Return the log of the control plane; the founder of a covey founds it, once.

        A covey that was founded by an earlier version gets its log when its issuer starts. So does
        a covey of one that has lost it. Raises StorageError.
        """
        agreed, state = self._agreed, self._agreed.take()
        me = Voter(agreed.store, self.identity.node_id)
        if self.identity.is_only_issuer() and agreed.is_first:
            state = await agreed.replace(founded(me))
        elif agreed.damage is not None and self._is_alone():
            index = int(1000 * max(time.time(), self.identity.valid_from))
            first = ControlState().snapshot()
            state = await agreed.replace(founded_again(me, first, index, CHUNK_BYTES))
            log.error("nobody else has a copy of what was agreed on: a new log begins")
        return StoredLog(agreed.store, self._rng.getrandbits(LOG_BOOT_BITS), state)

    def _is_alone(self) -> bool:
        """Tell whether nobody but this node belongs to the covey, and it lets others in."""
        kept = self._control.registry()
        signed = kept[1] if kept else self.identity.first_registry()
        registry = Registry.decode(SignedRegistry.decode(signed).payload)
        return self.identity.is_issuer and registry.ids() == (self.identity.node_id,)

    async def _replace_log(self) -> None:
        """Put the log in place with which the next life goes on, if there is one."""
        if self._next_log is not None:
            await self._agreed.replace(self._next_log)

    def _store_counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for store in (*self._databases, self._outbox):
            total.update(store.counts)
        return total

    async def _open_network(self, opened: AsyncExitStack) -> None:
        network = self.config.network
        sockets = open_sockets(network.bind, network.port)
        opened.callback(sockets.close)
        others = network.advertise, network.seeds, network.mdns, network.interfaces
        plan = Plan(network.bind, sockets.port, *others)
        self.probation = Probation(self.paths)
        opened.callback(self.probation.close)
        self.metrics.count(lambda: self.probation.counts)
        await keep_newest(self.identity, self._control)
        self._node = self._make_node(plan)
        streams = self._streams = Streams(self.identity, sockets, self.counts)
        udp = UdpEndpoint(sockets.datagram, self.counts)
        stores: dict[Durability, ChangeStore] = {
            Durability.FLUSH: self._records,
            Durability.FSYNC: SyncedChanges(self._control, self._agreed),
        }
        self.driver = Driver(self._node, udp, streams, stores, self.counts, self._records)
        self._keeper.remind(self._node, self.driver.now())
        self.metrics.count(lambda: self._node.counts)
        who, control = self.identity, self._control
        book = KnownPeers(control, who.node_id, self._node.addresses_of)
        covey = ClusterView(self.driver, who, book)
        registries = RegistryIssuer(who, control, covey, AgreedRegistry(self.driver))
        self.allegiance = Allegiance(who, control, network, self.driver, covey, registries)
        opened.push_async_callback(self.allegiance.finish)
        self.admission = AdmissionServer(who, registries, covey, self.counts)
        opened.push_async_callback(self.admission.stop)
        await book.start(self.identity.first_peers())
        opened.push_async_callback(book.stop)
        self.round_trips = RttClient(self.driver)
        self.keys = KeyService(who, self._keyring, covey, self.counts)
        strangers = RefusedStrangers(self.audit.attempts, lambda: self.registry, self.driver.admits)
        opened.callback(strangers.close)
        self._listen(book, strangers)
        self.allegiance.open(streams, self.admission, self.keys)
        survey = Survey(self.driver)
        self.kv_reports = KvReports(self.driver, self._records, lambda: self.uptime_s)
        self.blocks = await BlockService.open(self.driver, self.paths, self.config, self.metrics)
        routes = [(DOCTOR_CODEC.tags, survey.receive_frame), *self.kv_reports.routes]
        routes += [(KEY_CODEC.tags, self.keys.receive_frame), self.blocks.route]
        await self.driver.start(
            on_guest=self.admission.serve,
            routes=[*routes, (RELAY_CODEC.tags, self.admission.receive_frame)],
            greeting=self.keys.greeting,
            candidates_of=self.keys.candidates_of,
            on_strange_authority=self.allegiance.on_strange_authority,
        )
        opened.push_async_callback(self.driver.stop)
        opened.push_async_callback(self.blocks.stop)
        opened.push_async_callback(self.kv_reports.stop)
        self.facts = self._make_facts()
        self.facts.publish()
        self.keys.start()
        opened.push_async_callback(self.keys.stop)
        self.discovery = self._make_discovery(plan, book)
        await self.discovery.start()
        opened.push_async_callback(self.discovery.stop)
        self.doctor.take_in(survey, self._member_inputs())

    def _listen(self, book: KnownPeers, strangers: RefusedStrangers) -> None:
        """Tell each of what the node says, in this order."""
        removal = Removal(self.identity, self.paths, self._end_removed)
        for heed in (
            book.record, self._keeper.record, self.admission.on_event, log_member,
            self._reasons.record, removal.on_event, self.keys.on_event, strangers.on_event,
        ):  # fmt: skip
            self.driver.listen(heed)

    def _inputs(self) -> AgentInputs:
        config, paths, watch = self.config, self.paths, self.watch
        return AgentInputs(config, paths, self.clock, watch, self.not_ready, lambda: self.advice)

    def _member_inputs(self) -> MemberInputs:
        return MemberInputs(
            self.identity,
            self.driver,
            self.discovery,
            self.apps,
            self.programs,
            self.uplink,
            self.telemetry,
            self.keys,
            self.probation,
            self.stalls,
            self.losses,
            self.flash,
            lambda: self._is_superseded,
            lambda: self.uptime_s,
            has_begun_anew=not self._may_be_outrun,
        )

    def _make_node(self, plan: Plan) -> Node:
        settings = NodeConfig(
            me=self.identity.node_id, boot=self.boot, name=self.identity.node_name,
            addresses=find_addresses(plan).told, tags=self.config.node.tags, tuning=self._tuning,
            cluster_id=self.identity.cluster_id, actor=self._rng.getrandbits(ACTOR_BITS),
            event_time=self._control.event_time(), settle_s=self.config.voters.settle_s,
            missing_after_s=self.config.state.missing_after_s,
            transfers=TransferBudget(*self.config.state.transfers),
        )  # fmt: skip
        saved = self._control.registry()
        self._keyring: Keyring = self.identity.keyring()
        node = Node(
            settings,
            self._keyring,
            saved[1] if saved else self.identity.first_registry(),
            self.identity.verify,
            self._records,
            self._rng,
            lambda _now: time.time_ns() // 1_000_000,
            time.clock_gettime(time.CLOCK_BOOTTIME),
            self.probation.take,
            self._log,
            signing=SigningKeys(
                self.identity.cluster_id, self.identity.private_key().sign, is_signed
            ),
        )
        node.state.repair.spares = partial(is_to_be_spared, self.config.gossip.profile)
        return node

    def _make_facts(self) -> FactPublisher:
        profile, api = self.config.gossip.profile, self.config.api
        served = service_of_api(api.listen, tls=api.tls)
        own = built_in(self.paths.data, self.started_at, profile, served, NEWEST_TAG)

        def publish(facts: dict[str, str]) -> None:
            self.driver.call(lambda now: self._node.set_facts(facts, now))

        return FactPublisher(own, self.config.node, self._control, publish)

    def _moved(self, here: Here) -> None:
        self.driver.call(lambda now: self._node.set_addresses(here.told, now, own=here.own))

    def _make_discovery(self, plan: Plan, book: KnownPeers) -> Discovery:
        return Discovery(
            self.identity.cluster_id,
            self.identity.node_id,
            plan,
            on_found=lambda found: self.driver.call(lambda now: self._node.discovered(found, now)),
            on_moved=self._moved,
            counts=self.counts,
            known=book.addresses(),
        )

    async def _open_services(self, opened: AsyncExitStack) -> None:
        opened.push_async_callback(self._end_background)  # before what it works on is closed
        self.kv = Kv(self.driver, fsync=self.config.state.durability == "fsync")
        self.agreement = Agreement(self.driver)
        self.voters = Voters(self.driver)
        covey = format_cluster_id(self.identity.cluster_id), self.identity.cluster_name
        self.recovery = Recovery(
            self.driver, self.agreement, lambda: self.registry, self._go_on_from, covey,
            self.paths.consensus_db,
        )  # fmt: skip
        me, tags = self.identity.node_name, self.config.node.tags
        about_us = self.paths.fleet_settings, me, tags, self._apply_settings
        self.fleet_settings = FleetSettings(self.agreement, *about_us)
        self.keep("fleet-settings", self.fleet_settings.follow)
        self.kv_spaces = KvSpaces(self.agreement, self._node.state.writes.quotas)
        self.keep("kv-spaces", self.kv_spaces.follow)
        self.keep("kv-quotas", self.kv_reports.quotas.follow)
        self.access.take_in(self.agreement, format_node_id(self.identity.node_id), me)
        self.keep("access-tokens", self.access.follow)
        settings = self.config.events, self.config.queries
        self.event_service = EventService(
            self.driver, *settings, self._control.save_event_time, self.programs
        )
        opened.push_async_callback(self.event_service.stop)
        self.metrics.count(lambda: self.event_service.counts)
        self.keep("uplink", self.uplink.run)
        self.keep("blocks", self.blocks.upkeep.run)
        self.allegiance.keep(self.keep)
        budget = self.config.gossip.bytes_per_day
        self.budget = TrafficBudget(lambda: self._node.counts, self.driver.now, budget)
        self.keep("byte-budget", self.budget.run)
        room = DiskRoom(
            self.paths.data, self.config.storage.disk_percent_max,
            lambda short: self.driver.call(partial(self._node.limit_puts, limited=short)),
        )  # fmt: skip
        self.keep("disk-room", room.follow)
        show_membership(self.metrics, self._node, self.budget, self.stalls, room)

    # ---- while it runs --------------------------------------------------------------------------

    def _outrun(self) -> bool:
        """Let another life follow, unless this one is one already; tell whether it does."""
        if self._may_be_outrun:
            self.is_resumed = True
            self._waiting.stopping.set()
        else:
            self._is_superseded = True
        return self._may_be_outrun

    async def _go_on_from(self, make: MakeLog) -> None:
        """End this life, and go on with a log that is made of the present one. Raises LocalError.

        Nothing is agreed on between the look at the log and the end: the node takes no inputs any
        more by then. What is acknowledged is in the log that is looked at.
        """
        self.driver.call(lambda now: self._node.with_control(partial(_made, make), now))
        await self.driver.stop()
        self._next_log = self._node.with_control(partial(_made, make), self.driver.now())
        self._begin_another_log()

    def _begin_another_log(self) -> None:
        self.has_another_log = True
        self._waiting.stopping.set()

    def _end_removed(self) -> None:
        self.has_left = True
        self._waiting.stopping.set()

    def _note_step(self, step: ClockStep) -> None:
        self.counts["clock/forward" if step.by_s > 0 else "clock/back"] += 1
        log.warning("the clock was set by %+.1f s; it says %s", step.by_s, date(self.clock.now_s()))

    async def _begin_anew(self) -> None:
        sign = await Resumption(lambda: self.clock.last_step).noticed()
        log.warning("this agent was restored from a copy of itself (%s): it begins anew", sign)
        self.is_resumed = True
        self._waiting.stopping.set()
        await self.driver.stop()  # first: not a word more of a life that may go on elsewhere

    def _apply_settings(self) -> None:
        """Take over what the covey has set, as far as a running agent can; the rest shows up."""
        try:
            now = load(self.paths)
        except AgentError:
            return  # `unapplied` says what is wrong
        self.config = taken_over(self.config, now)
        logging.getLogger().setLevel(self.config.log.level.upper())

    def keep(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something in the background, watched, until the agent ends."""
        self._background.append(self.watch.start(name, work))

    async def _end_background(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)


def _made(make: MakeLog, plane: ControlPlane) -> StoredState:
    return make(plane.part.survivor(), plane.me)
