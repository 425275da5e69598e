"""Frames at a whole node: whose they are, and who may say them."""

from functools import partial

import pytest

from gossip.core.machine import Address, Emit, Instant, Persist
from gossip.kv import messages as kv
from gossip.kv.records import KeyState, Version
from gossip.kv.storage import RecordChange
from gossip.membership.model.messages import FRAMES, RttRequest
from gossip.node import Node
from gossip.registry.strangers import DatagramRefused
from gossip.sim.host import Host
from gossip.sim.world import World

STRANGER = 4711
AGENTS = b"\x91\x58"


@pytest.fixture
def world() -> World:
    world = World(3, partitions=8)
    world.add("n0", "n1")
    assert world.run_until(world.is_whole, within_s=20) is not None
    return world


def test_a_frame_goes_to_whom_its_tag_belongs_and_of_strangers_to_nobody(world: World) -> None:
    host, peer = world.hosts["n0"], world.hosts["n1"].id
    taken: list[tuple[bytes, int]] = []
    host.node.route_frames({0x58}, lambda data, peer, _now: taken.append((data, peer)))
    before = host.node.counts
    for data in (AGENTS, FRAMES.encode(RttRequest(1, 1)), kv.CODEC.encode(kv.Ready(1))):
        arrive(world, host, data, peer)
        arrive(world, host, data, STRANGER)
    counts = host.node.counts - before
    assert taken == [(AGENTS, peer)], "only of who is in the registry"
    assert counts["frames_dropped/stranger"] == 3
    assert counts["gossip_bytes/streams received"] == len(FRAMES.encode(RttRequest(1, 1)))
    assert [each.id for each in host.node.strangers] == [STRANGER]
    arrive(world, host, kv.CODEC.encode(kv.RegistryAsk(1)), STRANGER)
    assert (host.node.counts - before)["frames_dropped/stranger"] == 3, "that anybody may say"


def test_each_datagram_of_a_stranger_is_told_and_no_frame(world: World) -> None:
    node, source = world.hosts["n0"].node, Address("10.0.0.9", 7747)
    for where in (source, None, source):
        node.knocked(STRANGER, where, world.now)
    told = [effect.event for effect in node.effects() if isinstance(effect, Emit)]
    refused = [event for event in told if isinstance(event, DatagramRefused)]
    assert refused == [DatagramRefused(STRANGER, source)] * 2


@pytest.mark.parametrize("data", [b"\x91\x20", b"\x91\x1f", AGENTS, b"\x91\x7f"])
def test_what_nobody_knows_is_counted_once(world: World, data: bytes) -> None:
    """Whichever plane's range its tag is in: a later version said it."""
    host, before = world.hosts["n0"], world.hosts["n0"].node.counts
    arrive(world, host, data, world.hosts["n1"].id)
    counts = host.node.counts - before
    frames = {label: n for label, n in counts.items() if label.startswith("frames")}
    assert frames == {"frames_skipped/unknown": 1}


def test_of_who_was_not_let_in_a_registry_alone_is_heard(world: World) -> None:
    """As of a member whose certificate was replaced: its id belongs, and what it says does not."""
    host, peer = world.hosts["n0"], world.hosts["n1"].id
    host.node.route_frames({0x58}, take_none)
    before = host.node.counts
    ready, rtt = kv.CODEC.encode(kv.Ready(1)), FRAMES.encode(RttRequest(1, 1))
    for data in (ready, rtt, AGENTS, b"\x91\x7f", b"junk"):
        world.driver.call(host, partial(overhear, data, peer))
    counts = host.node.counts - before
    assert counts["frames_dropped/stranger"] == 4
    assert counts["frames_dropped/malformed"] == 1
    newer = world.issuer.newest.epoch + 1
    registry = kv.CODEC.encode(kv.RegistryAsk(newer))
    world.driver.call(host, partial(overhear, registry, peer))
    assert (host.node.counts - before)["frames_dropped/stranger"] == 4


def test_a_tag_has_one_reader(world: World) -> None:
    node = world.hosts["n0"].node
    with pytest.raises(AssertionError, match="one reader"):
        node.route_frames({48, 0x58}, take_none)


def arrive(world: World, host: Host, data: bytes, peer: int) -> None:
    def action(node: Node, now: Instant) -> None:
        node.receive_frame(data, peer, now)

    world.driver.call(host, action)


def overhear(data: bytes, peer: int, node: Node, now: Instant) -> None:
    node.overhear(data, peer, now)


def take_none(data: bytes, _peer: int, _now: float) -> None:
    raise AssertionError(f"{data.hex()} is for nobody here")


def test_frames_of_one_turn_share_a_batch(world: World) -> None:
    """Each save is a transaction and an answer: they are for all that came, not for each."""
    node, peer = world.hosts["n0"].node, world.hosts["n1"].id
    list(node.effects())
    for n in (1, 2, 3):
        version = Version(7, n, 1, b"v")
        state = KeyState((version,), (version.dot,), (version.dot,))
        store = kv.Store(n, node.state.registry.epoch, f"k{n}", state)
        node.receive_frame(kv.CODEC.encode(store), peer, node.state.forwards.last_frame_at[peer])
    saves = [effect for effect in node.effects() if isinstance(effect, Persist)]
    assert len(saves) == 1
    records = [each for each in saves[0].changes if isinstance(each, RecordChange)]
    assert len(records) == 3
