"""Whole nodes on real sockets, in one process: found a covey, join it, find each other, agree.

Everything but the disk of the state plane is real: mDNS on the loopback, TLS streams, sealed
datagrams, the control database, the token.
"""

import asyncio
import random
import secrets
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from agent.admission.joining import join
from agent.admission.messages import RELAY_CODEC
from agent.admission.registry_issuer import RegistryIssuer
from agent.admission.server import AdmissionServer
from agent.admission.token_terms import TokenTerms
from agent.cluster.cluster_view import ClusterView
from agent.identity.identity import Identity, found, load
from agent.identity.trust import is_signed
from agent.net.discovery import Discovery, Plan, find_addresses
from agent.net.sockets import open_sockets
from agent.net.streams import Streams
from agent.net.udp import UdpEndpoint
from agent.runtime.driver import Driver
from agent.runtime.save_queue import ChangeStore
from agent.store.control import ControlStore
from agent.store.known_peers import KnownPeers
from gossip.core.ids import NodeId, next_boot
from gossip.core.machine import Address, Durability
from gossip.core.tuning import LOCAL
from gossip.kv.requests import Get, GetResult, Put, PutResult
from gossip.kv.storage import MemoryStorage
from gossip.membership.model.members import MemberState
from gossip.membership.model.signatures import SigningKeys
from gossip.node import Node, NodeConfig
from tests.support.fake_ledger import FakeLedger
from tests.support.patience import GIVE_UP_S

pytestmark = [pytest.mark.live, pytest.mark.alone]


class MemoryRecords(MemoryStorage):
    """Records that are committed at once."""

    async def save(self, changes: Sequence[object]) -> None:
        self.apply(changes)

    async def sync(self) -> None:
        """Do nothing: it survives nothing anyway."""


class LoglessView(ClusterView):
    """The covey, seen by a node that keeps no log: who founded it decides alone."""

    def leader(self) -> NodeId | None:
        return None

    def voters(self) -> tuple[NodeId, ...]:
        return tuple(each.id for each in self.registry().nodes if each.is_issuer)

    def check_understood(self, tag: int) -> None:
        """No log, so nobody in it whom a command could stop; and these nodes tell no facts."""


class Running:
    """One node with everything around it that this room has."""

    node: Node
    driver: Driver
    server: AdmissionServer
    store: ControlStore
    port: int

    def __init__(self, who: Identity) -> None:
        self.who = who
        self.counts: Counter[str] = Counter()
        self.records = MemoryRecords()
        self.ledger = FakeLedger()

    async def open(self, opened: AsyncExitStack, mdns: bool, port: int = 0) -> None:
        who = self.who
        path = who.directory.with_name("control.db")
        self.store = await ControlStore.open(path, who.cluster_id, who.node_id)
        opened.push_async_callback(self.store.close)
        sockets = open_sockets(["127.0.0.1"], port)
        opened.callback(sockets.close)
        self.port = sockets.port
        plan = Plan(["127.0.0.1"], sockets.port, mdns=mdns, interfaces=["lo"])
        self.node = await self._make_node(plan)
        streams = Streams(who, sockets, self.counts)
        udp = UdpEndpoint(sockets.datagram, self.counts)
        stores: dict[Durability, ChangeStore] = {
            Durability.FLUSH: self.records,
            Durability.FSYNC: self.store,
        }
        self.driver = Driver(self.node, udp, streams, stores, self.counts, self.records)
        book = KnownPeers(self.store, who.node_id, self.node.addresses_of)
        covey = LoglessView(self.driver, who, book)
        registries = RegistryIssuer(who, self.store, covey, self.ledger)
        self.server = AdmissionServer(who, registries, covey, self.counts)
        opened.push_async_callback(self.server.stop)
        await book.start(who.first_peers())
        opened.push_async_callback(book.stop)
        self.driver.listen(book.record)
        await self.driver.start(self.server.serve, [(RELAY_CODEC.tags, self.server.receive_frame)])
        opened.push_async_callback(self.driver.stop)
        discovery = Discovery(
            who.cluster_id,
            who.node_id,
            plan,
            on_found=lambda it: self.driver.call(lambda now: self.node.discovered(it, now)),
            on_moved=lambda _: None,
            counts=self.counts,
            known=book.addresses(),
        )
        await discovery.start()
        opened.push_async_callback(discovery.stop)

    async def _make_node(self, plan: Plan) -> Node:
        rng = random.Random(secrets.randbits(64))
        boot = next_boot(await self.store.count_start(), rng)
        kept = self.store.registry()
        return Node(
            NodeConfig(
                me=self.who.node_id,
                boot=boot,
                name=self.who.node_name,
                addresses=find_addresses(plan).told,
                tags={},
                tuning=LOCAL,
                cluster_id=self.who.cluster_id,
                actor=rng.getrandbits(64),
            ),
            self.who.keyring(),
            kept[1] if kept else self.who.first_registry(),
            self.who.verify,
            self.records,
            rng,
            lambda _now: time.time_ns() // 1_000_000,
            time.clock_gettime(time.CLOCK_BOOTTIME),
            signing=SigningKeys(self.who.cluster_id, self.who.private_key().sign, is_signed),
        )

    def alive(self) -> set[str]:
        members = self.node.swim.members
        return {each.name for each in members if each.state is MemberState.ALIVE}

    def epoch(self) -> int:
        return self.node.state.registry.epoch


def dropped(running: Running, *reasons: str) -> int:
    """Return how many datagrams were dropped for these reasons."""
    return sum(running.node.counts[f"datagrams_dropped/{reason}"] for reason in reasons)


def eavesdrop(driver: Driver, packets: list[bytes]) -> None:
    """Copy every datagram that this driver sends."""
    send = driver._udp.send

    def copying(data: bytes, to: Address) -> None:
        packets.append(data)
        send(data, to)

    driver._udp.send = copying  # type: ignore[method-assign]


@asynccontextmanager
async def running(who: Identity, *, mdns: bool = True, port: int = 0) -> AsyncIterator[Running]:
    async with AsyncExitStack() as opened:
        made = Running(who)
        await made.open(opened, mdns, port)
        yield made


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds; a hang, not a slow machine, fails the test."""
    async with asyncio.timeout(GIVE_UP_S):
        while not condition():  # noqa: ASYNC110 - any condition, not one that tells
            await asyncio.sleep(0.02)


def test_three_nodes_form_a_covey_by_token_and_mdns_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as opened:
            first = found(tmp_path / "a" / "identity", "barn", "pi1")
            nodes = [await opened.enter_async_context(running(first))]
            token = await nodes[0].server.create_token(TokenTerms(3600, 2))
            for letter, name in (("b", "pi2"), ("c", "pi3")):
                directory = tmp_path / letter / "identity"
                who = await join(token, directory, name, interfaces=["lo"])
                nodes.append(await opened.enter_async_context(running(who)))
            everybody = {"pi1", "pi2", "pi3"}
            await eventually(lambda: all(each.alive() == everybody for each in nodes))
            await eventually(lambda: all(each.epoch() >= 3 for each in nodes))
            # a key put on one is read on another
            put = await nodes[1].driver.request(Put("greeting", b"hello"))
            assert isinstance(put, PutResult)
            assert put.outcome == "ok"
            got = await nodes[2].driver.request(Get("greeting"))
            assert isinstance(got, GetResult)
            assert [value.data for value in got.values] == [b"hello"]

    asyncio.run(scenario())


def test_a_member_that_cannot_issue_lets_others_in_through_one_that_can(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as opened:
            first = found(tmp_path / "a" / "identity", "barn", "pi1")
            one = await opened.enter_async_context(running(first, mdns=False))
            token = await one.server.create_token(TokenTerms(3600, 1))
            seed = f"127.0.0.1:{one.port}"
            await join(token, tmp_path / "b" / "identity", "pi2", seeds=[seed], mdns=False)
            second = load(tmp_path / "b" / "identity")
            two = await opened.enter_async_context(running(second, mdns=False))
            await eventually(lambda: two.alive() == {"pi1", "pi2"})
            await one.server.allow_inviting(second.node_id, allowed=True)
            relayed = await two.server.create_token(TokenTerms(3600, 1))
            seed = f"127.0.0.1:{two.port}"
            await join(relayed, tmp_path / "c" / "identity", "pi3", seeds=[seed], mdns=False)
            await eventually(lambda: one.epoch() == two.epoch() >= 4)
            names = [node.name for node in two.node.state.registry.nodes]
            assert names == ["pi1", "pi2", "pi3"]

    asyncio.run(scenario())


def test_a_device_that_starts_alone_finds_the_others_by_its_book(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = found(tmp_path / "a" / "identity", "barn", "pi1")
        async with running(first, mdns=False) as one:
            token = await one.server.create_token(TokenTerms(3600, 1))
            seed = f"127.0.0.1:{one.port}"
            second = await join(token, tmp_path / "b" / "identity", "pi2", seeds=[seed], mdns=False)
            async with running(second, mdns=False) as two:
                await eventually(lambda: two.alive() == one.alive() == {"pi1", "pi2"})
            port = one.port
        # everything is off; the second starts first, and the first comes back later
        async with running(second, mdns=False) as two:
            assert two.alive() == {"pi2"}
            async with running(first, mdns=False, port=port) as one:
                await eventually(lambda: two.alive() == one.alive() == {"pi1", "pi2"})

    asyncio.run(scenario())


def test_garbage_at_the_ports_changes_nothing(tmp_path: Path) -> None:
    rng = random.Random(11)

    def throw(port: int, sealed: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(20):
                sender.sendto(rng.randbytes(rng.randrange(0, 1500)), ("127.0.0.1", port))
                flipped = bytearray(sealed)
                flipped[rng.randrange(len(sealed))] ^= 1 << rng.randrange(8)
                sender.sendto(flipped, ("127.0.0.1", port))
                sender.sendto(sealed[: rng.randrange(len(sealed))], ("127.0.0.1", port))

    async def scenario() -> None:
        async with AsyncExitStack() as opened:
            first = found(tmp_path / "a" / "identity", "barn", "pi1")
            one = await opened.enter_async_context(running(first, mdns=False))
            token = await one.server.create_token(TokenTerms(3600, 1))
            seed = f"127.0.0.1:{one.port}"
            second = await join(token, tmp_path / "b" / "identity", "pi2", seeds=[seed], mdns=False)
            two = await opened.enter_async_context(running(second, mdns=False))
            await eventually(lambda: two.alive() == one.alive() == {"pi1", "pi2"})
            packets: list[bytes] = []
            eavesdrop(two.driver, packets)
            await eventually(lambda: packets)
            for _ in range(40):  # no more at once than a socket's buffer holds
                throw(one.port, packets[-1])
                await asyncio.sleep(0.01)
            await eventually(lambda: dropped(one, "forged", "replayed") > 500)
            assert dropped(one, "forged") > 100
            await eventually(lambda: one.node.counts["datagrams_dropped/malformed"] > 100)
            await eventually(lambda: one.alive() == two.alive() == {"pi1", "pi2"})
            assert one.driver._is_running
            # and a datagram that is heard a second time is one too many
            before = one.node.counts["datagrams_dropped/replayed"]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(packets[0], ("127.0.0.1", one.port))
            await eventually(lambda: one.node.counts["datagrams_dropped/replayed"] > before)

    asyncio.run(scenario())


def test_two_coveys_on_one_network_stay_apart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as opened:
            barn = found(tmp_path / "a" / "identity", "barn", "pi1")
            shed = found(tmp_path / "b" / "identity", "shed", "pi1")
            one = await opened.enter_async_context(running(barn))
            two = await opened.enter_async_context(running(shed))
            await eventually(lambda: one.counts["discovery/other_covey"])
            await eventually(lambda: two.counts["discovery/other_covey"])
            one.driver.call(lambda now: one.node.discovered([Address("127.0.0.1", two.port)], now))
            await eventually(lambda: two.node.counts["datagrams_dropped/unknown_key"])
            assert len(list(one.node.swim.members)) == len(list(two.node.swim.members)) == 1

    asyncio.run(scenario())
