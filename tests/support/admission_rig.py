"""Admission desks on loopback: a covey of one or two, and devices that join it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.admission.issuer import Issuer
from agent.admission.joining import join
from agent.admission.messages import AdmissionRequest
from agent.admission.proofs import prove
from agent.admission.registry_issuer import RegistryIssuer
from agent.admission.server import AdmissionServer
from agent.admission.tokens import Token
from agent.cluster.cluster_view import ClusterView, ReachablePeer
from agent.exits import AgentError
from agent.identity.identity import Identity, found
from agent.net.authorization import ShownCertificate
from agent.net.listener import Listener
from agent.net.sockets import Sockets, open_sockets
from agent.net.tls import listening_context
from agent.store.control import ControlStore
from gossip.core.ids import NodeId
from gossip.core.machine import Address
from gossip.kv.requests import OwnersReady
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import Registry, SignedRegistry
from gossip.registry.succession import Succession
from tests.support.fake_ledger import FakeLedger
from tests.support.patience import GIVE_UP_S

IN_VAIN_S = 5.0
"""How long a device looks on where it is to find nobody else: long enough to be answered once."""


class FakeCovey:
    """A covey of one: remembers what it was told. ``view`` passes for a view of it."""

    def __init__(self) -> None:
        self.adopted: list[bytes] = []
        self.others: dict[NodeId, AdmissionServer] = {}
        self.me: NodeId = 0
        self.who: Identity | None = None
        self.lose_frames = False
        self.first = b""
        self.alive: frozenset[NodeId] = frozenset()
        self.forked: tuple[bytes, bytes] | None = None

        self.leads = True
        self.behind = ""

    def view(self) -> ClusterView:
        return cast("ClusterView", self)

    def issuers(self) -> list[NodeId]:
        return list(self.others)

    def voters(self) -> tuple[NodeId, ...]:
        return tuple(each.id for each in self.registry().nodes if each.is_issuer)

    def acts(self) -> bool:
        return self.leads

    def check_understood(self, _tag: int) -> None:
        if self.behind:
            raise AgentError(f"{self.behind} runs an older version")

    def signed(self) -> bytes:
        return self.adopted[-1] if self.adopted else self.first

    async def follow(self, signed: bytes, store: ControlStore) -> None:
        registry = Registry.decode(SignedRegistry.decode(signed).payload)
        await store.save_registry(registry.epoch, signed)
        if self.signed() != signed:
            self.adopt(signed)

    async def is_there(self, node: NodeId) -> bool:
        return node in self.alive

    def entry(self, node: NodeId) -> RegisteredNode | None:
        if not self.adopted:
            return None
        return Registry.decode(SignedRegistry.decode(self.adopted[-1]).payload).node(node)

    def issuer_names(self) -> list[str]:
        return ["pi1"]

    def nearest(self) -> list[ReachablePeer]:
        return [ReachablePeer(9, "first", (Address("192.0.2.1", 7747),))]

    async def catch_up(self) -> tuple[int, bytes]:
        newest = self.adopted[-1] if self.adopted else self.first
        return Registry.decode(SignedRegistry.decode(newest).payload).epoch, newest

    def fork(self) -> tuple[bytes, bytes] | None:
        return self.forked

    def successions(self) -> tuple[Succession, ...]:
        return self.registry().successions

    def registry(self) -> Registry:
        newest = self.adopted[-1] if self.adopted else self.first
        return Registry.decode(SignedRegistry.decode(newest).payload)

    def adopt(self, signed: bytes) -> None:
        self.adopted.append(signed)
        if self.who is not None:
            self.who.trust.adopt(self.registry())

    def send_frame(self, data: bytes, to: NodeId) -> None:
        if not self.lose_frames:
            asyncio.get_running_loop().call_soon(self.others[to].receive_frame, data, self.me)


class Member:
    """A member's admission server on loopback, with the parts of it that tests look at."""

    def __init__(
        self, identity: Identity, store: ControlStore, sockets: Sockets, ledger: FakeLedger
    ) -> None:
        self.identity, self.store, self.ledger = identity, store, ledger
        self.covey = FakeCovey()
        self.covey.first = identity.first_registry()
        self.covey.who = identity
        self.counts: Counter[str] = Counter()
        view = self.covey.view()
        self.registries = RegistryIssuer(identity, store, view, ledger)
        self.server = AdmissionServer(identity, self.registries, view, self.counts)
        self.seed = f"127.0.0.1:{sockets.port}"
        context = listening_context(identity)
        self.listener = Listener(
            sockets.stream, context, identity.cluster_id, identity.node_id, self.counts
        )

    async def hear(self, *nodes: NodeId) -> None:
        """Sign, as an issuer does, that these were heard."""
        ready = OwnersReady(self.covey.registry().epoch, {}, here=frozenset(nodes))
        await self.registries.advance(ready)

    @property
    def issuing(self) -> Issuer:
        """What it lets others in with."""
        assert self.server._issuer is not None, "it holds the authority's key"
        return self.server._issuer

    async def join(
        self,
        token: str,
        directory: Path,
        name: str,
        timeout_s: float = GIVE_UP_S,
        *,
        replaces: bool = False,
    ) -> Identity:
        return await join(
            token,
            directory,
            name,
            seeds=[self.seed],
            mdns=False,
            timeout_s=timeout_s,
            replaces=replaces,
        )


class Nobody:
    """A door through which no member comes here: all are guests."""

    def admits(self, _shown: ShownCertificate) -> bool:
        return False

    def registry_frame(self) -> bytes:
        raise AssertionError("no member dials here")

    def overheard(self, _frame: bytes, _shown: ShownCertificate) -> None:
        raise AssertionError("no member dials here")

    def knocked(self, _shown: ShownCertificate, _host: str) -> None:
        raise AssertionError("no member dials here")


async def _put_nobody_through(*_: object) -> None:
    raise AssertionError("nobody asks for that here")


@asynccontextmanager
async def member(
    identity: Identity, directory: Path, ledger: FakeLedger | None = None
) -> AsyncIterator[Member]:
    path = directory / "control.db"
    store = await ControlStore.open(path, identity.cluster_id, identity.node_id)
    sockets = open_sockets(["127.0.0.1"], 0)
    made = Member(identity, store, sockets, ledger or FakeLedger())
    made.listener.start(
        lambda _data, _peer: None,
        made.server.serve,
        _put_nobody_through,
        lambda _host: False,
        Nobody(),
    )
    try:
        yield made
    finally:
        await made.server.stop()
        await made.listener.stop()
        sockets.close()
        await store.close()


@asynccontextmanager
async def issuer(tmp_path: Path) -> AsyncIterator[Member]:
    identity = found(tmp_path / "a" / "identity", "barn", "pi1")
    async with member(identity, tmp_path / "a") as made:
        yield made


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()] if directory.exists() else []


def proven(token: Token, request: bytes, clock_ms: int, key: Ed25519PrivateKey) -> AdmissionRequest:
    unproven = AdmissionRequest(token.token_id, b"", request, clock_ms, 1.0, "")
    return prove(unproven, token.key(), key)


async def refusal(made: Member, token: str, directory: Path, name: str = "pi2") -> AgentError:
    with pytest.raises(AgentError) as caught:
        await made.join(token, directory / "identity", name)
    assert leftovers(directory) == [], "nothing may be left half-made"
    assert caught.value.hint
    return caught.value
