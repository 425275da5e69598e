"""Turning the keys: the steps as a table, and whole services with streams between them."""

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.cluster.cluster_view import ClusterView
from agent.exits import UNREACHABLE, AgentError
from agent.identity.keyring import Keyring, new_keyring, parse_keyring
from agent.identity.trust import is_signed
from agent.keys import key_service
from agent.keys.key_service import KeyService
from agent.keys.messages import CODEC, KeyringState, KeyShown, offer_of
from agent.keys.rotation import GENERATION_JUMP_MAX, check_offer, next_ring, signed_again
from gossip.core.envelope import Envelope
from gossip.core.errors import Forged, Malformed
from gossip.core.ids import NodeId
from gossip.core.machine import Address, Emit
from gossip.core.tuning import PROFILES
from gossip.kv.requests import RegistryAdopted
from gossip.kv.storage import MemoryStorage
from gossip.node import Node, NodeConfig, UnknownKeyReported
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import SignedRegistry, admit, found
from gossip.sim.toy_cipher import toy_signing
from tests.support.patience import GIVE_UP_S

COVEY = bytes(range(16))
CA = Ed25519PrivateKey.from_private_bytes(bytes(32))
A, B, C = 1, 2, 3
EPOCH = 4
PLACE = Address("10.0.0.9", 7747)


def verify(payload: bytes, signature: bytes) -> bool:
    try:
        CA.public_key().verify(signature, payload)
    except InvalidSignature:
        return False
    return True


def first() -> Keyring:
    return parse_keyring(new_keyring(), COVEY)


# ---- the steps ----------------------------------------------------------------------------------


def test_neighbouring_steps_open_each_other() -> None:
    ring = first().content
    for _ in range(6):
        following = next_ring(ring, COVEY, CA.sign, EPOCH)
        assert ring.primary in following.secrets, "what the late ones seal still opens"
        assert following.primary in ring.secrets, "what the early ones seal opens already"
        assert check_offer(following, ring, COVEY, verify)
        assert not check_offer(ring, following, COVEY, verify)
        ring = following
    assert len(ring.secrets) == 1


def test_a_step_without_a_draw_is_the_same_each_time() -> None:
    installed = next_ring(first().content, COVEY, CA.sign, EPOCH)
    assert next_ring(installed, COVEY, CA.sign, EPOCH) == next_ring(
        installed, COVEY, CA.sign, EPOCH
    )


def test_only_the_authority_gives_rings() -> None:
    held = first().content
    good = next_ring(held, COVEY, CA.sign, EPOCH)
    stranger = next_ring(held, COVEY, Ed25519PrivateKey.generate().sign, EPOCH)
    elsewhere = next_ring(held, bytes(16), CA.sign, EPOCH)
    changed = msgspec.structs.replace(good, primary=held.primary, phase="used")
    for bad in (stranger, elsewhere, changed):
        with pytest.raises(Forged):
            check_offer(bad, held, COVEY, verify)


def test_only_what_the_authority_signed_is_signed_again() -> None:
    """Else a ring that somebody put on the issuer's disk would be the covey's."""
    newer, held = Ed25519PrivateKey.generate(), first().content
    good = next_ring(held, COVEY, CA.sign, EPOCH)
    again = signed_again(good, COVEY, newer.sign, verify)
    assert again is not None
    assert (again.secrets, again.generation) == (good.secrets, good.generation + 1)
    planted = msgspec.structs.replace(held, generation=1000)
    stranger = next_ring(held, COVEY, Ed25519PrivateKey.generate().sign, EPOCH)
    for ring in (planted, stranger):
        for signer in (CA, newer):
            with pytest.raises(Forged):
                signed_again(ring, COVEY, signer.sign, verify)


def test_a_ring_that_cannot_be_used_is_refused() -> None:
    good = next_ring(first().content, COVEY, CA.sign, EPOCH)
    for change in (
        {"primary": 5},
        {"cipher": "rot13"},
        {"phase": "later"},
        {"secrets": {good.primary: b"short"}},
        {"generation": GENERATION_JUMP_MAX + 1},
    ):
        with pytest.raises((Malformed, Forged)):
            check_offer(msgspec.structs.replace(good, **change), first().content, COVEY, verify)


def test_an_offer_shows_no_secret() -> None:
    ring = next_ring(first().content, COVEY, CA.sign, EPOCH)
    offer = offer_of(ring)
    assert not [secret for secret in ring.secrets.values() if repr(secret) in repr(offer)]


def test_the_bytes_of_the_messages() -> None:
    state = KeyringState(3, "used", 2, (KeyShown(1, "ab"), KeyShown(2, "cd")), wants_reply=True)
    assert CODEC.encode(state).hex() == "965a03a47573656402929201a261629202a26364c3"
    assert CODEC.decode(CODEC.encode(state)) == state


# ---- what does not open -------------------------------------------------------------------------


def test_an_admitted_sender_under_an_unknown_key_is_told_of_once_a_second() -> None:
    registry = admit(found(COVEY, RegisteredNode(A, "ada")), RegisteredNode(B, "bob"))
    signed = SignedRegistry(registry.encode(), bytes(64)).encode()
    settings = NodeConfig(A, 1, "ada", (PLACE,), {}, PROFILES["lan"], COVEY, 1)
    node = Node(
        settings,
        first(),
        signed,
        lambda _payload, _signature: True,
        MemoryStorage(),
        random.Random(1),
        lambda _now: 0,
        0.0,
        signing=toy_signing(COVEY, A),
    )

    def heard_of(sender: NodeId, now: float) -> list[object]:
        node.receive(Envelope(COVEY, sender, 1, first()).seal(b"", 1), PLACE, now)
        events = [effect.event for effect in node.effects() if isinstance(effect, Emit)]
        return [event for event in events if isinstance(event, UnknownKeyReported)]

    assert heard_of(B, 0.0) == [UnknownKeyReported(B, PLACE)]
    assert heard_of(B, 0.5) == [], "anybody can send such packets, as fast as the network goes"
    assert heard_of(C, 2.0) == [], "it is not in the registry"
    assert heard_of(B, 2.0) == [UnknownKeyReported(B, PLACE)]
    assert node.counts["datagrams_dropped/unknown_key"] == 4


# ---- whole services -----------------------------------------------------------------------------


class Credentials:
    """An identity without certificates."""

    cluster_id = COVEY

    def __init__(self, node: NodeId, file: Path, *, is_issuer: bool) -> None:
        self.node_id, self.keyring_file, self.is_issuer = node, file, is_issuer
        self.authorities = [CA]

    def verify_keyring(self, payload: bytes, signature: bytes) -> bool:
        public = [key.public_key().public_bytes_raw() for key in self.authorities]
        return any(is_signed(key, payload, signature) for key in public)

    def sign_keyring(self, payload: bytes) -> bytes:
        return self.authorities[0].sign(payload)


class Net:
    """Streams between services; who is ``away`` gets nothing and is not live."""

    def __init__(self, folder: Path) -> None:
        self.services: dict[NodeId, KeyService] = {}
        self.files = {node: folder / f"{node}.json" for node in (A, B, C)}
        self.away: set[NodeId] = set()
        self.without_right: set[NodeId] = set()
        self.never_ran: set[NodeId] = set()
        self.issuers = [A]
        self.removed_at = 0
        """Since which epoch C is gone; 0: it is not."""
        self.epochs: dict[NodeId, int] = dict.fromkeys((A, B, C), EPOCH)
        self.knocked: list[Address] = []
        ring = new_keyring()
        for node in (A, B, C):
            self.files[node].write_bytes(ring)
            self.boot(node)

    def boot(self, node: NodeId) -> KeyService:
        ring = parse_keyring(self.files[node].read_bytes(), COVEY)
        credentials = Credentials(node, self.files[node], is_issuer=node in self.issuers)
        covey = cast("ClusterView", Circle(node, self))
        self.services[node] = KeyService(credentials, ring, covey, Counter())
        return self.services[node]

    def carry(self, data: bytes, sender: NodeId, to: NodeId) -> None:
        if to not in self.away and sender not in self.away:
            asyncio.get_running_loop().call_soon(self.services[to].receive_frame, data, sender)

    def generations(self) -> list[int]:
        return [service.ring.generation for service in self.services.values()]


class Circle:
    """What one service sees of the net."""

    def __init__(self, me: NodeId, net: Net) -> None:
        self.me, self.net = me, net

    def admitted(self) -> Mapping[NodeId, str]:
        known = {A: "ada", B: "bob", C: "cy"}
        if self.epoch() >= self.net.removed_at > 0:
            del known[C]
        return known

    def epoch(self) -> int:
        return self.net.epochs[self.me]

    def removed_at(self) -> int:
        return self.net.removed_at if self.epoch() >= self.net.removed_at else 0

    def seen(self) -> frozenset[NodeId]:
        return frozenset({A, B, C} - self.net.never_ran)

    def issuers(self) -> list[NodeId]:
        return [node for node in self.net.issuers if node != self.me]

    def acts(self) -> bool:
        there = [node for node in self.net.issuers if node not in self.net.away]
        return there[:1] == [self.me]

    def may_order(self, node: NodeId) -> bool:
        return node not in self.net.without_right

    def live(self) -> frozenset[NodeId]:
        return frozenset({A, B, C} - self.net.away)

    def send_frame(self, data: bytes, to: NodeId) -> None:
        self.net.carry(data, self.me, to)

    def send_hello(self, at: Address) -> None:
        self.net.knocked.append(at)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    return quick_net(tmp_path, monkeypatch)


def quick_net(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    for name in ("TICK_S", "STAND_BY_S", "OFFER_AGAIN_S", "LATE_PACKETS_S", "ORDER_AGAIN_S"):
        monkeypatch.setattr(key_service, name, 0.01)
    for name in ("REPORT_S", "ORDER_S", "FORCE_S"):
        monkeypatch.setattr(key_service, name, 0.2)
    return Net(folder)


def runs(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a loop of its own."""

    @functools.wraps(test)
    def run(net: Net) -> None:
        asyncio.run(test(net))

    return run


async def until_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(GIVE_UP_S):
        while not condition():  # noqa: ASYNC110 - any condition, not one that tells
            await asyncio.sleep(0.01)


async def until(net: Net, generations: list[int]) -> None:
    await until_true(lambda: net.generations() == generations)


@runs
async def test_who_has_no_right_orders_nothing(net: Net) -> None:
    net.services[A].start()
    net.without_right = {B}
    with pytest.raises(AgentError, match="bob may not order a rotation") as caught:
        await net.services[B].rotate(force=False)
    assert "on ada: `covey members allow bob`" in str(caught.value.hint)
    assert net.generations() == [0, 0, 0]
    assert net.services[A].counts["keyrings/no_right"] == 1
    await net.services[A].stop()


@runs
async def test_any_member_orders_and_all_follow(net: Net) -> None:
    net.services[A].start()
    await net.services[B].rotate(force=False)
    await until(net, [3, 3, 3])
    held = [parse_keyring(file.read_bytes(), COVEY).content for file in net.files.values()]
    assert held[0] == held[1] == held[2]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in net.files.values())
    told = await net.services[C].report()
    assert [(one.name, one.answered) for one in told] == [
        ("ada", True),
        ("bob", True),
        ("cy", True),
    ]
    assert len({one.state.keys for one in told if one.state}) == 1
    await net.services[A].stop()


@runs
async def test_a_removal_turns_the_keys_without_who_was_removed(net: Net) -> None:
    net.services[A].start()
    net.removed_at = net.epochs[A] = 7
    net.services[A].on_event(adopted(7))
    net.epochs[B] = 7
    await until_true(lambda: net.generations()[:2] == [3, 3])
    assert net.services[C].ring.generation == 0
    assert {net.services[node].ring.epoch for node in (A, B)} == {7}
    # It asks: nobody hands it a ring, whatever it says that it has.
    for node in (A, B):
        net.carry(net.services[C].greeting(), C, node)
        net.services[node].on_event(UnknownKeyReported(C, PLACE))
    await asyncio.sleep(0.05)
    assert net.services[C].ring.generation == 0
    assert not net.services[A].must_exclude
    await net.services[A].stop()


@runs
async def test_who_has_not_heard_of_the_removal_passes_no_ring_on(net: Net) -> None:
    net.services[A].start()
    net.removed_at = net.epochs[A] = 7
    net.services[A].on_event(adopted(7))
    await until_true(lambda: net.generations()[:2] == [3, 3])
    assert C in Circle(B, net).admitted(), "as far as bob knows"
    net.carry(net.services[C].greeting(), C, B)
    await until_true(lambda: net.services[B].counts["keyrings/held_back"] > 0)
    assert net.services[C].ring.generation == 0
    await net.services[A].stop()


@runs
async def test_a_removal_in_the_middle_of_a_rotation_turns_the_keys_once_more(net: Net) -> None:
    net.services[A].start()
    net.away = {C}
    await net.services[A].rotate(force=False)
    await until(net, [2, 2, 0])
    await until_true(lambda: net.services[A].awaited() == [C])
    net.removed_at = net.epochs[A] = net.epochs[B] = 7
    net.services[A].on_event(adopted(7))
    await until_true(lambda: net.generations()[:2] == [6, 6])
    assert net.services[A].ring.epoch == 7
    await net.services[A].stop()


@runs
async def test_nobody_waits_for_a_node_that_never_ran(net: Net) -> None:
    net.services[A].start()
    net.away = {C}
    net.never_ran = {C}
    await net.services[A].rotate(force=False)
    await until(net, [3, 3, 0])
    await net.services[A].stop()


def adopted(epoch: int) -> RegistryAdopted:
    """Return what a driver says when it follows a registry of this epoch."""
    registry = msgspec.structs.replace(found(COVEY, RegisteredNode(A, "ada")), epoch=epoch)
    return RegistryAdopted(b"", registry)


@runs
async def test_the_old_key_waits_for_the_absent_and_is_dropped_when_they_are_back(net: Net) -> None:
    net.services[A].start()
    net.away = {C}
    await net.services[A].rotate(force=False)
    await until(net, [2, 2, 0])
    await until_true(lambda: net.services[A].awaited() == [C])
    await asyncio.sleep(0.1)
    assert net.generations() == [2, 2, 0], "nobody drops the old key"
    net.away = set()
    net.carry(net.services[C].greeting(), C, B)  # a stream opens
    await until(net, [3, 3, 3])
    await net.services[A].stop()


@runs
async def test_with_force_the_absent_finds_back_by_what_does_not_open(net: Net) -> None:
    net.services[A].start()
    net.away = {C}
    await net.services[A].rotate(force=True)
    await until(net, [3, 3, 0])
    net.away = set()
    net.services[B].on_event(UnknownKeyReported(C, PLACE))
    assert net.services[B].candidates_of(C) == [PLACE]
    await until(net, [3, 3, 3])
    await until_true(lambda: net.knocked == [PLACE])
    await net.services[A].stop()


@runs
async def test_an_issuer_that_was_killed_goes_on(net: Net) -> None:
    net.services[A].start()
    net.away = {C}
    await net.services[A].rotate(force=False)
    await until(net, [2, 2, 0])
    await net.services[A].stop()
    net.away = set()
    again = net.boot(A)
    assert again.ring.phase == "used"
    again.start()
    await until(net, [3, 3, 3])
    await again.stop()


@runs
async def test_an_issuer_that_is_killed_while_it_locks_somebody_out_waits_for_nobody(
    net: Net,
) -> None:
    net.services[A].start()
    net.away = {B}
    net.removed_at = net.epochs[A] = 7
    net.services[A].on_event(adopted(7))
    await until_true(lambda: net.services[A].ring.phase == "used")
    await net.services[A].stop()
    again = net.boot(A)
    assert again.ring.phase == "used", "the key of whoever was removed opens still"
    again.start()
    await until(net, [3, 0, 0])
    assert not again.ring.forced
    await again.stop()


@runs
async def test_an_issuer_that_is_killed_does_not_forget_an_order_with_force(net: Net) -> None:
    net.services[A].start()
    net.away = {C}
    await net.services[A].rotate(force=False)
    await until_true(lambda: net.services[A].awaited() == [C])
    await net.services[A].rotate(force=True)
    await net.services[A].stop()
    again = net.boot(A)
    assert again.ring.phase == "used"
    again.start()
    await until(net, [3, 3, 0])
    await again.stop()


@runs
async def test_without_an_issuer_nothing_changes(net: Net) -> None:
    net.away = {A}
    with pytest.raises(AgentError) as caught:
        await net.services[B].rotate(force=False)
    assert caught.value.status == UNREACHABLE
    assert net.generations() == [0, 0, 0]


@runs
async def test_a_ring_that_is_not_saved_is_not_used(net: Net) -> None:
    ring = next_ring(net.services[A].ring, COVEY, CA.sign, EPOCH)
    net.files[B].unlink()
    net.files[B].mkdir()
    net.services[B].receive_frame(CODEC.encode(offer_of(ring)), A)
    await until_true(lambda: net.services[B].counts["keyrings_refused/not_saved"] == 1)
    assert net.services[B].ring.generation == 0


@runs
async def test_forgeries_are_counted(net: Net) -> None:
    bob = net.services[B]
    forged = next_ring(bob.ring, COVEY, Ed25519PrivateKey.generate().sign, EPOCH)
    bob.receive_frame(CODEC.encode(offer_of(forged)), C)
    bob.receive_frame(b"\x92\x5b\x01", C)
    await asyncio.sleep(0.05)
    assert bob.ring.generation == 0
    assert bob.counts["keyrings_refused/forged"] == 1
    assert bob.counts["frames_dropped/malformed"] == 1


@runs
async def test_another_issuer_goes_on_when_the_first_is_gone(net: Net) -> None:
    """Also without whoever is away, where that was ordered: by the first, which told it."""
    net.issuers = [A, B]
    for node in (A, B, C):
        net.boot(node).start()
    net.away = {C}
    await net.services[C].stop()
    await net.services[A].rotate(force=False)
    await until_true(lambda: net.services[B].ring.phase == "installed")
    await net.services[A].rotate(force=True)
    await until_true(lambda: net.services[B].ring.phase == "used")
    assert net.services[B].ring.forced
    await net.services[A].stop()
    net.away = {A, C}
    await until_true(lambda: net.services[B].ring.phase == "steady")
    await net.services[B].stop()


@runs
async def test_one_issuer_alone_takes_the_steps(net: Net) -> None:
    """Two that draw a secret each would make two rings of one generation."""
    net.issuers = [A, B]
    for node in (A, B, C):
        net.boot(node).start()
    await net.services[B].rotate(force=False)
    await until(net, [3, 3, 3])
    assert net.services[A].counts["keyrings/adopted"] == 3
    rings = [service.ring.secrets for service in net.services.values()]
    assert rings[0] == rings[1] == rings[2]
    for node in (A, B, C):
        await net.services[node].stop()
